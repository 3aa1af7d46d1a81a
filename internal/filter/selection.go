package filter

import (
	"vix/internal/relay"
	"vix/internal/wayland"
)

// Selections and drags stay in the VM: the guest's never reach the compositor,
// and the host's are never offered to the guest. A data source that will never be
// asked for is cancelled at once when it was to be dragged; as a selection it
// stands until its owner replaces it.
func selectionHooks(h *relay.Hooks) {
	drop := func(*relay.Conn, *relay.Msg) (bool, error) { return false, nil }
	h.Request(wayland.WlDataDevice, wayland.WlDataDeviceReqSetSelection, drop)
	h.Request(wayland.WlDataDevice, wayland.WlDataDeviceReqStartDrag, onStartDrag)
	h.Event(wayland.WlDataDevice, wayland.WlDataDeviceEvtDataOffer, onDataOffer)
	for _, op := range []int{
		wayland.WlDataDeviceEvtSelection, wayland.WlDataDeviceEvtEnter, wayland.WlDataDeviceEvtLeave,
		wayland.WlDataDeviceEvtMotion, wayland.WlDataDeviceEvtDrop,
	} {
		h.Event(wayland.WlDataDevice, op, drop)
	}
}

func onStartDrag(c *relay.Conn, m *relay.Msg) (bool, error) {
	if src := c.Client(m.Word(0)); src != nil && src.Iface == wayland.WlDataSource {
		c.ToClient().Msg(src.ID, wayland.WlDataSourceEvtCancelled)
	}
	return false, nil
}

// onDataOffer gives the host's offer back unseen.
func onDataOffer(c *relay.Conn, m *relay.Msg) (bool, error) {
	c.Discard(m.New, wayland.WlDataOfferReqDestroy)
	return false, nil
}
