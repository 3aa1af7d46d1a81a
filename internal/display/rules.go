package display

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"vix/internal/wayland"
)

// A rule is what the filter does with a global: the highest version that a
// guest sees, 0 for none; what it changes, if anything; and why. For a hidden one,
// why is the risk of allowing it.
type rule struct {
	Max     uint32
	changes string
	Why     string
}

// rules holds every global of the tables: what the words of a window, its input
// and its pixels need, and nothing that reaches beyond the client's own surfaces.
// An interface that is not in the tables does not exist for anybody.
var Rules = map[*wayland.Interface]rule{
	wayland.WlCompositor:                       {6, "", "surfaces and regions"},
	wayland.WlSubcompositor:                    {1, "cut to their window", "sub-surfaces of the client's own"},
	wayland.WlShm:                              {2, "a pool is no larger than its file", "pixels"},
	wayland.WlSeat:                             {9, "its name is blanked; serials need an event that lasts", "input while a surface of the client's has the focus"},
	wayland.WlOutput:                           {4, "name, make, model, description and physical size are blanked", "sizes and scales"},
	wayland.WlDataDeviceManager:                {3, "selections and drags are the VM's own", "clipboard and drags within the VM"},
	wayland.ZwpPrimarySelectionDeviceManagerV1: {1, "the selection is the VM's own", "the middle button within the VM"},
	wayland.GtkPrimarySelectionDeviceManager:   {1, "the selection is the VM's own", "the same, for GTK 3"},
	wayland.XdgWmBase:                          {7, "titles are tagged, app ids rewritten, grabs emulated, popups bounded", "windows and popups"},

	wayland.ZxdgOutputManagerV1:               {3, "name and description are blanked", "logical sizes"},
	wayland.ZxdgDecorationManagerV1:           {1, "", "who draws the title bar"},
	wayland.OrgKdeKwinServerDecorationManager: {1, "", "the same, for GTK 3 and older Qt"},
	wayland.XdgWmDialogV1:                     {1, "", "modal dialogs of the client's own"},
	wayland.ZxdgExporterV1:                    {1, "", "dialogs over another program's window"},
	wayland.ZxdgImporterV1:                    {1, "only handles of this VM", "dialogs over another program's window"},
	wayland.ZxdgExporterV2:                    {1, "", "dialogs over another program's window"},
	wayland.ZxdgImporterV2:                    {1, "only handles of this VM", "dialogs over another program's window"},

	wayland.WpViewporter:                 {1, "the compositor knows only viewports of ours", "scaled pixels"},
	wayland.WpFractionalScaleManagerV1:   {1, "", "scaled pixels"},
	wayland.WpSinglePixelBufferManagerV1: {1, "", "plain colours"},
	wayland.WpAlphaModifierV1:            {1, "", "the client's own surfaces"},
	wayland.WpContentTypeManagerV1:       {1, "", "a hint about the client's own surfaces"},
	wayland.WpPresentation:               {2, "", "when a frame was shown"},

	wayland.WpCursorShapeManagerV1:      {2, "", "the pointer over the client's own surfaces"},
	wayland.ZwpRelativePointerManagerV1: {1, "", "motion while the pointer is over the client"},
	wayland.ZwpPointerGesturesV1:        {3, "", "gestures over the client"},
	wayland.ZwpTabletManagerV2:          {2, "names, ids, serial numbers and device nodes are blanked", "a pen over the client"},
	wayland.ZwpTextInputManagerV3:       {1, "", "the host's input method, for the focused text field"},

	wayland.WpFifoManagerV1:                      {0, "", "lets a frame take effect later than the filter has checked it for"},
	wayland.WpCommitTimingManagerV1:              {0, "", "lets a frame take effect later than the filter has checked it for"},
	wayland.WlShell:                              {0, "", "xdg-shell's forerunner, whose windows nobody would tag"},
	wayland.ZwpKeyboardShortcutsInhibitManagerV1: {0, "", "takes the compositor's own keys"},
	wayland.ZwpPointerConstraintsV1:              {0, "", "grabs the pointer"},
	wayland.ZwpIdleInhibitManagerV1:              {0, "", "keeps the screen unlocked"},
	wayland.XdgActivationV1:                      {0, "", "takes the focus"},
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

// never holds the globals that no configuration can allow, because they would make the
// filter useless.
var Never = map[*wayland.Interface]bool{
	wayland.WlShell:                    true,
	wayland.WpSecurityContextManagerV1: true,
	wayland.WpFifoManagerV1:            true,
	wayland.WpCommitTimingManagerV1:    true,
}

// CheckInterface says what is wrong with the name of a global in a
// configuration's list.
func CheckInterface(name string) error {
	if _, ok := Rules[wayland.Lookup(name)]; ok {
		return nil
	}
	if why, ok := Unknown[name]; ok {
		return fmt.Errorf("%s: Vix does not carry it (%s); leave it out", name, why)
	}
	return fmt.Errorf("unknown interface %q; docs/protocols.md lists them", name)
}

// CheckAllow returns why the configuration cannot allow a global.
func CheckAllow(name string) error {
	if err := CheckInterface(name); err != nil {
		return err
	}
	if i := wayland.Lookup(name); Never[i] {
		return fmt.Errorf("%s: cannot be allowed: %s", name, Rules[i].Why)
	}
	return nil
}

// Risk returns the risk of allowing a hidden global, "" for one that is allowed anyway.
func Risk(name string) string {
	if r, ok := Rules[wayland.Lookup(name)]; ok && r.Max == 0 {
		return r.Why
	}
	return ""
}

// Markdown writes the rules as tables, in the order of names: what is passed,
// what is hidden, what does not exist.
func RulesMarkdown() string {
	all := slices.SortedFunc(maps.Keys(Rules), func(a, b *wayland.Interface) int {
		return cmp.Or(cmp.Compare(min(Rules[b].Max, 1), min(Rules[a].Max, 1)), cmp.Compare(a.Name, b.Name))
	})
	var b strings.Builder
	b.WriteString("| interface | version | a guest's is | why |\n|---|--:|---|---|\n")
	for _, i := range all {
		r := Rules[i]
		version, how := fmt.Sprint(r.Max), "passed"
		switch {
		case Never[i]:
			version, how = "–", "hidden, always"
		case r.Max == 0:
			version, how = "–", "hidden"
		case r.changes != "":
			how = "changed: " + r.changes
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", i.Name, version, how, r.Why)
	}
	b.WriteString("\n## What does not exist\n\n| interface | why nobody misses it, or must not have it |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(Unknown)) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, Unknown[name])
	}
	return b.String()
}
