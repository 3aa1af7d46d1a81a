package filter

import (
	"vix/internal/clipboard"
	"vix/internal/display"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// Selections and drags stay in the VM, in a world of its own (package clipboard): the
// compositor never gets the guest's, and the guest is never offered the host's.
func selectionHooks(l relay.Layer) {
	clipboard.Hooks(l, clipboard.Env{
		Member: func(c *relay.Conn) *clipboard.Member { return stateOf(c).member },
		Place:  placeOf,
		Icon:   dragIcon,
		May: func(c *relay.Conn, m *relay.Msg, serial, surface uint32) bool {
			return stateOf(c).may(c, m, serial, viewArg(c, surface))
		},
	})
}

// placeOf is clipboard.Env.Place.
func placeOf(c *relay.Conn, id uint32, body []byte, off int) bool {
	o := c.Server(id)
	if o == nil || o.ID == 0 {
		return false
	}
	if v, ok := o.Data.(*view); ok {
		v.toClientFixed(body, off)
	}
	return true
}

// selectionMost bounds one connection's objects of each interface; each focus and each
// selection makes more of them.
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
		Kinds: int(cfg.Limits.Of(display.Kinds)), Transfers: int(cfg.Limits.Of(display.Transfers)),
	})
}

// Selections returns the VM's selections.
func (f *Filter) Selections() *clipboard.World { return f.world }
