package clipboard

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// side is how a side is named on the command line.
func side(vm string) []string {
	if vm == "" {
		return []string{"--host"}
	}
	return []string{"--vm", vm}
}

// carry is both acts.
func (d *desk) carry(from, to string, more ...string) (out string, ok bool) {
	d.t.Helper()
	if out, ok := d.vix(append(append([]string{"copy"}, side(from)...), more...)...); !ok {
		return out, false
	}
	return d.vix(append(append([]string{"paste"}, side(to)...), more...)...)
}

func picture(t *testing.T) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 40, 30))
	img.SetRGBA(3, 4, color.RGBA{200, 10, 10, 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestActs holds what copy and paste carry, in every direction, and what they refuse.
func TestActs(t *testing.T) {
	d := newDesk(t)
	d.window("red")
	d.window("blue")
	const most = 64 << 10
	for _, way := range [][2]string{{"red", "blue"}, {"red", ""}, {"", "red"}, {"blue", "red"}} {
		from, to := way[0], way[1]
		for _, c := range []struct {
			name, kind string
			content    []byte
			want       []byte // nil: refused
			why        string
		}{
			{"text", "text/plain", []byte("plain"), []byte("plain"), ""},
			{"utf-8", "text/plain;charset=utf-8", []byte("grüße 世界"), []byte("grüße 世界"), ""},
			{"escapes", "text/plain", []byte("a\x1b[31mb\x1b]0;t\ac\r\nd\x00e\u202ef"), []byte("abc\ndef"), ""},
			{"at the limit", "text/plain", bytes.Repeat([]byte("x"), most), bytes.Repeat([]byte("x"), most), ""},
			{"over", "text/plain", bytes.Repeat([]byte("x"), most+1), nil, "more than 65536 bytes"},
			{"html, which is text too", "text/html", []byte("<b>b</b>"), []byte("<b>b</b>"), ""},
			{"anything else", "application/x-thing", []byte("thing"), nil, "neither text nor a picture"},
			{"files", "text/uri-list", []byte("file:///etc/passwd"), nil, "files are selected"},
			{"not a picture", "image/png", []byte("PNG?"), nil, "not a picture"},
		} {
			if c.name != "utf-8" && (from == "blue" || from == "") {
				continue // the same code; a try of each way is enough
			}
			d.copies(from, c.content, "--type", c.kind)
			out, ok := d.carry(from, to)
			if c.want == nil {
				if ok || !strings.Contains(out, c.why) {
					t.Errorf("%q to %q, %s: %s", from, to, c.name, out)
				}
				continue
			}
			if !ok {
				t.Errorf("%q to %q, %s: %s", from, to, c.name, out)
				continue
			}
			if got, complaint := d.pastes(to); !bytes.Equal(got, c.want) {
				t.Errorf("%q to %q, %s: got %d bytes %.40q: %s", from, to, c.name, len(got), got, complaint)
			}
		}
		pic := picture(t)
		d.copies(from, pic, "--type", "image/png")
		if out, ok := d.carry(from, to); !ok {
			t.Errorf("%q to %q: a picture: %s", from, to, out)
		} else if got, _ := d.pastes(to, "--type", "image/png"); len(got) == 0 {
			t.Errorf("%q to %q: no picture came", from, to)
		} else if img, err := png.Decode(bytes.NewReader(got)); err != nil || img.Bounds().Dx() != 40 {
			t.Errorf("%q to %q: the picture is %v", from, to, err)
		}
	}
	d.must("clear")
}

// TestPasteIsOnce holds that what was pasted is gone after it was used, that the VM has
// its own selection back, and that the other slot works as well.
func TestPasteIsOnce(t *testing.T) {
	d := newDesk(t)
	d.window("red")
	d.window("blue")
	for _, flags := range [][]string{nil, {"--primary"}} {
		d.copies("red", []byte("moved"), flags...)
		d.copies("blue", []byte("its own"), flags...)
		if out, ok := d.carry("red", "blue", flags...); !ok {
			t.Fatal(out)
		}
		if got, _ := d.pastes("blue", flags...); string(got) != "moved" {
			t.Errorf("pasted %q", got)
		}
		d.until("nothing to be held", func() bool { return d.must("status") == "nothing is held" })
		if got, _ := d.pastes("blue", flags...); string(got) != "its own" {
			t.Errorf("afterwards %q", got)
		}
	}
	// What is not used ends with its time, and a new copy takes its place.
	d.config("[clipboard]\nttl = \"1s\"\n")
	d.must("copy", "--vm", "red")
	d.must("paste", "--vm", "blue")
	d.until("its time to be over", func() bool { return d.must("status") == "nothing is held" })
	if out, ok := d.vix("paste", "--vm", "blue"); ok || !strings.Contains(out, "nothing was copied") {
		t.Error(out)
	}
}

// TestPasteTwice holds that a key that was pressed twice pastes as one pressed once:
// of offers made at the same time one stands.
func TestPasteTwice(t *testing.T) {
	d := newDesk(t)
	d.window("red")
	d.window("blue")
	for round, to := range []string{"blue", "", "blue", ""} {
		text := fmt.Sprintf("round %d", round)
		d.copies("red", []byte(text))
		d.must("copy", "--vm", "red")
		var presses sync.WaitGroup
		for range 6 {
			presses.Go(func() {
				if out, ok := d.vix(append([]string{"paste"}, side(to)...)...); !ok {
					t.Error(out)
				}
			})
		}
		presses.Wait()
		if got, _ := d.pastes(to); string(got) != text {
			t.Errorf("to %q: pasted %q; %s", to, got, d.must("status"))
		}
		d.must("clear")
	}
}

func (d *desk) until(what string, ok func() bool) {
	d.t.Helper()
	again := time.NewTicker(50 * time.Millisecond) // what a holder holds has no event
	defer again.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-again.C {
		if time.Now().After(deadline) {
			d.t.Fatalf("waiting for %s", what)
		}
	}
}

// TestFocus holds that the acts follow the focus, that a window that came just now is
// not pasted to, and that a host's clipboard manager sees nothing before a paste.
func TestFocus(t *testing.T) {
	d := newDesk(t)
	d.config("[clipboard]\nmoment = \"400ms\"\n")
	watcher := d.start("", "wl-paste", "--watch", "sh", "-c", "echo seen; cat; echo")
	red := d.window("red")
	if out, ok := d.vix("copy"); ok || !strings.Contains(out, "nothing is selected") {
		t.Errorf("copy of nothing: %s", out)
	}
	if out, ok := d.vix("paste", "--vm", "blue"); ok || !strings.Contains(out, "nothing was copied") {
		t.Errorf("paste of nothing: %s", out)
	}
	d.copies("red", []byte("of red"))
	d.Focus(t, red)
	if out := d.must("copy"); !strings.Contains(out, "copied text (6 bytes) from VM red") {
		t.Error(out)
	}
	if out, ok := d.vix("paste", "--vm", "blue"); ok || !strings.Contains(out, "has no window") {
		t.Errorf("into a VM without a window: %s", out)
	}
	if out := watcher.Output(); strings.Contains(out, "of red") {
		t.Errorf("the host's clipboard manager saw it: %s", out)
	}
	d.config("[clipboard]\nmoment = \"1m\"\n")
	d.window("blue") // has the focus now
	if out, ok := d.vix("paste"); ok || !strings.Contains(out, "for less than 1m0s") {
		t.Errorf("into a window that came just now: %s", out)
	}
	d.config("[clipboard]\nmoment = \"1ms\"\n")
	if out := d.must("paste"); !strings.Contains(out, "from VM red to VM blue") {
		t.Error(out)
	}
	if got, _ := d.pastes("blue"); string(got) != "of red" {
		t.Errorf("pasted %q", got)
	}
	// To the host: its manager sees it only now, with the hint not to keep it.
	d.until("the holder to end", func() bool { return d.must("status") == "nothing is held" })
	d.must("copy", "--vm", "red")
	d.start("", "foot", "--app-id=host", "sleep", "1000")
	d.WaitWindow(t, desktoptest.ByAppID("host"))
	if out := d.must("paste"); !strings.Contains(out, "to the host") {
		t.Error(out)
	}
	d.until("the watcher to see it", func() bool { return strings.Contains(watcher.Output(), "of red") })
	if got, _ := d.pastes("", "--list-types"); !strings.Contains(string(got), "x-kde-passwordManagerHint") {
		t.Errorf("types: %s", got)
	}
	d.must("clear")
	if got, _ := d.pastes(""); len(got) != 0 {
		t.Errorf("after clear: %q", got)
	}
}

// TestRules holds each action of a rule, kinds and limits, with real programs.
func TestRules(t *testing.T) {
	d := newDesk(t)
	d.window("red")
	d.window("blue")
	d.config(`[[clipboard.rule]]
from = "red"
to = "host"
action = "deny"
[[clipboard.rule]]
from = "red"
to = "blue"
action = "allow"
kinds = ["html"]
limit = "1K"
[[clipboard.rule]]
from = "blue"
to = "red"
action = "ask"
`)
	d.copies("red", []byte("text"))
	if out, ok := d.carry("red", ""); ok || !strings.Contains(out, "denies") {
		t.Errorf("denied: %s", out)
	}
	if out, ok := d.carry("red", "blue"); ok || !strings.Contains(out, "no text may go from VM red to VM blue") {
		t.Errorf("a kind that is not in the rule: %s", out)
	}
	d.copies("red", []byte("<i>x</i>"), "--type", "text/html")
	if out, ok := d.carry("red", "blue"); !ok {
		t.Error(out)
	}
	if got, _ := d.pastes("blue"); string(got) != "<i>x</i>" {
		t.Errorf("html: %q", got)
	}
	d.copies("blue", []byte("asked"))
	if out, ok := d.carry("blue", "red"); ok || !strings.Contains(out, "that is not possible") {
		t.Errorf("nobody to ask: %s", out)
	}
	d.must("clear")
}

// TestStopped holds that a copy ends with a reason when the VM goes in the middle.
func TestStopped(t *testing.T) {
	d := newDesk(t)
	d.window("red")
	p := d.start("red", "wl-copy", "--foreground", "--type", "text/plain", "x")
	d.until("the selection", func() bool { _, ok := d.vix("copy", "--vm", "red"); return ok })
	for len(d.passed) > 0 {
		<-d.passed
	}
	p.Signal(syscall.SIGSTOP) // it never answers
	done := make(chan string)
	go func() {
		out, _ := d.vix("copy", "--vm", "red")
		done <- out
	}()
	<-d.passed
	d.proxies["red"].Stop()
	if out := <-done; !strings.Contains(out, "VM red") {
		t.Errorf("stopped in the middle: %s", out)
	}
	p.Signal(syscall.SIGCONT)
	d.must("clear")
}
