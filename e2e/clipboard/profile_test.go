package clipboard

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// shows waits until a side pastes something. wl-paste takes the keyboard in a VM, and
// the VM has to have it for a moment.
func (d *desk) shows(vm, want string, args ...string) {
	d.t.Helper()
	var got []byte
	again := time.NewTicker(400 * time.Millisecond) // what is offered has no event here
	defer again.Stop()
	for deadline := time.Now().Add(patience); ; <-again.C {
		if got, _ = d.pastes(vm, args...); string(got) == want {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("%q pastes %q, not %q", vm, got, want)
		}
	}
}

// profiles writes a configuration with the profiles of both VMs.
func (d *desk) profiles(red, blue, rules string) {
	d.config("[clipboard]\nmoment = \"50ms\"\nttl = \"5m\"\n[vm.red]\nclipboard = \"" + red + "\"\n[vm.blue]\nclipboard = \"" + blue + "\"\n" + rules)
}

// TestSharedOut holds what flows out of a VM by its profile, that rules bound it, and
// that nothing flows in, or into another VM.
func TestSharedOut(t *testing.T) {
	d := newDesk(t)
	d.profiles("shared-out", "shared-in", "")
	out := d.flow("red")
	in := d.flow("blue")
	red := d.window("red")
	d.Focus(t, red)
	d.copies("red", []byte("from \x1b[1mred"))
	d.shows("", "from red")
	if types, _ := d.pastes("", "--list-types"); !strings.Contains(string(types), "x-kde-passwordManagerHint") || !strings.Contains(string(types), "application/x-vix.from.red") {
		t.Errorf("types on the host: %s", types)
	}
	// Not on to blue, whose profile takes what is the host's: it is red's.
	blue := d.window("blue")
	d.Focus(t, blue)
	d.copies("", []byte("of the host"))
	d.Focus(t, blue)
	d.shows("blue", "of the host")
	d.Focus(t, red)
	d.copies("red", []byte("red again"))
	d.shows("", "red again")
	d.Focus(t, blue)
	if got, complaint := d.pastes("blue"); len(got) > 0 {
		t.Errorf("from red to blue flowed %q %s", got, complaint)
	}
	if got, _ := d.pastes("red"); string(got) != "red again" {
		t.Errorf("red has %q", got)
	}
	// A rule that names the pair lets it.
	d.profiles("shared-out", "shared-in", "[[clipboard.rule]]\nfrom = \"red\"\nto = \"blue\"\naction = \"allow\"\n")
	d.Focus(t, red)
	d.Focus(t, blue)
	d.shows("blue", "red again")
	// Kinds and sizes are the rules'; pictures are encoded anew.
	pic := append(picture(t), "hidden"...)
	d.Focus(t, red)
	d.copies("red", pic, "--type", "image/png")
	d.until("a picture on the host", func() bool {
		got, _ := d.pastes("", "--type", "image/png")
		return len(got) > 0 && !bytes.Contains(got, []byte("hidden"))
	})
	d.copies("red", bytes.Repeat([]byte("x"), 64<<10+1))
	d.until("the log to say that it was too much", func() bool { return strings.Contains(out.Output(), "more than 65536 bytes") })
	d.profiles("shared-out", "shared-in", "[[clipboard.rule]]\nfrom = \"red\"\nto = \"*\"\naction = \"ask\"\n")
	d.copies("red", []byte("asked for"))
	d.until("the log to say that a rule asks", func() bool { return strings.Contains(out.Output(), `a rule says "ask"`) })
	d.profiles("shared-out", "shared-in", "[[clipboard.rule]]\nfrom = \"red\"\nto = \"*\"\naction = \"allow\"\nttl = \"2s\"\n")
	d.copies("red", []byte("for a while"))
	d.shows("", "for a while")
	d.until("its time to be over", func() bool { got, _ := d.pastes(""); return len(got) == 0 })
	// With the VM ends what it put on the host.
	d.profiles("shared-out", "shared-in", "")
	d.copies("red", []byte("last"))
	d.shows("", "last")
	d.proxies["red"].Stop()
	<-out.Done()
	if got, _ := d.pastes(""); len(got) > 0 {
		t.Errorf("after the VM's end: %q", got)
	}
	if !strings.Contains(out.Output(), "VM red: its display has ended") {
		t.Error(out.Output())
	}
	in.Stop()
}

// TestSharedIn holds that what is copied on the host is the VM's while it has the
// focus, and only what was copied since, is no password, and not refused by a rule.
func TestSharedIn(t *testing.T) {
	d := newDesk(t)
	d.profiles("shared", "isolated", "")
	d.copies("", []byte("from before"))
	f := d.flow("red")
	d.flow("blue")
	red := d.window("red")
	d.Focus(t, red)
	d.copies("red", []byte("its own"))
	d.shows("", "its own")
	d.copies("", []byte("of the host"))
	d.Focus(t, red)
	d.shows("red", "of the host")
	d.shows("red", "of the host") // it stays
	// What a program of the VM copies is newer, and flows out.
	d.copies("red", []byte("newer"))
	d.shows("", "newer")
	d.shows("red", "newer")
	// Not to a VM whose profile is isolated.
	blue := d.window("blue")
	d.copies("", []byte("secret of the host"))
	d.Focus(t, blue)
	if got, _ := d.pastes("blue"); len(got) > 0 {
		t.Errorf("blue has %q", got)
	}
	// Without the focus it is taken back: a program that has it meanwhile is the host's.
	d.Focus(t, red)
	d.shows("red", "secret of the host")
	d.profiles("shared", "isolated", "[[clipboard.rule]]\nfrom = \"host\"\nto = \"red\"\naction = \"deny\"\n")
	d.copies("", []byte("denied"))
	d.Focus(t, blue)
	d.Focus(t, red)
	d.until("the log to say that a rule denies", func() bool { return strings.Contains(f.Output(), `a rule says "deny"`) })
	if got, _ := d.pastes("red"); string(got) != "newer" {
		t.Errorf("against a rule red has %q", got)
	}
	d.profiles("shared", "isolated", "")
	// A password, by the hint that managers of passwords give.
	d.start("", "wl-copy", "--foreground", "--type", "x-kde-passwordManagerHint", "secret")
	d.until("the password", func() bool {
		types, _ := d.pastes("", "--list-types")
		return strings.Contains(string(types), "x-kde")
	})
	d.Focus(t, blue)
	d.Focus(t, red)
	d.until("the log to say that it is a password", func() bool { return strings.Contains(f.Output(), "it is a password") })
	if got, _ := d.pastes("red"); string(got) != "newer" {
		t.Errorf("of a password red has %q", got)
	}
	d.copies("", []byte("last"))
	d.Focus(t, red)
	d.shows("red", "last")
	f.Stop()
	d.shows("red", "newer")
}
