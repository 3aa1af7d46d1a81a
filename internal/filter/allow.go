package filter

import "vix/internal/wayland"

// allowed is what a guest may see, and the highest version: what the words of a
// window, its input and its pixels need, and nothing that reaches beyond the
// client's own surfaces. An interface that is not here does not exist for a
// guest; the reasons for the best known ones are in denied.
var allowed = map[*wayland.Interface]uint32{
	wayland.WlCompositor:                      6,
	wayland.WlSubcompositor:                   1,
	wayland.WlShm:                             2,
	wayland.WlSeat:                            9,
	wayland.WlOutput:                          4, // make, model and description blanked
	wayland.WlDataDeviceManager:               3, // selections and drags stay in the VM
	wayland.XdgWmBase:                         6, // titles and app ids rewritten
	wayland.ZxdgOutputManagerV1:               3, // description blanked
	wayland.ZxdgDecorationManagerV1:           1,
	wayland.OrgKdeKwinServerDecorationManager: 1, // GTK 3 and older Qt ask for it
	wayland.WpViewporter:                      1,
	wayland.WpFractionalScaleManagerV1:        1,
	wayland.WpSinglePixelBufferManagerV1:      1,
	wayland.WpPresentation:                    1,
	wayland.WpCursorShapeManagerV1:            1,
	wayland.WpContentTypeManagerV1:            1,
	wayland.WpAlphaModifierV1:                 1,
	wayland.WpFifoManagerV1:                   1,
	wayland.WpCommitTimingManagerV1:           1,
	wayland.ZwpRelativePointerManagerV1:       1, // motion while the pointer is over the client
	wayland.ZwpPointerGesturesV1:              3,
	wayland.ZwpTabletManagerV2:                2,
	wayland.ZwpTextInputManagerV3:             1, // only the focused text field
	wayland.XdgWmDialogV1:                     1,
}

// Denied gives the reason for each interface of the tables that no guest sees.
// A test holds that every global is either here or allowed.
var Denied = map[*wayland.Interface]string{
	wayland.ZwpPrimarySelectionDeviceManagerV1: "a selection that crosses without a word of the user",
	wayland.ZwpPointerConstraintsV1:            "grabs the pointer",
	wayland.ZwpIdleInhibitManagerV1:            "keeps the screen unlocked",
	wayland.WlShell:                            "xdg-shell's forerunner, whose windows nobody would tag",
	wayland.XdgActivationV1:                    "takes the focus",
	wayland.ZxdgExporterV2:                     "names surfaces across connections",
	wayland.ZxdgImporterV2:                     "names surfaces across connections",
	wayland.XdgToplevelIconManagerV1:           "imitates another program's icon",
	wayland.XdgToplevelTagManagerV1:            "imitates another program's tag",
	wayland.XdgSystemBellV1:                    "noise without a window",
	wayland.WpTearingControlManagerV1:          "of no use without direct scan-out",
	wayland.WpColorManagerV1:                   "tells the monitor's profile",
	wayland.WpColorRepresentationManagerV1:     "of no use to wl_shm buffers",
	wayland.WpSecurityContextManagerV1:         "opens connections of its own",
	wayland.ZwpLinuxDmabufV1:                   "a guest has no dmabuf that the host can import yet",
	wayland.WpLinuxDrmSyncobjManagerV1:         "needs a GPU",
}

// Allowed returns the version in which a guest may see a global, 0 for none.
func Allowed(i *wayland.Interface, version uint32) uint32 {
	return min(version, allowed[i])
}
