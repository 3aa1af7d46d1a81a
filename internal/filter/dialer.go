package filter

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"

	"vix/internal/wayland"
)

// A ContextDialer connects to the compositor through a security context. It makes the
// context at the first connection, and again after a restart of the compositor. Where
// the compositor has no security contexts, it connects directly.
type ContextDialer struct {
	VM string
	// Direct connects to the compositor itself.
	Direct func() (wayland.Transport, error)
	// Listen returns a fresh listening socket for the compositor to accept from.
	Listen func() (*os.File, error)
	// Through connects to the socket that Listen returned last.
	Through func() (wayland.Transport, error)
	Log     *slog.Logger

	mu      sync.Mutex
	context io.Closer // nil before the first
	without bool      // the compositor has none, which the log says once
}

// Dial is Config.Dial.
func (d *ContextDialer) Dial() (wayland.Transport, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.context != nil {
		if t, err := d.Through(); err == nil {
			return t, nil
		}
		_ = d.context.Close() // the compositor that listened is gone
		d.context = nil
	}
	err := d.make()
	if errors.Is(err, ErrNoSecurityContext) {
		if !d.without {
			d.without = true
			d.Log.Warn("no security context; the filter alone holds the VM back", "vm", d.VM, "err", err)
		}
		return d.Direct()
	}
	if err != nil {
		return nil, err
	}
	return d.Through()
}

// make makes a context.
func (d *ContextDialer) make() error {
	up, err := d.Direct()
	if err != nil {
		return err
	}
	l, err := d.Listen()
	if err != nil {
		return errors.Join(err, up.Close())
	}
	defer l.Close() // the compositor has its own copy
	d.context, err = NewSecurityContext(up, d.VM, int(l.Fd()))
	return err
}

// Close ends the context: it accepts no more connections.
func (d *ContextDialer) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.context == nil {
		return nil
	}
	err := d.context.Close()
	d.context = nil
	return err
}
