package main

import (
	"os"
	"strings"
	"testing"

	"vix/internal/vm"
)

// What a guest wrote, and what belongs to it, is shown without escapes.
func TestStatusIsPlain(t *testing.T) {
	s := vmUse{vm.State{
		Name: "web", State: "running", Uptime: 83.4, Memory: 512 << 20, CPUs: 2, Accel: "tcg", Color: "#123456", Tag: "web", Root: "host",
		Programs: []vm.Program{{ID: 1, Argv: []string{"sh", "-c", "\x1b[2J\nx"}}, {ID: 2, Argv: []string{"gone"}, Exit: &vm.Exit{}}},
		Windows:  []vm.Window{{ID: 7, Title: "[web] a\u202eb", AppID: "vix.web.x"}},
		Notes:    []string{"a note"},
	}, 300 << 20}
	var b strings.Builder
	if err := printStatus(&b, s); err != nil {
		t.Fatal(err)
	}
	want := `name       web
state      running, for 1m23s
memory     512M, of which 300 MiB taken from the host
cpus       2, emulated
color      #123456
tag        web
root       host
processes  supervisor 0, qemu 0, display 0, virtiofsd 0
program    1: sh -c ?[2J?x
window     7: [web] a?b (vix.web.x)
note       a note
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := printList(&b, []vmUse{s}); err != nil || !strings.Contains(b.String(), "web   running  512M    300 MiB  1m23s   #123456  1        sh\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestResidentOf(t *testing.T) {
	if n := residentOf(os.Getpid()); n < 1<<20 {
		t.Errorf("this process takes %d bytes", n)
	}
	if residentOf(0) != 0 || residentOf(1<<30) != 0 {
		t.Error("no process takes memory")
	}
}
