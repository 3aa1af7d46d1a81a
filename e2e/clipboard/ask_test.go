package clipboard

import (
	"os/exec"
	"strings"
	"testing"
)

// TestAsk holds that a rule's "ask" is a notification whose button decides: mako on a
// session bus, answered as a person would.
func TestAsk(t *testing.T) {
	d := newDesk(t)
	d.bus()
	d.config("[[clipboard.rule]]\nfrom = \"red\"\nto = \"*\"\naction = \"ask\"\n")
	d.window("blue")
	d.copies("red", []byte("asked for"))
	d.copies("blue", []byte("of blue"))
	for _, c := range []struct{ answer, why string }{
		{"invoke refuse", "clipboard: text (9 bytes) from VM red to VM blue: refused"},
		{"dismiss", "refused: you did not answer"},
		{"invoke allow", ""},
	} {
		d.must("copy", "--vm", "red")
		type result struct {
			out string
			ok  bool
		}
		done := make(chan result)
		go func() {
			out, ok := d.vix("paste", "--vm", "blue")
			done <- result{out, ok}
		}()
		d.until("the question", func() bool { return strings.Contains(d.makoctl("list"), "Let this pass?") })
		if got, _ := d.pastes("blue"); string(got) != "of blue" {
			t.Errorf("before the answer blue pastes %q", got)
		}
		d.makoctl(strings.Fields(c.answer)...)
		switch r := <-done; {
		case c.why != "":
			if r.ok || !strings.Contains(r.out, c.why) {
				t.Errorf("%s: %s", c.answer, r.out)
			}
			if got, _ := d.pastes("blue"); string(got) != "of blue" {
				t.Errorf("%s: blue pastes %q", c.answer, got)
			}
		case !r.ok:
			t.Errorf("%s: %s", c.answer, r.out)
		default:
			if got, _ := d.pastes("blue"); string(got) != "asked for" {
				t.Errorf("%s: blue pastes %q", c.answer, got)
			}
		}
		d.makoctl("dismiss", "--all")
	}
}

// makoctl drives mako; what fails is seen by what it does not do.
func (d *desk) makoctl(args ...string) string {
	cmd := exec.Command("makoctl", args...)
	cmd.Env = d.Env()
	out, _ := cmd.CombinedOutput()
	return string(out)
}
