package threats

import (
	"fmt"
	"image"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// bin is where the programs are.
var bin = "../../build/bin"

// threats are the rows of the table.
var threats = [...]string{
	1:  "skips the guest proxy and speaks raw cross-domain",
	2:  "binds screencopy, layer-shell, virtual keyboard, data-control and the like",
	3:  "forges titles or app ids, bidi and control characters",
	4:  "draws a fake desktop in fullscreen",
	5:  "opens huge or unmarked popups",
	6:  "reads the clipboard unasked, floods it",
	7:  "steals focus at paste time",
	8:  "grabs keys or pointer",
	9:  "keeps the screen unlocked, watches idleness, reads monitor serials",
	10: "floods: objects, toplevels, fds, bytes, commits, connections, blobs",
	11: "sends truncated or surplus fds, shrinks memory under a reader",
	12: "malforms descriptors, rings, commands, lengths, ids, offsets",
	13: "puts markup or escapes in titles and terminal output of list",
	14: "walks out of a share by .. or symlinks",
	15: "speaks for another VM on the control channel",
	16: "kills or wedges one of our processes",
	17: "takes input by a grab or an invented serial",
	18: "makes the filter's model and the compositor differ",
	19: "shows something outside its frame",
	20: "keeps memory after its handle is gone, makes the host say more than it said",
	21: "speaks to the person's terminal",
	22: "changes a thing between decision and act",
}

// verdicts are those of the tests that ran.
var verdicts [len(threats)]string

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.Rig != nil {
		shared.t.end()
	}
	for i, v := range verdicts {
		if v != "" {
			fmt.Printf("threat %02d: %s: %s\n", i, threats[i], v)
		}
	}
	os.Exit(code)
}

// stage is the desktop with its two VMs, shared by all tests: a VM takes a while to
// boot. evil is stopped and started again where it did not survive.
type stage struct {
	*e2e.Rig
	t       *stageT
	once    sync.Once
	evil    *desktoptest.Proc // keeps the VM
	dir     string            // temporary
	keyFile string            // is touched by the compositor's own key
	program string            // the hostile one, on the host
	sway    int               // its process
}

var shared stage

// stageT is the test that the stage belongs to, which outlives each: failures are
// those of the test that runs.
type stageT struct {
	*testing.T
	cleanups []func()
}

func (s *stageT) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

// Failed says that the stage has nothing to keep: the tests that failed have kept it.
func (s *stageT) Failed() bool { return false }

func (s *stageT) end() {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
}

// key is the compositor's own binding, which no window may take away.
const key = "bindsym Mod4+k exec touch %s\n"

const config = `[vm.evil]
memory = "1536M"
color = "#c02020"
limits = { memory = 536870912, blob-bytes = 1073741824 }
[vm.good]
memory = "512M"
color = "#2060c0"
`

// threat starts the test of a row.
func threat(t *testing.T, row int) *stage {
	t.Helper()
	t.Cleanup(func() {
		switch {
		case t.Failed():
			verdicts[row] = "broken"
		case !t.Skipped():
			verdicts[row] = "held"
		}
	})
	s := newStage(t)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		s.Keep(t)
		s.picture(t, fmt.Sprintf("threat%02d-failed.png", row))
		lines := strings.Split(s.Vix("logs", "evil").Stdout, "\n")
		t.Logf("the evil VM's log ends:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
	})
	return s
}

// newStage makes the stage, or gives the one that is there to another test.
func newStage(t *testing.T) *stage {
	t.Helper()
	if testing.Short() {
		t.Skip("boots VMs: not with -short")
	}
	if l := e2e.Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
	shared.once.Do(func() { shared.setUp(t) })
	if shared.Rig == nil {
		t.Fatal("the stage could not be set up")
	}
	shared.t.T = t
	shared.For(t)
	if shared.evil != nil {
		select {
		case <-shared.evil.Done():
			shared.evil = nil // a row before has broken it
		default:
		}
	}
	if shared.evil == nil {
		shared.startEvil(t)
	}
	return &shared
}

func (s *stage) setUp(t *testing.T) {
	s.t = &stageT{T: t}
	var err error
	if s.dir, err = os.MkdirTemp("", "vix-threats-"); err != nil {
		t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(s.dir) })
	s.keyFile = filepath.Join(s.dir, "key")
	r := e2e.New(s.t, e2e.Config{Bin: bin, TOML: config, Desktop: desktoptest.Config{Sway: fmt.Sprintf(key, s.keyFile)}})
	s.Rig = r
	r.Start("run", "--vm", "good", "sleep", "100000")
}

// startEvil boots the hostile VM and puts the hostile program into it.
func (s *stage) startEvil(t *testing.T) {
	t.Helper()
	if s.program == "" {
		s.program = filepath.Join(s.dir, "hostile")
		cmd := exec.Command("go", "build", "-o", s.program, "./hostile")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the hostile program: %v\n%s", err, out)
		}
	}
	s.For(s.t) // it outlives this test
	s.evil = s.Start("run", "--vm", "evil", "sleep", "100000")
	s.For(t)
	s.put(t, "evil")
}

// put puts the hostile program into a VM.
func (s *stage) put(t *testing.T, vm string) {
	t.Helper()
	f, err := os.Open(s.program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := s.Command(s.Launcher(), "run", "--vm", vm, "sh", "-c", "cat >/tmp/hostile && chmod 755 /tmp/hostile")
	cmd.Stdin = f
	if res := s.Run(cmd); res.Code != 0 {
		t.Fatalf("the hostile program does not get into the VM: %v", res)
	}
}

// asRoot is the command line for a program of the evil VM's root.
func asRoot(argv ...string) []string {
	return append([]string{"exec", "evil", "--user", "root", "--"}, argv...)
}

// attack runs an attack in the VM to its end and returns what it said.
func (s *stage) attack(t *testing.T, args ...string) string {
	t.Helper()
	res := s.Vix(append(asRoot("/tmp/hostile"), args...)...)
	if res.Code != 0 {
		t.Fatalf("hostile %q: %v", args, res)
	}
	return res.Stdout
}

// hold starts an attack that goes on until the test ends, and waits for a word of it.
func (s *stage) hold(t *testing.T, word string, args ...string) *desktoptest.Proc {
	t.Helper()
	p := s.Start(append(asRoot("/tmp/hostile"), args...)...)
	t.Cleanup(func() { s.end(t, p) })
	waitOutput(t, p, word)
	return p
}

// end ends a program of the guest.
func (s *stage) end(t *testing.T, p *desktoptest.Proc) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		out := p.Output()
		t.Errorf("the hostile program does not end: %s", out[max(0, len(out)-300):])
		p.Stop()
	}
}

func waitOutput(t *testing.T, p *desktoptest.Proc, text string) string {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	again := time.NewTicker(20 * time.Millisecond) // output has no event
	defer again.Stop()
	for {
		if out := p.Output(); strings.Contains(out, text) {
			return out
		}
		select {
		case <-again.C:
		case <-p.Done():
			if out := p.Output(); strings.Contains(out, text) {
				return out
			}
			t.Fatalf("ended without writing %q: %s", text, p.Output())
		case <-deadline:
			t.Fatalf("%q not written: %s", text, p.Output())
		}
	}
}

// unharmed checks that both VMs and the compositor are well.
func (s *stage) unharmed(t *testing.T) {
	t.Helper()
	for _, vm := range []string{"good", "evil"} {
		if got := s.Guest(vm, "echo well"); got != "well" {
			t.Errorf("VM %s: %q", vm, got)
		}
	}
	if out := s.attack(t, "outputs"); !strings.Contains(out, "geometry") {
		t.Errorf("the evil VM's display: %q", out)
	}
	if out := s.Guest("good", "wayland-info | grep -c interface"); out == "0" {
		t.Error("the good VM has no display")
	}
}

// log returns the evil VM's log.
func (s *stage) log(t *testing.T) string {
	t.Helper()
	return s.Must("logs", "evil")
}

// picture keeps what the screen shows.
func (s *stage) picture(t *testing.T, name string) { s.save(t, name, s.Screenshot(t)) }

func (s *stage) save(t *testing.T, name string, img *image.RGBA) {
	t.Helper()
	const dir = "../../build/e2e"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := desktoptest.SavePNG(filepath.Join(dir, name), img); err != nil {
		t.Fatal(err)
	}
}

// usage is what a process holds.
type usage struct {
	fds int
	mem int64
}

// usages measures every host process of a VM, and the compositor.
func (s *stage) usages(t *testing.T, vm string) map[string]usage {
	t.Helper()
	pids := s.VM(vm).Processes()
	if s.sway == 0 {
		s.sway = s.swayPID(t)
	}
	pids["sway"] = s.sway
	us := make(map[string]usage)
	for name, pid := range pids {
		es, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		mem, err := e2e.Memory(pid)
		if err != nil {
			t.Fatal(err)
		}
		us[name] = usage{len(es), mem}
	}
	return us
}

// swayPID finds the compositor by its socket.
func (s *stage) swayPID(t *testing.T) int {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.IPC, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return peer(t, c)
}

// peer returns the process at the other end of a socket.
func peer(t *testing.T, c *net.UnixConn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	if err := raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	}); err != nil || pid == 0 {
		t.Fatalf("the process at the other end of a socket: %v", err)
	}
	return pid
}
