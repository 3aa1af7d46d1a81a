package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/neurlang/wayland/wl"
	"github.com/neurlang/wayland/wlclient"
)

// What a VM's programs need of the compositor, and what is worse without.
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
	globals, err := listGlobals(ctx, e, socket)
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

// listGlobals returns the interfaces that the compositor offers, with their
// versions. The connection has no deadline of its own: when ctx ends first,
// its goroutine is left behind, in a process that is about to exit.
func listGlobals(ctx context.Context, e *env, socket string) (map[string]uint32, error) {
	type result struct {
		globals map[string]uint32
		err     error
	}
	done := make(chan result, 1)
	go func() {
		g, err := connectAndList(e, socket)
		done <- result{g, err}
	}()
	select {
	case r := <-done:
		return r.globals, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("it does not answer")
	}
}

func connectAndList(e *env, socket string) (globals map[string]uint32, err error) {
	// The library panics on a malformed message.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it does not speak Wayland: %v", r)
		}
	}()
	// It can only connect to a name below XDG_RUNTIME_DIR, which it reads itself.
	dir, err := e.runtimeDir()
	if err != nil {
		return nil, err
	}
	name, err := filepath.Rel(dir, socket)
	if err != nil {
		return nil, err
	}
	display, err := wl.Connect(name)
	if err != nil {
		return nil, err
	}
	defer wlclient.DisplayDisconnect(display)
	registry, err := display.GetRegistry()
	if err != nil {
		return nil, err
	}
	list := &globalList{found: map[string]uint32{}}
	wlclient.RegistryAddListener(registry, list)
	if err := wlclient.DisplayRoundtrip(display); err != nil {
		return nil, err
	}
	list.mu.Lock()
	defer list.mu.Unlock()
	return list.found, nil
}

type globalList struct {
	mu    sync.Mutex
	found map[string]uint32
}

func (l *globalList) HandleRegistryGlobal(ev wl.RegistryGlobalEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found[ev.Interface] = max(l.found[ev.Interface], ev.Version)
}

func (l *globalList) HandleRegistryGlobalRemove(wl.RegistryGlobalRemoveEvent) {}
