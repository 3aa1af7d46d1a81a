// Package config is the schema of config.toml: the settings of VMs, their defaults, their
// checks, and the explanation of each key.
//
//	[defaults]            # for every VM that does not override them
//	memory = "512M"
//
//	[vm.web]              # one VM; the name is the table's
//	memory   = "2G"
//	color    = "red"
//	programs = ["firefox"]   # run in this VM when --vm is not given
//
//	[clipboard]           # between VMs and the host (clipboard.go)
//
//	[vm.web.limits]       # names that the display process knows; other limits keep their defaults
//	surfaces = 4000
//
// Reading is strict. An unknown key, a wrong type or a value out of range is an
// *Error: one line with file, line, key and, for an unknown key, the nearest
// valid one. The first mistake of the file is reported, and a file with a mistake
// is not used at all. Only the table keys (keys.go) knows the keys: reading,
// suggestions and documentation all come from it.
//
// The package reads only the file that it is given and never writes one; it does not
// look at the machine (a missing root is found when a VM starts).
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// MaxFile is the largest config.toml that is read, in bytes: enough for a thousand VMs, and
// too small for a huge file named by mistake.
const MaxFile = 256 << 10

// A Config is the checked content of a file, with the built-in defaults filled in.
type Config struct {
	Defaults VM            // its Name and Programs are empty
	VMs      map[string]VM // complete: the defaults are filled in
	Menu     Menu

	Clipboard Clipboard
}

// A VM is the whole configuration of one virtual machine.
type VM struct {
	Name   string `json:"name"`
	Memory Size   `json:"memory"` // bytes, a multiple of 1 MiB
	CPUs   int    `json:"cpus"`   // 1 … MaxCPUs
	// MemoryMin is the part of Memory that stays when the host is short. CPUWeight is the VM's
	// share of busy processors (cgroup v2's cpu.weight, 1 … MaxWeight; 100 is a program's).
	MemoryMin Size     `json:"memory_min"`
	CPUWeight int      `json:"cpu_weight"`
	Tag       string   `json:"tag"`      // shown before every title; the name by default
	Color     Color    `json:"color"`    // of the frame; derived from the name by default
	Root      string   `json:"root"`     // "host", "debian:SUITE", "image:PATH", or an absolute directory
	Accel     string   `json:"accel"`    // "auto", "kvm" or "tcg"
	Programs  []string `json:"programs"` // base names of programs that run here without --vm
	// Frame is how much of a frame the VM's windows have: "full", "border" or "none".
	Frame string `json:"frame"`
	NoGUI bool   `json:"no_gui,omitempty"` // the VM has no display
	// Clipboard is the profile of copies that flow by themselves (clipboard.go).
	Clipboard string `json:"clipboard"`
	// Allow and Deny are well-formed names of Wayland interfaces. The process that enforces
	// them knows whether such interfaces, and such Limits, exist.
	Allow  []string         `json:"allow,omitempty"`
	Deny   []string         `json:"deny,omitempty"`
	Limits map[string]int64 `json:"limits,omitempty"` // each 1 … MaxLimit
	// State is what the VM keeps when it stops: "home", or "none".
	State    string   `json:"state"`
	Shares   []Share  `json:"shares,omitempty"`
	Packages []string `json:"packages,omitempty"` // of a root "debian:SUITE"
	// Desktop holds patterns of the programs that get desktop entries. nil means the root's
	// suggestions; an empty list means no entries.
	Desktop   []string `json:"desktop,omitempty"`
	MIME      []string `json:"mime,omitempty"`      // file types that the entries open
	Workspace string   `json:"workspace,omitempty"` // sway's workspace for the VM's windows
	Kernel    string   `json:"kernel,omitempty"`    // path of an image; "" is the host's
	Initrd    string   `json:"initrd,omitempty"`    // path; holds the modules of Kernel
	// Net is the VM's network, NetNone or NetNAT; Publish holds the host ports that lead into it.
	Net     string    `json:"net"`
	Publish []Publish `json:"publish,omitempty"`
	// Channel is the transport of the agent's channel: ChannelAuto, ChannelVsock or ChannelSerial.
	Channel string `json:"channel"`
	// USB holds the devices that the VM gets whenever they are plugged in.
	USB []USBDevice `json:"usb,omitempty"`
}

// An Error is a mistake in the file.
type Error struct {
	File string
	Line int    // from 1; 0 if the mistake has no line
	Key  string // a dotted TOML key; empty for bad TOML
	Msg  string
}

func (e *Error) Error() string {
	at := e.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Key != "" {
		at += ": " + e.Key
	}
	return at + ": " + e.Msg
}

// Load reads the file name below dir. label is the file's full path, for errors. A missing
// file counts as empty.
func Load(dir *os.Root, name, label string) (*Config, error) {
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Parse(label, nil)
	}
	if err != nil {
		return nil, &Error{File: label, Msg: "cannot be read: " + cause(err)}
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && !st.Mode().IsRegular() {
		return nil, &Error{File: label, Msg: "not a regular file"}
	}
	src, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, &Error{File: label, Msg: "cannot be read: " + cause(err)}
	}
	return Parse(label, src)
}

// cause returns err without the path, which label already contains.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// Parse reads the text of a file. label is its name in errors.
func Parse(label string, src []byte) (*Config, error) {
	if len(src) > MaxFile {
		return nil, &Error{File: label, Msg: fmt.Sprintf("larger than %d KiB; is it the right file?", MaxFile>>10)}
	}
	var tree map[string]any
	if _, err := toml.Decode(string(src), &tree); err != nil {
		return nil, syntaxError(label, string(src), err)
	}
	r := &reader{label: label, lines: indexLines(string(src))}
	c := r.config(tree)
	if len(r.errs) > 0 {
		slices.SortStableFunc(r.errs, func(a, b *Error) int { return a.Line - b.Line })
		return nil, r.errs[0]
	}
	return c, nil
}

func syntaxError(label, src string, err error) error {
	e := &Error{File: label, Msg: err.Error()}
	var pe toml.ParseError
	if errors.As(err, &pe) {
		// For a string cut off on the first line, the library reports the line before.
		e.Line, e.Msg = max(pe.Position.Line, 1), pe.Message
		if e.Msg == "" {
			e.Msg = strings.TrimPrefix(pe.Error(), "toml: ")
		}
	}
	e.Msg = strings.Join(strings.Fields(e.Msg), " ")
	if m := definedTwice.FindStringSubmatch(e.Msg); m != nil {
		e.Key, e.Msg = m[1], "appears twice; remove one"
		if first := indexLines(firstLines(src, e.Line-1))[strings.ReplaceAll(m[1], ".", "\x00")]; first > 0 {
			e.Msg = fmt.Sprintf("appears twice; the first is on line %d", first)
		}
	}
	if m := bareWord.FindStringSubmatch(e.Msg); m != nil {
		e.Msg = fmt.Sprintf("%s is not a value; text needs quotes: \"%s\"", m[1], m[1])
	}
	return e
}

// The library's messages about a table or key that is defined twice, and about text without
// quotes.
var (
	definedTwice = regexp.MustCompile(`^Key '(.+)' has already been defined\.$`)
	bareWord     = regexp.MustCompile(`^expected value but found "([A-Za-z][\w-]*)" instead$`)
)

// firstLines returns the first n lines of a text.
func firstLines(text string, n int) string {
	end := 0
	for range n {
		i := strings.IndexByte(text[end:], '\n')
		if i < 0 {
			return text
		}
		end += i + 1
	}
	return text[:end]
}

// VM returns the configuration of the VM called name: from the file, or the defaults under
// that name.
func (c *Config) VM(name string) (VM, error) {
	if err := CheckName(name); err != nil {
		return VM{}, err
	}
	if v, ok := c.VMs[name]; ok {
		return v, nil
	}
	v := c.Defaults
	v.fill(name)
	return v, nil
}

// VMFor returns the VM in which program (a path or a name) runs when no VM is named: the
// VM that lists the program's base name, or else one named after it.
func (c *Config) VMFor(program string) (VM, error) {
	base := program[strings.LastIndexByte(program, '/')+1:]
	for _, name := range slices.Sorted(maps.Keys(c.VMs)) {
		if slices.Contains(c.VMs[name].Programs, base) {
			return c.VMs[name], nil
		}
	}
	return c.VM(NameFor(base))
}

// fill sets the unset fields that follow from the name.
func (v *VM) fill(name string) {
	v.Name = name
	if v.Tag == "" {
		v.Tag = name
	}
	if v.Color == "" {
		v.Color = ColorFor(name)
	}
}

// A reader walks a decoded file. It collects all mistakes, in order to report the first in the
// file and not the first in map order.
type reader struct {
	label string
	lines lineIndex
	errs  []*Error
}

func (r *reader) fail(path []string, format string, args ...any) {
	r.errs = append(r.errs, &Error{
		File: r.label,
		Line: r.lines.of(path),
		Key:  toml.Key(path).String(),
		Msg:  fmt.Sprintf(format, args...),
	})
}

func (r *reader) config(tree map[string]any) *Config {
	c := &Config{Defaults: builtin(), VMs: map[string]VM{}, Menu: builtinMenu(), Clipboard: defaultClipboard()}
	for name, v := range tree {
		switch name {
		case "defaults":
			r.table([]string{name}, v, &c.Defaults, true)
		case "menu":
			r.menu(v, &c.Menu)
		case "vm":
		case "clipboard":
			r.clipboard(v, &c.Clipboard)
		default:
			r.fail([]string{name}, "%s", misplaced(name, v))
		}
	}
	vms, ok := tree["vm"]
	if !ok {
		return c
	}
	tables, ok := vms.(map[string]any)
	if !ok {
		r.fail([]string{"vm"}, "want tables such as [vm.web], not %s", typeName(vms))
		return c
	}
	for name, v := range tables {
		path := []string{"vm", name}
		if err := CheckName(name); err != nil {
			r.fail(path, "%v", err)
			continue
		}
		vm := c.Defaults
		r.table(path, v, &vm, false)
		vm.fill(name)
		if err := vm.checkNetwork(); err != nil {
			r.fail(append(path, "publish"), "%v", err)
		}
		c.VMs[name] = vm
	}
	r.programsOnce(c)
	return c
}

// misplaced explains an unknown key or table of the top level.
func misplaced(name string, v any) string {
	valid := []string{"clipboard", "defaults", "menu", "vm"}
	_, table := v.(map[string]any)
	switch near := suggest(name, valid); {
	case !table && slices.Contains(keyNames(true), name):
		return "belongs to a VM; put it under [defaults] or [vm.NAME]"
	case !table && slices.Contains(keyNames(false), name):
		return "belongs to one VM; put it under [vm.NAME]"
	case table && CheckName(name) == nil && strings.Contains(near, "valid here"):
		return fmt.Sprintf("unknown table; for a VM, write [vm.%s]%s", name, near)
	default:
		return "unknown key" + near
	}
}

// table reads the keys of one VM, or of the defaults, into vm.
func (r *reader) table(path []string, v any, vm *VM, defaults bool) {
	t, ok := v.(map[string]any)
	if !ok {
		r.fail(path, "want a table, not %s", typeName(v))
		return
	}
	for name, val := range t {
		at := append(slices.Clone(path), name)
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		switch {
		case i < 0:
			r.fail(at, "unknown key%s", suggest(name, keyNames(defaults)))
		case defaults && keys[i].perVM:
			r.fail(at, "belongs to one VM: put it under [vm.NAME]")
		default:
			err := keys[i].set(vm, val)
			var in *inTable
			switch {
			case errors.As(err, &in):
				r.fail(append(at, in.key), "%v", in.err)
			case err != nil:
				r.fail(at, "%v", err)
			}
		}
	}
}

// programsOnce refuses a program that two VMs claim: the reading order would decide where it
// runs.
func (r *reader) programsOnce(c *Config) {
	owner := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.VMs)) {
		for _, p := range c.VMs[name].Programs {
			if first, ok := owner[p]; ok && first != name {
				r.fail([]string{"vm", name, "programs"}, "%q is already listed by [vm.%s]", p, first)
			}
			owner[p] = name
		}
	}
}
