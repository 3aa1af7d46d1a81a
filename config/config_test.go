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
	c, err := Parse("c", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Color{"web": "#e07b00", "demo": "#2f6fde", "foot": "#0f9d9d"} {
		if v, err := c.VM(name); err != nil || v.Color != want {
			t.Errorf("%s: %s, %v; was %s: users know their VMs by colour", name, v.Color, err, want)
		}
	}
}

// Twelve VMs have twelve colours, whatever their names, one is in the file or not; what a VM
// was given stays when others come, and the file's word is above it.
func TestColorsDoNotCollide(t *testing.T) {
	src := "[vm.red]\ncolor = \"red\"\n"
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		src += "[vm." + name + "]\n"
	}
	given := map[string]Color{}
	for _, name := range []string{"f", "x1", "x2", "x3", "x4", "x5"} { // as they start
		c, err := Parse("c", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		c.GiveColors(given)
		v, err := c.VM(name)
		if err != nil {
			t.Fatal(err)
		}
		given[name] = v.Color
	}
	c, err := Parse("c", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	c.GiveColors(given)
	owner := map[Color]string{}
	for _, name := range []string{"red", "a", "b", "c", "d", "e", "f", "x1", "x2", "x3", "x4", "x5"} {
		v, err := c.VM(name)
		if other, twice := owner[v.Color]; err != nil || twice {
			t.Errorf("%s: %s, which %q has; %v", name, v.Color, other, err)
		}
		owner[v.Color] = name
		if was, ok := given[name]; ok && v.Color != was {
			t.Errorf("%s: %s, was given %s", name, v.Color, was)
		}
	}
	c.GiveColors(map[string]Color{"red": "#2a9d4a"})
	if v, _ := c.VM("red"); v.Color != "#d0312d" {
		t.Errorf("red: %s", v.Color)
	}
}

// Every mistake is one line with file, line, key and advice. Each case stands for a bad value
// of one key.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"syntax", "[defaults]\nmemory = \n", `c:2: the value is missing`},
		{"table twice", "[vm.a]\n\n[vm.b]\n[vm.a]\n", "c:4: vm.a: is there twice; the first is on line 1"},
		{"no quotes", "[vm.a]\ncolor = red\n", `c:2: text needs quotes: "red"`},
		{"top level", "memory = \"2G\"\n", "c:1: memory: belongs to a VM; put it under [defaults] or [vm.NAME]"},
		{"top level, one VM's", "tag = \"x\"\n", "c:1: tag: belongs to one VM; put it under [vm.NAME]"},
		{"a VM's table", "[web]\nmemory = \"1G\"\n", `c:1: web: unknown table; did you mean [vm.web]?`},
		{"nearly a table", "[defaluts]\n", `c:1: defaluts: unknown table; did you mean [defaults]?`},
		{"a suite's number", "[vm.a]\nroot = \"debian:13\"\n", `c:2: vm.a.root: the suite of Debian 13 is trixie: want "debian:trixie", not "debian:13"`},
		{"twice", "[vm.a]\ncpus = 1\ncpus = 2\n", "c:3: vm.a.cpus: is there twice; the first is on line 2"},
		{"unknown table", "[default]\n", `c:1: default: unknown table; did you mean [defaults]?`},
		{"menu, unknown key", "[menu]\nlinse = 3\n", `c:2: menu.linse: unknown key; did you mean "lines"?`},
		{"menu, too wide", "[menu]\nwidth = 9999\n", `c:2: menu.width: 9999 is out of range: want 320 to 2000`},
		{"menu, no theme", "[menu]\ntheme = \"pink\"\n", `c:2: menu.theme: want "auto", "light" or "dark", not "pink"`},
		{"menu, no family", "[menu]\nfont = \"a:b\"\n", `c:2: menu.font: "a:b" is not a name: want one without '/', ':' and ','`},
		{"menu, no table", "menu = 1\n", `c:1: menu: want the table [menu], not 1`},
		{"unknown table, far", "\n[network]\n", `c:2: network: unknown table; did you mean [vm.network]?`},
		{"unknown key", "[vm.web]\ncpus = 2\nmemroy = \"1G\"\n", `c:3: vm.web.memroy: unknown key; did you mean "memory"?`},
		{"British", "[vm.web]\ncolour = \"red\"\n", `c:2: vm.web.colour: unknown key; did you mean "color"?`},
		{"unknown key, far", "[vm.web]\nxyzzyxyzzy = 1\n", "c:2: vm.web.xyzzyxyzzy: unknown key; valid here: " + strings.Join(keyNames(false), ", ")},
		{"first in the file", "[vm.b]\nzzzzzz = 1\n[vm.a]\nyyyyyy = 1\n", `c:2: vm.b.zzzzzz: unknown key; valid here: accel, allow, channel, clipboard, color, cpu-weight, cpus, deny, desktop, frame, gui, initrd, kernel, limits, memory, memory-min, mime, net, packages, programs, publish, root, shares, state, tag, usb, workspace | c:4: vm.a.yyyyyy: unknown key; valid here: accel, allow, channel, clipboard, color, cpu-weight, cpus, deny, desktop, frame, gui, initrd, kernel, limits, memory, memory-min, mime, net, packages, programs, publish, root, shares, state, tag, usb, workspace`},
		{"dotted", "vm.web.cpus = 0\n", "c:1: vm.web.cpus: 0 is out of range: want 1 to 64"},
		{"inline", "vm = {\n  web = { cpus = 0 } }\n", "c:1: vm.web.cpus: 0 is out of range: want 1 to 64"},
		{"after a long string", "[vm.a]\ntag = '''\n[vm.b]\ncpus = 0'''\n[vm.b]\ncpus = 'x'\n", `c:2: vm.a.tag: want printable characters without brackets | c:6: vm.b.cpus: want a whole number, not "x"`},
		{"defaults is no table", "defaults = 1\n", `c:1: defaults: want the table [defaults], not 1`},
		{"vm is no table", "vm = true\n", `c:1: vm: want tables such as [vm.web], not true`},
		{"vm is an array", "[[vm]]\n", `c:1: vm: want tables such as [vm.web], not a list of tables`},
		{"a VM is no table", "[vm]\nweb = 2024-01-01\n", `c:2: vm.web: want the table [vm.web], not a date`},
		{"VM name: path", "[vm.\"../x\"]\n", `c:1: vm."../x": VM name "../x": want only a-z, 0-9, '-' and '_'; did you mean [vm.x]?`},
		{"VM name: option", "[vm.-rf]\n", `c:1: vm.-rf: VM name "-rf": must begin with a letter or digit; did you mean [vm.rf]?`},
		{"VM name: empty", "[vm.\"\"]\n", `c:1: vm."": a VM's name must not be empty`},
		{"VM name: case", "[vm.Web]\n", `c:1: vm.Web: VM name "Web": want only a-z, 0-9, '-' and '_'; did you mean [vm.web]?`},
		{"VM name: long", "[vm." + strings.Repeat("a", 33) + "]\n", `c:1: vm.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: VM name "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": longer than 32 characters; did you mean [vm.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]?`},
		{"memory: type", "[vm.web]\nmemory = 512\n", `c:2: vm.web.memory: want a size in quotes, with its unit, such as "512M" or "2G", not 512`},
		{"memory: unit", "[vm.web]\nmemory = \"1 GB\"\n", `c:2: vm.web.memory: want 1G, not "1 GB"`},
		{"memory: negative", "[vm.web]\nmemory = \"-1G\"\n", `c:2: vm.web.memory: want a size such as 512M or 2G, not "-1G"`},
		{"memory: small", "[defaults]\nmemory = \"64M\"\n", `c:2: defaults.memory: 64M is out of range: want 128M to 1T`},
		{"memory: large", "[defaults]\nmemory = \"16777215T\"\n", `c:2: defaults.memory: 16777215T is out of range: want 128M to 1T`},
		{"memory: odd", "[defaults]\nmemory = \"200001K\"\n", `c:2: defaults.memory: 200001K is not a whole number of MiB`},
		{"cpus: type", "[vm.web]\ncpus = \"2\"\n", `c:2: vm.web.cpus: want a number without quotes: 2`},
		{"cpus: float", "[vm.web]\ncpus = 2.0\n", `c:2: vm.web.cpus: want a whole number, without a decimal point`},
		{"cpus: many", "[vm.web]\ncpus = 65\n", `c:2: vm.web.cpus: 65 is out of range: want 1 to 64`},
		{"tag: type", "[vm.web]\ntag = 1\n", `c:2: vm.web.tag: want text in quotes: "1"`},
		{"tag: empty", "[vm.web]\ntag = \"\"\n", `c:2: vm.web.tag: want 1 to 32 characters`},
		{"tag: bidi", "[vm.web]\ntag = \"a\\u202Eb\"\n", `c:2: vm.web.tag: want printable characters without brackets`},
		{"tag: bracket", "[vm.web]\ntag = \"x] [vault\"\n", `c:2: vm.web.tag: want printable characters without brackets`},
		{"tag: space", "[vm.web]\ntag = \" x\"\n", `c:2: vm.web.tag: begins or ends with a space`},
		{"tag: defaults", "[defaults]\ntag = \"x\"\n", `c:2: defaults.tag: belongs to one VM: put it under [vm.NAME]`},
		{"color: type", "[vm.web]\ncolor = 0xff0000\n", `c:2: vm.web.color: want text in quotes, "#rrggbb" or one of red, orange, yellow, lime, green, teal, blue, indigo, purple, pink, brown, gray, not 16711680`},
		{"color: name", "[vm.web]\ncolor = \"mauve\"\n", `c:2: vm.web.color: want "#rrggbb" or one of red, orange, yellow, lime, green, teal, blue, indigo, purple, pink, brown, gray, not "mauve"`},
		{"color: hex", "[vm.web]\ncolor = \"#12345g\"\n", `c:2: vm.web.color: want "#rrggbb" or one of red, orange, yellow, lime, green, teal, blue, indigo, purple, pink, brown, gray, not "#12345g"`},
		{"root: type", "[vm.web]\nroot = []\n", `c:2: vm.web.root: want text in quotes, not a list`},
		{"root: relative", "[vm.web]\nroot = \"srv\"\n", `c:2: vm.web.root: want "host", "debian:SUITE", "image:PATH" or an absolute path, not "srv"`},
		{"root: everything", "[vm.web]\nroot = \"/..\"\n", `c:2: vm.web.root: "/" would show the VM every file of this machine; want "host" or another directory`},
		{"root: control", "[vm.web]\nroot = \"/a\\nb\"\n", `c:2: vm.web.root: not a usable path`},
		{"root: suite", "[vm.web]\nroot = \"debian:../x\"\n", `c:2: vm.web.root: "../x" is not the name of a suite of Debian; want one such as "debian:trixie"`},
		{"root: no suite", "[vm.web]\nroot = \"debian:\"\n", `c:2: vm.web.root: "" is not the name of a suite of Debian; want one such as "debian:trixie"`},
		{"root: image", "[vm.web]\nroot = \"image:disk.raw\"\n", `c:2: vm.web.root: want an absolute path after "image:", not "disk.raw"`},
		{"packages: option", "[vm.web]\npackages = [\"-o\"]\n", `c:2: vm.web.packages: "-o" is not a package's name`},
		{"packages: comma", "[vm.web]\npackages = [\"a,b\"]\n", `c:2: vm.web.packages: "a,b" is not a package's name`},
		{"state: value", "[vm.web]\nstate = \"all\"\n", `c:2: vm.web.state: want "home" or "none", not "all"`},
		{"shares: type", "[vm.web]\nshares = \"/srv\"\n", `c:2: vm.web.shares: want a list, in brackets: ["/srv"]`},
		{"shares: relative", "[vm.web]\nshares = [\"srv\"]\n", `c:2: vm.web.shares: want an absolute path on the host, one that begins with "~/", or "staging", not "srv"`},
		{"shares: same place", "[vm.web]\nshares = [\"/a/x\", \"/b/x:rw\"]\n", `c:2: vm.web.shares: two shares at /mnt/x in the guest`},
		{"accel: type", "[vm.web]\naccel = true\n", `c:2: vm.web.accel: want "auto", "kvm" or "tcg", not true`},
		{"channel: value", "[defaults]\nchannel = \"virtio\"\n", `c:2: defaults.channel: want "auto", "vsock" or "serial", not "virtio"`},
		{"accel: value", "[vm.web]\naccel = \"xen\"\n", `c:2: vm.web.accel: want "auto", "kvm" or "tcg", not "xen"`},
		{"programs: type", "[vm.web]\nprograms = \"firefox\"\n", `c:2: vm.web.programs: want a list, in brackets: ["firefox"]`},
		{"programs: entry", "[vm.web]\nprograms = [\"a\", 1]\n", `c:2: vm.web.programs: want texts in quotes, such as ["a", "b"]; one entry is 1`},
		{"programs: path", "[vm.web]\nprograms = [\"/bin/sh\"]\n", `c:2: vm.web.programs: "/bin/sh" is not a program's name`},
		{"programs: twice", "[vm.web]\nprograms = [\"a\", \"a\"]\n", `c:2: vm.web.programs: "a" stands twice`},
		{"color: three digits", "[vm.web]\ncolor = \"#fff\"\n", `c:2: vm.web.color: want "#ffffff", not "#fff"`},
		{"color: British", "[vm.web]\ncolor = \"grey\"\n", `c:2: vm.web.color: "grey" is no color here; did you mean "gray"?`},
		{"memory: part", "[vm.web]\nmemory = \"1.5G\"\n", `c:2: vm.web.memory: want 1536M, not "1.5G"`},
		{"memory: no unit", "[vm.web]\nmemory = \"512\"\n", `c:2: vm.web.memory: want a size such as 512M or 2G, not "512"`},
		{"cpus: negative", "[vm.web]\ncpus = -1\n", `c:2: vm.web.cpus: -1 is out of range: want 1 to 64`},
		{"gui: text", "[vm.web]\ngui = \"no\"\n", `c:2: vm.web.gui: want true or false, without quotes, not "no"`},
		{"gui: number", "[vm.web]\ngui = 0\n", `c:2: vm.web.gui: want true or false, not 0`},
		{"root: suite alone", "[vm.web]\nroot = \"trixie\"\n", `c:2: vm.web.root: "trixie" is no root; did you mean "debian:trixie"?`},
		{"root: case", "[vm.web]\nroot = \"Debian:Trixie\"\n", `c:2: vm.web.root: "Debian:Trixie" is no root; did you mean "debian:trixie"?`},
		{"net: boolean", "[vm.web]\nnet = true\n", `c:2: vm.web.net: want "none" or "nat", not true`},
		{"publish without a network, and more", "[vm.web]\npublish = [\"80:80\"]\ncpus = 0\n", `c:2: vm.web.publish: needs net = "nat": a VM without a network has no ports | c:3: vm.web.cpus: 0 is out of range: want 1 to 64`},
		{"several entries", "[vm.web]\nmime = [\"x\", 1]\n", `c:2: vm.web.mime: "x" is not a MIME type such as "image/png" or "image/*" | c:2: vm.web.mime: want texts in quotes, such as ["a", "b"]; one entry is 1`},
		{"several limits", "[vm.web.limits]\na = 0\nb = \"2\"\n", `c:2: vm.web.limits.a: 0 is out of range: want 1 to 1099511627776 | c:3: vm.web.limits.b: want a number without quotes: 2`},
		{"two brackets", "[[vm.web]]\n", `c:1: vm.web: is in two pairs of brackets; want [vm.web]`},
		{"a VM's key in [vm]", "[vm]\nnet = \"none\"\n", `c:2: vm.net: belongs to a VM; put it under [defaults] or [vm.NAME]`},
		{"a name twice by case", "[vm.Web]\n[vm.web]\n", `c:1: vm.Web: VM name "Web": want only a-z, 0-9, '-' and '_'; [vm.web] is on line 2`},
		{"other programs' names", "[vm.web]\nram = \"1G\"\ncores = 1\ncpu_weight = 1\n", `c:2: vm.web.ram: unknown key; did you mean "memory"? | c:3: vm.web.cores: unknown key; did you mean "cpus"? | c:4: vm.web.cpu_weight: unknown key; did you mean "cpu-weight"?`},
		{"top level, unknown", "foo = 1\n", `c:1: foo: unknown key; the keys are in tables: [clipboard], [defaults], [menu], [vm.NAME]`},
		{"everywhere", "memory = \"2G\"\n[defaults]\ncpus = 0\n[menu]\nlines = \"9\"\n[vm.a]\ncpus = 0\n[vm.b]\ncpus = 0\n", `c:1: memory: belongs to a VM; put it under [defaults] or [vm.NAME] | c:3: defaults.cpus: 0 is out of range: want 1 to 64 | c:5: menu.lines: want a number without quotes: 9 | c:7: vm.a.cpus: 0 is out of range: want 1 to 64 | c:9: vm.b.cpus: 0 is out of range: want 1 to 64`},
		{"the second rule", "[[clipboard.rule]]\nfrom = \"a\"\nto = \"b\"\naction = \"allow\"\n[[clipboard.rule]]\nfrom = \"a\"\nto = 5\naction = \"alow\"\nlimit = \"1 MB\"\nttl = \"30\"\nkinds = [\"txt\", 2]\nstrip = 1\n",
			`c:7: clipboard.rule: rule 2: to: want text in quotes: "5" | c:8: clipboard.rule: rule 2: action: want "deny", "ask" or "allow", not "alow" | c:9: clipboard.rule: rule 2: limit: want "1M", not "1 MB" | c:10: clipboard.rule: rule 2: ttl: want a time from "1s" to "1h", not "30" | c:11: clipboard.rule: rule 2: kinds: "txt" is none of text, html, image | c:11: clipboard.rule: rule 2: kinds: want texts in quotes, such as ["a", "b"]; one entry is 2 | c:12: clipboard.rule: rule 2: strip: want true or false, not 1`},
		{"rules", "[clipboard]\nrules = []\n", `c:2: clipboard.rules: unknown key; each rule is a table of its own: [[clipboard.rule]]`},
		{"programs: two VMs", "[vm.web]\nprograms = [\"a\"]\n[vm.b]\nprograms = [\"a\"]\n", `c:4: vm.b.programs: "a" is already listed by [vm.web] on line 2; take one of the two away, or name the VM with --vm`},
		{"programs: defaults", "[defaults]\nprograms = []\n", `c:2: defaults.programs: belongs to one VM: put it under [vm.NAME]`},
		{"frame: type", "[vm.web]\nframe = 1\n", `c:2: vm.web.frame: want "full", "border" or "none", not 1`},
		{"frame: value", "[vm.web]\nframe = \"thick\"\n", `c:2: vm.web.frame: want "full", "border" or "none", not "thick"`},
		{"allow: type", "[vm.web]\nallow = \"x\"\n", `c:2: vm.web.allow: want a list, in brackets: ["x"]`},
		{"allow: name", "[vm.web]\nallow = [\"wl-shm\"]\n", `c:2: vm.web.allow: "wl-shm" is not an interface's name`},
		{"deny: entry", "[vm.web]\ndeny = [{}]\n", `c:2: vm.web.deny: want texts in quotes, such as ["a", "b"]; one entry is a table`},
		{"deny: twice", "[defaults]\ndeny = [\"wl_shm\", \"wl_shm\"]\n", `c:2: defaults.deny: "wl_shm" stands twice`},
		{"limits: type", "[vm.web]\nlimits = 3\n", `c:2: vm.web.limits: want a table such as { surfaces = 4000 }, not 3`},
		{"limits: number", "[vm.web.limits]\nsurfaces = 3\npopups = \"3\"\n", `c:3: vm.web.limits.popups: want a number without quotes: 3`},
		{"limits: none", "[vm.web.limits]\n\npopups = 0\n", `c:3: vm.web.limits.popups: 0 is out of range: want 1 to 1099511627776`},
		{"limits: name", "[vm.web]\nlimits.\"a b\" = 0\n", `c:2: vm.web.limits."a b": not a limit's name`},
		{"memory-min: range", "[vm.web]\nmemory-min = \"64M\"\n", `c:2: vm.web.memory-min: 64M is out of range: want 128M to 1T`},
		{"cpu-weight: type", "[vm.web]\ncpu-weight = \"high\"\n", `c:2: vm.web.cpu-weight: want a whole number, not "high"`},
		{"cpu-weight: range", "[vm.web]\ncpu-weight = 0\n", `c:2: vm.web.cpu-weight: 0 is out of range: want 1 to 10000`},
		{"size", strings.Repeat("#", MaxFile+1), "c: larger than 256 KiB; is it the right file?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(mistakes(tt.src), " | "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// mistakes returns the mistakes of a file, whatever they prevent.
func mistakes(src string) []string {
	c, err := Parse("c", []byte(src))
	var all Errors
	if !errors.As(err, &all) && err == nil {
		all = c.Errors
	}
	return all.Lines()
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
	other := filepath.Join(t.TempDir(), "other.toml")
	if err := errors.Join(os.WriteFile(other, nil, 0o600), os.Symlink(other, filepath.Join(dir, "link")), os.Symlink("config.toml", filepath.Join(dir, "inside")), os.WriteFile(filepath.Join(dir, "config.toml"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(root, "link", "link"); err == nil || err.Error() != "link: is a link out of its directory, or to nothing, and is not followed; put the file itself here" {
		t.Errorf("a link: %v", err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(root, "link", "link"); err == nil || !strings.HasPrefix(err.Error(), "link: is a link ") {
		t.Errorf("a link to nothing: %v", err) // it is not no file: what protects VMs may have been in it
	}
	if _, err := Load(root, "inside", "inside"); err != nil {
		t.Errorf("a link within the directory: %v", err)
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

// FuzzParse: no input panics; a mistake is one printable line with a line number; what is
// accepted obeys the documented limits, and its settings, written as a file, are the same VM;
// a VM with a mistake is not among those that start.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, src []byte) {
		// The fuzzer itself would wait for an input that hangs, and not save it.
		defer time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("hangs: %q", src)) }).Stop()
		c, err := Parse("c", src)
		var all Errors
		switch {
		case err != nil && (!errors.As(err, &all) || !all.Blocking()):
			t.Fatalf("%T %q", err, err)
		case err == nil:
			all = c.Errors
		}
		for _, e := range all {
			if strings.ContainsAny(e.Error(), "\n\r") || len(src) <= MaxFile && e.Line == 0 {
				t.Fatalf("%q", e)
			}
		}
		if err != nil {
			return
		}
		if all.Blocking() {
			t.Fatalf("accepted with %v", all)
		}
		for name, d := range c.Disabled {
			var off *DisabledError
			if _, err := c.VM(name); len(d.Errors) == 0 || !errors.As(err, &off) || c.VMs[name].Name != "" {
				t.Fatalf("%s: %v, %+v", name, err, d)
			}
		}
		for name, v := range c.VMs {
			if CheckName(name) != nil || v.Name != name || v.Memory < MinMemory || v.Memory > MaxMemory || v.CPUs < 1 || v.CPUs > MaxCPUs || v.Tag == "" || len(v.Color) != 7 {
				t.Fatalf("%q: %+v", name, v)
			}
			checkSettings(t, c, v)
		}
	})
}

// A fuzz target without a corpus tests nothing.
func TestCorpus(t *testing.T) {
	if files, _ := filepath.Glob("testdata/fuzz/FuzzParse/*"); len(files) < 5 {
		t.Fatalf("%d corpus files", len(files))
	}
}
