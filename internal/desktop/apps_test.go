package desktop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"vix/config"
)

// tree makes a root of files; a text that begins with "->" is a link.
func tree(t *testing.T, files map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, at)
		} else {
			err = os.WriteFile(at, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func app(lines ...string) string {
	return "[Desktop Entry]\nType=Application\nName=N\nExec=prog\n" + strings.Join(lines, "\n") + "\n"
}

func TestApps(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret.desktop")
	if err := os.WriteFile(outside, []byte(app("Name=secret")), 0o644); err != nil {
		t.Fatal(err)
	}
	const dir = "usr/share/applications/"
	root := tree(t, map[string]string{
		"usr/bin/prog":                           "",
		"usr/bin/sh":                             "",
		dir + "key.desktop":                      app("Name[../x]=bad"),
		dir + "a.desktop":                        "# c\n[Desktop Entry]\nType=Application\nName=Alpha\nName[de]=Al\u202epha\nExec=sh -c \"a b\" %U --x=%i%%\nMimeType=image/png;text/plain;\nStartupWMClass=Alpha-Class\nIcon=a\\sicon\n[Desktop Action x]\nExec=evil\n",
		dir + "b.desktop":                        app("TryExec=prog"),
		dir + "hidden.desktop":                   app("NoDisplay=true"),
		dir + "missing.desktop":                  app("TryExec=nothere"),
		dir + "kde/c.desktop":                    app(),
		dir + "abs.desktop":                      "->/usr/share/real/abs.desktop",
		"usr/share/real/abs.desktop":             app("Name=x"),
		dir + "out.desktop":                      "->" + outside,
		dir + "up.desktop":                       "->../../../../../../../../../.." + outside,
		dir + "loop.desktop":                     "->loop.desktop",
		dir + "percent.desktop":                  "[Desktop Entry]\nType=Application\nName=P\nExec=prog %\n",
		dir + "quote.desktop":                    "[Desktop Entry]\nType=Application\nName=P\nExec=\"prog\n",
		dir + "term.desktop":                     app("Terminal=true"),
		dir + "big.desktop":                      app(strings.Repeat("#", maxEntry)),
		dir + "bad\nname.desktop":                app(),
		"usr/local/share/applications/b.desktop": app("Comment=local"),
	})
	if err := syscall.Mkfifo(filepath.Join(root.Name(), dir, "pipe.desktop"), 0o644); err != nil {
		t.Fatal(err)
	}
	apps, notes, err := Apps(root, "web")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	byID := map[string]App{}
	for _, a := range apps {
		ids = append(ids, a.ID)
		byID[a.ID] = a
	}
	if want := []string{"a", "abs", "b", "kde-c", "percent"}; !slices.Equal(ids, want) {
		t.Errorf("apps %q, want %q", ids, want)
	}
	all := strings.Join(notes, "\n")
	for _, name := range []string{"out", "up", "loop", "quote", "term", "big", "bad name", "pipe", "key"} {
		if !strings.Contains(all, name+".desktop: ") {
			t.Errorf("no note about %s: %s", name, all)
		}
	}
	if len(notes) != 9 {
		t.Errorf("%d notes:\n%s", len(notes), all)
	}
	a := byID["a"]
	if a.Name.In("de_AT.UTF-8") != "Alpha" || len(a.Name) != 2 || a.Name.In("fr") != "Alpha" || a.Icon != "a icon" {
		t.Errorf("%+v", a)
	}
	if got := a.Runs("/f1", "/f2"); len(got) != 1 || !slices.Equal(got[0], []string{"sh", "-c", "a b", "/f1", "/f2", "--x=--icon", "a icon%"}) {
		t.Errorf("argv %q", got)
	}
	if a.AppID() != "vix.web.Alpha-Class" || a.EntryName() != "dev.vix.web.a" || a.Program() != "" || byID["b"].Program() != "prog" || !a.OpensFiles() {
		t.Errorf("%s %s", a.AppID(), a.EntryName())
	}
	if byID["b"].Comment[""] != "local" {
		t.Error("/usr/local does not come first")
	}
}

func TestWanted(t *testing.T) {
	a := App{VM: "v", ID: "org.gnome.Maps", program: "maps"}
	for i, c := range []struct {
		vm   config.VM
		want bool
	}{
		{config.VM{Root: "host"}, false},
		{config.VM{Root: "host", Programs: []string{"maps"}}, true},
		{config.VM{Root: "debian:trixie"}, true},
		{config.VM{Root: "debian:trixie", Programs: []string{"maps"}}, true},
		{config.VM{Root: "debian:trixie", Programs: []string{"foot"}}, false},
		{config.VM{Root: "debian:trixie", Programs: []string{"foot"}, Desktop: []string{"*"}}, true},
		{config.VM{Root: "debian:trixie", Desktop: []string{}}, false},
		{config.VM{Root: "host", Desktop: []string{"org.gnome.*"}}, true},
		{config.VM{Root: "host", Desktop: []string{"maps"}}, true},
		{config.VM{Root: "host", Desktop: []string{"map"}}, false},
		{config.VM{Root: "host", Desktop: []string{"maps"}, NoGUI: true}, false},
	} {
		if a.Wanted(c.vm) != c.want {
			t.Errorf("%d: %v", i, !c.want)
		}
	}
}

// TestManyApps: a root without end.
func TestManyApps(t *testing.T) {
	files := map[string]string{"usr/bin/prog": ""}
	for i := range maxApps + 10 {
		files[fmt.Sprintf("usr/share/applications/a%05d.desktop", i)] = app()
	}
	apps, notes, err := Apps(tree(t, files), "v")
	if err != nil || len(apps) != maxApps || len(notes) != 1 {
		t.Errorf("%d apps, %d notes, %v", len(apps), len(notes), err)
	}
	delete(files, "usr/bin/prog")
	apps, notes, err = Apps(tree(t, files), "v")
	if err != nil || len(apps) != 0 || len(notes) != maxNotes+1 || !strings.HasSuffix(notes[maxNotes], fmt.Sprintf("%d more entries cannot be used", maxApps+10-maxNotes)) {
		t.Errorf("without their program: %d apps, %d notes, the last %q, %v", len(apps), len(notes), notes[len(notes)-1], err)
	}
}

// FuzzEntry: nothing in a .desktop file of a guest's panics, and all that is taken
// from it is bounded and plain.
func FuzzEntry(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.MkdirAll(dir+"/usr/share/applications", 0o755); err != nil {
			t.Fatal(err)
		}
		for _, program := range []string{"prog", "foot", "fish", "gtk4-demo"} {
			at := dir + "/usr/bin/" + program
			if err := errors.Join(os.MkdirAll(dir+"/usr/bin", 0o755), os.WriteFile(at, nil, 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(dir+"/usr/share/applications/x.desktop", b, 0o644); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		apps, _, err := Apps(root, "v")
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range apps {
			for locale, s := range a.Name {
				if s == "" || len(s) > maxName || strings.ContainsAny(s, "\n\r\x1b\u202e") || strings.ContainsAny(locale, "[]\n=") {
					t.Fatalf("Name[%q]=%q", locale, s)
				}
			}
			for _, argv := range append(a.Runs("f", "g"), a.Argv()) {
				if len(argv) == 0 || argv[0] == "" || len(argv) > 2*maxArgv+2 {
					t.Fatalf("argv %q", argv)
				}
			}
		}
	})
}

func TestPlainName(t *testing.T) {
	for name, want := range map[string]bool{
		"foot": true, "org.gnome.Maps": true, "_x": true, "9p": true, "a+b-c_d.e": true, strings.Repeat("a", 128): true,
		"": false, ".foot": false, "-rf": false, "+": false, "a/b": false, "a b": false, "a\x00": false, "é": false, "..": false,
		strings.Repeat("a", 129): false,
	} {
		if plainName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
