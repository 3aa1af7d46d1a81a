package filter

import (
	"sync"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// A family holds the parents of a VM's windows, by xdg_toplevel.set_parent and, across
// the VM's connections, by xdg-foreign. No window may be its own ancestor: KWin 6.3 walks
// such a circle for ever, or crashes. Hidden windows count too.
type family struct {
	mu      sync.Mutex
	parents map[*window]*window
}

// maxAncestors bounds chains of parents, which compositors walk.
const maxAncestors = 64

// adopt sets a window's parent, nil for none, unless that closes a circle.
func (k *family) adopt(child, parent *window) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if parent == nil {
		delete(k.parents, child)
		return true
	}
	n := 0
	for w := parent; w != nil; w = k.parents[w] {
		if n++; w == child || n > maxAncestors {
			return false
		}
	}
	if k.parents == nil {
		k.parents = map[*window]*window{}
	}
	k.parents[child] = parent
	return true
}

// leave removes a window. Its parent inherits its children (xdg_toplevel.set_parent).
func (k *family) leave(w *window) {
	k.mu.Lock()
	defer k.mu.Unlock()
	up := k.parents[w]
	delete(k.parents, w)
	for child, parent := range k.parents {
		switch {
		case parent != w:
		case up == nil:
			delete(k.parents, child)
		default:
			k.parents[child] = up
		}
	}
}

func onSetParent(c *relay.Conn, m *relay.Msg) (bool, error) {
	w := m.Obj.Data.(*window)
	if w.shell == nil {
		return false, nil
	}
	var parent *window
	if id := m.Word(0); id != 0 {
		o := c.Client(id)
		if o == nil || o.Iface != wayland.XdgToplevel {
			return false, relay.Fail(m.Obj, relay.ErrInvalidObject, "xdg_toplevel.set_parent: invalid object %d", id)
		}
		if parent = o.Data.(*window); parent.shell == nil {
			return false, nil // it has ended
		}
	}
	return filterOf(c).family.adopt(w, parent), nil
}
