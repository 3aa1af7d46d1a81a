package clipboard

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/e2e"
	"vix/internal/desktoptest"
	"vix/internal/hostile"
)

// hostileEnv makes this program the hostile client of a VM's: its arguments are an
// attack's.
const hostileEnv = "VIX_TEST_HOSTILE"

func TestMain(m *testing.M) {
	if os.Getenv(hostileEnv) == "" {
		os.Exit(m.Run())
	}
	socket := os.Getenv("WAYLAND_DISPLAY")
	if !filepath.IsAbs(socket) {
		socket = filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), socket)
	}
	r := &hostile.Run{
		Open: func() (*hostile.Client, error) { return hostile.OverSocket(socket) },
		Out:  os.Stdout, Args: os.Args[2:], Hold: func() { select {} },
	}
	if err := hostile.Do(os.Args[1], r); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// attack starts a hostile client in a VM and waits for a word of it.
func (d *desk) attack(vm, word string, args ...string) *desktoptest.Proc {
	d.t.Helper()
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := d.command(vm, append([]string{self}, args...)...)
	cmd.Env = append(cmd.Env, hostileEnv+"=1")
	p, err := desktoptest.Command(d.t, cmd, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.says(p, word)
	return p
}

func (d *desk) says(p *desktoptest.Proc, word string) {
	d.t.Helper()
	d.until(fmt.Sprintf("%q", word), func() bool {
		select {
		case <-p.Done():
			if !strings.Contains(p.Output(), word) {
				d.t.Fatalf("it ended: %s", p.Output())
			}
		default:
		}
		return strings.Contains(p.Output(), word)
	})
}

func (d *desk) memory(p *desktoptest.Proc) float64 {
	d.t.Helper()
	n, err := e2e.Memory(p.PID)
	if err != nil {
		d.t.Fatal(err)
	}
	return float64(n) / (1 << 20)
}

// TestHostileFlood: a program sets the selection every millisecond. Others go on, and
// memory does not grow; where the profile lets it out, the host's clipboard changes a
// few times a second.
func TestHostileFlood(t *testing.T) {
	d := newDesk(t)
	d.profiles("isolated", "isolated", "")
	d.window("blue")
	d.copies("", []byte("the host's"))
	const times = "3000"
	flood := func() (p *desktoptest.Proc, before, during, after float64) {
		before = d.memory(d.proxies["red"])
		p = d.attack("red", "focused", "select-flood", times)
		d.copies("blue", []byte("of blue"), "--primary") // the keyboard is the flooder's: wl-copy takes it for a moment
		during = d.memory(d.proxies["red"])
		if got, complaint := d.pastes("blue", "--primary"); string(got) != "of blue" {
			t.Errorf("blue meanwhile has %q: %s", got, complaint)
		}
		d.says(p, "set "+times)
		if !strings.Contains(p.Output(), "<nil>") {
			t.Errorf("the flood: %s", p.Output())
		}
		return p, before, during, d.memory(d.proxies["red"])
	}
	p, before, during, after := flood()
	t.Logf("%s; display process: %.1f MiB before, %.1f during, %.1f after", strings.TrimSpace(p.Output()), before, during, after)
	if max(during, after) > before+16 {
		t.Errorf("the display process grew from %.1f to %.1f, %.1f MiB", before, during, after)
	}
	if got, _ := d.pastes(""); string(got) != "the host's" {
		t.Errorf("the host has %q", got)
	}
	p.Stop()

	d.profiles("shared-out", "isolated", "")
	f := d.flow("red")
	watcher := d.start("", "wl-paste", "--watch", "echo", "changed")
	d.says(watcher, "changed") // what there is
	begin, was := time.Now(), d.memory(f)
	p, before, during, after = flood()
	took := time.Since(begin)
	p.Stop()
	n := strings.Count(watcher.Output(), "changed") - 1
	t.Logf("with a profile: %d changes on the host in %v; display process: %.1f, %.1f, %.1f MiB; clipboard-flow: %.1f, then %.1f MiB", n, took, before, during, after, was, d.memory(f))
	if most := int(2*took/(250*time.Millisecond)) + 4; n > most { // each may be seen to come and to go
		t.Errorf("the host's clipboard changed %d times in %v", n, took)
	}
	if max(during, after) > before+16 || d.memory(f) > was+16 {
		t.Error("memory grew")
	}
}

// TestHostileTarget: a window that comes just before a paste is not pasted to, the user
// is told, and its program gets nothing; nor does it when the paste is another's.
func TestHostileTarget(t *testing.T) {
	d := newDesk(t)
	d.bus()
	d.config("[clipboard]\nmoment = \"1m\"\n")
	blue := d.window("blue")
	d.copies("", []byte("a secret"))
	d.must("copy", "--host")
	red := d.attack("red", "focused", "select-sniff") // its window has the focus now
	if out, ok := d.vix("paste"); ok || !strings.Contains(out, "VM red has had the keyboard for less than") {
		t.Errorf("into a window that came just now: %s", out)
	}
	d.note("Not pasted", "less than 1m")
	d.config("[clipboard]\nmoment = \"1ms\"\n")
	d.Focus(t, blue)
	if out := d.must("paste"); !strings.Contains(out, "to VM blue") {
		t.Error(out)
	}
	d.note("Ready to paste", "from the host to VM blue")
	d.Focus(t, d.WaitWindow(t, desktoptest.ByAppIDPrefix("vix.red.")))
	d.Focus(t, blue)
	if got, _ := d.pastes("blue"); string(got) != "a secret" {
		t.Errorf("blue pastes %q", got)
	}
	if strings.Contains(red.Output(), "offered") || strings.Contains(red.Output(), "read") {
		t.Errorf("red: %s", red.Output())
	}
}

// TestHostileSniff: whenever it gets the focus, a program asks for all that it is
// offered. It is offered nothing, and with a profile that lets in what the host copies
// only where its window had the focus for a moment.
func TestHostileSniff(t *testing.T) {
	d := newDesk(t)
	d.config("[clipboard]\nmoment = \"1m\"\n[vm.red]\nclipboard = \"shared-in\"\n")
	blue := d.window("blue")
	f := d.flow("red")
	sniffer := d.attack("red", "focused", "select-sniff")
	red := d.WaitWindow(t, desktoptest.ByAppIDPrefix("vix.red."))
	for k := range 5 {
		d.Focus(t, blue)
		d.copies("blue", fmt.Appendf(nil, "secret %d of blue", k))
		d.copies("", fmt.Appendf(nil, "secret %d of the host", k))
		d.copies("", fmt.Appendf(nil, "primary secret %d of the host", k), "--primary")
		d.Focus(t, red)
	}
	if out := sniffer.Output(); strings.Contains(out, "offered") || strings.Contains(out, "read") {
		t.Errorf("it saw: %s", out)
	}
	d.profiles("shared-in", "isolated", "")
	d.Focus(t, blue)
	d.copies("", []byte("let in"))
	d.Focus(t, red)
	d.says(sniffer, `read "let in"`)
	if strings.Contains(sniffer.Output(), "secret") {
		t.Errorf("it saw: %s", sniffer.Output())
	}
	f.Stop()
}

// TestHostileSerials: serials that nobody gave set nothing.
func TestHostileSerials(t *testing.T) {
	d := newDesk(t)
	d.window("red")
	d.copies("red", []byte("its own"))
	d.attack("red", "forged 500 serials", "select-forged", "500")
	if got, complaint := d.pastes("red"); string(got) != "its own" {
		t.Errorf("red has %q: %s", got, complaint)
	}
}

// TestHostilePipes: whoever has the selection and does not behave ends the act with a
// reason, within a time and for little memory; the next act is as good as ever.
func TestHostilePipes(t *testing.T) {
	d := newDesk(t)
	d.window("blue")
	d.copies("blue", []byte("of blue"))
	for how, why := range map[string]string{
		"endless": "more than 65536 bytes", "silent": "stalls", "half": "",
	} {
		p := d.attack("red", "selected: <nil>", "select-pipe", how)
		before := d.memory(d.proxies["red"])
		out, ok := d.vix("copy", "--vm", "red")
		if how == "half" && ok {
			continue // a pipe's end is all that there is to tell from
		}
		if ok || !strings.Contains(out, why) {
			t.Errorf("%s: %s", how, out)
		}
		if after := d.memory(d.proxies["red"]); after > before+8 {
			t.Errorf("%s: the display process grew from %.1f to %.1f MiB", how, before, after)
		}
		if out := d.must("copy", "--vm", "blue"); !strings.Contains(out, "7 bytes") {
			t.Errorf("%s: then %s", how, out)
		}
		p.Stop()
	}
	d.must("clear")
}

// bus gives the desk a session bus with mako on it.
func (d *desk) bus() {
	d.t.Helper()
	if lacks := desktoptest.LacksBus(); lacks != "" {
		d.t.Skip("lacks: " + lacks)
	}
	d.StartBus(d.t, "")
	d.Mako(d.t)
}

// note waits for a notification; mako tells nobody of them.
func (d *desk) note(words ...string) {
	d.t.Helper()
	var shown strings.Builder
	d.until(fmt.Sprintf("a notification with %q", words), func() bool {
		for _, list := range []string{"ListNotifications", "ListHistory"} {
			cmd := exec.Command("gdbus", "call", "--session", "--dest", "org.freedesktop.Notifications", "--object-path", "/fr/emersion/Mako", "--method", "fr.emersion.Mako."+list)
			cmd.Env = d.Env()
			out, _ := cmd.CombinedOutput()
			shown.Write(out)
		}
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(shown.String(), w) })
	})
}
