package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"vix/internal/wayland"
)

// Requirements of a VM's programs on the compositor, and the effect of a missing one.
var (
	neededGlobals = []string{"wl_compositor", "wl_subcompositor", "wl_shm", "wl_seat", "wl_output", "xdg_wm_base"}
	wantedGlobals = []struct{ name, why string }{
		{"wp_security_context_manager_v1", "it could not keep VMs apart from other programs by itself"},
		{"wl_data_device_manager", "no clipboard"},
		{"wp_viewporter", "some programs will be blurred or slow"},
	}
)

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
	for _, g := range neededGlobals {
		if globals[g] == 0 {
			return bad("use another compositor", "%s: no %s", socket, g)
		}
	}
	var missing, why []string
	for _, g := range wantedGlobals {
		if globals[g.name] == 0 {
			missing = append(missing, g.name)
			why = append(why, g.why)
		}
	}
	if len(missing) > 0 {
		return warning("use a newer compositor", "%s: no %s (%s)", socket, strings.Join(missing, ", "), strings.Join(why, "; "))
	}
	return good("%s, %d globals, xdg_wm_base version %d", socket, len(globals), globals["xdg_wm_base"])
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
