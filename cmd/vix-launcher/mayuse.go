package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"vix/config"
	"vix/internal/display"
	"vix/internal/plain"
	"vix/internal/vm"
)

// A grant is one thing that a VM may use, and how it is taken back. The fields that do not
// apply to its kind are empty.
type grant struct {
	// Kind is "network", "port", "folder", "usb", "clipboard", "drag", "home", "root",
	// "channel", "display" or "interface".
	Kind     string   `json:"kind"`
	Value    string   `json:"value"`           // what of it; "none" for a network and the like that it lacks
	By       string   `json:"by,omitempty"`    // who serves it
	Host     string   `json:"host,omitempty"`  // the path on the host
	Guest    string   `json:"guest,omitempty"` // and in the guest
	Write    *bool    `json:"write,omitempty"` // of a folder
	Bytes    *uint64  `json:"bytes,omitempty"` // of a home, on the disk
	Flows    []flow   `json:"flows,omitempty"` // of a clipboard: what goes by itself
	Kinds    []string `json:"kinds,omitempty"` // of a drag
	TakeBack string   `json:"take_back"`       // commands, and keys of config.toml; "" where there is nothing to take

	text string // for people
	bare bool   // nothing that every VM does not have
}

// A flow is a way that copies go without an act of the user: the sides are VMs' names or
// "host".
type flow struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// A holding is a VM with all that its grants follow from.
type holding struct {
	state   vm.State
	runs    bool
	conf    *config.Config // nil if it cannot be read
	set     config.VM      // the VM's own configuration now; zero without conf
	home    *vm.DiskUse    // nil: there is none, or nobody counted
	hasHome bool           // config.toml says so, or the VM runs with it
}

// holdingOf describes a VM by its state, which is that of config.toml if it does not run.
func holdingOf(st vm.State, runs bool, conf *config.Config, home *vm.DiskUse) holding {
	h := holding{state: st, runs: runs, conf: conf, home: home}
	if conf != nil {
		h.set, _ = conf.VM(st.Name) // of a checked name
	}
	h.hasHome = runs && st.Home != "" || !runs && h.set.State == "home"
	return h
}

// take says how to take something back: now, by commands while the VM runs, and, if
// config.toml gives it again at the next start, by a change of a key there.
func (h *holding) take(commands string, again bool, key string) string {
	var parts []string
	if h.runs {
		parts = append(parts, commands)
	}
	if again && h.conf != nil {
		parts = append(parts, fmt.Sprintf("%s under [vm.%s]", key, h.state.Name))
	}
	return strings.Join(parts, "; and ")
}

func (h *holding) stop() string { return "vix stop " + h.state.Name }

// mayUse lists all that the VM may use, in a fixed order of kinds.
func (h *holding) mayUse() []grant {
	return slices.Concat(h.network(), h.folders(), h.usb(), h.clipboard(), h.kept(), h.rootAndChannel(), h.display())
}

func (h *holding) network() []grant {
	n := h.state.Net
	if n.Kind == "" || n.Kind == config.NetNone {
		return []grant{{Kind: "network", Value: config.NetNone, text: "none", bare: true}}
	}
	text := n.Kind + ": what this machine reaches by IPv4, but its 127.0.0.1"
	if n.By == "qemu" {
		text = n.Kind + ": what this machine reaches by IPv4, its 127.0.0.1 too"
	}
	if n.By != "" {
		text += ", by " + n.By
	}
	if n.Down {
		text += ", which has ended"
	}
	list := []grant{{Kind: "network", Value: n.Kind, By: n.By, text: text, TakeBack: h.take(h.stop(), h.set.Net == n.Kind, `net = "none"`)}}
	for _, p := range n.Publish {
		again := slices.ContainsFunc(h.set.Publish, func(q config.Publish) bool { return q.String() == p })
		text := p
		if q, err := config.ParsePublish(p); err == nil {
			text = fmt.Sprintf("%s:%d of this machine leads to its port %d, %s", q.Addr, q.Host, q.Guest, map[bool]string{false: "TCP", true: "UDP"}[q.UDP])
		}
		list = append(list, grant{Kind: "port", Value: p, text: text, TakeBack: h.take(h.stop(), again, "publish without it")})
	}
	return list
}

func (h *holding) folders() (list []grant) {
	for _, s := range h.state.Shares {
		again := slices.ContainsFunc(h.set.Shares, func(c config.Share) bool {
			return c.Guest == s.Guest || c.Host == "" && !h.runs && s.Host == ""
		})
		mode := map[bool]string{false: "read-only", true: "for writing"}[s.Write]
		value, text := s.Guest, fmt.Sprintf("%s at %s, %s", s.Host, s.Guest, mode)
		if s.Host == "" {
			value, text = config.Staging, "an empty folder of its own for each run (staging), "+mode
		}
		list = append(list, grant{Kind: "folder", Value: value, Host: s.Host, Guest: s.Guest, Write: &s.Write, text: text,
			TakeBack: h.take(fmt.Sprintf("vix umount %s %s", h.state.Name, s.Guest), again, "shares without it")})
	}
	return orNone(list, "folder")
}

// orNone makes a row for people of a list that is empty.
func orNone(list []grant, kind string) []grant {
	if len(list) == 0 {
		return []grant{{Kind: kind, text: "none", bare: true}}
	}
	return list
}

func (h *holding) usb() (list []grant) {
	again := func(words ...string) bool {
		return slices.ContainsFunc(h.set.USB, func(d config.USBDevice) bool { return slices.Contains(words, d.String()) })
	}
	for _, d := range h.state.USB {
		list = append(list, grant{Kind: "usb", Value: d.ID, Host: d.Port, text: fmt.Sprintf("%s %s, at %s", d.ID, d.Name, d.Port),
			TakeBack: h.take(fmt.Sprintf("vix usb detach %s %s", h.state.Name, d.Port), again(d.ID, d.Port), "usb without it")})
	}
	for _, rule := range h.state.USBRules {
		if !slices.ContainsFunc(h.state.USB, func(d vm.USBState) bool { return d.Rule && (d.ID == rule || d.Port == rule) }) {
			list = append(list, grant{Kind: "usb", Value: rule, text: rule + ", when it is plugged in", TakeBack: h.take(h.stop(), again(rule), "usb without it")})
		}
	}
	return orNone(list, "usb")
}

// profiles are what a VM's clipboard profiles allow, for people.
var profiles = map[string]string{
	config.ClipIsolated: "nothing flows by itself", config.ClipSharedOut: "its copies flow to the host",
	config.ClipSharedIn: "the host's copies flow to it while it has the keyboard", config.ClipShared: "copies flow both ways while it has the keyboard",
}

func (h *holding) clipboard() []grant {
	st := h.state
	switch {
	case st.Display.Kind == "none":
		return []grant{{Kind: "clipboard", Value: "none", text: "none: it has no display", bare: true}}
	case st.Clipboard == "": // of a version that did not say
		st.Clipboard = cmp.Or(h.set.Clipboard, config.ClipIsolated)
	}
	g := grant{Kind: "clipboard", Value: st.Clipboard, Flows: h.flows(st.Clipboard)}
	switch {
	case h.conf == nil:
		g.text = fmt.Sprintf("%s: %s, as far as the rules of config.toml let it, which cannot be read", st.Clipboard, profiles[st.Clipboard])
		g.bare = st.Clipboard == config.ClipIsolated
	case len(g.Flows) == 0:
		g.text, g.bare = st.Clipboard+": nothing flows by itself", true
	default:
		var ways []string
		for _, f := range g.Flows {
			if f.From == st.Name {
				ways = append(ways, "its copies flow to "+side(f.To))
			} else {
				ways = append(ways, "copies of "+side(f.From)+" flow to it")
			}
		}
		g.text = st.Clipboard + ": " + strings.Join(ways, ", ")
	}
	if !g.bare { // the rules and profiles of the file count at once, for each copy
		g.TakeBack = fmt.Sprintf(`clipboard = "isolated" under [vm.%s], at once`, st.Name)
	}
	return append([]grant{g}, h.drags()...)
}

func side(name string) string {
	switch name {
	case config.ClipHost:
		return "the host"
	case config.ClipAny:
		return "anything"
	}
	return "VM " + name
}

// flows lists the ways of copies between the VM, as it was started, and all others.
func (h *holding) flows(profile string) (list []flow) {
	if h.conf == nil {
		return nil
	}
	name := h.state.Name
	add := func(from, to string) {
		if _, ok := h.conf.Flow(from, to); ok {
			list = append(list, flow{from, to})
		}
	}
	if profile != config.ClipIsolated { // a process beside the VM carries these
		add(name, config.ClipHost)
		add(config.ClipHost, name)
	}
	for _, other := range slices.Sorted(maps.Keys(h.conf.VMs)) {
		if other != name {
			if profile != config.ClipIsolated {
				add(other, name)
			}
			add(name, other)
		}
	}
	return list
}

// drags lists the rules by which a drag of the user's may end on the other side.
func (h *holding) drags() (list []grant) {
	if h.conf == nil {
		return nil
	}
	for _, d := range h.conf.Clipboard.Drags(h.state.Name) {
		if d.Limits == nil {
			continue
		}
		kinds := slices.Sorted(maps.Keys(d.Limits))
		list = append(list, grant{Kind: "drag", Value: d.From + " to " + d.To, Kinds: kinds,
			text:     fmt.Sprintf("your drags from %s to %s, of %s", side(d.From), side(d.To), strings.Join(kinds, ", ")),
			TakeBack: `action = "deny" in this [[clipboard.rule]]`})
	}
	return list
}

func (h *holding) kept() []grant {
	name, g := h.state.Name, grant{Kind: "home", Host: h.state.Home}
	if h.home != nil {
		g.Bytes = &h.home.Bytes
	}
	switch {
	case h.hasHome:
		g.Value, g.text = "kept", "kept"
		if h.state.Home != "" {
			g.text += " in " + h.state.Home
		}
		if h.home != nil {
			g.text += ", " + diskText(*h.home)
		}
		reset := "vix reset " + name
		if h.runs {
			reset = h.stop() + ", then " + reset
		}
		if h.runs || h.home != nil {
			g.TakeBack = reset
		}
		if h.set.State == "home" {
			g.TakeBack = strings.TrimPrefix(g.TakeBack+fmt.Sprintf(`; and state = "none" under [vm.%s]`, name), "; and ")
		}
	case !h.runs && h.home != nil:
		g.Value, g.bare = "none", true
		g.text = fmt.Sprintf(`none of its own at the next start; what was kept before is in %s, %s`, h.state.Home, diskText(*h.home))
		g.TakeBack = "vix reset " + name
	default:
		g.Value, g.text, g.bare = "none", "not kept: gone when it stops", true
	}
	return []grant{g}
}

// diskText is an amount on the disk, for people.
func diskText(u vm.DiskUse) string {
	text := amount(int64(u.Bytes))
	if !u.Whole {
		text = "at least " + text
	}
	return text
}

func (h *holding) rootAndChannel() []grant {
	root := grant{Kind: "root", Value: h.state.Root, text: h.state.Root + ", read-only", bare: true}
	if h.state.Root == "host" {
		root.text = "this machine's /usr and a part of /etc, read-only (vix doctor lists them)"
	}
	list := []grant{root}
	switch c := h.state.Channel; {
	case c.Kind == "vsock":
		list = append(list, grant{Kind: "channel", Value: c.Kind, By: c.By, text: "vsock, by the " + c.By + ": it reaches whatever listens on vsock here",
			TakeBack: h.take(h.stop(), true, `channel = "serial"`), bare: true})
	case c.Kind != "":
		list = append(list, grant{Kind: "channel", Value: c.Kind, By: c.By, text: c.Kind + ", by " + c.By, bare: true})
	case !h.runs && h.set.Channel == config.ChannelSerial:
		list = append(list, grant{Kind: "channel", Value: h.set.Channel, text: h.set.Channel, bare: true})
	case !h.runs:
		list = append(list, grant{Kind: "channel", Value: h.set.Channel, text: "vsock, where the kernels of host and guest have it", bare: true,
			TakeBack: h.take("", true, `channel = "serial"`)})
	}
	return list
}

// frames are what a VM's windows look like, for people.
var frames = map[string]string{"full": "in its frame", "border": "with a border alone", "none": "without a frame: they can look like the host's"}

func (h *holding) display() []grant {
	d := h.state.Display
	switch d.Kind {
	case "":
		return []grant{{Kind: "display", Value: "unknown", text: "unknown: another version of Vix started it", bare: true}}
	case "none":
		return []grant{{Kind: "display", Value: "none", text: "none: it opens no windows", bare: true}}
	}
	list := []grant{{Kind: "display", Value: d.Kind, text: "windows on your compositor, " + frames[d.Frame], TakeBack: h.take(h.stop(), !h.set.NoGUI, "gui = false"), bare: d.Frame != "none"}}
	for _, name := range d.Allow {
		text := name
		if why := display.Risk(name); why != "" {
			text += ", a risk: " + why
		}
		list = append(list, grant{Kind: "interface", Value: name, text: text, TakeBack: h.take(h.stop(), slices.Contains(h.set.Allow, name), "allow without it")})
	}
	return list
}

// forJSON returns the grants without the rows that only people need.
func forJSON(all []grant) []grant {
	return slices.DeleteFunc(slices.Clone(all), func(g grant) bool { return g.Value == "" })
}

// printGrants writes a line for each grant: what it is, and how it is taken back. With
// given, those alone that not every VM has.
func printGrants(w io.Writer, all []grant, given bool) error {
	var table strings.Builder
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	last := ""
	for _, g := range all {
		if given && g.bare {
			continue
		}
		kind := g.Kind
		if kind == last {
			kind = ""
		}
		last = g.Kind
		fmt.Fprintf(t, "  %s\t%s\t%s\n", kind, plain.Text(g.text, maxShown, plain.OneLine), plain.Text(g.TakeBack, maxShown, plain.OneLine))
	}
	_ = t.Flush() // a Builder does not fail
	for line := range strings.Lines(table.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}
