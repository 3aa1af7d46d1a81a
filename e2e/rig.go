// Package e2e holds the tests of the whole: real programs in real VMs on a real
// compositor, driven and looked at as a user would, through vix-launcher alone.
//
//	Rig ── Desktop: headless sway, keys, pointer, pictures (desktoptest)
//	   └── vix-launcher from build/bin, with a runtime, configuration and
//	       temporary directory of the rig's own; the cache is the user's, so that
//	       kernel and initramfs are prepared once
//
// `make e2e` runs them where QEMU and sway are (scripts/in-root), `make demo` the
// program in demo/. When a rig closes, nothing that its VMs were made of may be
// left: no process, socket, mount or file (CheckClean).
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/logtest"
)

// What the host draws around a window of a VM (internal/filter/frame.go), in
// pixels: a label above, and the other three sides.
const (
	FrameTop  = 20
	FrameSide = 4
)

// Inside is where a framed window's program draws, on the screen.
func Inside(w *desktoptest.Node) image.Rectangle {
	r := w.Content().Image()
	return image.Rect(r.Min.X+FrameSide, r.Min.Y+FrameTop, r.Max.X-FrameSide, r.Max.Y-FrameSide)
}

// Config changes what New makes; its zero value is good for most tests.
type Config struct {
	Desktop desktoptest.Config
	Attach  *desktoptest.Desktop // use this one instead of a headless sway
	Bin     string               // directory of the programs; ../build/bin when empty
	TOML    string               // config.toml
	Timeout time.Duration        // of Run; three minutes when 0
}

// A Rig is a desktop and a user's directories, on which vix-launcher runs.
type Rig struct {
	*desktoptest.Desktop
	t        desktoptest.T
	bin      string
	dir      string // holds config/ and tmp/, and cache/ and home/ of another user
	runtime  string // XDG_RUNTIME_DIR of vix-launcher
	cred     *syscall.Credential
	timeout  time.Duration
	baseline map[int]bool // processes that were there before the rig
	mounts   string
	logs     *logtest.Logs
}

// Lacks says what the machine lacks for a Rig, or "".
func Lacks() string {
	var missing []string
	if l := desktoptest.Lacks(); l != "" {
		missing = append(missing, l)
	}
	for _, name := range []string{"qemu-system-x86_64", "foot", "wev", "weston-simple-shm", "gtk4-demo"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	kernels, _ := filepath.Glob("/boot/vmlinuz-*")
	more, _ := filepath.Glob("/usr/lib/modules/*/vmlinuz")
	if len(kernels)+len(more) == 0 {
		missing = append(missing, "a kernel image in /boot or /usr/lib/modules")
	}
	return strings.Join(missing, ", ")
}

// New makes a Rig that ends with the test, whose VMs are stopped then.
func New(t desktoptest.T, cfg Config) *Rig {
	t.Helper()
	r := &Rig{t: t, cred: cfg.Desktop.Credential, timeout: cfg.Timeout, baseline: processes(), mounts: mounts()}
	if r.timeout == 0 {
		r.timeout = 3 * time.Minute
	}
	if r.Desktop = cfg.Attach; r.Desktop == nil {
		r.Desktop = desktoptest.Start(t, cfg.Desktop)
	}
	r.baseline = processes() // the desktop's own are not the VMs'
	r.runtime = r.Desktop.Dir
	if err := r.directories(cfg); err != nil {
		t.Fatalf("making the rig's directories: %v", err)
	}
	r.logs = logtest.Watch(t, r.runtime)
	t.Cleanup(r.close)
	return r
}

func (r *Rig) directories(cfg Config) error {
	bin := cfg.Bin
	if bin == "" {
		bin = "../build/bin"
	}
	var err error
	if r.bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(r.bin, "vix-launcher")); err != nil {
		return fmt.Errorf("%w; run make build", err)
	}
	if r.dir, err = os.MkdirTemp("", "vix-e2e-"); err != nil {
		return err
	}
	r.t.Cleanup(func() { os.RemoveAll(r.dir) })
	for _, sub := range []string{"", "config/vix", "tmp", "home", "cache"} {
		if err := os.MkdirAll(filepath.Join(r.dir, sub), 0o755); err != nil {
			return err
		}
	}
	if cfg.TOML != "" {
		if err := r.SetConfig(cfg.TOML); err != nil {
			return err
		}
	}
	if r.cred == nil {
		return nil
	}
	// Another user may not be able to read the project: give him copies.
	if err := os.CopyFS(filepath.Join(r.dir, "bin"), os.DirFS(r.bin)); err != nil {
		return err
	}
	r.bin = filepath.Join(r.dir, "bin")
	return filepath.WalkDir(r.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(r.cred.Uid), int(r.cred.Gid))
	})
}

// For lets a subtest be the one that fails, until it ends.
func (r *Rig) For(t desktoptest.T) {
	parent := r.t
	r.t = t
	t.Cleanup(func() { r.t = parent })
}

// Keep saves the logs of the rig's VMs for t, if it has failed, where the rig outlives t.
func (r *Rig) Keep(t desktoptest.T) {
	t.Helper()
	r.logs.Save(t)
	if r.Sway != nil {
		logtest.Save(t, "sway.txt", r.Sway.Output())
	}
}

// SetConfig writes config.toml.
func (r *Rig) SetConfig(text string) error {
	return os.WriteFile(filepath.Join(r.dir, "config/vix/config.toml"), []byte(text), 0o644)
}

// Command returns a command that runs in the rig's environment.
func (r *Rig) Command(argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	for _, v := range r.Desktop.Env() {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "XDG_CONFIG_HOME", "TMPDIR", "XDG_STATE_HOME":
		case "HOME", "XDG_CACHE_HOME", "USER", "LOGNAME":
			if r.cred == nil {
				cmd.Env = append(cmd.Env, v)
			}
		default:
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+r.dir+"/config", "XDG_STATE_HOME="+r.dir+"/state", "TMPDIR="+r.dir+"/tmp")
	if r.cred != nil {
		cmd.Env = append(cmd.Env, "HOME="+r.dir+"/home", "XDG_CACHE_HOME="+r.dir+"/cache", "USER=user", "LOGNAME=user")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: r.cred}
	}
	cmd.Dir = r.dir
	return cmd
}

// Launcher is the path of vix-launcher.
func (r *Rig) Launcher() string { return filepath.Join(r.bin, "vix-launcher") }

// Start starts vix-launcher with args; it ends with the test.
func (r *Rig) Start(args ...string) *desktoptest.Proc {
	r.t.Helper()
	return r.StartCommand(r.Command(append([]string{r.Launcher()}, args...)...))
}

// StartCommand starts what Command has returned.
func (r *Rig) StartCommand(cmd *exec.Cmd) *desktoptest.Proc {
	r.t.Helper()
	p, err := desktoptest.Command(r.t, cmd, r.cred)
	if err != nil {
		r.t.Fatalf("starting %s: %v", cmd.Args[0], err)
	}
	return p
}

// A Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int // 128+n for signal n
	Seconds        float64
}

func (r Result) String() string {
	return fmt.Sprintf("status %d after %.1f s\nstdout: %s\nstderr: %s", r.Code, r.Seconds, r.Stdout, r.Stderr)
}

// Lines returns the lines of standard error without the notes that tell of a
// slow machine (no KVM).
func (r Result) Lines() []string {
	var lines []string
	for l := range strings.Lines(r.Stderr) {
		if l = strings.TrimSpace(l); l != "" && !strings.Contains(l, "no KVM, so") {
			lines = append(lines, l)
		}
	}
	return lines
}

// Vix runs vix-launcher to its end.
func (r *Rig) Vix(args ...string) Result {
	r.t.Helper()
	return r.Run(r.Command(append([]string{r.Launcher()}, args...)...))
}

// Must runs vix-launcher, which must end well, and returns its output.
func (r *Rig) Must(args ...string) string {
	r.t.Helper()
	res := r.Vix(args...)
	if res.Code != 0 {
		r.t.Fatalf("vix-launcher %q: %v", args, res)
	}
	return res.Stdout
}

// Run runs a command to its end.
func (r *Rig) Run(cmd *exec.Cmd) Result {
	r.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	p := r.StartCommand(cmd)
	select {
	case <-p.Done():
	case <-time.After(r.timeout):
		p.Signal(syscall.SIGKILL)
		<-p.Done()
		r.t.Fatalf("%q: no end after %v\nstdout: %s\nstderr: %s", cmd.Args, r.timeout, stdout.String(), stderr.String())
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: p.Wait(), Seconds: time.Since(begin).Seconds()}
}

// A VM is what "vix list --json" tells of one.
type VM struct {
	Name  string `json:"name"`
	State string `json:"state"`
	PIDs  struct {
		Supervisor int `json:"supervisor"`
		QEMU       int `json:"qemu"`
		Display    int `json:"display"`
		Virtiofsd  int `json:"virtiofsd"`
	} `json:"pids"`
	Windows []struct {
		Title string `json:"title"`
		AppID string `json:"app_id"`
	} `json:"windows"`
	Stages []struct {
		Name    string  `json:"name"`
		Seconds float64 `json:"seconds"`
		Uptime  float64 `json:"uptime"`
	} `json:"stages"`
}

// Processes returns the VM's host processes by what they are.
func (v VM) Processes() map[string]int {
	return map[string]int{"supervisor": v.PIDs.Supervisor, "qemu": v.PIDs.QEMU, "display": v.PIDs.Display, "virtiofsd": v.PIDs.Virtiofsd}
}

// List returns the VMs that run.
func (r *Rig) List() []VM {
	r.t.Helper()
	out := r.Must("list", "--json")
	var vms []VM
	if err := json.Unmarshal([]byte(out), &vms); err != nil {
		r.t.Fatalf("list --json: %v: %s", err, out)
	}
	return vms
}

// VM returns one of List, which must be there.
func (r *Rig) VM(name string) VM {
	r.t.Helper()
	for _, v := range r.List() {
		if v.Name == name {
			return v
		}
	}
	r.t.Fatalf("list does not know VM %s", name)
	return VM{}
}

// Guest runs a shell command in a VM and returns its output without the last
// line's end.
func (r *Rig) Guest(name, script string) string {
	r.t.Helper()
	return strings.TrimSuffix(r.Must("run", "--vm", name, "sh", "-c", script), "\n")
}

// close stops what runs.
func (r *Rig) close() {
	r.t.Helper()
	if left := r.Processes(); len(left) == 0 {
		return
	}
	res := r.Vix("stop", "--force", "--all")
	if res.Code != 0 {
		r.t.Logf("stop --force --all: %v", res)
		for pid := range r.Processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
		}
	}
}

// CheckClean fails the test if anything of a VM is left: a process, a file in
// the runtime or temporary directory, a mount.
func (r *Rig) CheckClean() {
	r.t.Helper()
	if left := r.Left(); len(left) > 0 {
		r.t.Fatalf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
}

// Left is what CheckClean complains of.
func (r *Rig) Left() (left []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for pid, what := range r.Processes() {
		// Short-lived ones, such as a launcher that has just written its last
		// line, may still be on their way out.
		if WaitExit(ctx, pid) != nil {
			left = append(left, fmt.Sprintf("process %d: %s", pid, what))
		}
	}
	for _, dir := range []string{filepath.Join(r.runtime, "vix"), r.dir + "/tmp"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			left = append(left, err.Error())
		}
		for _, e := range entries {
			if e.Name() != "lock" { // of the directory itself: it stays
				left = append(left, filepath.Join(dir, e.Name()))
			}
		}
	}
	if m := mounts(); m != r.mounts {
		left = append(left, "mounts changed:\n"+m)
	}
	return left
}

// Processes are the processes that the rig's VMs are made of, by id. In the
// system root, which has a process namespace of its own, these are all that the
// rig did not find there; elsewhere, those with the rig's environment.
func (r *Rig) Processes() map[int]string {
	own := os.Getenv("VIX_IN_ROOT") != ""
	found := map[int]string{}
	for pid := range processes() {
		if r.baseline[pid] || pid == os.Getpid() || r.Sway != nil && pid == r.Sway.PID {
			continue
		}
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if !own && !bytes.Contains(env, []byte("TMPDIR="+r.dir)) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		what := string(bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte{' '}))
		if what == "" {
			stat, err := os.ReadFile(filepath.Join(dir, "stat"))
			if err != nil {
				continue // it has ended
			}
			what = string(stat[:min(len(stat), 60)])
		}
		if what != "swaybg" { // of a compositor that was started again
			found[pid] = what
		}
	}
	return found
}

// WaitExit waits until the process pid has ended.
func WaitExit(ctx context.Context, pid int) error {
	again := time.NewTicker(5 * time.Millisecond) // a pidfd of a zombie is ready at once; its end is what counts
	defer again.Stop()
	for {
		if syscall.Kill(pid, 0) == syscall.ESRCH {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("process %d lives", pid)
		}
	}
}

func processes() map[int]bool {
	pids := map[int]bool{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids[pid] = true
		}
	}
	return pids
}

// mounts lists the mount points of this namespace.
func mounts() string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	set := map[string]bool{}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) > 4 {
			set[f[4]] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(set)), "\n")
}

// Memory returns the proportional set size of a process and its descendants, in
// bytes: virtiofsd, for one, is two processes.
func Memory(pid int) (int64, error) {
	sum, err := pss(pid)
	if err != nil {
		return 0, err
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		for _, f := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				return 0, err
			}
			n, err := Memory(child)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

func pss(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "Pss:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no Pss in smaps_rollup")
}
