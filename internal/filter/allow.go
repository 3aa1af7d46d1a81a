package filter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"vix/internal/wayland"
)

// A rule is what the filter does with a global: the highest version that a
// guest sees, 0 for none; what it changes, if anything; and why.
type rule struct {
	max     uint32
	changes string
	why     string
}

// rules holds every global of the tables: what the words of a window, its input
// and its pixels need, and nothing that reaches beyond the client's own surfaces.
// An interface that is not in the tables does not exist for anybody.
var rules = map[*wayland.Interface]rule{
	wayland.WlCompositor:        {6, "", "surfaces and regions"},
	wayland.WlSubcompositor:     {1, "", "sub-surfaces of the client's own"},
	wayland.WlShm:               {2, "a pool is no larger than its file", "pixels"},
	wayland.WlSeat:              {9, "", "input while a surface of the client's has the focus"},
	wayland.WlOutput:            {4, "make, model and description are blanked", "sizes and scales"},
	wayland.WlDataDeviceManager: {3, "selections and drags stay in the VM", "programs do not start without it"},
	wayland.XdgWmBase:           {6, "titles are tagged, app ids rewritten", "windows and popups"},

	wayland.ZxdgOutputManagerV1:               {3, "the description is blanked", "logical sizes"},
	wayland.ZxdgDecorationManagerV1:           {1, "", "who draws the title bar"},
	wayland.OrgKdeKwinServerDecorationManager: {1, "", "the same, for GTK 3 and older Qt"},
	wayland.XdgWmDialogV1:                     {1, "", "modal dialogs of the client's own"},

	wayland.WpViewporter:                 {1, "", "scaled pixels"},
	wayland.WpFractionalScaleManagerV1:   {1, "", "scaled pixels"},
	wayland.WpSinglePixelBufferManagerV1: {1, "", "plain colours"},
	wayland.WpAlphaModifierV1:            {1, "", "the client's own surfaces"},
	wayland.WpContentTypeManagerV1:       {1, "", "a hint about the client's own surfaces"},
	wayland.WpPresentation:               {2, "", "when a frame was shown"},
	wayland.WpFifoManagerV1:              {1, "", "pacing of the client's own frames"},
	wayland.WpCommitTimingManagerV1:      {1, "", "pacing of the client's own frames"},

	wayland.WpCursorShapeManagerV1:      {1, "", "the pointer over the client's own surfaces"},
	wayland.ZwpRelativePointerManagerV1: {1, "", "motion while the pointer is over the client"},
	wayland.ZwpPointerGesturesV1:        {3, "", "gestures over the client"},
	wayland.ZwpTabletManagerV2:          {2, "", "a pen over the client"},
	wayland.ZwpTextInputManagerV3:       {1, "", "the host's input method, for the focused text field"},

	wayland.WlShell: {0, "", "xdg-shell's forerunner, whose windows nobody would tag"},
	wayland.ZwpPrimarySelectionDeviceManagerV1:   {0, "", "a selection that crosses without a word of the user"},
	wayland.GtkPrimarySelectionDeviceManager:     {0, "", "GTK 3's own primary selection: crosses without a word of the user"},
	wayland.ZwpKeyboardShortcutsInhibitManagerV1: {0, "", "takes the compositor's own keys"},
	wayland.ZwpPointerConstraintsV1:              {0, "", "grabs the pointer"},
	wayland.ZwpIdleInhibitManagerV1:              {0, "", "keeps the screen unlocked"},
	wayland.XdgActivationV1:                      {0, "", "takes the focus"},
	wayland.ZxdgExporterV1:                       {0, "", "names surfaces across connections, and so across VMs"},
	wayland.ZxdgImporterV1:                       {0, "", "names surfaces across connections, and so across VMs"},
	wayland.ZxdgExporterV2:                       {0, "", "names surfaces across connections, and so across VMs"},
	wayland.ZxdgImporterV2:                       {0, "", "names surfaces across connections, and so across VMs"},
	wayland.XdgToplevelDragManagerV1:             {0, "", "ties a window to the pointer during a drag"},
	wayland.XdgToplevelIconManagerV1:             {0, "", "imitates another program's icon"},
	wayland.XdgToplevelTagManagerV1:              {0, "", "imitates another program's tag"},
	wayland.XdgSystemBellV1:                      {0, "", "noise without a window"},
	wayland.WpTearingControlManagerV1:            {0, "", "of no use without direct scan-out"},
	wayland.WpColorManagerV1:                     {0, "", "tells the monitor's profile"},
	wayland.WpColorRepresentationManagerV1:       {0, "", "for YUV buffers, which wl_shm clients do not have"},
	wayland.WpSecurityContextManagerV1:           {0, "", "opens connections of its own"},
	wayland.ZwpLinuxDmabufV1:                     {0, "", "a guest without a GPU has no dmabuf that the host could import"},
	wayland.WpLinuxDrmSyncobjManagerV1:           {0, "", "needs a GPU on both sides"},
}

// Allowed returns the version in which a guest may see a global, 0 for none.
func Allowed(i *wayland.Interface, version uint32) uint32 {
	return min(version, rules[i].max)
}

// Markdown writes the rules as a table, in the order of names: what is passed,
// then what is hidden.
func Markdown() string {
	var all []*wayland.Interface
	for i := range rules {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *wayland.Interface) int {
		return cmp.Or(cmp.Compare(min(rules[b].max, 1), min(rules[a].max, 1)), cmp.Compare(a.Name, b.Name))
	})
	var b strings.Builder
	b.WriteString("| interface | version | a guest's is | why |\n|---|--:|---|---|\n")
	for _, i := range all {
		r := rules[i]
		version, how := fmt.Sprint(r.max), "passed"
		switch {
		case r.max == 0:
			version, how = "–", "hidden"
		case r.changes != "":
			how = "changed: " + r.changes
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", i.Name, version, how, r.why)
	}
	return b.String()
}
