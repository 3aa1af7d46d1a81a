package display

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"vix/internal/ledger"
)

// A Limit names a resource of the compositor that is limited for each VM.
// All connections of the VM share it.
type Limit int

// The limits.
const (
	Connections Limit = iota
	Objects
	Surfaces
	Toplevels
	Popups
	Pools
	Memory
	Textures
	Regions
	Rectangles
	Requests
	Commits
	Opens
	Connects
	Kinds
	Transfers
	NumLimits
)

// limits holds each one's name in the configuration, its default and its
// meaning. The defaults are many times what a browser with 50 tabs uses, and
// little beside what a compositor holds; Pools keeps far from the 65,530 mappings
// that Linux lets a process, here the compositor, have.
var limits = [NumLimits]struct {
	name  string
	value int64
	what  string
}{
	Connections: {"connections", 256, "programs' connections at once"},
	Objects:     {"objects", 1 << 18, "Wayland objects of any interface"},
	Surfaces:    {"surfaces", 4096, "surfaces, shown or not"},
	Toplevels:   {"toplevels", 256, "windows"},
	Popups:      {"popups", 128, "menus and other popups"},
	Pools:       {"pools", 1024, "pools of shared memory, each mapped by the compositor"},
	Memory:      {"memory", 2 << 30, "bytes of shared memory that the compositor can see, used or not"},
	Textures:    {"textures", 2 << 30, "bytes of all surfaces' pictures: a compositor with a GPU has a copy of each"},
	Regions:     {"regions", 4096, "regions that are not destroyed"},
	Rectangles:  {"rectangles", 16, "rectangles added to or taken from one region, which can become the square of it; a region with more counts as everything"},
	Requests:    {"requests", 100_000, "requests each second; more are delayed"},
	Commits:     {"commits", 20_000, fmt.Sprintf("commits of surfaces and new titles each second, where one that resizes a window counts as %d; more are delayed", ResizeCost)},
	Opens:       {"opens", 50, "windows and popups opened each second; more are delayed"},
	Connects:    {"connects", 30, "connections opened each second; more are delayed"},
	Kinds:       {"kinds", DefaultKinds, "kinds (MIME types) of data in one selection or drag"},
	Transfers:   {"transfers", DefaultTransfers, "pastes that one program has not begun to answer; more find nothing"},
}

// String returns the limit's name in the configuration.
func (l Limit) String() string { return limits[l].name }

// Defaults of the clipboard, which also apply without limits of a VM.
const (
	// DefaultKinds bounds the kinds of one source: a word processor has some 60.
	DefaultKinds = 256
	// DefaultTransfers bounds the transfers that wait for their source's program to
	// begin.
	DefaultTransfers = 128
)

// Limits holds a VM's own values; 0 stands for the default.
type Limits [NumLimits]int64

// Set sets the value of a limit by its name.
func (l *Limits) Set(name string, value int64) error {
	if err := CheckLimit(name, value); err != nil {
		return fmt.Errorf("limit %s: %w", name, err)
	}
	for k := range limits {
		if limits[k].name == name {
			l[k] = value
			return nil
		}
	}
	return fmt.Errorf("limit %s: is the device's", name)
}

// Of returns the value of a limit, the VM's own or the default.
func (l *Limits) Of(k Limit) int64 {
	if l[k] != 0 {
		return l[k]
	}
	return limits[k].value
}

// LimitNames returns the names of all limits.
func LimitNames() []string {
	names := make([]string, NumLimits)
	for k := range limits {
		names[k] = limits[k].name
	}
	return names
}

// LimitsMarkdown writes the limits as a table.
func LimitsMarkdown() string {
	var b strings.Builder
	b.WriteString("| limit | default | of one VM, at once |\n|---|--:|---|\n")
	for _, l := range limits {
		fmt.Fprintf(&b, "| `%s` | %d | %s |\n", l.name, l.value, l.what)
	}
	return b.String()
}

// resizeCost is how many commits one with another size of a window counts as: sway
// arranges its windows anew for each.
const ResizeCost = 100

// Of the virtio-gpu device: what QEMU survives, and what a window of shared memory holds.
const (
	MaxMappings    = 480
	MaxDeviceBytes = 64 << 30
)

// deviceLimits are the device's, with the most that each may be. Of contexts, each parks a
// descriptor of the control queue's 1024.
var deviceLimits = map[string]int64{
	"contexts": 1000, "resources": 1 << 20, ledger.NameFiles: 1 << 20, ledger.NameBytes: MaxDeviceBytes,
	"mappings": MaxMappings, ledger.NameDescriptors: 1 << 20, ledger.NameQueued: MaxDeviceBytes,
}

// DeviceLimitNames returns the names of the device's limits.
func DeviceLimitNames() []string { return slices.Sorted(maps.Keys(deviceLimits)) }
