package clipboard

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// TestDay is docs/clipboard.md's day, key by key: programs of GTK 4 and foot as
// sources and targets, with the shipped bindings of sway.
func TestDay(t *testing.T) {
	const gtk = "gtk4-widget-factory"
	if _, err := exec.LookPath(gtk); err != nil {
		t.Skip("lacks: " + gtk)
	}
	bindings, err := os.ReadFile("../../packaging/sway/clipboard.conf")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs("../../build/bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH")) // sway's, which starts vix-launcher
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	d := deskOf(t, desktoptest.Config{Timeout: patience, Sway: string(bindings)})
	window := func(vm string, argv ...string) *desktoptest.Node {
		d.start(vm, argv...)
		if vm == "" {
			return d.WaitSettled(t, desktoptest.ByAppID("host"))
		}
		return d.WaitSettled(t, desktoptest.ByAppIDPrefix("vix."+vm+"."))
	}
	// Each has an entry that has the keyboard at its start.
	red, blue := window("red", gtk), window("blue", gtk)
	file := filepath.Join(d.Dir, "line")
	host := window("", "foot", "--app-id=host", "sh", "-c", `read line; printf %s "$line" >`+file+`; sleep 1000`)
	held := func(text string) {
		t.Helper()
		d.until(text, func() bool { return strings.Contains(d.must("status"), text) })
	}
	// offer presses the key until the window has been there long enough.
	offer := func(w *desktoptest.Node, to string) {
		t.Helper()
		d.Focus(t, w)
		again := time.NewTicker(300 * time.Millisecond)
		defer again.Stop()
		for deadline := time.Now().Add(patience); ; <-again.C {
			d.Key(t, "ctrl+shift+v")
			if strings.Contains(d.must("status"), "offered to "+to) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("not offered to %s: %s", to, d.must("status"))
			}
		}
	}
	take := func(w *desktoptest.Node, from string) {
		t.Helper()
		d.Focus(t, w)
		d.Key(t, "ctrl+shift+c")
		held("from " + from)
	}
	// paste presses the program's own key until it has taken what is offered.
	paste := func(keys ...string) {
		t.Helper()
		again := time.NewTicker(5 * time.Second) // longer than what was used is still held
		defer again.Stop()
		look := time.NewTicker(50 * time.Millisecond) // a holder has no event
		defer look.Stop()
		d.Key(t, keys...)
		for deadline := time.Now().Add(patience); d.must("status") != "nothing is held"; {
			select {
			case <-look.C:
			case <-again.C: // a program that has the focus newly may miss a key
				d.Key(t, keys...)
			}
			if time.Now().After(deadline) {
				t.Fatalf("not pasted: %s", d.must("status"))
			}
		}
	}
	// has waits until what the entry of w holds is a text; its program copies it. With
	// typed, that is typed before.
	has := func(vm string, w *desktoptest.Node, text string, typed bool) {
		t.Helper()
		d.until(text, func() bool {
			d.Focus(t, w)
			d.Key(t, "ctrl+a")
			if typed {
				d.Type(t, text)
			}
			d.Key(t, "ctrl+a", "ctrl+c")
			got, _ := d.pastes(vm)
			return string(got) == text
		})
	}

	has("red", red, "grüße of gtk", true)
	take(red, "VM red")
	offer(blue, "VM blue")
	paste("ctrl+a", "ctrl+v")
	has("blue", blue, "grüße of gtk", false)

	take(blue, "VM blue")
	offer(host, "the host")
	d.until("the line in the terminal", func() bool {
		d.Key(t, "XF86Paste", "Return")
		b, _ := os.ReadFile(file)
		return string(b) == "grüße of gtk"
	})
	d.Key(t, "ctrl+shift+x")
	held("nothing is held")

	d.copies("", []byte("of the host"))
	take(host, "the host")
	offer(red, "VM red")
	paste("ctrl+a", "ctrl+v")
	has("red", red, "of the host", false)
}
