package desktop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"vix/internal/plain"
	"vix/internal/vm"
)

// A Bar makes the lines of a waybar module about the VMs: a mark in each VM's colour, and
// details in the tooltip. The lines are those of "return-type": "json" (waybar-custom(5)).
type Bar struct{ vms []vm.State }

// Update takes note of an event.
func (b *Bar) Update(e vm.Event) {
	if e.Event == vm.EventReady {
		return
	}
	b.vms = slices.DeleteFunc(b.vms, func(v vm.State) bool { return v.Name == e.Name })
	if e.State != nil {
		b.vms = append(b.vms, *e.State)
	}
	slices.SortFunc(b.vms, func(x, y vm.State) int { return strings.Compare(x.Name, y.Name) })
}

// marks are the signs of the states; all are in common fonts.
var marks = map[string]string{vm.StateStarting: "◌", vm.StateRunning: "●", vm.StateStopping: "○", vm.StateUnresponsive: "✕", vm.StateNotAnswering: "✕"}

// Line returns the module as it is now, one line of JSON. class is "none" without VMs,
// else "running", with "starting" and "unresponsive" where one is.
func (b *Bar) Line() []byte {
	var text, tip []string
	classes := []string{}
	for _, v := range b.vms {
		mark := marks[v.State]
		if mark == "" {
			mark = marks[vm.StateRunning]
		}
		mark = fmt.Sprintf(`<span color="%s">%s</span>`, EscapeMarkup(string(v.Color)), mark)
		text = append(text, mark)
		tip = append(tip, fmt.Sprintf("%s <b>%s</b>  %s%s", mark, EscapeMarkup(plain.Text(v.Tag, maxName, plain.OneLine)), EscapeMarkup(v.State), barWindows(v)))
		class := v.State
		if class == vm.StateNotAnswering {
			class = vm.StateUnresponsive
		}
		if (class == vm.StateStarting || class == vm.StateUnresponsive) && !slices.Contains(classes, class) {
			classes = append(classes, class)
		}
	}
	if len(b.vms) > 0 {
		classes = append(classes, "running")
	} else {
		classes, tip = []string{"none"}, []string{"no VM runs"}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string]any{ // strings alone: they do not fail
		"text": strings.Join(text, " "), "tooltip": strings.Join(tip, "\n"), "class": classes, "alt": classes[0],
	})
	return out.Bytes()
}

// barTitles is how many of a VM's windows the tooltip names.
const barTitles = 5

// barWindows are the titles of a VM's windows, a line each.
func barWindows(v vm.State) string {
	var b strings.Builder
	for i, w := range v.Windows {
		if i == barTitles {
			fmt.Fprintf(&b, "\n    and %d more", len(v.Windows)-barTitles)
			break
		}
		b.WriteString("\n    " + EscapeMarkup(plain.Text(w.Title, maxLabel, plain.OneLine)))
	}
	return b.String()
}
