package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"vix/internal/plain"
)

// Limits of the values. Each is far above normal use and far below harm.
const (
	MinMemory = Size(128 << 20) // a VM with less does not boot
	MaxMemory = Size(1 << 40)
	MaxCPUs   = 64
	MaxWeight = 10000 // cgroup v2's limit
	MaxTag    = 32    // runes: a tag must leave space for the title
	MaxRoot   = 1024  // bytes of a path
	MaxList   = 256   // programs of one VM
	MaxWord   = 128   // bytes of one program's name
	MaxLimit  = int64(1) << 40
)

// A key is one setting of a VM: its name, its built-in default, what it means,
// how a decoded TOML value is checked and stored, and how it is given back: as a string, an
// int64, a bool, a []string or a map[string]int64. An empty string, a nil slice and an empty
// map are not set.
type key struct {
	name  string
	def   string // as written in the file
	perVM bool   // not allowed under [defaults]
	doc   string
	set   func(*VM, any) error
	get   func(*VM) any
}

var keys = []key{
	{"accel", `"auto"`, false,
		`How the VM's processor is made: "kvm", "tcg" (emulation, slow), or "auto", which is KVM where it truly works.`,
		func(v *VM, x any) (err error) { v.Accel, err = oneOf(x, "auto", "kvm", "tcg"); return },
		func(v *VM) any { return v.Accel }},
	{"allow", `none`, false,
		`Names of Wayland interfaces that the VM's programs may use besides those of the built-in list, such as "zwp_pointer_constraints_v1". Each is a risk; a VM's start says which.`,
		func(v *VM, x any) (err error) { v.Allow, err = interfaces(x); return },
		func(v *VM) any { return v.Allow }},
	{"channel", `"auto"`, false,
		`What carries commands and their output between the host and the VM: "vsock" (through the host's kernel, with /dev/vhost-vsock), "serial" (a port of QEMU), or "auto", which is vsock if the kernels of the host and the VM support it, else serial.`,
		func(v *VM, x any) (err error) {
			v.Channel, err = oneOf(x, ChannelAuto, ChannelVsock, ChannelSerial)
			return
		},
		func(v *VM) any { return v.Channel }},
	{"clipboard", `"isolated"`, false,
		`What crosses the clipboard without any action of yours: "isolated" (nothing), "shared-out" (what the VM's programs copy while they have the focus, to the host), "shared-in" (what is copied on the host, to the VM while one of its windows has the focus), or "shared" (both). A [[clipboard.rule]] says how much and of what kind, and one that does not "allow" prevents it. The start of the VM warns of the risk.`,
		func(v *VM, x any) (err error) {
			v.Clipboard, err = oneOf(x, ClipIsolated, ClipSharedOut, ClipSharedIn, ClipShared)
			return
		},
		func(v *VM) any { return v.Clipboard }},
	{"color", `the one of these that the fewest VMs have when the VM first starts; it stays`, false,
		`Colour of the VM's frame: "#rrggbb", or one of ` + strings.Join(paletteNames(), ", ") + `.`,
		func(v *VM, x any) (err error) { v.Color, err = parseColor(x); return },
		func(v *VM) any { return string(v.Color) }},
	{"cpu-weight", `100`, false,
		fmt.Sprintf("The VM's share of the processors when they are busy, 1 to %d; 100 is what any other program of yours has. It holds where the VM gets a control group of its own (see vix doctor).", MaxWeight),
		func(v *VM, x any) (err error) { v.CPUWeight, err = intIn(x, 1, MaxWeight); return },
		func(v *VM) any { return int64(v.CPUWeight) }},
	{"cpus", `2`, false,
		fmt.Sprintf("Number of virtual processors, 1 to %d.", MaxCPUs),
		func(v *VM, x any) (err error) { v.CPUs, err = intIn(x, 1, MaxCPUs); return },
		func(v *VM) any { return int64(v.CPUs) }},
	{"deny", `none`, false,
		`Names of Wayland interfaces that the VM's programs may not use, though the built-in list (or allow) has them.`,
		func(v *VM, x any) (err error) { v.Deny, err = interfaces(x); return },
		func(v *VM) any { return v.Deny }},
	{"desktop", `what is said below`, false,
		`Which of the VM's programs "vix desktop sync" makes desktop entries for, and the menu shows: ids of .desktop files, names of programs, or patterns such as "org.gnome.*"; "*" is all. If not set: those of programs; if that is not set either, none with the root "host", and all with another. An empty list is none.`,
		func(v *VM, x any) (err error) { v.Desktop, err = patterns(x); return },
		func(v *VM) any { return v.Desktop }},
	{"frame", `"full"`, false,
		`What marks the VM's windows in its color: "full" (a frame with the VM's tag as a label), "border" (a thin frame), or "none" (only the title tells which VM a window belongs to; a VM's start warns).`,
		func(v *VM, x any) (err error) { v.Frame, err = oneOf(x, "full", "border", "none"); return },
		func(v *VM) any { return v.Frame }},
	{"gui", `true`, false,
		`Whether the VM has a display: with false its programs cannot open windows, and it needs no compositor (over ssh, say).`,
		func(v *VM, x any) (err error) { v.NoGUI, err = no(x); return },
		func(v *VM) any { return !v.NoGUI }},
	{"initrd", `none`, false,
		`Path of an initrd (initramfs) with the modules of "kernel". Vix makes the guest's own from it: what else is in it is not used.`,
		func(v *VM, x any) (err error) { v.Initrd, err = hostPath(x); return },
		func(v *VM) any { return v.Initrd }},
	{"kernel", `the host's newest`, false,
		`Path of a kernel image (bzImage) that the VM boots. Its modules are those of "initrd", or lib/modules beside the image, or the host's; without any, all that a guest needs must be built in.`,
		func(v *VM, x any) (err error) { v.Kernel, err = hostPath(x); return },
		func(v *VM) any { return v.Kernel }},
	{"limits", `generous ones`, false,
		`A table of what the VM may have of the compositor at a time, such as [vm.NAME.limits] with surfaces = 4000. vix-waylandproxy(1) lists the names and the defaults.`,
		func(v *VM, x any) (err error) { v.Limits, err = limits(v.Limits, x); return },
		func(v *VM) any { return v.Limits }},
	{"memory", `"512M"`, false,
		fmt.Sprintf("Memory of the VM, %s to %s, as a number with K, M, G or T (powers of 1024). The files that programs write also live in it, in half of it at most; then there is no space left.", MinMemory, MaxMemory),
		func(v *VM, x any) (err error) { v.Memory, err = parseMemory(x); return },
		func(v *VM) any { return v.Memory.String() }},
	{"memory-min", `"128M"`, false,
		fmt.Sprintf("What the VM keeps of its memory, %s to %s, when the host is short of it and the VM is idle. As much as memory: nothing is taken from this VM, but what its programs have freed.", MinMemory, MaxMemory),
		func(v *VM, x any) (err error) { v.MemoryMin, err = parseMemory(x); return },
		func(v *VM) any { return v.MemoryMin.String() }},
	{"mime", `none`, false,
		`MIME types of files that the VM's desktop entries offer to open, as far as their programs do, such as "application/pdf" or "image/*". The program then sees that file alone, read-only.`,
		func(v *VM, x any) (err error) { v.MIME, err = mimeTypes(x); return },
		func(v *VM) any { return v.MIME }},
	{"net", `"none"`, false,
		`The VM's network: "none" (no network card at all), or "nat" (what this machine reaches by IPv4, but for its own 127.0.0.1).`,
		func(v *VM, x any) (err error) { v.Net, err = oneOf(x, NetNone, NetNAT); return },
		func(v *VM) any { return v.Net }},
	{"packages", `none`, false,
		`Packages that a root "debian:SUITE" is built with, besides the little that every Debian has.`,
		func(v *VM, x any) (err error) { v.Packages, err = packages(x); return },
		func(v *VM) any { return v.Packages }},
	{"programs", `none`, true,
		`Names of programs that "vix run" starts in this VM when --vm is not given. A program may stand in one VM only.`,
		func(v *VM, x any) (err error) { v.Programs, err = words(x); return },
		func(v *VM) any { return v.Programs }},
	{"publish", `none`, true,
		fmt.Sprintf(`Ports of this machine that lead to the VM's, up to %d, each as "[ADDR:]HOSTPORT:GUESTPORT[/udp]"; without ADDR the port is bound to 127.0.0.1. Needs net = "nat".`, MaxPublish),
		func(v *VM, x any) (err error) { v.Publish, err = publishes(x); return },
		func(v *VM) any { return written(v.Publish) }},
	{"root", `"host"`, false,
		`Where the VM's programs come from, read-only: "host" (a view of the host's own /usr, /etc in part, no home directories); "debian:SUITE" (a Debian of its own with packages, built at the first run by mmdebstrap, shared by all VMs with the same); "image:PATH" (a disk image, raw or qcow2, or a file system in a file: ext4, squashfs, erofs or xfs); or the absolute path of a directory that holds a Linux system.`,
		func(v *VM, x any) (err error) { v.Root, err = parseRoot(x); return },
		func(v *VM) any { return v.Root }},
	{"shares", `none`, false,
		fmt.Sprintf(`Folders of the host's that the VM's programs see, up to %d, each as "HOSTDIR[:GUESTPATH][:ro|rw]": read-only if not "rw", at %s/NAME if no GUESTPATH is given; "~/" is your home directory. "staging" is an empty folder of its own for each run, at a path that is not to be guessed.`, MaxShares, ShareDir),
		func(v *VM, x any) (err error) { v.Shares, err = shares(x); return },
		func(v *VM) any { return written(v.Shares) }},
	{"state", `"home"`, false,
		`What is kept when the VM stops: "home" (the home directory of its user, in $XDG_STATE_HOME/vix/vms/NAME; all else is thrown away), or "none" (nothing, as with --disposable).`,
		func(v *VM, x any) (err error) { v.State, err = oneOf(x, "home", "none"); return },
		func(v *VM) any { return v.State }},
	{"tag", `the VM's name`, true,
		fmt.Sprintf("Text before the title of each of the VM's windows, up to %d printable characters.", MaxTag),
		func(v *VM, x any) (err error) { v.Tag, err = parseTag(x); return },
		func(v *VM) any { return v.Tag }},
	{"usb", `none`, true,
		fmt.Sprintf(`USB devices of this machine that the VM is given whenever they are plugged in, up to %d, each as "VENDOR:PRODUCT" (as lsusb shows it) or "BUS.PORT". See vix usb.`, MaxUSB),
		func(v *VM, x any) (err error) { v.USB, err = usbDevices(x); return },
		func(v *VM) any { return written(v.USB) }},
	{"workspace", `none`, false,
		`Workspace of sway on which the VM's windows open, such as "3" or "web".`,
		func(v *VM, x any) (err error) { v.Workspace, err = workspace(x); return },
		func(v *VM) any { return v.Workspace }},
}

// Transports of the agent's channel.
const (
	ChannelAuto   = "auto"
	ChannelVsock  = "vsock"
	ChannelSerial = "serial"
)

func builtin() VM {
	return VM{
		Memory: 512 << 20, MemoryMin: MinMemory, CPUs: 2, CPUWeight: 100,
		Root: RootHost, Accel: "auto", Frame: "full", State: "home", Net: NetNone, Clipboard: ClipIsolated, Channel: ChannelAuto,
	}
}

func keyNames(defaults bool) []string {
	var names []string
	for _, k := range keys {
		if !defaults || !k.perVM {
			names = append(names, k.name)
		}
	}
	return names
}

// A KeyDoc explains one key.
type KeyDoc struct {
	Name, Default, Doc string
	PerVM              bool // only under [vm.NAME]
}

// Keys returns the documentation of every key, sorted by name.
func Keys() []KeyDoc {
	docs := make([]KeyDoc, len(keys))
	for i, k := range keys {
		docs[i] = KeyDoc{Name: k.name, Default: k.def, Doc: k.doc, PerVM: k.perVM}
	}
	return docs
}

// Explain writes the meaning of every key, for a terminal.
func Explain(w io.Writer) error {
	for _, k := range Keys() {
		where := "[defaults] or [vm.NAME]"
		if k.PerVM {
			where = "[vm.NAME]"
		}
		if _, err := fmt.Fprintf(w, "%s  (%s; default: %s)\n    %s\n", k.Name, where, k.Default, k.Doc); err != nil {
			return err
		}
	}
	return explainMenu(w)
}

// A Size is a number of bytes.
type Size uint64

// String uses the largest unit that divides s: 512M, 1G.
func (s Size) String() string {
	for i, unit := range []string{"T", "G", "M", "K"} {
		if shift := 10 * (4 - i); s >= 1<<shift && s&(1<<shift-1) == 0 {
			return strconv.FormatUint(uint64(s>>shift), 10) + unit
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

// ParseMemory reads a VM's memory, such as 512M or 2G, and checks its range.
func ParseMemory(text string) (Size, error) {
	digits := strings.TrimRight(text, "KMGT")
	unit := text[len(digits):]
	n, err := strconv.ParseUint(digits, 10, 24) // 24 bits: no unit overflows
	if err != nil || len(unit) != 1 {
		if s, ok := meantSize(text); ok && s >= MinMemory && s <= MaxMemory && s&(1<<20-1) == 0 {
			return 0, fmt.Errorf("want %v, not %q", s, clip(text))
		}
		return 0, fmt.Errorf("want a size such as 512M or 2G, not %q", clip(text))
	}
	s := Size(n) << (10 * (1 + strings.Index("KMGT", unit)))
	if s < MinMemory || s > MaxMemory {
		return 0, fmt.Errorf("%s is out of range: want %s to %s", text, MinMemory, MaxMemory)
	}
	if s&(1<<20-1) != 0 {
		return 0, fmt.Errorf("%s is not a whole number of MiB", text)
	}
	return s, nil
}

var looseSize = regexp.MustCompile(`^([0-9]{1,7})(\.[0-9]{1,3})? *([KMGT])(I?B)?$`)

// meantSize reads what people write for a size elsewhere: "2 GB", "1.5g", "512MiB".
func meantSize(text string) (Size, bool) {
	m := looseSize.FindStringSubmatch(strings.ToUpper(strings.TrimSpace(text)))
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseFloat(m[1]+m[2], 64)
	return Size(n * float64(uint64(1)<<(10*(1+strings.Index("KMGT", m[3]))))), err == nil
}

func parseMemory(x any) (Size, error) {
	s, ok := x.(string)
	if !ok {
		return 0, fmt.Errorf(`want a size in quotes, with its unit, such as "512M" or "2G", not %s`, describe(x))
	}
	return ParseMemory(s)
}

// CheckCPUs checks a number of processors.
func CheckCPUs(n int) error {
	_, err := intIn(int64(n), 1, MaxCPUs)
	return err
}

func intIn(x any, low, high int64) (int, error) {
	n, ok := x.(int64)
	if !ok {
		return 0, wantNumber(x)
	}
	if n < low || n > high {
		return 0, fmt.Errorf("%d is out of range: want %d to %d", n, low, high)
	}
	return int(n), nil
}

// no reads a boolean and negates it.
func no(x any) (bool, error) {
	b, ok := x.(bool)
	if !ok {
		return false, wantBool(x)
	}
	return !b, nil
}

func oneOf(x any, valid ...string) (string, error) {
	s, ok := x.(string)
	if !ok || !slices.Contains(valid, s) {
		return "", fmt.Errorf(`want "%s" or "%s", not %s`, strings.Join(valid[:len(valid)-1], `", "`), valid[len(valid)-1], describe(x))
	}
	return s, nil
}

func parseRoot(x any) (string, error) {
	s, ok := x.(string)
	switch {
	case !ok:
		return "", wantText(x)
	case s == RootHost:
		return s, nil
	case len(s) > MaxRoot || !printable(s):
		return "", errors.New("not a usable path")
	}
	if low := strings.ToLower(s); slices.Contains(suites(), low) || low != s && slices.Contains(suites(), strings.TrimPrefix(low, RootDebian)) {
		return "", fmt.Errorf(`%q is no root; did you mean "%s%s"?`, clip(s), RootDebian, strings.TrimPrefix(low, RootDebian))
	}
	if suite, ok := strings.CutPrefix(s, RootDebian); ok {
		if !isIdentifier(suite, "-") || suite[0] == '-' {
			return "", fmt.Errorf(`%q is not the name of a suite of Debian; want one such as "debian:trixie"`, clip(suite))
		}
		if name, ok := debianSuites[suite]; ok {
			return "", fmt.Errorf("the suite of Debian %s is %s: want %q, not %q", suite, name, RootDebian+name, s)
		}
		return s, nil
	}
	if image, ok := strings.CutPrefix(s, RootImage); ok {
		if image == "~" || !strings.HasPrefix(image, "~/") && !filepath.IsAbs(image) {
			return "", fmt.Errorf(`want an absolute path after "image:", not %q`, clip(image))
		}
		return RootImage + filepath.Clean(image), nil
	}
	if !filepath.IsAbs(s) {
		return "", fmt.Errorf(`want "host", "debian:SUITE", "image:PATH" or an absolute path, not %q`, clip(s))
	}
	if s = filepath.Clean(s); s == "/" {
		return "", errors.New(`"/" would show the VM every file of this machine; want "host" or another directory`)
	}
	return s, nil
}

// debianSuites holds the names of Debian's releases: the mirrors know no release numbers.
var debianSuites = map[string]string{"11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}

func suites() []string { return slices.Sorted(maps.Values(debianSuites)) }

// hostPath reads an absolute path on the host, or one that begins with "~/".
func hostPath(x any) (string, error) {
	s, ok := x.(string)
	switch {
	case !ok:
		return "", wantText(x)
	case len(s) > MaxRoot || !printable(s) || !filepath.IsAbs(s) && !strings.HasPrefix(s, "~/"):
		return "", fmt.Errorf("want an absolute path, not %q", clip(s))
	}
	return filepath.Clean(s), nil
}

// Prefixes of a root that is not a directory.
const (
	RootDebian = "debian:"
	RootHost   = "host" // this machine's own programs
	RootImage  = "image:"
)

// packages reads a list of names of Debian packages (Debian policy, 5.6.1).
func packages(x any) ([]string, error) {
	return list(x, func(s string) error {
		if !IsPackage(s) {
			return fmt.Errorf("%q is not a package's name", clip(s))
		}
		return nil
	})
}

// IsPackage reports whether s can be the name of a Debian package.
func IsPackage(s string) bool {
	return isIdentifier(s, "+-.") && !strings.ContainsRune("+-.", rune(s[0]))
}

func parseTag(x any) (string, error) {
	s, ok := x.(string)
	switch {
	case !ok:
		return "", wantText(x)
	case s == "" || utf8.RuneCountInString(s) > MaxTag:
		return "", fmt.Errorf("want 1 to %d characters", MaxTag)
	case !printable(s) || strings.ContainsAny(s, "[]"):
		return "", errors.New("want printable characters without brackets")
	case strings.TrimSpace(s) != s:
		return "", errors.New("begins or ends with a space")
	}
	return s, nil
}

// words reads a list of program names.
func words(x any) ([]string, error) {
	return list(x, func(s string) error {
		if s == "" || len(s) > MaxWord || strings.ContainsRune(s, '/') || !printable(s) {
			return fmt.Errorf("%q is not a program's name", clip(s))
		}
		return nil
	})
}

// patterns reads a list of .desktop file ids, program names or path.Match patterns.
func patterns(x any) ([]string, error) {
	return list(x, func(s string) error {
		if _, err := path.Match(s, ""); err != nil || s == "" || len(s) > MaxWord || strings.ContainsRune(s, '/') || !printable(s) {
			return fmt.Errorf("%q is not a program's name, nor a pattern", clip(s))
		}
		return nil
	})
}

// mimeTypes reads a list of MIME types; the subtype may be "*".
func mimeTypes(x any) ([]string, error) {
	return list(x, func(s string) error {
		kind, sub, ok := strings.Cut(s, "/")
		if !ok || !isIdentifier(kind, "-") || sub != "*" && !isIdentifier(sub, "+-.") {
			return fmt.Errorf(`%q is not a MIME type such as "image/png" or "image/*"`, clip(s))
		}
		return nil
	})
}

// workspace reads a workspace's name, which becomes part of a sway command.
func workspace(x any) (string, error) {
	s, ok := x.(string)
	switch {
	case !ok:
		return "", wantText(x)
	case s == "" || utf8.RuneCountInString(s) > MaxTag:
		return "", fmt.Errorf("want 1 to %d characters", MaxTag)
	case !printable(s) || strings.ContainsAny(s, "\"'`\\;,$[]{}") || strings.TrimSpace(s) != s || s[0] == '-':
		return "", errors.New("want letters, digits, spaces and ':', '.', '_', '-', '+' (not first)")
	case slices.Contains([]string{"next", "prev", "next_on_output", "prev_on_output", "current", "back_and_forth", "number"}, s):
		return "", fmt.Errorf("%q has another meaning in sway", s)
	}
	return s, nil
}

// interfaces reads a list of names of Wayland interfaces.
func interfaces(x any) ([]string, error) {
	return list(x, func(s string) error {
		if !isIdentifier(s, "_") {
			return fmt.Errorf("%q is not an interface's name", clip(s))
		}
		return nil
	})
}

// isIdentifier reports whether s consists of lower-case letters, digits and mark.
func isIdentifier(s, mark string) bool {
	return s != "" && len(s) <= MaxWord && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789"+mark) == ""
}

// limits reads a table of limits, which override those in base.
func limits(base map[string]int64, x any) (map[string]int64, error) {
	t, ok := x.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("want a table such as { surfaces = 4000 }, not %s", describe(x))
	}
	if len(t) > MaxList {
		return nil, fmt.Errorf("%d entries; at most %d", len(t), MaxList)
	}
	out := maps.Clone(base) // the defaults' map is shared by every VM
	if out == nil {
		out = map[string]int64{}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(t)) {
		n, ok := t[name].(int64)
		switch {
		case !isIdentifier(name, "-"):
			errs = append(errs, &KeyError{[]string{name}, errors.New("not a limit's name")})
		case !ok:
			errs = append(errs, &KeyError{[]string{name}, wantNumber(t[name])})
		case n < 1 || n > MaxLimit:
			errs = append(errs, &KeyError{[]string{name}, fmt.Errorf("%d is out of range: want 1 to %d", n, MaxLimit)})
		}
		out[name] = n
	}
	return out, errors.Join(errs...)
}

// list reads an array of distinct strings, and checks each with check.
func list(x any, check func(string) error) ([]string, error) {
	array, ok := x.([]any)
	if !ok {
		return nil, wantList(x)
	}
	if len(array) > MaxList {
		return nil, fmt.Errorf("%d entries; at most %d", len(array), MaxList)
	}
	out := make([]string, 0, len(array))
	var errs []error
	for _, e := range array {
		s, ok := e.(string)
		if !ok {
			errs = append(errs, fmt.Errorf(`want texts in quotes, such as ["a", "b"]; one entry is %s`, describe(e)))
			continue
		}
		if err := check(s); err != nil {
			errs = append(errs, err)
		} else if slices.Contains(out, s) {
			errs = append(errs, fmt.Errorf("%q stands twice", clip(s)))
		}
		out = append(out, s)
	}
	return out, errors.Join(errs...)
}

// written returns values as they stand in the file.
func written[T fmt.Stringer](list []T) []string {
	if list == nil {
		return nil
	}
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return texts
}

// printable reports whether s is plain text of one line, fit for a title or a terminal.
func printable(s string) bool {
	return plain.Text(s, len(s), plain.OneLine) == s
}

// clip shortens a text that a message quotes.
func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
