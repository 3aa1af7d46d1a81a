package display

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"vix/config"
)

// A Display is what the command line of vix-waylandproxy host depends on.
type Display struct {
	VM, Tag     string
	Color       config.Color
	Frame       string // "full", "border" or "none"; "" is left to the display process
	Allow, Deny []string
	Limits      map[string]int64
	Drags       []config.DragRule
	VhostFD     int
	EventsFD    int
	ControlFD   int
	BrokerFD    int
}

// Args returns the arguments of vix-waylandproxy.
func (d Display) Args() []string {
	args := []string{
		"host",
		"--vm", d.VM,
		"--tag", d.Tag,
		"--vhost-fd", fmt.Sprint(d.VhostFD),
		"--events-fd", fmt.Sprint(d.EventsFD),
		"--control-fd", fmt.Sprint(d.ControlFD),
		"--broker-fd", fmt.Sprint(d.BrokerFD),
		"--color", string(d.Color),
	}
	if d.Frame != "" {
		args = append(args, "--frame", d.Frame)
	}
	if len(d.Allow) > 0 {
		args = append(args, "--allow", strings.Join(d.Allow, ","))
	}
	if len(d.Deny) > 0 {
		args = append(args, "--deny", strings.Join(d.Deny, ","))
	}
	if len(d.Drags) > 0 {
		b, _ := json.Marshal(d.Drags) // cannot fail: strings and numbers
		args = append(args, "--drags", string(b))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Limits)) {
		args = append(args, "--limit", fmt.Sprintf("%s=%d", name, d.Limits[name]))
	}
	return args
}
