package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	c, err := Parse("config.toml", []byte(`
[defaults]
memory = "1G"
color = "teal"

[vm.web]
memory = "2G"
cpus = 4
tag = "the web"
color = "#A0b0C0"
programs = ["firefox", "chromium"]

[vm."old"]
root = "/srv//bookworm/"
accel = "tcg"
`))
	if err != nil {
		t.Fatal(err)
	}
	web, err := c.VMFor("/usr/bin/firefox")
	if err != nil || web.Name != "web" || web.Memory != 2<<30 || web.CPUs != 4 || web.Tag != "the web" || web.Color != "#a0b0c0" || web.Root != "host" {
		t.Errorf("firefox runs in %+v, %v", web, err)
	}
	old, _ := c.VM("old")
	if old.Root != "/srv/bookworm" || old.Accel != "tcg" || old.Memory != 1<<30 || old.Color != "#0f9d9d" || old.Tag != "old" {
		t.Errorf("old = %+v", old)
	}
	foot, _ := c.VMFor("foot")
	if foot.Name != "foot" || foot.Memory != 1<<30 || foot.CPUs != 2 || foot.Frame != "full" {
		t.Errorf("foot = %+v", foot)
	}
}

func TestPolicyKeys(t *testing.T) {
	c, err := Parse("c", []byte(`
[defaults]
deny = ["wl_data_device_manager"]
frame = "border"
limits = { surfaces = 10, popups = 3 }

[vm.web]
allow = ["zwp_pointer_constraints_v1"]
frame = "none"
[vm.web.limits]
blob-bytes = 20
`))
	if err != nil {
		t.Fatal(err)
	}
	web, other := c.VMs["web"], c.Defaults
	if web.Frame != "none" || !slices.Equal(web.Allow, []string{"zwp_pointer_constraints_v1"}) || !slices.Equal(web.Deny, []string{"wl_data_device_manager"}) ||
		!maps.Equal(web.Limits, map[string]int64{"blob-bytes": 20, "surfaces": 10, "popups": 3}) {
		t.Errorf("web: %+v", web)
	}
	if other.Frame != "border" || other.Limits["surfaces"] != 10 {
		t.Errorf("defaults: %+v", other)
	}
}

func TestDefaultColorIsStable(t *testing.T) {
	for name, want := range map[string]Color{"web": "#e07b00", "demo": "#2f6fde", "foot": "#0f9d9d"} {
		if got := ColorFor(name); got != want {
			t.Errorf("ColorFor(%q) = %s, was %s: users know their VMs by colour", name, got, want)
		}
	}
}

// Every mistake is one line with file, line, key and advice. Each case stands for a bad value
// of one key.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"syntax", "[defaults]\nmemory = \n", "c:2: expected value but found '\\n' instead"},
		{"table twice", "[vm.a]\n\n[vm.b]\n[vm.a]\n", "c:4: vm.a: appears twice; the first is on line 1"},
		{"no quotes", "[vm.a]\ncolor = red\n", `c:2: red is not a value; text needs quotes: "red"`},
		{"top level", "memory = \"2G\"\n", "c:1: memory: belongs to a VM; put it under [defaults] or [vm.NAME]"},
		{"top level, one VM's", "tag = \"x\"\n", "c:1: tag: belongs to one VM; put it under [vm.NAME]"},
		{"a VM's table", "[web]\nmemory = \"1G\"\n", "c:1: web: unknown table; for a VM, write [vm.web]; valid here: clipboard, defaults, menu, vm"},
		{"nearly a table", "[defaluts]\n", `c:1: defaluts: unknown key; did you mean "defaults"?`},
		{"a suite's number", "[vm.a]\nroot = \"debian:13\"\n", `c:2: vm.a.root: "debian:13" is the suite "debian:trixie"`},
		{"twice", "[vm.a]\ncpus = 1\ncpus = 2\n", "c:3: vm.a.cpus: appears twice; the first is on line 2"},
		{"unknown table", "[default]\n", `c:1: default: unknown key; did you mean "defaults"?`},
		{"menu, unknown key", "[menu]\nlinse = 3\n", `c:2: menu.linse: unknown key; did you mean "lines"?`},
		{"menu, too wide", "[menu]\nwidth = 9999\n", `c:2: menu.width: 9999 is out of range: want 320 to 2000`},
		{"menu, no theme", "[menu]\ntheme = \"pink\"\n", `c:2: menu.theme: want auto, light, dark, not "pink"`},
		{"menu, no family", "[menu]\nfont = \"a:b\"\n", `c:2: menu.font: "a:b" is not a name`},
		{"menu, no table", "menu = 1\n", `c:1: menu: want a table, not an integer`},
		{"unknown table, far", "\n[network]\n", `c:2: network: unknown table; for a VM, write [vm.network]; valid here: clipboard, defaults, menu, vm`},
		{"unknown key", "[vm.web]\ncpus = 2\nmemroy = \"1G\"\n", `c:3: vm.web.memroy: unknown key; did you mean "memory"?`},
		{"British", "[vm.web]\ncolour = \"red\"\n", `c:2: vm.web.colour: unknown key; did you mean "color"?`},
		{"unknown key, far", "[vm.web]\nxyzzyxyzzy = 1\n", "c:2: vm.web.xyzzyxyzzy: unknown key; valid here: " + strings.Join(keyNames(false), ", ")},
		{"first in the file", "[vm.b]\nzzzzzz = 1\n[vm.a]\nyyyyyy = 1\n", "c:2: vm.b.zzzzzz: unknown key; valid here: " + strings.Join(keyNames(false), ", ")},
		{"dotted", "vm.web.cpus = 0\n", "c:1: vm.web.cpus: 0 is out of range: want 1 to 64"},
		{"inline", "vm = {\n  web = { cpus = 0 } }\n", "c:1: vm.web.cpus: 0 is out of range: want 1 to 64"},
		{"after a long string", "[vm.a]\ntag = '''\n[vm.b]\ncpus = 0'''\n[vm.b]\ncpus = 'x'\n", "c:2: vm.a.tag: want printable characters without brackets"},
		{"defaults is no table", "defaults = 1\n", "c:1: defaults: want a table, not an integer"},
		{"vm is no table", "vm = true\n", "c:1: vm: want tables such as [vm.web], not a boolean"},
		{"vm is an array", "[[vm]]\n", "c:1: vm: want tables such as [vm.web], not an array"},
		{"a VM is no table", "[vm]\nweb = 2024-01-01\n", "c:2: vm.web: want a table, not a date"},
		{"VM name: path", "[vm.\"../x\"]\n", `c:1: vm."../x": VM name "../x": want only a-z, 0-9, '-' and '_'`},
		{"VM name: option", "[vm.-rf]\n", `c:1: vm.-rf: VM name "-rf": must begin with a letter or digit`},
		{"VM name: empty", "[vm.\"\"]\n", `c:1: vm."": a VM's name must not be empty`},
		{"VM name: case", "[vm.Web]\n", `c:1: vm.Web: VM name "Web": want only a-z, 0-9, '-' and '_'`},
		{"VM name: long", "[vm." + strings.Repeat("a", 33) + "]\n", `c:1: vm.` + strings.Repeat("a", 33) + `: VM name "` + strings.Repeat("a", 33) + `": longer than 32 characters`},
		{"memory: type", "[vm.web]\nmemory = 512\n", `c:2: vm.web.memory: want a string such as "512M", not an integer`},
		{"memory: unit", "[vm.web]\nmemory = \"1 GB\"\n", `c:2: vm.web.memory: want a size such as 512M or 2G, not "1 GB"`},
		{"memory: negative", "[vm.web]\nmemory = \"-1G\"\n", `c:2: vm.web.memory: want a size such as 512M or 2G, not "-1G"`},
		{"memory: small", "[defaults]\nmemory = \"64M\"\n", `c:2: defaults.memory: 64M is out of range: want 128M to 1T`},
		{"memory: large", "[defaults]\nmemory = \"16777215T\"\n", `c:2: defaults.memory: 16777215T is out of range: want 128M to 1T`},
		{"memory: odd", "[defaults]\nmemory = \"200001K\"\n", `c:2: defaults.memory: 200001K is not a whole number of MiB`},
		{"cpus: type", "[vm.web]\ncpus = \"2\"\n", `c:2: vm.web.cpus: want an integer, not a string`},
		{"cpus: float", "[vm.web]\ncpus = 2.0\n", `c:2: vm.web.cpus: want an integer, not a float`},
		{"cpus: many", "[vm.web]\ncpus = 65\n", `c:2: vm.web.cpus: 65 is out of range: want 1 to 64`},
		{"tag: type", "[vm.web]\ntag = 1\n", `c:2: vm.web.tag: want a string, not an integer`},
		{"tag: empty", "[vm.web]\ntag = \"\"\n", `c:2: vm.web.tag: want 1 to 32 characters`},
		{"tag: bidi", "[vm.web]\ntag = \"a\\u202Eb\"\n", `c:2: vm.web.tag: want printable characters without brackets`},
		{"tag: bracket", "[vm.web]\ntag = \"x] [vault\"\n", `c:2: vm.web.tag: want printable characters without brackets`},
		{"tag: space", "[vm.web]\ntag = \" x\"\n", `c:2: vm.web.tag: begins or ends with a space`},
		{"tag: defaults", "[defaults]\ntag = \"x\"\n", `c:2: defaults.tag: belongs to one VM: put it under [vm.NAME]`},
		{"color: type", "[vm.web]\ncolor = 0xff0000\n", `c:2: vm.web.color: want a string, not an integer`},
		{"color: name", "[vm.web]\ncolor = \"mauve\"\n", `c:2: vm.web.color: want "#rrggbb" or one of red, orange, yellow, lime, green, teal, blue, indigo, purple, pink, brown, gray, not "mauve"`},
		{"color: hex", "[vm.web]\ncolor = \"#12345g\"\n", `c:2: vm.web.color: want "#rrggbb" or one of red, orange, yellow, lime, green, teal, blue, indigo, purple, pink, brown, gray, not "#12345g"`},
		{"root: type", "[vm.web]\nroot = []\n", `c:2: vm.web.root: want a string, not an array`},
		{"root: relative", "[vm.web]\nroot = \"srv\"\n", `c:2: vm.web.root: want "host", "debian:SUITE", "image:PATH" or an absolute path, not "srv"`},
		{"root: everything", "[vm.web]\nroot = \"/..\"\n", `c:2: vm.web.root: "/" would show the VM every file of this machine; want "host" or another directory`},
		{"root: control", "[vm.web]\nroot = \"/a\\nb\"\n", `c:2: vm.web.root: not a usable path`},
		{"root: suite", "[vm.web]\nroot = \"debian:../x\"\n", `c:2: vm.web.root: "../x" is not the name of a suite of Debian; want one such as "debian:trixie"`},
		{"root: no suite", "[vm.web]\nroot = \"debian:\"\n", `c:2: vm.web.root: "" is not the name of a suite of Debian; want one such as "debian:trixie"`},
		{"root: image", "[vm.web]\nroot = \"image:disk.raw\"\n", `c:2: vm.web.root: want an absolute path after "image:", not "disk.raw"`},
		{"packages: option", "[vm.web]\npackages = [\"-o\"]\n", `c:2: vm.web.packages: "-o" is not a package's name`},
		{"packages: comma", "[vm.web]\npackages = [\"a,b\"]\n", `c:2: vm.web.packages: "a,b" is not a package's name`},
		{"state: value", "[vm.web]\nstate = \"all\"\n", `c:2: vm.web.state: want home, none, not "all"`},
		{"shares: type", "[vm.web]\nshares = \"/srv\"\n", `c:2: vm.web.shares: want an array of strings, not a string`},
		{"shares: relative", "[vm.web]\nshares = [\"srv\"]\n", `c:2: vm.web.shares: want an absolute path on the host, one that begins with "~/", or "staging", not "srv"`},
		{"shares: same place", "[vm.web]\nshares = [\"/a/x\", \"/b/x:rw\"]\n", `c:2: vm.web.shares: two shares at /mnt/x in the guest`},
		{"accel: type", "[vm.web]\naccel = true\n", `c:2: vm.web.accel: want a string, not a boolean`},
		{"channel: value", "[defaults]\nchannel = \"virtio\"\n", `c:2: defaults.channel: want auto, vsock, serial, not "virtio"`},
		{"accel: value", "[vm.web]\naccel = \"xen\"\n", `c:2: vm.web.accel: want auto, kvm, tcg, not "xen"`},
		{"programs: type", "[vm.web]\nprograms = \"firefox\"\n", `c:2: vm.web.programs: want an array of strings, not a string`},
		{"programs: entry", "[vm.web]\nprograms = [\"a\", 1]\n", `c:2: vm.web.programs: want an array of strings; one entry is an integer`},
		{"programs: path", "[vm.web]\nprograms = [\"/bin/sh\"]\n", `c:2: vm.web.programs: "/bin/sh" is not a program's name`},
		{"programs: twice", "[vm.web]\nprograms = [\"a\", \"a\"]\n", `c:2: vm.web.programs: "a" is listed twice`},
		{"programs: two VMs", "[vm.web]\nprograms = [\"a\"]\n[vm.b]\nprograms = [\"a\"]\n", `c:2: vm.web.programs: "a" is already listed by [vm.b]`},
		{"programs: defaults", "[defaults]\nprograms = []\n", `c:2: defaults.programs: belongs to one VM: put it under [vm.NAME]`},
		{"frame: type", "[vm.web]\nframe = 1\n", `c:2: vm.web.frame: want a string, not an integer`},
		{"frame: value", "[vm.web]\nframe = \"thick\"\n", `c:2: vm.web.frame: want full, border, none, not "thick"`},
		{"allow: type", "[vm.web]\nallow = \"x\"\n", `c:2: vm.web.allow: want an array of strings, not a string`},
		{"allow: name", "[vm.web]\nallow = [\"wl-shm\"]\n", `c:2: vm.web.allow: "wl-shm" is not an interface's name`},
		{"deny: entry", "[vm.web]\ndeny = [{}]\n", `c:2: vm.web.deny: want an array of strings; one entry is a table`},
		{"deny: twice", "[defaults]\ndeny = [\"wl_shm\", \"wl_shm\"]\n", `c:2: defaults.deny: "wl_shm" is listed twice`},
		{"limits: type", "[vm.web]\nlimits = 3\n", `c:2: vm.web.limits: want a table such as { surfaces = 4000 }, not an integer`},
		{"limits: number", "[vm.web.limits]\nsurfaces = 3\npopups = \"3\"\n", `c:3: vm.web.limits.popups: want an integer, not a string`},
		{"limits: none", "[vm.web.limits]\n\npopups = 0\n", `c:3: vm.web.limits.popups: 0 is out of range: want 1 to 1099511627776`},
		{"limits: name", "[vm.web]\nlimits.\"a b\" = 0\n", `c:2: vm.web.limits."a b": not a limit's name`},
		{"memory-min: range", "[vm.web]\nmemory-min = \"64M\"\n", `c:2: vm.web.memory-min: 64M is out of range: want 128M to 1T`},
		{"cpu-weight: type", "[vm.web]\ncpu-weight = \"high\"\n", `c:2: vm.web.cpu-weight: want an integer, not a string`},
		{"cpu-weight: range", "[vm.web]\ncpu-weight = 0\n", `c:2: vm.web.cpu-weight: 0 is out of range: want 1 to 10000`},
		{"size", strings.Repeat("#", MaxFile+1), "c: larger than 256 KiB; is it the right file?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("c", []byte(tt.src))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := Load(root, "config.toml", "config.toml"); err != nil {
		t.Errorf("no file: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(root, "dir", "dir"); err == nil || err.Error() != "dir: not a regular file" {
		t.Errorf("a directory: %v", err)
	}
}

func TestNames(t *testing.T) {
	for base, want := range map[string]string{
		"firefox": "firefox", "org.gnome.Maps": "org-gnome-maps", "g++": "g", "..": "vm", "-rf": "rf",
		"": "vm", "日本": "vm", strings.Repeat("x", 300): strings.Repeat("x", 32),
	} {
		got := NameFor(base)
		if got != want {
			t.Errorf("NameFor(%q) = %q, want %q", base, got, want)
		}
		if err := CheckName(got); err != nil {
			t.Error(err)
		}
	}
}

// The man page and Explain must know every key.
func TestEveryKeyIsDocumented(t *testing.T) {
	man, err := os.ReadFile("../packaging/man/vix-config.toml.5.scd")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Explain(&out); err != nil {
		t.Fatal(err)
	}
	for _, k := range append(Keys(), MenuKeys()...) {
		if !strings.Contains(string(man), "*"+k.Name+"*") || !strings.Contains(out.String(), k.Name+"  (") {
			t.Errorf("key %s is not in the man page or not explained", k.Name)
		}
	}
}

// FuzzParse: no input panics; a mistake is one printable line with a line number; an accepted
// file obeys the documented limits; and the line index knows every key that the TOML decoder
// knows.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, src []byte) {
		// The fuzzer itself would wait for an input that hangs, and not save it.
		defer time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("hangs: %q", src)) }).Stop()
		c, err := Parse("c", src)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || strings.ContainsAny(e.Error(), "\n\r") || len(src) <= MaxFile && e.Line == 0 {
				t.Fatalf("%T %q", err, err)
			}
			return
		}
		for name, v := range c.VMs {
			if CheckName(name) != nil || v.Name != name || v.Memory < MinMemory || v.Memory > MaxMemory || v.CPUs < 1 || v.CPUs > MaxCPUs || v.Tag == "" || len(v.Color) != 7 {
				t.Fatalf("%q: %+v", name, v)
			}
		}
	})
}

// A fuzz target without a corpus tests nothing.
func TestCorpus(t *testing.T) {
	if files, _ := filepath.Glob("testdata/fuzz/FuzzParse/*"); len(files) < 5 {
		t.Fatalf("%d corpus files", len(files))
	}
}
