package filter

import (
	"vix/internal/clipboard"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// Selections and drags stay in the VM, in a world of its own (package clipboard):
// the guest's never reach the compositor, and the host's are never offered to the
// guest.
func selectionHooks(h *relay.Hooks) {
	clipboard.Hooks(h, func(c *relay.Conn) *clipboard.Member { return c.State.(*state).member }, placeOf, dragIcon)
}

// placeOf is clipboard.Place.
func placeOf(c *relay.Conn, id uint32, body []byte, off int) bool {
	o := c.Server(id)
	if o == nil || o.ID == 0 {
		return false
	}
	if s, ok := o.Data.(*surface); ok {
		s.toClientFixed(body, off)
	}
	return true
}

// maxIcon is the largest picture that follows the pointer in a drag, in logical
// pixels in each direction: what programs show of a picture or a piece of text. It
// has no frame, and so must not be taken for a window.
const maxIcon = 512

// dragIcon is clipboard.Icon: without its icon a drag goes on.
func dragIcon(c *relay.Conn, id uint32) bool {
	s := surfaceArg(c, id)
	switch {
	case framesOf(c) == nil:
		return true
	case s == nil || s.role != roleNone && s.role != roleIcon || len(s.children) > 0:
		return false
	}
	s.role = roleIcon
	w, h := s.size()
	return w <= maxIcon && h <= maxIcon
}

// selectionMost are the bounds of one connection's objects, which each focus and
// each selection makes more of.
var selectionMost = map[*wayland.Interface]int32{
	wayland.WlDataDevice: 16, wayland.ZwpPrimarySelectionDeviceV1: 16, wayland.GtkPrimarySelectionDevice: 16,
	wayland.WlDataSource: 256, wayland.ZwpPrimarySelectionSourceV1: 256, wayland.GtkPrimarySelectionSource: 256,
	wayland.WlDataOffer: 1024, wayland.ZwpPrimarySelectionOfferV1: 1024, wayland.GtkPrimarySelectionOffer: 1024,
}

// newWorld makes the VM's selections.
func (cfg *Config) newWorld() *clipboard.World {
	drags := make([]clipboard.DragRule, len(cfg.Drags))
	for i, r := range cfg.Drags {
		drags[i] = clipboard.DragRule(r)
	}
	return clipboard.NewWorld(clipboard.Config{
		VM: cfg.VM, Log: cfg.Log, Drags: drags,
		Kinds: int(cfg.Limits.of(Kinds)), Transfers: int(cfg.Limits.of(Transfers)),
	})
}

// Selections returns the VM's selections.
func (f *Filter) Selections() *clipboard.World { return f.world }
