package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vix/internal/desktop"
	"vix/internal/menu"
	"vix/internal/plain"
)

// actionVerb begins an action that is another verb; the verb's words follow.
const actionVerb = "verb "

// actions returns the entries of the second pane, besides the USB devices.
func actions() []menu.Action {
	return []menu.Action{
		{ID: "run", Name: "Run %n", Running: true, Stopped: true, Programs: true},
		{ID: desktop.ActionDisposable, Name: "Run %n in a new disposable VM", Running: true, Stopped: true, Programs: true},
		{ID: desktop.ActionShell, Name: "Open a shell in VM %v", Running: true},
		{ID: desktop.ActionStop, Name: "Stop VM %v", Running: true, Keep: true},
		{ID: actionVerb + "clipboard copy --vm %v", Name: "Copy the clipboard of VM %v", Running: true, Keep: true},
		{ID: actionVerb + "clipboard paste --vm %v", Name: "Paste what was copied into VM %v", Running: true, Keep: true},
	}
}

// maxUSB bounds the devices in the second pane.
const maxUSB = 16

// offerUSB adds this machine's USB devices to the actions once the menu is open.
func (s *Session) offerUSB(ctx context.Context) {
	var devices []struct {
		Port, Name, VM string
		Hub            bool
	}
	out, err := s.Programs.Verb(ctx, "usb", "list", "--json")
	if err != nil || json.Unmarshal(out, &devices) != nil {
		return // the verb would report the same error
	}
	list := actions()
	for _, d := range devices[:min(len(devices), maxUSB)] {
		name := plain.Text(d.Name, maxShown, plain.OneLine)
		switch {
		case d.Hub || strings.ContainsAny(d.Port, " %"):
		case d.VM == "":
			list = append(list, menu.Action{ID: actionVerb + "usb attach %v " + d.Port, Name: "Attach " + name, Running: true, Keep: true})
		default:
			list = append(list, menu.Action{ID: actionVerb + "usb detach %v " + d.Port, Name: "Detach " + name, VM: d.VM, Running: true, Keep: true})
		}
	}
	s.tell(menu.Update{Actions: list})
}

// act performs an action of the second pane.
func (s *Session) act(ctx context.Context, ev menu.Event) error {
	s.mu.Lock()
	items := s.items
	s.mu.Unlock()
	i := slices.IndexFunc(items, func(it menu.Item) bool { return it.ID == ev.Item })
	if i < 0 {
		return fmt.Errorf("menu: no entry %q", plain.Clip(ev.Item))
	}
	it := items[i]
	switch ev.Action {
	case "run":
		return s.Start(ctx, it.ID, "", ev.Token)
	case desktop.ActionDisposable:
		return s.Start(ctx, it.ID, desktop.ActionDisposable, ev.Token)
	case desktop.ActionShell:
		return s.Programs.Shell(it.VM, ev.Token)
	case desktop.ActionStop:
		return s.reg.Stop(ctx, it.VM, false)
	}
	words, ok := strings.CutPrefix(ev.Action, actionVerb)
	if !ok {
		return fmt.Errorf("menu: no action %q", plain.Clip(ev.Action))
	}
	args := strings.Fields(words)
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "%v", it.VM)
	}
	out, err := s.Programs.Verb(ctx, args...)
	if err != nil {
		return err
	}
	if output := strings.TrimSpace(string(out)); output != "" {
		s.tell(menu.Update{Notice: &menu.Notice{Text: plain.Error(errors.New(output))}})
	}
	s.offerUSB(ctx)
	return nil
}
