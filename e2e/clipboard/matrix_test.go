package clipboard

import (
	"bytes"
	"fmt"
	"image/png"
	"strings"
	"testing"
	"time"
)

// TestMatrix holds what each action of a rule lets pass in each direction: of every
// kind, of nothing, at the limit and over it.
func TestMatrix(t *testing.T) {
	d := newDesk(t)
	d.bus()
	d.window("red")
	d.window("blue")
	pic := picture(t)
	for _, action := range []string{"allow", "ask", "deny"} {
		for _, way := range [][2]string{{"red", "blue"}, {"blue", "red"}, {"red", ""}, {"", "red"}} {
			from, to := way[0], way[1]
			name := func(vm string) string {
				if vm == "" {
					return "host"
				}
				return vm
			}
			d.config(fmt.Sprintf("[[clipboard.rule]]\nfrom = %q\nto = %q\naction = %q\nkinds = [\"text\", \"html\", \"image\"]\nlimit = \"1K\"\n", name(from), name(to), action))
			for _, c := range []struct {
				what, kind string
				content    []byte
			}{
				{"text", "text/plain", []byte("plain")},
				{"html", "text/html", []byte("<b>b</b>")},
				{"image", "image/png", pic},
				{"utf-8", "text/plain;charset=utf-8", []byte("grüße 世界 \U0001f980")},
				{"empty", "text/plain", nil},
				{"at the limit", "text/plain", bytes.Repeat([]byte("x"), 1<<10)},
				{"over the limit", "text/plain", bytes.Repeat([]byte("x"), 1<<10+1)},
			} {
				at := fmt.Sprintf("%s, %q to %q, %s", action, from, to, c.what)
				d.copies(from, c.content, "--type", c.kind)
				out, ok := d.carryAnswered(action, from, to)
				switch got, _ := d.pastes(to, "--type", c.kind); {
				case action == "deny":
					if ok || !strings.Contains(out, "denies") {
						t.Errorf("%s: %s", at, out)
					}
				case c.what == "over the limit":
					if ok || !strings.Contains(out, "1025 bytes of text, and at most 1024") {
						t.Errorf("%s: %s", at, out)
					}
				case !ok:
					t.Errorf("%s: %s", at, out)
				case c.what == "image":
					if img, err := png.Decode(bytes.NewReader(got)); err != nil || img.Bounds().Dx() != 40 {
						t.Errorf("%s: the picture: %v", at, err)
					}
				case !bytes.Equal(got, c.content):
					t.Errorf("%s: pasted %q", at, got)
				}
			}
		}
	}
	d.must("clear")
}

// carryAnswered is both acts, with a person who allows what is asked.
func (d *desk) carryAnswered(action, from, to string) (out string, ok bool) {
	d.t.Helper()
	if action != "ask" {
		return d.carry(from, to)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, ok = d.carry(from, to)
	}()
	again := time.NewTicker(50 * time.Millisecond) // mako tells nobody of a question
	defer again.Stop()
	for {
		select {
		case <-done:
			return out, ok
		case <-again.C:
			if strings.Contains(d.makoctl("list"), "Let this pass?") {
				d.makoctl("invoke", "allow")
			}
		}
	}
}
