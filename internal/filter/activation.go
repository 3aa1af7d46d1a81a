package filter

import (
	"sync"
	"time"

	"vix/internal/plain"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// The user's wish to see a program's window comes as a token of xdg-activation: whoever
// starts the program has it from the compositor. Guests have no xdg-activation, and
// never see the token; the filter spends it for them, on the first window that is
// shown after it came and before it is tokenLife old. It is spent right before the
// window's first content, so that the compositor can still decide where it opens.

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

// Activate gives the next window of the VM the focus that token is good for. A newer
// token takes the place of one that was not spent.
func (f *Filter) Activate(token string) {
	if token != plain.Text(token, maxToken, plain.OneLine) {
		return
	}
	f.activation.mu.Lock()
	defer f.activation.mu.Unlock()
	f.activation.token, f.activation.since = token, time.Now()
}

// take returns the token, and forgets it.
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
