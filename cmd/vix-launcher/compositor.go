package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vix/internal/wayland"
)

// neededGlobals are a VM's programs' requirements on the compositor.
var neededGlobals = []string{"wl_compositor", "wl_subcompositor", "wl_shm", "wl_seat", "wl_output", "xdg_wm_base"}

// wantedGlobals lists what else Vix uses: any one of names will do. The last is what is said
// to be missing.
var wantedGlobals = []struct {
	names   []string
	without string // the effect
}{
	{[]string{"wp_security_context_manager_v1"}, "it cannot tell VMs from other programs: Vix's own filter alone keeps them apart"},
	{[]string{"wl_data_device_manager"}, "no clipboard"},
	{[]string{"zwlr_data_control_manager_v1", "ext_data_control_manager_v1"}, "nothing passes between a VM's clipboard and the host's: vix clipboard works from VM to VM only, with --vm"},
	{[]string{"zwlr_layer_shell_v1"}, "vix menu is an ordinary window"},
	{[]string{"wp_viewporter"}, "some programs will be blurred or slow"},
}

// gnomeGlobal is offered by GNOME's compositor (Mutter) alone.
const gnomeGlobal = "gtk_shell1"

func checkCompositor(ctx context.Context, e *env) check {
	const fix = "start a Wayland session (sway 1.9 or newer), or set WAYLAND_DISPLAY"
	socket, err := e.wayland()
	if err != nil {
		return bad(fix, "%v", err)
	}
	globals, err := listGlobals(ctx, socket)
	if err != nil {
		return bad(fix, "%s: %v", socket, err)
	}
	return globalsCheck(socket, globals)
}

// globalsCheck judges a compositor by the interfaces that it offers, with their versions.
func globalsCheck(socket string, globals map[string]uint32) check {
	for _, g := range neededGlobals {
		if globals[g] == 0 {
			return bad("use another compositor", "%s: no %s", socket, g)
		}
	}
	var missing []string
	for _, g := range wantedGlobals {
		if !slices.ContainsFunc(g.names, func(name string) bool { return globals[name] > 0 }) {
			missing = append(missing, fmt.Sprintf("no %s (%s)", g.names[len(g.names)-1], g.without))
		}
	}
	if len(missing) == 0 {
		return good("%s, %d globals, xdg_wm_base version %d", socket, len(globals), globals["xdg_wm_base"])
	}
	fix := "use a newer version of the compositor, or one that has them, such as sway, labwc or KDE Plasma"
	if globals[gnomeGlobal] > 0 {
		fix = "this is GNOME, and a newer one may not have them either: programs, their windows with frames, and the clipboard within each VM work; sway, labwc and KDE Plasma have the rest"
	}
	return warning(fix, "%s: %s", socket, strings.Join(missing, ", "))
}

// listGlobals returns the interfaces that the compositor offers, with their versions.
func listGlobals(ctx context.Context, socket string) (map[string]uint32, error) {
	t, err := wayland.Dial(socket)
	if err != nil {
		return nil, err
	}
	c := wayland.NewClient(t)
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if err := c.Registry(); ctx.Err() != nil {
		return nil, errors.New("it does not answer")
	} else if err != nil {
		return nil, fmt.Errorf("list its globals: %w", err)
	}
	found := map[string]uint32{}
	for _, g := range c.Globals {
		found[g.Interface] = max(found[g.Interface], g.Version)
	}
	return found, nil
}
