package launch

import (
	"strings"
	"testing"
)

// The progress line is drawn in place, makes room for lines, and is gone when
// the program runs; where there is no terminal, there are only lines.
func TestProgress(t *testing.T) {
	var b strings.Builder
	p := NewProgress(&b, true, "web")
	p.Stage("prepared") // too early to be shown
	p.show()
	p.Stage("qemu")
	p.Stage("unknown")
	p.Line("a note")
	p.End()
	p.Stage("init")
	p.Line("another")
	want := "\r\x1b[Kstarting VM web: starting QEMU …" +
		"\r\x1b[Kstarting VM web: booting the kernel …" +
		"\r\x1b[Kvix: a note\n" +
		"\r\x1b[Kstarting VM web: booting the kernel …" +
		"\r\x1b[K" + "vix: another\n"
	if b.String() != want {
		t.Errorf("got\n%q, want\n%q", b.String(), want)
	}
	b.Reset()
	p = NewProgress(&b, false, "web")
	p.show()
	p.Stage("qemu")
	p.Line("a note")
	p.End()
	if b.String() != "vix: a note\n" {
		t.Errorf("without a terminal: %q", b.String())
	}
}
