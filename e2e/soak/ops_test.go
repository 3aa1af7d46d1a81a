package soak

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// An op is one operation of a round. All that chance decides of it is here, so that the
// same seed and round make the same operations.
type op struct {
	kind string
	vm   int
	at   time.Duration // after the round's beginning
	cut  cut           // of its client
	n    int           // for what the kind takes it
}

func (o op) String() string {
	text := fmt.Sprintf("at %.2f s: %s %c, n %d", o.at.Seconds(), o.kind, 'a'+o.vm, o.n)
	if o.cut.sig != 0 {
		text += fmt.Sprintf(", client gets %s after %.2f s", unix.SignalName(o.cut.sig), o.cut.after.Seconds())
	}
	return text
}

// A kind of operation, and how often chance takes it.
type kind struct {
	name   string
	weight int
	do     func(w *world, m *machine, o op) error
}

var kinds = []kind{
	{"exec", 6, (*world).exec},
	{"sleeper", 4, (*world).sleeper},
	{"shell", 4, (*world).shell},
	{"background", 3, (*world).background},
	{"cp", 5, (*world).cp},
	{"mount", 4, (*world).mount},
	{"window", 3, (*world).window},
	{"clipboard", 2, (*world).clipboard},
	{"ask", 4, (*world).ask},
	{"pause", 3, (*world).pause},
	{"kill", 3, (*world).kill},
	{"kill in guest", 1, (*world).killInGuest},
	{"stop", 2, (*world).stop},
	{"hang up", 1, (*world).hangUp},
	{"drop", 1, (*world).drop},
	{"start", 3, (*world).start},
	{"fill", 2, (*world).fill},
	{"resize", 2, (*world).resize},
	{"compositor", 1, (*world).restart},
	{"kill share", 2, (*world).killShare},
	{"stop hung", 1, (*world).stopHung},
	{"cp home", 2, (*world).cpHome},
	{"cut drop", 1, (*world).cutDrop},
}

// draw makes the operations of a round.
func draw(seed, round uint64) []op {
	rng := rand.New(rand.NewPCG(seed, round))
	total, chosen := 0, regexp.MustCompile(*only)
	var taken []kind
	for _, k := range kinds {
		if chosen.MatchString(k.name) {
			taken = append(taken, k)
			total += k.weight
		}
	}
	ops := make([]op, 4+rng.IntN(9))
	for i := range ops {
		o := &ops[i]
		pick := rng.IntN(total)
		for _, k := range taken {
			if pick -= k.weight; pick < 0 {
				o.kind = k.name
				break
			}
		}
		o.vm, o.n = rng.IntN(3), rng.IntN(1<<20)
		o.at = time.Duration(rng.IntN(3000)) * time.Millisecond
		o.cut.after = time.Duration(rng.IntN(1500)) * time.Millisecond
		if rng.IntN(2) == 0 {
			o.cut.sig = []syscall.Signal{unix.SIGKILL, unix.SIGINT, unix.SIGTERM}[rng.IntN(3)]
		}
	}
	return ops
}

// wrong is an error of an operation that nobody cut, whose VM was to live.
func (w *world) wrong(m *machine, r result, good bool, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	switch {
	case r.hung:
		return fmt.Errorf("%s: hangs: %v", what, r)
	case strings.Contains(r.err, "goroutine "), strings.Contains(r.err, "panic"):
		return fmt.Errorf("%s: crashed: %v", what, r)
	case r.cut, m.ending(), w.filled.Load(), good:
		return nil
	}
	return fmt.Errorf("%s: %v", what, r)
}

// exec takes a program's output and status.
func (w *world) exec(m *machine, o op) error {
	size, code := o.n%300000, o.n%7
	r := w.cutVix(o.cut, nil, "exec", m.name, "--", "sh", "-c", fmt.Sprintf("head -c %d /dev/zero; exit %d", size, code))
	return w.wrong(m, r, r.code == code && len(r.out) == size, "exec of %d bytes, status %d", size, code)
}

// sleeper starts what would not end; when its client has ended, it has too.
func (w *world) sleeper(m *machine, o op) error {
	if o.cut.sig == 0 {
		o.cut.sig = unix.SIGHUP
	}
	word := fmt.Sprintf("%d.%d", 5000+o.n%1000, o.n)
	r := w.cutVix(o.cut, nil, "exec", m.name, "--", "sleep", word)
	if err := w.wrong(m, r, false, "exec sleep"); err != nil || r.hung {
		return err
	}
	d, err := until("the end of a program whose client has ended", hang, func() (bool, error) {
		vms, err := w.list()
		for _, p := range vms[m.name].Programs {
			if p.State == "running" && len(p.Argv) > 1 && p.Argv[1] == word {
				return false, err
			}
		}
		return err == nil, err
	})
	if err == nil {
		w.stats.add("client killed by "+unix.SignalName(o.cut.sig), d)
	}
	return err
}

// shell is a login shell on a terminal.
func (w *world) shell(m *machine, o op) error {
	master, tty, err := pty.Open()
	if err != nil {
		return err
	}
	defer master.Close()
	defer tty.Close()
	cmd := w.command("shell", m.name)
	cmd.Env = append(cmd.Env, "TERM=vt100")
	cmd.Stdin = tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if _, err := fmt.Fprintf(master, "echo sum$((%d+1)); exit 5\n", o.n); err != nil {
		return err
	}
	r := w.run(o.cut, cmd)
	return w.wrong(m, r, r.code == 5, "shell")
}

// background starts a program that ends by itself, and the VM, if need be.
func (w *world) background(m *machine, o op) error {
	r := w.cutVix(o.cut, nil, "run", "--vm", m.name, "--background", "sleep", fmt.Sprintf("%d.%d", 1+o.n%4, o.n))
	return w.wrong(m, r, r.code == 0, "run --background")
}

// start runs a program in the foreground: in a VM that does not run, its client is cut
// at any stage of the start.
func (w *world) start(_ *machine, o op) error {
	m := w.vms[2]
	o.cut.after *= time.Duration(1 + o.n%20) // a start takes its time
	r := w.cutVix(o.cut, nil, "run", "--vm", m.name, "--no-gui", "echo", "here")
	return w.wrong(m, r, r.code == 0 && r.out == "here\n", "run")
}

// cp carries a file in and back.
func (w *world) cp(m *machine, o op) error {
	content := make([]byte, o.n)
	rng := rand.New(rand.NewPCG(uint64(o.n), 1))
	for i := range content {
		content[i] = byte(rng.Uint32())
	}
	dir, err := os.MkdirTemp(w.dir, "cp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	from, back, there := filepath.Join(dir, "from"), filepath.Join(dir, "back"), fmt.Sprintf("%s:/tmp/%x", m.name, o.n)
	if err := os.WriteFile(from, content, 0o600); err != nil {
		return err
	}
	in, out := o.cut, o.cut
	if o.n%2 == 0 {
		in = cut{}
	} else {
		out = cut{}
	}
	r := w.cutVix(in, nil, "cp", from, there)
	if err := w.wrong(m, r, r.code == 0, "cp of %d bytes in", o.n); err != nil || r.code != 0 || r.cut {
		return err
	}
	r = w.cutVix(out, nil, "cp", there, back)
	if err := w.wrong(m, r, r.code == 0, "cp of %d bytes out", o.n); err != nil {
		return err
	}
	switch b, err := os.ReadFile(back); {
	case r.code == 0 && (err != nil || !bytes.Equal(b, content)):
		return fmt.Errorf("cp out has brought %d bytes, %x, not %d, %x: %w", len(b), sha256.Sum256(b), o.n, sha256.Sum256(content), err)
	case err == nil && !bytes.Equal(b, content):
		return fmt.Errorf("cp that was cut left half a file under its name: %d bytes of %d", len(b), o.n)
	}
	return nil
}

// mount shows a folder, reads it, and takes it back.
func (w *world) mount(m *machine, o op) error {
	host, err := os.MkdirTemp(w.dir, "share")
	if err != nil {
		return err
	}
	word := fmt.Sprintf("%x\n", o.n)
	if err := os.WriteFile(filepath.Join(host, "word"), []byte(word), 0o644); err != nil {
		return err
	}
	at := fmt.Sprintf("/mnt/s%x", o.n)
	cuts := make([]cut, 3)
	cuts[o.n%3] = o.cut
	r := w.cutVix(cuts[0], nil, "mount", m.name, host+":"+at)
	if err := w.wrong(m, r, r.code == 0, "mount"); err != nil || r.code != 0 || r.cut {
		return err
	}
	r = w.cutVix(cuts[1], nil, "exec", m.name, "--", "cat", at+"/word")
	if err := w.wrong(m, r, r.code == 0 && r.out == word, "reading a share"); err != nil {
		return err
	}
	r = w.cutVix(cuts[2], nil, "umount", m.name, at)
	// A program that was cut may read yet.
	return w.wrong(m, r, r.code == 0 || o.n%3 == 1 && o.cut.sig != 0, "umount")
}

// window opens one, and closes it with its client.
func (w *world) window(m *machine, o op) error {
	w.compositor.RLock()
	defer w.compositor.RUnlock()
	if o.cut.sig == 0 {
		o.cut.sig = unix.SIGTERM
	}
	o.cut.after *= 2
	r := w.cutVix(o.cut, nil, "run", "--vm", m.name, "weston-simple-shm")
	return w.wrong(m, r, false, "a window")
}

// clipboard carries a word to another VM. What has the focus is chance's, so no act has to
// succeed; none may hang.
func (w *world) clipboard(m *machine, o op) error {
	w.compositor.RLock()
	defer w.compositor.RUnlock()
	to := w.vms[o.n%2]
	for _, args := range [][]string{
		{"exec", m.name, "--", "sh", "-c", "echo word | timeout 10 wl-copy"},
		{"clipboard", "copy", "--vm", m.name},
		{"clipboard", "paste", "--vm", to.name},
		{"exec", to.name, "--", "timeout", "10", "wl-paste"},
		{"clipboard", "clear"},
	} {
		r := w.cutVix(o.cut, nil, args...)
		if err := w.wrong(m, r, true, "clipboard: %q", args); err != nil {
			return err
		}
	}
	return nil
}

// ask asks what can be asked of a VM.
func (w *world) ask(m *machine, o op) error {
	for _, args := range [][]string{{"list", "--json"}, {"status", "--json", m.name}, {"logs", m.name}, {"clipboard", "status"}, {"top", "--once"}} {
		r := w.cutVix(o.cut, nil, args...)
		if err := w.wrong(m, r, r.code == 0, "%q", args); err != nil {
			return err
		}
	}
	return nil
}

// victims are the processes of a VM that may be hit: all but the launchers' own clients and
// the servers of shares that come and go.
func (w *world) victims(m *machine) (supervisor int, all []process, err error) {
	vms, err := w.list()
	if err != nil {
		return 0, nil, err
	}
	v, ok := vms[m.name]
	if !ok {
		return 0, nil, nil
	}
	shares := map[int]bool{}
	for _, s := range v.Shares {
		for _, p := range tree(s.PID) {
			shares[p.pid] = true
		}
	}
	for _, p := range tree(v.PIDs.Supervisor) {
		if !shares[p.pid] {
			all = append(all, p)
		}
	}
	return v.PIDs.Supervisor, all, nil
}

// pause stops a process for a while.
func (w *world) pause(m *machine, o op) error {
	_, all, err := w.victims(m)
	if err != nil || len(all) == 0 {
		return err
	}
	vms, err := w.list()
	if err != nil {
		return err
	}
	p := all[o.n%len(all)]
	what := role(vms[m.name], p)
	w.note("VM %s: SIGSTOP of %s (%v)", m.name, what, p)
	if err := unix.Kill(p.pid, unix.SIGSTOP); err != nil {
		return ignore(err, unix.ESRCH)
	}
	time.Sleep(o.cut.after * time.Duration(1+o.n%6)) // the length is chance's
	if err := unix.Kill(p.pid, unix.SIGCONT); err != nil {
		return ignore(err, unix.ESRCH)
	}
	begin := time.Now()
	r := w.vix("exec", m.name, "--", "true")
	if err := w.wrong(m, r, r.code == 0, "exec after a pause of %s", what); err != nil {
		return err
	}
	if r.code == 0 {
		w.stats.add("pause of "+what, time.Since(begin))
	}
	return nil
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// heeds reports whether a signal of ours ends a process. The first of a PID namespace hears
// of others' signals only those that it has a handler for (pid_namespaces(7)), though a
// fault of its own ends it.
func heeds(pid int, sig syscall.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true // it has ended
	}
	first, caught := false, uint64(0)
	for line := range strings.Lines(string(status)) {
		switch words := strings.Fields(line); words[0] {
		case "NSpid:":
			first = len(words) > 2 && words[len(words)-1] == "1"
		case "SigCgt:":
			caught, _ = strconv.ParseUint(words[1], 16, 64)
		}
	}
	return !first || caught>>(sig-1)&1 == 1
}

// kill ends a process of a VM, and so the VM.
func (w *world) kill(m *machine, o op) error {
	m.mayEnd(o.kind)
	supervisor, all, err := w.victims(m)
	if err != nil || len(all) == 0 {
		return err
	}
	vms, err := w.list()
	if err != nil {
		return err
	}
	p := all[o.n%len(all)]
	sig := []syscall.Signal{unix.SIGKILL, unix.SIGKILL, unix.SIGTERM, unix.SIGABRT}[o.n/7%4] // a Rust program shrugs off a SIGSEGV of ours
	if !heeds(p.pid, sig) {
		sig = unix.SIGKILL
	}
	if err := unix.Kill(p.pid, sig); err != nil {
		return ignore(err, unix.ESRCH)
	}
	what := fmt.Sprintf("%s of %s", unix.SignalName(sig), role(vms[m.name], p))
	w.note("VM %s: %s (%v)", m.name, what, p)
	d, err := w.gone(m.name, supervisor, all)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	w.stats.add(what, d)
	return nil
}

// killInGuest ends programs of a guest's, with the power of its root.
func (w *world) killInGuest(m *machine, o op) error {
	m.mayEnd(o.kind)
	name := []string{"vix-waylandproxy", "sh", "sleep"}[o.n%3]
	r := w.vix("exec", "--user", "root", m.name, "--", "pkill", "-9", "-o", name)
	return w.wrong(m, r, true, "pkill %s", name)
}

// stop stops a VM.
func (w *world) stop(m *machine, o op) error {
	m.mayEnd(o.kind)
	supervisor, all, err := w.victims(m)
	if err != nil || len(all) == 0 {
		return err
	}
	args := []string{"stop", m.name}
	if o.n%2 == 0 {
		args = []string{"stop", "--force", m.name}
	}
	r := w.cutVix(o.cut, nil, args...)
	if err := w.wrong(m, r, true, "stop"); err != nil || r.cut {
		return err
	}
	d, err := w.gone(m.name, supervisor, all)
	if err != nil {
		return fmt.Errorf("%q has returned: %v: %w", args, r, err)
	}
	if r.code == 0 {
		w.stats.add("return of "+strings.Join(args[:len(args)-1], " "), d)
	}
	return nil
}

// hangUp ends the client that holds a VM: without another program the VM ends.
func (w *world) hangUp(m *machine, o op) error {
	m.mayEnd(o.kind)
	c := m.held()
	if c == nil || c.ended() {
		return nil
	}
	sig := o.cut.sig
	if sig == 0 {
		sig = unix.SIGHUP
	}
	c.Signal(sig)
	d, err := until("the end of a canary", hang, func() (bool, error) {
		if !c.ended() {
			return false, nil
		}
		vms, err := w.list()
		for _, p := range vms[m.name].Programs {
			if p.State == "running" && len(p.Argv) == canaryArgs {
				return false, err
			}
		}
		return err == nil, err
	})
	if err == nil {
		w.stats.add("client killed by "+unix.SignalName(sig), d)
	}
	return err
}

// drop stops a VM, and empties or removes what it has kept. Of one that runs it must refuse.
func (w *world) drop(m *machine, o op) error {
	verb := []string{"reset", "remove"}[o.n%2]
	if o.n%3 == 0 && !m.loose {
		r := w.vix(verb, "--force", m.name)
		return w.wrong(m, r, r.code == 1, "%s of a VM that runs", verb)
	}
	m.mayEnd(o.kind)
	r := w.vix("stop", m.name)
	if err := w.wrong(m, r, true, "stop"); err != nil {
		return err
	}
	if c := m.held(); c != nil {
		if _, err := until("the end of a canary", hang, func() (bool, error) { return c.ended(), nil }); err != nil {
			return err
		}
	}
	if err := m.kept(); err != nil {
		return err
	}
	r = w.vix(verb, "--force", m.name)
	if err := w.wrong(m, r, true, "%s", verb); err != nil {
		return err
	}
	if r.code == 0 {
		m.mu.Lock()
		m.synced = nil
		m.mu.Unlock()
	}
	return nil
}

func (m *machine) held() *canary {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.canary
}

// killShare kills the server of a share: who uses it gets errors, not silence, and it can be
// taken back and shown again.
func (w *world) killShare(m *machine, o op) error {
	host, err := os.MkdirTemp(w.dir, "share")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(host, "word"), []byte("word"), 0o644); err != nil {
		return err
	}
	at := fmt.Sprintf("/mnt/k%x", o.n)
	r := w.vix("mount", m.name, host+":"+at+":rw")
	if err := w.wrong(m, r, r.code == 0, "mount"); err != nil || r.code != 0 {
		return err
	}
	vms, err := w.list()
	if err != nil {
		return err
	}
	for _, s := range vms[m.name].Shares {
		if s.Guest != at || s.PID == 0 {
			continue
		}
		server := tree(s.PID)
		if err := unix.Kill(server[o.n%len(server)].pid, unix.SIGKILL); ignore(err, unix.ESRCH) != nil {
			return err
		}
	}
	begin := time.Now()
	r = w.vix("exec", m.name, "--", "sh", "-c", "cat "+at+"/word; ls "+at+" && df "+at)
	if err := w.wrong(m, r, r.out == "" || strings.HasPrefix(r.out, "word"), "using a share whose server was killed"); err != nil {
		return err
	}
	w.stats.add("SIGKILL of a share's virtiofsd", time.Since(begin))
	r = w.vix("umount", "--force", m.name, at)
	if err := w.wrong(m, r, r.code == 0, "umount of a share whose server was killed"); err != nil {
		return err
	}
	r = w.vix("mount", m.name, host+":"+at)
	if err := w.wrong(m, r, r.code == 0, "mount after that"); err != nil {
		return err
	}
	r = w.vix("exec", m.name, "--", "cat", at+"/word")
	return w.wrong(m, r, r.out == "word", "reading it after that")
}

// stopHung stops a VM of which one process is stopped for good.
func (w *world) stopHung(m *machine, o op) error {
	m.mayEnd(o.kind)
	supervisor, all, err := w.victims(m)
	if err != nil || len(all) == 0 {
		return err
	}
	p := all[o.n%len(all)]
	if p.pid == supervisor {
		return nil // nobody could stop the VM
	}
	vms, err := w.list()
	if err != nil {
		return err
	}
	what := role(vms[m.name], p)
	w.note("VM %s: SIGSTOP of %s (%v)", m.name, what, p)
	if err := unix.Kill(p.pid, unix.SIGSTOP); err != nil {
		return ignore(err, unix.ESRCH)
	}
	begin := time.Now()
	args := []string{"stop", m.name}
	if o.n%2 == 0 {
		args = []string{"stop", "--force", m.name}
	}
	if r := w.vix(args...); r.hung {
		return fmt.Errorf("stop of a VM whose %s is stopped: %v", what, r)
	}
	if _, err := w.gone(m.name, supervisor, all); err != nil {
		return fmt.Errorf("%q of a VM whose %s is stopped: %w", args, what, err)
	}
	w.stats.add("SIGSTOP of "+what+", "+strings.Join(args[:len(args)-1], " "), time.Since(begin))
	return nil
}

// cpHome copies into the kept home, and out of it; a hidden half is found at the round's end.
func (w *world) cpHome(m *machine, o op) error {
	dir := filepath.Join(w.dir, "disk", outName)
	from := filepath.Join(w.dir, fmt.Sprintf("from%x", o.n))
	defer os.Remove(from)
	err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(from, make([]byte, 4*o.n), 0o600))
	if err != nil {
		return err
	}
	r := w.cutVix(o.cut, nil, "cp", from, m.name+":kept")
	if err := w.wrong(m, r, r.code == 0, "cp of %d bytes into the home", 4*o.n); err != nil || r.code != 0 {
		return err
	}
	r = w.cutVix(o.cut, nil, "cp", m.name+":kept", dir)
	if err := os.RemoveAll(filepath.Join(dir, "kept")); err != nil {
		return err
	}
	return w.wrong(m, r, r.code == 0, "cp of %d bytes out of the home", 4*o.n)
}

// cutDrop is a drop that is cut: the next verb finishes it.
func (w *world) cutDrop(m *machine, o op) error {
	verb := []string{"reset", "remove"}[o.n%2]
	r := w.vix("exec", m.name, "--", "sh", "-c", "mkdir -p ~/many && cd ~/many && seq 3000 | xargs touch")
	if err := w.wrong(m, r, true, "making files"); err != nil {
		return err
	}
	m.mayEnd(o.kind)
	r = w.vix("stop", m.name)
	if err := w.wrong(m, r, true, "stop"); err != nil {
		return err
	}
	if c := m.held(); c != nil {
		if _, err := until("the end of a canary", hang, func() (bool, error) { return c.ended(), nil }); err != nil {
			return err
		}
	}
	if err := m.kept(); err != nil {
		return err
	}
	if o.cut.sig == 0 {
		o.cut.sig = unix.SIGINT
	}
	o.cut.after /= 20
	r = w.cutVix(o.cut, nil, verb, "--force", m.name)
	if err := w.wrong(m, r, true, "%s", verb); err != nil {
		return err
	}
	// Cut or not, it was done or it was not: what is there now must be whole.
	if _, err := os.Lstat(filepath.Join(w.home(m.name), "canary")); errors.Is(err, os.ErrNotExist) {
		m.mu.Lock()
		m.synced = nil
		m.mu.Unlock()
	}
	return nil
}

// fill fills the small disk, and frees it again.
func (w *world) fill(_ *machine, o op) error {
	if w.disk == "" {
		return nil
	}
	w.full.Lock()
	defer w.full.Unlock()
	w.filled.Store(true)
	path := filepath.Join(w.disk, "fill")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	block := make([]byte, 1<<16)
	for err == nil {
		_, err = f.Write(block)
	}
	if err := errors.Join(ignore(err, unix.ENOSPC), f.Close()); err != nil {
		return err
	}
	time.Sleep(o.cut.after) // the length is chance's
	if err := os.Remove(path); err != nil {
		return err
	}
	begin := time.Now()
	for _, m := range w.vms[:2] {
		if c := m.held(); c != nil && !m.ending() {
			if err := c.sings(); err != nil && !m.ending() {
				return fmt.Errorf("after the disk was full: %w", err)
			}
		}
	}
	w.stats.add("full disk", time.Since(begin))
	return nil
}

// resize changes the output.
func (w *world) resize(_ *machine, o op) error {
	w.compositor.Lock() // sway's answers are awaited
	defer w.compositor.Unlock()
	out, err := w.swaymsg(fmt.Sprintf("output HEADLESS-1 mode %dx%d", 300+o.n%1500, 300+o.n%997))
	if err != nil {
		return fmt.Errorf("swaymsg: %w: %s", err, out)
	}
	return nil
}

func (w *world) swaymsg(text string) (string, error) {
	cmd := exec.Command("swaymsg", "-s", w.IPC, text)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// restart kills the compositor, and starts it again.
func (w *world) restart(_ *machine, _ op) error {
	w.compositor.Lock()
	defer w.compositor.Unlock()
	return w.Restart(w.t)
}
