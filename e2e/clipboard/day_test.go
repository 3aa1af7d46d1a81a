package clipboard

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// gtk4 has an entry that has the keyboard at its start.
const gtk4 = "gtk4-widget-factory"

// A day is a desk with the shipped bindings of sway, and what a person does at it.
type day struct{ *desk }

func newDay(t *testing.T) day {
	t.Helper()
	if _, err := exec.LookPath(gtk4); err != nil {
		t.Skip("lacks: " + gtk4)
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
	return day{deskOf(t, desktoptest.Config{Timeout: patience, Sway: string(bindings)})}
}

// opens starts a program and waits for its window; the host's has the app id "host".
func (d day) opens(vm string, argv ...string) *desktoptest.Node {
	d.t.Helper()
	d.start(vm, argv...)
	if vm == "" {
		return d.WaitSettled(d.t, desktoptest.ByAppID("host"))
	}
	return d.WaitSettled(d.t, desktoptest.ByAppIDPrefix("vix."+vm+"."))
}

func (d day) held(text string) {
	d.t.Helper()
	d.until(text, func() bool { return strings.Contains(d.must("status"), text) })
}

// offer presses the key until the window has been there long enough.
func (d day) offer(w *desktoptest.Node, to string) {
	d.t.Helper()
	d.Focus(d.t, w)
	again := time.NewTicker(300 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(patience); ; <-again.C {
		d.Key(d.t, "logo+ctrl+v")
		if strings.Contains(d.must("status"), "offered to "+to) {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("not offered to %s: %s", to, d.must("status"))
		}
	}
}

func (d day) take(w *desktoptest.Node, from string) {
	d.t.Helper()
	d.Focus(d.t, w)
	d.Key(d.t, "logo+ctrl+c")
	d.held("from " + from)
}

// paste presses the program's own key until it has taken what is offered.
func (d day) paste(keys ...string) {
	d.t.Helper()
	again := time.NewTicker(5 * time.Second) // longer than what was used is still held
	defer again.Stop()
	look := time.NewTicker(50 * time.Millisecond) // a holder has no event
	defer look.Stop()
	d.Key(d.t, keys...)
	for deadline := time.Now().Add(patience); d.must("status") != "nothing is held"; {
		select {
		case <-look.C:
		case <-again.C: // a program that has the focus newly may miss a key
			d.Key(d.t, keys...)
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("not pasted: %s", d.must("status"))
		}
	}
}

// has waits until what the entry of w holds is a text; its program copies it. With
// typed, that is typed before.
func (d day) has(vm string, w *desktoptest.Node, text string, typed bool) {
	d.t.Helper()
	d.until(text, func() bool {
		d.Focus(d.t, w)
		d.Key(d.t, "ctrl+a")
		if typed {
			d.Type(d.t, text)
		}
		d.Key(d.t, "ctrl+a", "ctrl+c")
		got, _ := d.pastes(vm)
		return string(got) == text
	})
}

// types are what a program of a VM's, of the host's with "", can paste.
func (d day) types(vm string) []string {
	d.t.Helper()
	got, _ := d.pastes(vm, "--list-types")
	return strings.Fields(string(got))
}

// TestDay is docs/clipboard.md's day, key by key: programs of GTK 4 and foot as
// sources and targets, with the shipped bindings of sway.
func TestDay(t *testing.T) {
	d := newDay(t)
	red, blue := d.opens("red", gtk4), d.opens("blue", gtk4)
	file := filepath.Join(d.Dir, "line")
	host := d.opens("", "foot", "--app-id=host", "sh", "-c", `while read line; do printf %s "$line" >`+file+`; done`)

	d.has("red", red, "grüße of gtk", true)
	d.take(red, "VM red")
	d.offer(blue, "VM blue")
	d.paste("ctrl+a", "ctrl+v")
	d.has("blue", blue, "grüße of gtk", false)

	d.take(blue, "VM blue")
	d.offer(host, "the host")
	d.until("the line in the terminal", func() bool {
		d.Key(t, "XF86Paste", "Return")
		b, _ := os.ReadFile(file)
		return string(b) == "grüße of gtk"
	})
	d.Key(t, "logo+ctrl+x")
	d.held("nothing is held")

	d.copies("", []byte("of the host"))
	d.take(host, "the host")
	d.offer(red, "VM red")
	d.paste("ctrl+a", "ctrl+v")
	d.has("red", red, "of the host", false)
}

// TestQt is the day with an editor of Qt 6 as source and target.
func TestQt(t *testing.T) {
	const program = "featherpad"
	if os.Getenv("VIX_E2E_FULL") == "" {
		t.Skip("make e2e-full runs it: it needs the larger system root")
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("lacks: " + program)
	}
	d := newDay(t)
	red, blue := d.opens("red", "env", "QT_QPA_PLATFORM=wayland", program, "--standalone"), d.opens("blue", gtk4)
	host := d.opens("", "foot", "--app-id=host", "sleep", "1000")

	d.has("red", red, "grüße of qt", true)
	d.take(red, "VM red")
	d.offer(host, "the host")
	// The key may have been pressed twice; then the first offer makes room for another.
	d.until("the text on the host", func() bool {
		got, _ := d.pastes("")
		return string(got) == "grüße of qt"
	})
	d.Key(t, "logo+ctrl+x")
	d.held("nothing is held")

	d.take(red, "VM red")
	d.offer(blue, "VM blue")
	d.paste("ctrl+a", "ctrl+v")
	d.has("blue", blue, "grüße of qt", false)

	d.has("blue", blue, "grüße of gtk", true)
	d.take(blue, "VM blue")
	d.offer(red, "VM red")
	d.paste("ctrl+a", "ctrl+v")
	d.has("red", red, "grüße of gtk", false)

	// Without a rule HTML does not pass; its text does.
	d.copies("", []byte("<b>of the host</b>"), "--type", "text/html")
	if types := d.types(""); !slices.Contains(types, "text/html") {
		t.Errorf("the host offers %q", types)
	}
	d.take(host, "the host")
	d.held("text (18 bytes) from the host")
	d.offer(red, "VM red")
	d.paste("ctrl+a", "ctrl+v")
	d.has("red", red, "<b>of the host</b>", false)
}
