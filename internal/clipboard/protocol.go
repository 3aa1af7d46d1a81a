package clipboard

import "vix/internal/wayland"

// A Slot is one of a VM's selections.
type Slot int

// The selections.
const (
	Clipboard Slot = iota
	Primary
	numSlots
)

// String returns the name that users know it by.
func (s Slot) String() string { return [...]string{"clipboard", "primary"}[s] }

// A protocol is one of those with selections. They differ in names and numbers only,
// and wl_data_device also has actions and drags.
type protocol struct {
	slot                           Slot
	manager, device, source, offer *wayland.Interface

	createSource, getDevice int
	setSelection, release   int  // requests of the device
	newOffer, selection     int  // events of the device
	addKind, destroySource  int  // requests of the source
	send, cancelled         int  // events of the source
	receive, destroyOffer   int  // requests of the offer
	kind                    int  // event of the offer
	known                   bool // the compositor knows the devices: it carries drags
}

var protocols = []*protocol{
	{
		slot:    Clipboard,
		manager: wayland.WlDataDeviceManager, device: wayland.WlDataDevice,
		source: wayland.WlDataSource, offer: wayland.WlDataOffer,
		createSource: wayland.WlDataDeviceManagerReqCreateDataSource, getDevice: wayland.WlDataDeviceManagerReqGetDataDevice,
		setSelection: wayland.WlDataDeviceReqSetSelection, release: wayland.WlDataDeviceReqRelease,
		newOffer: wayland.WlDataDeviceEvtDataOffer, selection: wayland.WlDataDeviceEvtSelection,
		addKind: wayland.WlDataSourceReqOffer, destroySource: wayland.WlDataSourceReqDestroy,
		send: wayland.WlDataSourceEvtSend, cancelled: wayland.WlDataSourceEvtCancelled,
		receive: wayland.WlDataOfferReqReceive, destroyOffer: wayland.WlDataOfferReqDestroy,
		kind: wayland.WlDataOfferEvtOffer, known: true,
	},
	{
		slot:    Primary,
		manager: wayland.ZwpPrimarySelectionDeviceManagerV1, device: wayland.ZwpPrimarySelectionDeviceV1,
		source: wayland.ZwpPrimarySelectionSourceV1, offer: wayland.ZwpPrimarySelectionOfferV1,
		createSource: wayland.ZwpPrimarySelectionDeviceManagerV1ReqCreateSource,
		getDevice:    wayland.ZwpPrimarySelectionDeviceManagerV1ReqGetDevice,
		setSelection: wayland.ZwpPrimarySelectionDeviceV1ReqSetSelection, release: wayland.ZwpPrimarySelectionDeviceV1ReqDestroy,
		newOffer: wayland.ZwpPrimarySelectionDeviceV1EvtDataOffer, selection: wayland.ZwpPrimarySelectionDeviceV1EvtSelection,
		addKind: wayland.ZwpPrimarySelectionSourceV1ReqOffer, destroySource: wayland.ZwpPrimarySelectionSourceV1ReqDestroy,
		send: wayland.ZwpPrimarySelectionSourceV1EvtSend, cancelled: wayland.ZwpPrimarySelectionSourceV1EvtCancelled,
		receive: wayland.ZwpPrimarySelectionOfferV1ReqReceive, destroyOffer: wayland.ZwpPrimarySelectionOfferV1ReqDestroy,
		kind: wayland.ZwpPrimarySelectionOfferV1EvtOffer,
	},
	{
		slot:    Primary,
		manager: wayland.GtkPrimarySelectionDeviceManager, device: wayland.GtkPrimarySelectionDevice,
		source: wayland.GtkPrimarySelectionSource, offer: wayland.GtkPrimarySelectionOffer,
		createSource: wayland.GtkPrimarySelectionDeviceManagerReqCreateSource,
		getDevice:    wayland.GtkPrimarySelectionDeviceManagerReqGetDevice,
		setSelection: wayland.GtkPrimarySelectionDeviceReqSetSelection, release: wayland.GtkPrimarySelectionDeviceReqDestroy,
		newOffer: wayland.GtkPrimarySelectionDeviceEvtDataOffer, selection: wayland.GtkPrimarySelectionDeviceEvtSelection,
		addKind: wayland.GtkPrimarySelectionSourceReqOffer, destroySource: wayland.GtkPrimarySelectionSourceReqDestroy,
		send: wayland.GtkPrimarySelectionSourceEvtSend, cancelled: wayland.GtkPrimarySelectionSourceEvtCancelled,
		receive: wayland.GtkPrimarySelectionOfferReqReceive, destroyOffer: wayland.GtkPrimarySelectionOfferReqDestroy,
		kind: wayland.GtkPrimarySelectionOfferEvtOffer,
	},
}
