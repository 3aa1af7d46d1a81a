package clipboard

import (
	"encoding/json"
	"strings"
	"testing"

	"vix/config"
	"vix/internal/desktoptest"
)

// TestDrags drags a text with a pointer, from a program to another behind the other
// filter, or of the host: where a rule allows it, it is there after the drop and not
// before, and else the target does not hear of it, or can take nothing.
func TestDrags(t *testing.T) {
	const rules = "[[clipboard.rule]]\nfrom = %q\nto = %q\naction = \"allow\"\n"
	for _, c := range []struct{ from, to, rule, text, want string }{
		{"red", "blue", "red blue", "dragged \x1b[1mtext", "dragged text"},
		{"red", "", "red host", "to the host", "to the host"},
		{"", "red", "host red", "of the host", "of the host"},
		{"red", "red", "", "within", "within"},
		{"red", "blue", "", "refused", ""},
		{"red", "blue", "red host", "refused", ""},
		{"red", "", "red blue", "refused", ""},
		{"", "red", "red host", "refused", ""},
		{"red", "blue", "red blue", strings.Repeat("x", 64<<10+1), "too long"},
	} {
		t.Run(c.from+" to "+c.to+" with "+c.rule, func(t *testing.T) {
			var args []string
			if from, to, ok := strings.Cut(c.rule, " "); ok {
				conf, err := config.Parse("config.toml", []byte(strings.Replace(strings.Replace(rules, "%q", `"`+from+`"`, 1), "%q", `"`+to+`"`, 1)))
				if err != nil {
					t.Fatal(err)
				}
				b, err := json.Marshal(conf.Clipboard.Drags("red")) // whose rules these are, in each of these
				if err != nil {
					t.Fatal(err)
				}
				args = []string{"--drags", string(b)}
			}
			d := deskOf(t, desktoptest.Config{Timeout: patience}, args...)
			d.MoveTo(t, 1, 1) // or the seat has no pointer yet
			source := d.attack(c.from, "shown", "drag-source", c.text)
			target := d.attack(c.to, "shown", "drag-target")
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the source: %s\nthe target: %s", source.Output(), target.Output())
				}
			})
			a := d.WaitSettled(t, desktoptest.ByTitle("drags")).Content().Image()
			b := d.WaitSettled(t, desktoptest.ByTitle("is dropped on")).Content().Image()
			d.MoveTo(t, (a.Min.X+a.Max.X)/2, a.Max.Y/2)
			d.Button(t, desktoptest.Left, true)
			d.says(source, "drags")
			d.MoveTo(t, b.Min.X, b.Max.Y/2)
			d.MoveTo(t, (b.Min.X+b.Max.X)/2, b.Max.Y/2)
			if c.want != "" {
				d.says(source, `target "text/plain`)
			}
			d.Button(t, desktoptest.Left, false)
			switch c.want {
			case "":
				d.says(source, "cancelled")
				if strings.Contains(target.Output(), "text/plain") || strings.Contains(target.Output(), "refused") {
					t.Errorf("the target: %s", target.Output())
				}
			case "too long":
				d.says(target, "dropped: 0 bytes")
			default:
				d.says(target, `dropped: `)
				if !strings.Contains(target.Output(), `"`+c.want+`"`) {
					t.Errorf("the target: %s", target.Output())
				}
				if c.from != c.to && !strings.Contains(target.Output(), "early: 0 bytes") {
					t.Errorf("before the drop: %s", target.Output())
				}
				d.says(source, "finished")
				if moved := strings.Contains(source.Output(), "action 2"); moved != (c.to == "" || c.from == c.to) {
					t.Errorf("moved: %v", moved) // which the target asks for
				}
			}
		})
	}
}
