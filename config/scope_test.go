package config

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Three VMs, the menu and a rule, without a mistake.
var scopeFile = map[string]string{
	"defaults":         "memory = \"1G\"\n",
	"menu":             "lines = 12\n",
	"vm.a":             "cpus = 3\n",
	"vm.b":             "net = \"nat\"\nshares = [\"/srv/b:rw\"]\n",
	"vm.c":             "clipboard = \"shared\"\n",
	"[clipboard.rule]": "from = \"a\"\nto = \"b\"\naction = \"deny\"\n",
}

// scopeText is the file with more text in one of its tables. Each VM lists its program.
func scopeText(table, more string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(scopeFile)) {
		text := scopeFile[name]
		if name == table {
			text += more + "\n"
		}
		if vm, ok := strings.CutPrefix(name, "vm."); ok && !strings.Contains(text, "programs") {
			text += "programs = [\"prog-" + vm + "\"]\n"
		}
		b.WriteString("[" + name + "]\n" + text)
	}
	return b.String()
}

// A mistake in a VM's table disables that VM, and leaves everything else as it was.
func TestMistakeOfOneVM(t *testing.T) {
	was, err := Parse("c", []byte(scopeText("", "")))
	if err != nil || len(was.Errors) > 0 {
		t.Fatal(err, was.Errors)
	}
	given := map[string]Color{} // the VMs have started before: what was not started may be given another one
	for _, name := range []string{"a", "b", "c", "d", "prog-d"} {
		given[name] = "#2f6fde"
	}
	was.GiveColors(given)
	for _, mistake := range []string{
		"memory = 1", "memroy = \"1G\"", "accel = \"xen\"", "color = 5", "root = \"usr\"", "deny = 3", "limits.surfaces = 0", "limits = 3",
		"tag = \"\"", "publish = [\"1:1\", \"1:2\"]", "usb = [\"x\"]", "state = 1", "x = { of = [\"prog-d\"] }", "desktop = [\"[\"]",
		"programs = \"prog-%\"", "programs = [\"prog-%\", 7]", "programs = [\"/usr/bin/prog-%\"]", "progams = [\"prog-%\"]\nprograms = []",
		"memory = 1\naccel = 2\nroot = 3\nframe = 4\nstate = 5",
	} {
		for _, name := range []string{"a", "b", "c"} {
			src := scopeText("vm."+name, strings.ReplaceAll(mistake, "%", name))
			c, err := Parse("c", []byte(src))
			if err != nil {
				t.Errorf("%s in %s: %v", mistake, name, err)
				continue
			}
			c.GiveColors(given)
			var off *DisabledError
			if _, err := c.VM(name); !errors.As(err, &off) || off.Name != name || len(off.Errors) == 0 || !slices.Equal(off.Errors, c.Errors) {
				t.Errorf("%s in %s: the VM: %v", mistake, name, err)
			}
			if v, err := c.VMFor("/usr/bin/prog-" + name); !errors.As(err, &off) || off.Name != name {
				t.Errorf("%s in %s: its program runs in %q, %v", mistake, name, v.Name, err)
			}
			for _, other := range []string{"a", "b", "c", "d"} {
				if other == name {
					continue
				}
				v, err1 := c.VM(other)
				w, err2 := was.VM(other)
				p, err3 := c.VMFor("prog-" + other)
				q, err4 := was.VMFor("prog-" + other)
				if err := errors.Join(err1, err2, err4); err != nil || !reflect.DeepEqual(v, w) {
					t.Errorf("%s in %s: %s is %+v, was %+v, %v", mistake, name, other, v, w, err)
				}
				if lost := strings.Contains(mistake, "prog-"+other); !reflect.DeepEqual(p, q) && !lost || lost != (err3 != nil) {
					t.Errorf("%s in %s: prog-%s runs in %q, was %q, %v", mistake, name, other, p.Name, q.Name, err3)
				}
			}
			if !reflect.DeepEqual(c.Menu, was.Menu) || !reflect.DeepEqual(c.Clipboard, was.Clipboard) || !reflect.DeepEqual(c.Defaults, was.Defaults) {
				t.Errorf("%s in %s: the menu, the clipboard or the defaults changed", mistake, name)
			}
			if _, ok := c.Flow(name, ClipHost); ok {
				t.Errorf("%s in %s: copies flow", mistake, name)
			}
		}
	}
}

// A mistake where it could be what protects a VM prevents every start.
func TestMistakeOfAll(t *testing.T) {
	for _, src := range []string{
		scopeText("defaults", "cpus = 0"), scopeText("defaults", "nett = \"none\""), scopeText("[clipboard.rule]", "limit = 3"),
		scopeText("[clipboard.rule]", "acton = \"deny\""), "net = \"none\"\n" + scopeText("", ""), "[default]\n", "[web]\n", "[vm]\nnet = \"none\"\n", "vm = 1\n", "[vm.a\n",
	} {
		c, err := Parse("c", []byte(src))
		var all Errors
		if c != nil || !errors.As(err, &all) || !all.Blocking() {
			t.Errorf("%q: %v", src, err)
		}
	}
}

// A mistake in [menu] gives the default look, and nothing else.
func TestMistakeOfMenu(t *testing.T) {
	was, err1 := Parse("c", []byte(scopeText("", "")))
	c, err2 := Parse("c", []byte(scopeText("menu", "width = 1")))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if c.Menu != builtinMenu() || !reflect.DeepEqual(c.VMs, was.VMs) || len(c.Errors) != 1 {
		t.Errorf("%+v, %v", c.Menu, c.Errors)
	}
	for _, s := range c.MenuSettings() {
		if s.From != FromBuiltin {
			t.Errorf("%+v", s)
		}
	}
}

// A name that no VM can have disables the VM that is meant, also where that has a table.
func TestMistakenName(t *testing.T) {
	for _, src := range []string{
		"[vm.Web]\nprograms = [\"x\"]\n", "[vm.web]\n[vm.Web]\nprograms = [\"x\"]\n", "[vm.Web]\nprograms = [\"x\"]\n[vm.web]\n",
		"[vm.web]\nprograms = [\"x\"]\nshares = [\"/srv/x:rw\"]\n[vm.Web]\n[vm.WEB]\n",
	} {
		c, err := Parse("c", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		for _, program := range []string{"x", "web", "Web"} {
			var off *DisabledError
			if v, err := c.VMFor(program); !errors.As(err, &off) || off.Name != "web" {
				t.Errorf("%q: %s runs in %q, %v", src, program, v.Name, err)
			}
		}
		if len(c.VMs) > 0 || len(c.Disabled["web"].VM.Shares) != strings.Count(src, "shares") {
			t.Errorf("%q: %v, %v", src, c.VMs, c.Disabled)
		}
	}
}

// A program that two VMs list starts in neither by itself; the VMs start.
func TestProgramOfTwoVMs(t *testing.T) {
	c, err := Parse("c", []byte("[vm.web]\nprograms = [\"x\", \"y\"]\n[vm.a]\nprograms = [\n\"x\"]\n"))
	if err != nil || len(c.Errors) != 1 || len(c.VMs) != 2 || len(c.Disabled) != 0 {
		t.Fatal(err, c)
	}
	if v, err := c.VMFor("x"); err == nil || err.Error() != `c:4: vm.a.programs: "x" is already listed by [vm.web] on line 2; take one of the two away, or name the VM with --vm` {
		t.Errorf("x runs in %q, %v", v.Name, err)
	}
	if v, err := c.VMFor("y"); err != nil || v.Name != "web" {
		t.Errorf("y runs in %q, %v", v.Name, err)
	}
}

// The shares that a disabled VM has, or was meant to have, stay known.
func TestSharesOfDisabledVM(t *testing.T) {
	c, err := Parse("c", []byte("[vm.a]\ncpus = 0\nshares = [\"/srv/a:rw\"]\n[vm.b]\nshares = [\"/srv/b:rw\", 3]\n[vm.c]\nshare = \"~/c:rw\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "/srv/a", "b": "/srv/b", "c": "~/c"} {
		if list := c.Disabled[name].VM.Shares; !slices.ContainsFunc(list, func(s Share) bool { return s.Host == want && s.Write }) {
			t.Errorf("%s: %v", name, list)
		}
	}
}

// Checks of others are mistakes of the place that has the key.
func TestChecks(t *testing.T) {
	check := func(v VM) error {
		var errs []error
		for _, name := range v.Deny {
			if strings.HasPrefix(name, "bad") {
				errs = append(errs, &KeyError{[]string{"deny"}, errors.New(name)})
			}
		}
		if v.Limits["none"] > 0 {
			errs = append(errs, &KeyError{[]string{"limits", "none"}, errors.New("unknown limit")})
		}
		return errors.Join(errs...)
	}
	c, err := Parse("c", []byte("[vm.a]\ndeny = [\"bad1\", \"bad2\"]\n[vm.a.limits]\nnone = 1\n[vm.b]\n"), check)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Errors.Lines(), "|"); got != "c:2: vm.a.deny: bad1|c:2: vm.a.deny: bad2|c:4: vm.a.limits.none: unknown limit" || len(c.VMs) != 1 {
		t.Error(got, c.VMs)
	}
	_, err = Parse("c", []byte("[defaults]\ndeny = [\"bad\"]\n[vm.a]\n[vm.b]\ndeny = [\"bad\"]\n"), check)
	var all Errors
	if !errors.As(err, &all) || strings.Join(all.Lines(), "|") != "c:2: defaults.deny: bad|c:5: vm.b.deny: bad" {
		t.Error(err)
	}
}

// A file that is not TOML is told what to do, with the line.
func TestSyntax(t *testing.T) {
	for src, want := range map[string]string{
		"[vm.a]\ncolor = #ff0000\n":                        `c:2: the value is missing, for # begins a comment; text needs quotes: "#ff0000"`,
		"[vm.a]\ngui = yes\n":                              `c:2: want true or false; or, if yes is meant as text, "yes"`,
		"[vm.a]\ngui = True\n":                             "c:2: want true in small letters",
		"[vm.a]\nmemory = 2G\n":                            `c:2: text needs quotes: "2G"`,
		"[vm.a]\nmemory = 1.5G # enough\n":                 `c:2: text needs quotes: "1.5G"`,
		"[vm.a]\nnet = nat # x\n":                          `c:2: text needs quotes: "nat"`,
		"[vm.a]\nroot = debian:trixie\n":                   `c:2: text needs quotes: "debian:trixie"`,
		"[vm.a]\nroot = /srv/x\n":                          `c:2: text needs quotes: "/srv/x"`,
		"[vm.a]\nprograms = [firefox, chromium]\n":         `c:2: text needs quotes: "firefox"`,
		"[vm.a]\nprograms = [\n\"a\",\n nat,\n]\n":         `c:4: text needs quotes: "nat"`,
		"[vm.a]\nshares = [~/x]\n":                         `c:2: text needs quotes: "~/x"`,
		"[vm.a]\npublish = [8080:80]\n":                    `c:2: text needs quotes: "8080:80"`,
		"[vm.a]\nusb = [046d:c52b]\n":                      `c:2: text needs quotes: "046d:c52b"`,
		"[vm.a]\nshares = [\"~/x\" \"~/y\"]\n":             "c:2: a comma is missing between two entries of a list",
		"[vm.a]\nprograms = [\n\"a\"\n\"b\"\n]\n":          "c:4: a comma is missing between two entries of a list",
		"[vm.a]\nprograms = [\n\"a\"\n":                    "c:3: a list lacks its closing ]",
		"[vm.a]\nprograms = [\"a\",\n[vm.b]\n":             "c:3: a list above this line lacks its closing ]",
		"[vm.a]\nprograms = [\"a\",\ncpus = 2\n":           "c:3: a list or a text above this line lacks its end",
		"[vm.a]\nprograms = [\"a\"\ncpus = 2\n":            "c:3: a list or a text above this line lacks its end",
		"[vm.a]\nmemory = \"2G\ncpus = 2\n":                `c:2: a text lacks its closing "`,
		"[vm.a]\nnet = 'nat\"\n":                           "c:2: a text lacks its closing '",
		"[vm.a]\nmemory = “2G”\n":                          `c:2: want straight quotes: "2G"`,
		"[vm.a]\nmemory = \"2G\" cpus = 2\n":               "c:2: there is more on the line after the value; want one KEY = VALUE on a line",
		"[vm.a]\nkernel = \"C:\\Users\"\n":                 `c:2: a \ in text has a meaning of its own; put the text into '…', or write \\`,
		"[vm.a]\nmemory: \"2G\"\n":                         "c:2: want '=' and not ':' after memory",
		"[vm.a]\nmemory \"2G\"\n":                          "c:2: want '=' and a value after memory",
		"[vm.a]\nmemory == \"2G\"\n":                       "c:2: one '=' is enough",
		"[vm.a]\nmemory =\ncpus = 1\n":                     "c:2: the value is missing",
		"[vm.a]\ncpus = 1 // two\n":                        "c:2: a comment begins with #",
		"// hi\n":                                          "c:1: a comment begins with #",
		"[vm.a]\nlimits = { surfaces: 1 }\n":               "c:2: want '=' and not ':' in a table in { }",
		"[vm.a]\nlimits = { surfaces = 1\n popups = 2 }\n": "c:3: a table in { } wants a comma between its keys, and its closing }",
		"[vm.a\ncpus = 1\n":                                "c:1: the name of a table lacks its closing bracket: want [vm.a]",
		"[vm a]\n":                                         "c:1: a table's name has no spaces; want one such as [vm.web]",
		"[[vm.a]\n":                                        "c:1: the name of a table stands in one pair of brackets, that of a rule in two: want as many [ as ]",
		"[vm.a]\n\n[vm.b]\n[vm.a]\n":                       "c:4: vm.a: is there twice; the first is on line 1",
		"[vm.a]\ncpus = 1\n\ncpus = 2\n":                   "c:4: vm.a.cpus: is there twice; the first is on line 2",
		"[vm.a]\n[[vm.a]]\n":                               "c:2: vm.a: is there twice; the first is on line 1",
		"[[clipboard.rule]]\n[clipboard.rule]\n":           "c:2: clipboard.rule: is there twice; the first is on line 1",
		"[vm.a]\ncpus = 02\n":                              `c:2: Invalid integer "02": cannot have leading zeroes`,
	} {
		if got := strings.Join(mistakes(src), " | "); got != want {
			t.Errorf("%q\ngot  %s\nwant %s", src, got, want)
		}
	}
}
