package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vix/internal/agent"
)

// put makes the files of a root.
func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// localeArchive has the names, and a removed one.
func localeArchive(names ...string) string {
	u32 := func(b []byte, n ...int) []byte {
		for _, x := range n {
			b = binary.LittleEndian.AppendUint32(b, uint32(x))
		}
		return b
	}
	const places = 7
	strs := 56 + places*12
	text := "removed\x00"
	table := u32(nil, 1, strs, 0)
	for _, n := range names {
		table = u32(table, 7, strs+len(text), 1000)
		text += n + "\x00"
	}
	table = append(table, make([]byte, places*12-len(table))...)
	head := u32(nil, archiveMagic, 0, 56, len(names), places, strs, len(text), len(text), 0, 0, 0, 0, 0, 0)
	return string(head) + string(table) + text
}

func TestLocales(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{
		"usr/lib/locale/locale-archive":      localeArchive("de_AT.utf8", "de_DE.iso885915@euro"),
		"usr/lib/locale/fr_FR.utf8/LC_CTYPE": "x",
		"usr/lib/locale/half/LC_TIME":        "x",
	})
	for name, want := range map[string]bool{
		"C": true, "POSIX": true, "C.UTF-8": true, "C.utf8": true, "de_AT.UTF-8": true, "de_AT.utf8": true, "fr_FR.UTF-8": true,
		"de_DE.ISO-8859-15@euro": true, "de_DE.UTF-8": false, "de_AT": false, "half": false, "removed": false, "": false,
		"../locale/fr_FR.utf8": false, "..": false, "e_AT.utf8": false, "de_AT.utf": false, "\xff": false,
	} {
		if got := hasLocale(root, name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	env := []string{"LANG=en_US.UTF-8", "LANGUAGE=en", "LC_TIME=de_AT.UTF-8", "LC_ALL=", "LC_PAPER=xx", "A=en_US.UTF-8"}
	want := []string{"LANG=C.UTF-8", "LANGUAGE=en", "LC_TIME=de_AT.UTF-8", "LC_ALL=", "LC_PAPER=C.UTF-8", "A=en_US.UTF-8"}
	if got := fitLocales(root, env); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	put(t, root, map[string]string{"lib/ld-musl-x86_64.so.1": ""})
	if got := fitLocales(root, env); !slices.Equal(got, env) {
		t.Errorf("musl: %q", got)
	}
	// An archive that is cut off, or is none, has no locale.
	whole := localeArchive("de_AT.utf8")
	for n := range len(whole) {
		if archiveHas(strings.NewReader(whole[:n]), []string{"de_AT.utf8"}) {
			t.Errorf("%d bytes of %d", n, len(whole))
		}
	}
	if archiveHas(strings.NewReader("\x00"+whole[1:]), []string{"de_AT.utf8"}) || !archiveHas(strings.NewReader(whole), []string{"de_AT.utf8"}) {
		t.Error("the magic number")
	}
	large := []byte(whole)
	binary.LittleEndian.PutUint32(large[16:], 1<<31)
	if archiveHas(strings.NewReader(string(large)), []string{"de_AT.utf8"}) {
		t.Error("a large table")
	}
}

func TestTimeZone(t *testing.T) {
	root := t.TempDir()
	vienna := agent.Zone{Name: "Europe/Vienna", Rule: "CET-1CEST,M3.5.0,M10.5.0/3"}
	if got := timeZone(root, vienna); got != vienna.Rule {
		t.Errorf("no zoneinfo: %q", got)
	}
	put(t, root, map[string]string{"usr/share/zoneinfo/Europe/Vienna": "x"})
	for _, c := range []struct {
		zone agent.Zone
		want string
	}{{vienna, "Europe/Vienna"}, {agent.Zone{}, ""}, {agent.Zone{Name: "Europe"}, ""}, {agent.Zone{Rule: "UTC0"}, "UTC0"}} {
		if got := timeZone(root, c.zone); got != c.want {
			t.Errorf("%+v: %q", c.zone, got)
		}
	}
	// The configuration's own, and none.
	if got := withHabits(root, []string{"A=b"}, vienna); !slices.Equal(got, []string{"TZ=Europe/Vienna", "A=b"}) {
		t.Errorf("%q", got)
	}
	if got := withHabits(root, []string{"A=b"}, agent.Zone{}); !slices.Equal(got, []string{"A=b"}) {
		t.Errorf("no zone: %q", got)
	}
}

func TestFitTerminal(t *testing.T) {
	root, dir := t.TempDir(), filepath.Join(t.TempDir(), "terminfo")
	put(t, root, map[string]string{
		"lib/terminfo/x/xterm-256color": "x", "usr/share/terminfo/f/foot": "x", "home/user/.terminfo/o/own": "x",
	})
	for _, c := range []struct {
		env   []string
		entry string
		want  []string
		other bool
	}{
		{[]string{"TERM=foot"}, "entry", []string{"TERM=foot"}, false},
		{[]string{"TERM=own", "HOME=/home/user"}, "", []string{"TERM=own", "HOME=/home/user"}, false},
		{[]string{"TERM=own", "HOME=/root"}, "", []string{"HOME=/root", "TERM=xterm-256color"}, true},
		{[]string{"A=b"}, "", []string{"A=b"}, false},
		{[]string{"TERM=xterm-kitty"}, "kitty's", []string{"TERM=xterm-kitty", "TERMINFO_DIRS=" + dir + ":"}, false},
		{[]string{"TERM=xterm-kitty", "TERMINFO_DIRS=/a"}, "newer", []string{"TERM=xterm-kitty", "TERMINFO_DIRS=" + dir + ":/a"}, false},
		{[]string{"TERM=../x"}, "entry", []string{"TERM=../x"}, false},
		{[]string{"TERM=no"}, "", []string{"TERM=xterm-256color"}, true},
	} {
		got, other, err := fitTerminal(root, dir, c.env, []byte(c.entry))
		if err != nil || other != c.other || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v, %v", c.env, got, other, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "x", "xterm-kitty")); string(b) != "newer" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	bare := t.TempDir() // a root without any entry is not helped by another name
	if got, other, err := fitTerminal(bare, dir, []string{"TERM=no"}, nil); err != nil || other || got[0] != "TERM=no" {
		t.Errorf("%q, %v, %v", got, other, err)
	}
}
