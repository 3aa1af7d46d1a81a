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
// valid one. All mistakes of the file are reported, except that only the first one of
// syntax is. What a mistake prevents depends on its place (errors.go): one in [vm.web]
// disables the VM web alone, one in [menu] gives the menu its default look, and any
// other prevents every start. Only the table keys (keys.go) knows the keys: reading,
// suggestions and documentation all come from it.
//
// The package reads only the file that it is given and never writes one; it does not
// look at the machine (a missing root is found when a VM starts).
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
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
	VMs      map[string]VM // complete: the defaults are filled in; without those of Disabled
	Menu     Menu          // the default look, if [menu] has a mistake

	Clipboard Clipboard

	given map[string]Color // of GiveColors
	uses  map[Color]int    // how many VMs have a colour

	// Disabled holds the VMs whose tables have mistakes. Errors has every mistake of the
	// file, in its order.
	Disabled map[string]Disabled
	Errors   Errors

	lost      map[string]string // a program that a disabled VM may have listed: that VM
	contested map[string]*Error // a program that two VMs list

	tree  map[string]any // as decoded, for Settings
	lines lineIndex
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
	Color     Color    `json:"color"`    // of the frame; GiveColors chooses by default
	NoColor   bool     `json:"-"`        // the file gives it no colour
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

// A Check finds what this package cannot know to be wrong of a VM. Its error, or each of
// those that it joins, is a *KeyError.
type Check func(VM) error

// Load reads the file name below dir, as Parse does. label is the file's full path, for
// errors. A missing file counts as empty.
func Load(dir *os.Root, name, label string, checks ...Check) (*Config, error) {
	f, err := dir.Open(name)
	if err != nil {
		st, lerr := dir.Lstat(name)
		switch {
		case lerr == nil && st.Mode()&fs.ModeSymlink != 0:
			return nil, Errors{{File: label, Msg: "is a link out of its directory, or to nothing, and is not followed; put the file itself here"}}
		case errors.Is(err, fs.ErrNotExist):
			return Parse(label, nil, checks...)
		}
		return nil, Errors{{File: label, Msg: "cannot be read: " + cause(err)}}
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && !st.Mode().IsRegular() {
		return nil, Errors{{File: label, Msg: "not a regular file"}}
	}
	src, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, Errors{{File: label, Msg: "cannot be read: " + cause(err)}}
	}
	return Parse(label, src, checks...)
}

// cause returns err without the path, which label already contains.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// Parse reads the text of a file. label is its name in errors. The error is of type Errors:
// all mistakes of the file, of which one at least prevents every start. Mistakes that do
// not are in the Config.
func Parse(label string, src []byte, checks ...Check) (*Config, error) {
	if len(src) > MaxFile {
		return nil, Errors{{File: label, Msg: fmt.Sprintf("larger than %d KiB; is it the right file?", MaxFile>>10)}}
	}
	var tree map[string]any
	if _, err := toml.Decode(string(src), &tree); err != nil {
		return nil, Errors{syntaxError(label, string(src), err)}
	}
	r := &reader{label: label, lines: indexLines(string(src)), checks: checks}
	c := r.config(tree)
	r.errs.sort()
	for _, d := range c.Disabled {
		d.Errors.sort()
	}
	if r.errs.Blocking() {
		return nil, r.errs
	}
	c.Errors = r.errs
	c.GiveColors(nil)
	return c, nil
}

// VM returns the configuration of the VM called name: from the file, or the defaults under
// that name. A disabled VM is a *DisabledError.
func (c *Config) VM(name string) (VM, error) {
	if err := CheckName(name); err != nil {
		return VM{}, err
	}
	if d, ok := c.Disabled[name]; ok {
		return VM{}, &DisabledError{Name: name, Errors: d.Errors}
	}
	if v, ok := c.VMs[name]; ok {
		return v, nil
	}
	v := c.Defaults
	v.fill(name)
	if v.NoColor {
		v.Color = c.colorFor(name)
	}
	return v, nil
}

// VMFor returns the VM in which program (a path or a name) runs when no VM is named: the
// VM that lists the program's base name, or else one named after it. A program that a
// disabled VM lists, or may have meant to list, runs nowhere else.
func (c *Config) VMFor(program string) (VM, error) {
	base := program[strings.LastIndexByte(program, '/')+1:]
	if e := c.contested[base]; e != nil {
		return VM{}, Errors{e}
	}
	if name, ok := c.lost[base]; ok {
		return c.VM(name)
	}
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
		v.NoColor, v.Color = true, palette[preferred(name)].rgb // until GiveColors
	}
}

// A reader walks a decoded file. It collects all mistakes.
type reader struct {
	label  string
	lines  lineIndex
	checks []Check
	errs   Errors
}

func (r *reader) fail(path []string, format string, args ...any) {
	_ = r.mistake(path, format, args...)
}

// mistake is fail, and returns what was added.
func (r *reader) mistake(path []string, format string, args ...any) *Error {
	e := &Error{
		File:  r.label,
		Line:  r.lines.of(path),
		Key:   toml.Key(path).String(),
		Msg:   fmt.Sprintf(format, args...),
		scope: scopeOf(path),
	}
	r.errs = append(r.errs, e)
	return e
}

// failEach reports err, or each of those that it joins.
func (r *reader) failEach(path []string, err error) {
	for _, err := range parts(err) {
		var in *KeyError
		if errors.As(err, &in) {
			r.fail(append(slices.Clone(path), in.Path...), "%v", in.Err)
		} else {
			r.fail(path, "%v", err)
		}
	}
}

// parts returns the errors that err joins, or err alone; nothing for nil.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	return []error{err}
}

func (r *reader) config(tree map[string]any) *Config {
	c := &Config{
		Defaults: builtin(), VMs: map[string]VM{}, Menu: builtinMenu(), Clipboard: defaultClipboard(),
		Disabled: map[string]Disabled{}, lost: map[string]string{}, contested: map[string]*Error{},
		tree: tree, lines: r.lines,
	}
	for name, v := range tree {
		switch name {
		case "defaults":
			r.defaults(v, &c.Defaults)
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
		r.fail([]string{"vm"}, "want tables such as [vm.web], not %s", describe(vms))
		return c
	}
	// In the order of the file: of two tables the second is reported.
	names := slices.SortedFunc(maps.Keys(tables), func(a, b string) int {
		return cmp.Or(r.lines.of([]string{"vm", a})-r.lines.of([]string{"vm", b}), cmp.Compare(a, b))
	})
	for _, name := range names {
		r.vm(name, tables, c)
	}
	for name, d := range c.Disabled {
		v, ok := c.VMs[name]
		if !ok {
			continue
		}
		// Another table has a name that looks like it.
		for _, program := range v.Programs {
			c.lost[program] = name
		}
		v.Programs, v.Shares = slices.Concat(v.Programs, d.VM.Programs), slices.Concat(v.Shares, d.VM.Shares)
		c.Disabled[name] = Disabled{VM: v, Errors: d.Errors}
		delete(c.VMs, name)
	}
	r.programsOnce(names, tables, c)
	return c
}

func (r *reader) defaults(v any, d *VM) {
	path := []string{"defaults"}
	r.table(path, v, d, true)
	named := *d
	named.fill("defaults") // a check is of a whole VM
	r.check(path, v, named)
}

// check reports what the checks find wrong of v, as far as it stands in the table t: what is
// inherited was reported there.
func (r *reader) check(path []string, t any, v VM) {
	table, _ := t.(map[string]any)
	for _, check := range r.checks {
		for _, err := range parts(check(v)) {
			var in *KeyError
			if errors.As(err, &in) && table[in.Path[0]] != nil {
				r.failEach(path, in)
			}
		}
	}
}

// vm reads one table below [vm]. Its mistakes disable the VM of that name. A name that no
// VM can have disables the VM that it looks like: its settings are not to be lost.
func (r *reader) vm(name string, tables map[string]any, c *Config) {
	before := len(r.errs)
	path := []string{"vm", name}
	switch tables[name].(type) {
	case map[string]any, []map[string]any:
	default:
		if slices.Contains(keyNames(false), name) {
			r.mistake(path, "belongs to a VM; put it under [defaults] or [vm.NAME]").scope = blocking
		} else {
			r.mistake(path, "%v", wantTable(toml.Key(path).String(), tables[name])).scope = blocking
		}
		return
	}
	own := name
	if err := CheckName(name); err != nil {
		own = NameFor(name)
		hint := ""
		if _, ok := tables[own]; ok {
			hint = fmt.Sprintf("; [vm.%s] is on line %d", own, r.lines.of([]string{"vm", own}))
		} else if name != "" && reservedNames[name] == "" {
			hint = fmt.Sprintf("; did you mean [vm.%s]?", own)
		}
		r.fail(path, "%v%s", err, hint)
	}
	v := c.Defaults
	r.table(path, tables[name], &v, false)
	v.fill(own)
	ofNet := func(e *Error) bool { return strings.HasSuffix(e.Key, ".net") || strings.HasSuffix(e.Key, ".publish") }
	if err := v.checkNetwork(); err != nil && !slices.ContainsFunc(r.errs[before:], ofNet) {
		r.fail(append(slices.Clone(path), "publish"), "%v", err)
	}
	r.check(path, tables[name], v)
	mistakes := slices.Clone(r.errs[before:])
	if len(mistakes) == 0 {
		c.VMs[name] = v
		return
	}
	t, ok := tables[name].(map[string]any)
	if !ok {
		t = map[string]any{"": tables[name]}
	}
	for key, val := range t {
		meant := key
		if !slices.Contains(keyNames(false), key) {
			meant = cmp.Or(nearest(key, keyNames(false)), "programs")
		}
		for _, text := range texts(val) {
			v.meant(meant, text)
		}
	}
	for _, program := range v.Programs {
		c.lost[program] = own
	}
	d := c.Disabled[own]
	v.Programs = append(v.Programs[:len(v.Programs):len(v.Programs)], d.VM.Programs...)
	v.Shares = append(v.Shares[:len(v.Shares):len(v.Shares)], d.VM.Shares...)
	c.Disabled[own] = Disabled{VM: v, Errors: append(d.Errors, mistakes...)}
}

// meant adds a text to what a VM that does not start has: what is its must not start, or be
// shared, as if it were nobody's. key is the key that the text stands under, or is likely to
// be meant for.
func (v *VM) meant(key, text string) {
	switch key {
	case "programs":
		if base := text[strings.LastIndexByte(text, '/')+1:]; !slices.Contains(v.Programs, base) {
			v.Programs = append(slices.Clone(v.Programs), base)
		}
	case "desktop":
		if _, err := path.Match(text, ""); err == nil && !slices.Contains(v.Desktop, text) {
			v.Desktop = append(slices.Clone(v.Desktop), text)
		}
	case "shares":
		if s, err := ParseShare(text); err == nil && !slices.Contains(v.Shares, s) {
			v.Shares = append(slices.Clone(v.Shares), s)
		}
	}
}

// texts returns the strings in a decoded value.
func texts(x any) (list []string) {
	switch x := x.(type) {
	case string:
		return []string{x}
	case []any:
		for _, e := range x {
			list = append(list, texts(e)...)
		}
	case []map[string]any:
		for _, e := range x {
			list = append(list, texts(e)...)
		}
	case map[string]any:
		for _, e := range x {
			list = append(list, texts(e)...)
		}
	}
	return list
}

// misplaced explains an unknown key or table of the top level.
func misplaced(name string, v any) string {
	valid := []string{"clipboard", "defaults", "menu", "vm"}
	_, table := v.(map[string]any)
	near := nearest(name, valid)
	switch {
	case !table && slices.Contains(keyNames(true), name):
		return "belongs to a VM; put it under [defaults] or [vm.NAME]"
	case !table && slices.Contains(keyNames(false), name):
		return "belongs to one VM; put it under [vm.NAME]"
	case table && near != "":
		return fmt.Sprintf("unknown table; did you mean [%s]?", near)
	case table && CheckName(name) == nil:
		return fmt.Sprintf("unknown table; did you mean [vm.%s]?", name)
	case table:
		return "unknown table; there are [" + strings.Join(valid, "], [") + ".NAME]"
	case near == "":
		return "unknown key; the keys are in tables: [" + strings.Join(valid, "], [") + ".NAME]"
	}
	return fmt.Sprintf("unknown key; did you mean the table [%s]?", near)
}

// table reads the keys of one VM, or of the defaults, into vm. A key with a mistake leaves
// vm as it was.
func (r *reader) table(path []string, v any, vm *VM, defaults bool) {
	t, ok := v.(map[string]any)
	if !ok {
		r.fail(path, "%v", wantTable(toml.Key(path).String(), v))
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
			before := *vm
			if err := keys[i].set(vm, val); err != nil {
				*vm = before
				r.failEach(at, err)
			}
		}
	}
}

// programsOnce finds programs that two VMs list: where would they run? Both VMs can start,
// but such a program needs the VM's name.
func (r *reader) programsOnce(names []string, tables map[string]any, c *Config) {
	first := map[string]string{}
	for _, name := range names {
		t, _ := tables[name].(map[string]any)
		for _, p := range texts(t["programs"]) {
			one, ok := first[p]
			switch {
			case !ok:
				first[p] = name
			case one != name && c.contested[p] == nil:
				at := r.lines.of([]string{"vm", one, "programs"})
				e := r.mistake([]string{"vm", name, "programs"}, "%q is already listed by [vm.%s] on line %d; take one of the two away, or name the VM with --vm", clip(p), one, at)
				e.scope, c.contested[p] = ofProgram, e
			}
		}
	}
}
