package launch

import (
	"strings"
	"testing"
)

// Of what a guest's end writes little is kept, and that is fit for a terminal.
func TestNotes(t *testing.T) {
	n := &Notes{}
	for range 100 {
		if k, err := n.Write([]byte("\x1b]52;c;x\x07 evil\n" + strings.Repeat("x", 100))); k != 115 || err != nil {
			t.Fatal(k, err)
		}
	}
	text := strings.Join(n.Lines(), "\n")
	if len(text) > maxNotes || strings.ContainsAny(text, "\x1b\x07") || !strings.HasPrefix(text, "]52;c;x evil\n") {
		t.Errorf("%q", text)
	}
}
