package desktop

import (
	"encoding/json"
	"encoding/xml"
	"slices"
	"strings"
	"testing"

	"vix/internal/vm"
)

func TestBar(t *testing.T) {
	type module struct {
		Text, Tooltip, Alt string
		Class              []string
	}
	var b Bar
	see := func() (m module) {
		t.Helper()
		l := string(b.Line())
		if strings.Count(l, "\n") != 1 || json.Unmarshal([]byte(l), &m) != nil {
			t.Fatalf("%q", l)
		}
		for _, s := range []string{m.Text, m.Tooltip} { // Pango takes nothing that is not well-formed
			if err := xml.Unmarshal([]byte("<x>"+s+"</x>"), new(struct{})); err != nil {
				t.Errorf("markup %q: %v", s, err)
			}
		}
		return m
	}
	if m := see(); m.Text != "" || m.Alt != "none" {
		t.Errorf("%+v", m)
	}
	windows := slices.Repeat([]vm.Window{{Title: "[b] <b>&\n\u202e"}}, 7)
	b.Update(vm.Event{Event: vm.EventState, Name: "b", State: &vm.State{Name: "b", Tag: "<i>", Color: "#112233", State: vm.StateStarting, Windows: windows}})
	b.Update(vm.Event{Event: vm.EventReady})
	b.Update(vm.Event{Event: vm.EventState, Name: "a", State: &vm.State{Name: "a", Tag: "a", Color: "#445566", State: vm.StateRunning}})
	m := see()
	if m.Text != `<span color="#445566">●</span> <span color="#112233">◌</span>` || !slices.Equal(m.Class, []string{"starting", "running"}) {
		t.Errorf("%+v", m)
	}
	if !strings.Contains(m.Tooltip, "and 2 more") || strings.Count(m.Tooltip, "\n") != 7 || strings.Contains(m.Tooltip, "\u202e") {
		t.Errorf("%q", m.Tooltip)
	}
	b.Update(vm.Event{Event: vm.EventEnded, Name: "a"})
	b.Update(vm.Event{Event: vm.EventEnded, Name: "b"})
	if m := see(); m.Alt != "none" || m.Tooltip != "no VM runs" {
		t.Errorf("%+v", m)
	}
}
