package filter

import (
	"sync"
	"time"

	"vix/internal/plain"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// A token of xdg-activation carries the user's wish to see a program's window: whoever
// starts the program gets it from the compositor. Guests have no xdg-activation, and
// never see the token; the filter spends it for them, on the first window shown within
// tokenLife of its arrival. It spends the token right before the window's first content,
// so that the compositor can still decide where the window opens.

const (
	tokenLife = 2 * time.Minute // from the program's start to its window, in an emulated VM
	maxToken  = 128             // bytes; compositors make some 36
)

// activation holds a VM's token.
type activation struct {
	mu    sync.Mutex
	token string
	since time.Time
}

// Activate spends token on the VM's next window. A newer token replaces an unspent one.
func (f *Filter) Activate(token string) {
	if token != plain.Text(token, maxToken, plain.OneLine) {
		return
	}
	f.activation.mu.Lock()
	defer f.activation.mu.Unlock()
	f.activation.token, f.activation.since = token, time.Now()
}

// take removes and returns the token.
func (a *activation) take() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	token := a.token
	a.token = ""
	if time.Since(a.since) > tokenLife {
		return ""
	}
	return token
}

// activate spends the VM's token, if it has one, on a surface that is about to become
// a window.
func (f *frames) activate(c *relay.Conn, v *view) error {
	if f.activator == 0 {
		return nil
	}
	token := filterOf(c).activation.take()
	if token == "" {
		return nil
	}
	a := c.Own(wayland.XdgActivationV1, 1, nil)
	e := c.ToServer()
	if err := e.Put(f.registry.Server, wayland.WlRegistryReqBind, f.activator, wayland.XdgActivationV1.Name, 1, a.Server); err != nil {
		return err
	}
	if err := e.Put(a.Server, wayland.XdgActivationV1ReqActivate, token, v.id); err != nil {
		return err
	}
	c.Discard(a, wayland.XdgActivationV1ReqDestroy)
	return nil
}
