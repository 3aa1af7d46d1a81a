package main

import (
	"os"
	"strings"
	"testing"

	"vix/internal/balloon"
	"vix/internal/vm"
)

// A guest's text, and that of its parts, is shown without escapes.
func TestStatusIsPlain(t *testing.T) {
	s := vmEntry{vmUse: vmUse{vm.State{
		Name: "web", State: "running", Vix: version, Uptime: 83.4, Memory: 512 << 20, CPUs: 2, Accel: "tcg", Color: "#123456", Tag: "web", Root: "host",
		Channel:     vm.ChannelState{Kind: "serial", By: "qemu"},
		Net:         vm.NetState{Kind: "nat", By: "passt", Received: 5 << 20, Sent: 12},
		GuestMemory: &vm.GuestMemory{Size: 400 << 20, Stats: balloon.Stats{Total: 380 << 20, Available: 280 << 20}},
		Programs:    []vm.Program{{ID: 1, Argv: []string{"sh", "-c", "\x1b[2J\nx"}}, {ID: 2, Argv: []string{"gone"}, Exit: &vm.Exit{}}},
		Windows:     []vm.Window{{ID: 7, Title: "[web] a\u202eb", AppID: "vix.web.x"}},
		Notes:       []string{"a note"},
	}, 300 << 20}}
	var b strings.Builder
	if err := printStatus(&b, s); err != nil {
		t.Fatal(err)
	}
	want := `name       web
state      running, for 1m23s
memory     512M, of which 300 MiB taken from the host
guest      uses 100 MiB of 400 MiB
cpus       2, emulated
color      #123456
tag        web
root       host
network    nat, by passt: 5.0 MiB in, 12 B out, as reported by the guest
channel    serial, by qemu
processes  supervisor 0, qemu 0, display 0, virtiofsd 0
program    1: sh -c [2J x
window     7: [web] ab (vix.web.x)
note       a note
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := printList(&b, []vmEntry{s}, false); err != nil || !strings.Contains(b.String(), "web   running  512M    300 MiB  1m23s   #123456  1        sh\n") {
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

func TestMemoryCheck(t *testing.T) {
	host := balloon.Memory{Total: 4 << 30, Available: 1 << 30}
	for _, tt := range []struct {
		want, sum    uint64
		status, says string
	}{
		{512 << 20, 2 << 30, "ok", "1024 MiB available; a VM has 512 MiB; those that run, 2048 of 4096 MiB"},
		{512 << 20, 5 << 30, "warn", "the 3 VMs that run may use 5120 MiB together, and this machine has 4096"},
		{2 << 30, 0, "warn", "1024 MiB available; a VM has 2048 MiB"},
	} {
		if c := memoryCheck(host, tt.want, 3, tt.sum); c.Status != tt.status || !strings.HasPrefix(c.Detail, tt.says) {
			t.Errorf("%+v", c)
		}
	}
}
