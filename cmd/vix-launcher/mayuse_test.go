package main

import (
	"slices"
	"strings"
	"testing"

	"vix/config"
	"vix/internal/vm"
)

const mayUseConfig = `
[vm.web]
net       = "nat"
publish   = ["8080:80"]
shares    = ["/srv/a:/mnt/a:rw"]
usb       = ["1050:0407"]
clipboard = "shared"
allow     = ["wp_fifo_manager_v1"]
[vm.other]
clipboard = "shared-out"
[[clipboard.rule]]
from   = "other"
to     = "web"
action = "allow"
[[clipboard.rule]]
from   = "host"
to     = "web"
action = "ask"
`

// All that a VM was given is listed, whether config.toml or a verb gave it, and what takes it
// back: a command for now, and a key where the file would give it again.
func TestMayUse(t *testing.T) {
	conf, err := config.Parse("config.toml", []byte(mayUseConfig))
	if err != nil {
		t.Fatal(err)
	}
	st := vm.State{
		Name: "web", State: vm.StateRunning, Root: "host", Clipboard: "shared", Home: "/h",
		Net:      vm.NetState{Kind: "nat", By: "qemu", Publish: []string{"127.0.0.1:8080:80", "0.0.0.0:53:53/udp"}},
		Shares:   []vm.ShareState{{Host: "/srv/a", Guest: "/mnt/a", Write: true}, {Host: "/srv/b\x1b[2J", Guest: "/mnt/b"}},
		USB:      []vm.USBState{{Port: "1-2", ID: "1050:0407", Name: "key", Rule: true}, {Port: "1-3", ID: "aaaa:bbbb", Name: "stick"}},
		USBRules: []string{"1050:0407", "3-1"},
		Display:  vm.DisplayState{Kind: "wayland", Frame: "none", Allow: []string{"wp_fifo_manager_v1"}},
		Channel:  vm.ChannelState{Kind: "vsock", By: "kernel"},
	}
	h := holdingOf(st, true, conf, &vm.DiskUse{Bytes: 5 << 20})
	var b strings.Builder
	if err := printGrants(&b, h.mayUse(), false); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"network", "nat", "its 127.0.0.1 too, by qemu", `vix stop web; and net = "none" under [vm.web]`},
		{"127.0.0.1:8080 of this machine leads to its port 80, TCP", "vix stop web; and publish without it"},
		{"0.0.0.0:53 of this machine leads to its port 53, UDP  ", " vix stop web\n"},
		{"/srv/a at /mnt/a, for writing", "vix umount web /mnt/a; and shares without it"},
		{"/srv/b[2J at /mnt/b, read-only", " vix umount web /mnt/b\n"},
		{"1050:0407 key, at 1-2", "vix usb detach web 1-2; and usb without it"},
		{"aaaa:bbbb stick, at 1-3", " vix usb detach web 1-3\n"},
		{"3-1, when it is plugged in", " vix stop web\n"},
		{"shared: its copies flow to the host, copies of VM other flow to it  ", `clipboard = "isolated" under [vm.web], at once`},
		{"home", "kept in /h, at least 5.0 MiB", `vix stop web, then vix reset web; and state = "none" under [vm.web]`},
		{"vsock, by the kernel", `channel = "serial"`},
		{"display", "without a frame"},
		{"interface", "wp_fifo_manager_v1, a risk: ", "allow without it"},
	} {
		lines := slices.Collect(strings.Lines(b.String()))
		if !slices.ContainsFunc(lines, func(line string) bool {
			for _, w := range want {
				if !strings.Contains(line, w) {
					return false
				}
			}
			return true
		}) {
			t.Errorf("no line with %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "the host flow to it") {
		t.Errorf("a rule asks, and it is said to flow:\n%s", b.String())
	}

	// A VM that was started isolated has no process that carries anything, whatever the file says.
	st.Clipboard = config.ClipIsolated
	h = holdingOf(st, true, conf, nil)
	for _, g := range h.mayUse() {
		if g.Kind == "clipboard" && (len(g.Flows) > 0 || g.TakeBack != "") {
			t.Errorf("isolated: %+v", g)
		}
	}
	// Nothing is hidden because the file cannot be read.
	h = holdingOf(st, true, nil, nil)
	if n := len(forJSON(h.mayUse())); n != 14 {
		t.Errorf("without config.toml: %d grants: %+v", n, h.mayUse())
	}
}
