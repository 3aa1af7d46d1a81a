package soak

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// hang is how long anything may take, however busy the machine, before it counts as hung.
const hang = 3 * time.Minute

// look is how often is looked at what has no event.
const look = 20 * time.Millisecond

const config = `[vm.a]
memory = "256M"
[vm.b]
memory = "256M"
[vm.c]
memory = "256M"
`

// A world is a desktop, and a person's VMs on a small disk.
type world struct {
	*e2e.Rig
	t     *testing.T
	env   []string // of vix-launcher; the desktop's does not change
	disk  string   // a small file system, which holds what VMs keep; "" where none can be mounted
	dir   string   // of the test's own files
	vms   []*machine
	stats *stats

	mu     sync.Mutex
	groups map[string]bool // control groups that VMs were in
	notes  []string        // what the operations of this round met

	compositor sync.RWMutex // held for writing while the compositor restarts
	full       sync.Mutex   // by who fills the disk
	filled     atomic.Bool  // it is, or was, in this round
}

// A machine is a VM, with what is known of it.
type machine struct {
	w     *world
	name  string
	loose bool // nothing holds it: it starts, and ends, as the round's operations will

	mu         sync.Mutex
	supervisor int      // which started it
	ends       []string // why it may have ended in this round
	canary     *canary  // nil until there is one
	synced     []int    // what the canary has said to be on the disk
}

// diskSize is enough for the homes, and little enough to be filled in a moment.
const diskSize = "64m"

func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("boots VMs: not with -short")
	}
	if l := e2e.Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
	w := &world{t: t, stats: newStats(), groups: map[string]bool{}}
	var err error
	if w.dir, err = os.MkdirTemp("", "vs"); err != nil { // a socket's path is short
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(w.dir) })
	state := filepath.Join(w.dir, "disk")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("vix-soak", state, "tmpfs", 0, "mode=0700,size="+diskSize); err == nil {
		w.disk = state
		t.Setenv("TMPDIR", state) // the runtime directory is there too
		t.Cleanup(func() {
			if err := unix.Unmount(state, unix.MNT_DETACH); err != nil {
				t.Errorf("the small disk: %v", err)
			}
		})
	} else {
		t.Logf("no disk is filled: a file system cannot be mounted here: %v", err)
	}
	w.Rig = e2e.New(t, e2e.Config{Bin: "../../build/bin", TOML: config, Timeout: hang})
	w.env = append(w.Command("true").Env, "XDG_STATE_HOME="+state)
	for _, name := range []string{"a", "b", "c"} {
		w.vms = append(w.vms, &machine{w: w, name: name, loose: name == "c"})
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, m := range w.vms {
				lines := strings.Split(w.vix("logs", m.name).out, "\n")
				t.Logf("the log of %s ends:\n%s", m.name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
			}
		}
		w.vix("stop", "--force", "--all")
	})
	return w
}

// note keeps what chance alone does not tell of a round.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// home is where the host has the VM's home.
func (w *world) home(name string) string { return filepath.Join(w.dir, "disk/vix/vms", name, "home") }

// command is vix-launcher.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(w.Launcher(), args...)
	cmd.Env, cmd.Dir = w.env, w.dir
	return cmd
}

// A cut is a signal to a client, some time after its start; none if sig is 0.
type cut struct {
	sig   syscall.Signal
	after time.Duration
}

// A result is how a client ended.
type result struct {
	out, err string
	code     int  // 128+n for signal n
	cut      bool // the signal found it
	hung     bool
}

func (r result) String() string {
	text := fmt.Sprintf("status %d, %q, %q", r.code, short(r.out), short(r.err))
	if r.hung {
		text += ", hung"
	}
	return text
}

func short(s string) string {
	if len(s) > 400 {
		return s[:400] + "…"
	}
	return s
}

// vix runs vix-launcher to its end.
func (w *world) vix(args ...string) result { return w.cutVix(cut{}, nil, args...) }

// cutVix runs vix-launcher to its end, or to a signal.
func (w *world) cutVix(c cut, stdin []byte, args ...string) result {
	cmd := w.command(args...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	return w.run(c, cmd)
}

func (w *world) run(c cut, cmd *exec.Cmd) (r result) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p, err := desktoptest.Command(w.t, cmd, nil)
	if err != nil {
		return result{err: err.Error(), code: -1}
	}
	if c.sig != 0 {
		select {
		case <-p.Done():
		case <-time.After(c.after): // the moment is chance's
			p.Signal(c.sig)
			r.cut = true
		}
	}
	select {
	case <-p.Done():
	case <-time.After(hang):
		p.Signal(unix.SIGQUIT) // its goroutines say where
		r.hung = true
	}
	r.code = p.Wait()
	r.out, r.err = stdout.String(), stderr.String()
	return r
}

// A vm is what list tells of one.
type vm struct {
	e2e.VM
	Programs []struct {
		Argv  []string `json:"argv"`
		State string   `json:"state"`
	} `json:"programs"`
	Scope  *struct{ Name string } `json:"scope"`
	Shares []struct {
		Guest string `json:"guest"`
		PID   int    `json:"pid"`
	} `json:"shares"`
}

// list is what list tells, by name.
func (w *world) list() (map[string]vm, error) {
	r := w.vix("list", "--json")
	if r.code != 0 || r.hung {
		return nil, fmt.Errorf("list: %v", r)
	}
	var vms []vm
	if err := json.Unmarshal([]byte(r.out), &vms); err != nil {
		return nil, fmt.Errorf("list: %w: %v", err, r)
	}
	byName := map[string]vm{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range vms {
		byName[v.Name] = v
		if v.Scope != nil && filepath.IsAbs(v.Scope.Name) {
			w.groups[v.Scope.Name] = true
		}
	}
	return byName, nil
}

// until looks until ok is true, and tells how long that took.
func until(what string, limit time.Duration, ok func() (bool, error)) (time.Duration, error) {
	begin := time.Now()
	again := time.NewTicker(look)
	defer again.Stop()
	for {
		done, err := ok()
		switch d := time.Since(begin); {
		case done:
			return d, nil
		case d > limit:
			return d, errors.Join(fmt.Errorf("not after %v: %s", limit, what), err)
		}
		<-again.C
	}
}

// A process is one that cannot be mistaken for a later one of the same id.
type process struct {
	pid   int
	start string // field 22 of stat(5)
	name  string
}

// processOf returns the process and its parent's id; false if it has ended.
func processOf(pid int) (p process, parent int, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, 0, false
	}
	text := string(b)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	f := strings.Fields(text[end+1:])
	if open < 0 || len(f) < 20 {
		return p, 0, false
	}
	parent, _ = strconv.Atoi(f[1])
	return process{pid, f[19], text[open+1 : end]}, parent, true
}

func (p process) lives() bool {
	now, _, ok := processOf(p.pid)
	return ok && now.start == p.start
}

func (p process) String() string { return fmt.Sprintf("%s (%d)", p.name, p.pid) }

// tree returns the processes below the roots, and those themselves.
func tree(roots ...int) []process {
	entries, _ := os.ReadDir("/proc") // by name, not by number
	children := map[int][]int{}
	all := map[int]process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, parent, ok := processOf(pid); ok {
			all[pid] = p
			children[parent] = append(children[parent], pid)
		}
	}
	var list []process
	var add func(pid int)
	add = func(pid int) {
		if p, ok := all[pid]; ok {
			list = append(list, p)
		}
		slices.Sort(children[pid])
		for _, c := range children[pid] {
			add(c)
		}
	}
	for _, r := range roots {
		add(r)
	}
	return list
}

// role is what a process is to its VM.
func role(v vm, p process) string {
	for what, pid := range v.Processes() {
		if pid == p.pid && what != "virtiofsd" {
			return what
		}
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
	for arg := range bytes.SplitSeq(line, []byte{0}) {
		if dir, ok := bytes.CutPrefix(arg, []byte("--shared-dir=")); ok {
			return p.name + " " + filepath.Base(string(dir))
		}
	}
	return p.name
}

// A canary is the program that holds a VM: it counts, and says each number when it is on
// the disk.
type canary struct {
	*desktoptest.Proc
	m     *machine
	mu    sync.Mutex
	line  []byte        // that has not ended
	last  int           // that was said
	wrong string        // what must not be
	said  chan struct{} // closed, and replaced, when a number comes
}

// canaryScript appends a number that begins with a newline and ends with a dot, so that half
// of one, which a full disk makes, cannot be taken for another.
const canaryScript = `n=$1
while :; do
	n=$((n + 1))
	if printf '\n%d.' $n >>~/canary && sync ~/canary; then echo $n; fi 2>/dev/null
	sleep 0.2
done`

// canaryArgs is the length of its command line, by which list's programs tell it from others.
const canaryArgs = 5

// Write takes the canary's lines.
func (c *canary) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = append(c.line, b...)
	for {
		line, rest, ok := bytes.Cut(c.line, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		c.line = rest
		n, err := strconv.Atoi(string(line))
		if err != nil || n <= c.last {
			c.wrong = fmt.Sprintf("the canary said %q after %d", line, c.last)
			continue
		}
		c.last = n
		c.m.mu.Lock()
		c.m.synced = append(c.m.synced, n)
		c.m.mu.Unlock()
		close(c.said)
		c.said = make(chan struct{})
	}
}

func (c *canary) state() (last int, wrong string, said <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.wrong, c.said
}

// sings waits for the next number.
func (c *canary) sings() error {
	_, wrong, said := c.state()
	if wrong != "" {
		return fmt.Errorf("VM %s: %s", c.m.name, wrong)
	}
	select {
	case <-said:
		return nil
	case <-c.Done():
		return fmt.Errorf("VM %s: its canary ended with status %d: %s", c.m.name, c.Wait(), c.Output())
	case <-time.After(hang):
		return fmt.Errorf("VM %s: its canary is silent", c.m.name)
	}
}

func (c *canary) ended() bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// hold starts the VM, if it does not run, and the canary in it.
func (m *machine) hold() error {
	m.mu.Lock()
	c := &canary{m: m, said: make(chan struct{})}
	if n := len(m.synced); n > 0 {
		c.last = m.synced[n-1]
	}
	m.mu.Unlock()
	cmd := m.w.command("run", "--vm", m.name, "sh", "-c", canaryScript, "sh", strconv.Itoa(c.last))
	cmd.Stdout = c
	var err error
	if c.Proc, err = desktoptest.Command(m.w.t, cmd, nil); err != nil {
		return err
	}
	if err := c.sings(); err != nil {
		return fmt.Errorf("the next run: %w", err)
	}
	vms, err := m.w.list()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.canary, m.supervisor = c, vms[m.name].PIDs.Supervisor
	if m.supervisor == 0 {
		return fmt.Errorf("VM %s: its canary sings, and list does not tell of it", m.name)
	}
	return nil
}

// kept checks that every number that was said is in the home.
func (m *machine) kept() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.synced) == 0 {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(m.w.home(m.name), "canary"))
	if err != nil {
		return fmt.Errorf("VM %s: what was on the disk: %w", m.name, err)
	}
	there := map[string]bool{}
	for line := range strings.SplitSeq(string(b), "\n") {
		there[line] = true
	}
	for _, n := range m.synced {
		if !there[strconv.Itoa(n)+"."] {
			return fmt.Errorf("VM %s: %d was on the disk, and is not (%d numbers, %d bytes)", m.name, n, len(m.synced), len(b))
		}
	}
	return nil
}

// mayEnd notes that the VM may end by what an operation does.
func (m *machine) mayEnd(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ends = append(m.ends, why)
}

func (m *machine) ending() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.loose || len(m.ends) > 0
}

// gone waits until a VM that has lost something ends: list does not tell of it, and none of
// its processes lives.
func (w *world) gone(name string, supervisor int, all []process) (time.Duration, error) {
	var left []process
	told := false
	return until(fmt.Sprintf("the end of VM %s", name), hang, func() (bool, error) {
		left = slices.DeleteFunc(slices.Clone(all), func(p process) bool { return !p.lives() })
		vms, err := w.list()
		if err != nil {
			return false, err
		}
		told = vms[name].PIDs.Supervisor == supervisor
		return !told && len(left) == 0, fmt.Errorf("left: %v; list tells of it: %v", left, told)
	})
}

// outName is the directory of the small disk into which cp brings files.
const outName = "out"

// finish is the next verb, which finishes what an interrupted one has left: one that is about
// what VMs keep, though it has nothing to do, and a cp into the same directory.
func (w *world) finish(vms map[string]vm) {
	w.vix("rename", "nobody", "nobody-else")
	for name := range vms {
		w.vix("cp", "/etc/hostname", name+":kept")
		w.vix("cp", name+":kept", filepath.Join(w.dir, "disk", outName))
	}
}

// strays are processes that belong to no VM that list tells of, and files of none.
func (w *world) strays(vms map[string]vm) (left []string) {
	ours := map[int]bool{}
	roots := []int{os.Getpid()}
	for _, v := range vms {
		roots = append(roots, v.PIDs.Supervisor)
	}
	for _, p := range tree(roots...) {
		ours[p.pid] = true
	}
	for pid, what := range w.Processes() {
		if !ours[pid] && !strings.Contains(what, "clipboard-hold") { // lives until its time is up
			left = append(left, fmt.Sprintf("process %d: %s", pid, what))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range vms {
		if v.Scope != nil {
			delete(w.groups, v.Scope.Name)
		}
	}
	for group := range w.groups {
		if _, err := os.Stat(group); err == nil {
			left = append(left, "control group "+group)
			continue
		}
		delete(w.groups, group)
	}
	entries, _ := os.ReadDir(filepath.Join(w.Desktop.Dir, "vix"))
	for _, e := range entries {
		if _, ok := vms[e.Name()]; !ok && e.Name() != "lock" && e.Name() != "clipboard.sock" {
			left = append(left, "in the runtime directory: "+e.Name())
		}
	}
	_ = filepath.WalkDir(filepath.Join(w.dir, "disk"), func(path string, d fs.DirEntry, _ error) error {
		switch {
		case d == nil:
		case d.IsDir() && d.Name() == "home" && vms[filepath.Base(filepath.Dir(path))].Name == "":
			return fs.SkipDir // what a cp has left goes with the next, which needs the VM
		case len(vms) == 0 && d.Name() == outName:
			return fs.SkipDir
		// The guests' own names in their homes do not begin so.
		case strings.HasPrefix(d.Name(), ".removed-"), strings.HasPrefix(d.Name(), ".vix-"), strings.HasSuffix(d.Name(), ".tmp"):
			left = append(left, path)
		}
		return nil
	})
	return left
}
