package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/vm"
)

// Every verb about a running VM works, on one VM.
func TestVMVerbs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.env = append(r.env, "LC_PAPER=xx_XX.UTF-8")
	stdin, keep := io.Pipe()
	first := r.start(stdin, "run", "--vm", "t", "sh", "-c", "echo up; read x")
	first.says("up\n")
	for _, c := range []struct {
		name string
		test func(*testing.T, *rig)
	}{
		{"exec", testExec},
		{"exact bytes", testExactBytes},
		{"habits", testHabits},
		{"exec statuses", testExecStatuses},
		{"exec signals", testExecSignals},
		{"exec slow reader", testExecSlowReader},
		{"exec at once", testExecAtOnce},
		{"exec terminal", testExecTerminal},
		{"shell", testShell},
		{"shell killed", testShellKilled},
		{"shell left", testShellLeft},
		{"cp", testCopy},
		{"cp cancelled", testCopyCancelled},
		{"cp on a terminal", testCopyShown},
		{"install", testInstall},
		{"status", testStatus},
		{"top", testTop},
		{"clock", testClock},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub := *r
			sub.t = t
			c.test(t, &sub)
		})
	}
	fmt.Fprintln(keep, "done")
	keep.Close()
	if code := first.code(); code != 0 {
		t.Errorf("status %d: %s", code, first.err.String())
	}
	if p := r.vix(125, "exec", "t", "--", "true"); !strings.Contains(p.err.String(), "not running; start it with") {
		t.Error(p.err.String())
	}
	r.nothingLeft()
}

func testExec(t *testing.T, r *rig) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--", "sh", "-c", "id -un; pwd; echo $LANG"}, "user\n/home/user\nC.UTF-8\n"},
		{[]string{"--user", "root", "--", "sh", "-c", "id -u; pwd; echo $HOME $USER ${XDG_RUNTIME_DIR-none}"}, "0\n/root\n/root root none\n"},
		{[]string{"--user", "0", "--", "id", "-un"}, "root\n"},
		{[]string{"--user", "nobody", "--", "sh", "-c", "id -un; pwd"}, "nobody\n/\n"},
		{[]string{"--user", "1000", "--", "sh", "-c", "id -un; id -G"}, "user\n1000\n"},
		{[]string{"--cwd", "/usr/bin", "--env", "A=b c", "--env", "LANG=xx", "--", "sh", "-c", `pwd; echo "$A" $LANG`}, "/usr/bin\nb c xx\n"},
		{[]string{"printf", "%s|", "", "a b", "*", "ü"}, "|a b|*|ü|"},
	} {
		p := r.vix(0, append([]string{"exec", "t"}, c.args...)...)
		if p.out.String() != c.want || p.err.String() != "" {
			t.Errorf("%q: %q, %q", c.args, p.out.String(), p.err.String())
		}
	}
	// The end of standard input reaches the program.
	p := r.start(strings.NewReader("b\na\n"), "exec", "t", "--", "sh", "-c", "sort; echo to stderr >&2")
	if p.code() != 0 || p.out.String() != "a\nb\n" || p.err.String() != "to stderr\n" {
		t.Errorf("sort: %q, %q", p.out.String(), p.err.String())
	}
}

func testExecStatuses(t *testing.T, r *rig) {
	for code, argv := range map[int][]string{
		0: {"--", "true"}, 1: {"--", "false"}, 42: {"--", "sh", "-c", "exit 42"}, 137: {"--", "sh", "-c", "kill -9 $$"},
		127: {"--", "no-such-program"}, 126: {"--", "/etc/passwd"}, 125: {"--user", "mallory", "--", "true"},
	} {
		p := r.vix(code, append([]string{"exec", "t"}, argv...)...)
		if n := strings.Count(p.err.String(), "\n"); code >= 125 && code < 128 && n != 1 {
			t.Errorf("%v: %d lines: %s", argv, n, p.err.String())
		}
	}
	if p := r.vix(126, "exec", "t", "--cwd", "/no/such", "--", "true"); !strings.Contains(p.err.String(), "directory /no/such: not there") {
		t.Error(p.err.String())
	}
}

// What is not UTF-8 reaches the guest byte by byte: arguments, variables, directories, and the
// paths of files, on the way in and out.
func testExactBytes(t *testing.T, r *rig) {
	const odd = "o\xff\xfe\xed\xa0\x80\xc3"
	r.vix(0, "exec", "t", "--", "mkdir", "/tmp/"+odd)
	p := r.vix(0, "exec", "t", "--cwd", "/tmp/"+odd, "--env", "A="+odd, "--", "sh", "-c", `pwd; printf '%s|' "$A" "$@"`, odd, odd, "\ufffd")
	if got, want := p.out.String(), "/tmp/"+odd+"\n"+odd+"|"+odd+"|\ufffd|"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	p = r.vix(0, "run", "--vm", "t", "printf", "%s", odd)
	if p.out.String() != odd {
		t.Errorf("run: %q", p.out.String())
	}
	file := filepath.Join(r.dir, odd)
	if err := os.WriteFile(file, []byte("in it"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.vix(0, "cp", file, "t:/tmp/"+odd)
	back := filepath.Join(r.dir, "exact")
	r.vix(0, "cp", "t:/tmp/"+odd+"/"+odd, back)
	if b, err := os.ReadFile(back); string(b) != "in it" || err != nil {
		t.Errorf("cp: %q, %v", b, err)
	}
	for _, argv := range [][]string{{"mount", "t", file}, {"run", "--vm", "t", "--share", file, "true"}, {"mount", "t", "/usr:/mnt/" + odd}} {
		if p := r.vix(2, argv...); !strings.Contains(p.err.String(), "is not UTF-8, as the paths of shares have to be") || strings.Count(p.err.String(), "\n") != 1 {
			t.Errorf("%q: %q", argv, p.err.String())
		}
	}
	if p := r.vix(1, "umount", "t", "/mnt/"+odd); !strings.Contains(p.err.String(), "is not a share") {
		t.Errorf("umount: %q", p.err.String())
	}
}

// The guest has this machine's time zone, no locale that its root lacks, and the entry of a
// terminal that only this machine knows.
func testHabits(t *testing.T, r *rig) {
	zone := ""
	if to, err := os.Readlink("/etc/localtime"); err == nil {
		_, zone, _ = strings.Cut(to, "zoneinfo/")
	}
	if p := r.vix(0, "exec", "t", "--", "sh", "-c", "echo $TZ $LC_PAPER $LANG"); strings.TrimSpace(p.out.String()) != strings.TrimSpace(zone+" C.UTF-8 C.UTF-8") {
		t.Errorf("time zone %q: %q", zone, p.out.String())
	}
	if p := r.vix(0, "exec", "t", "--env", "TZ=X-3", "--env", "LC_PAPER=yy", "--", "sh", "-c", "echo $TZ $LC_PAPER"); p.out.String() != "X-3 yy\n" {
		t.Errorf("asked for: %q", p.out.String())
	}
	sub := *r
	sub.env = append(r.env[:len(r.env):len(r.env)], "TERMINFO="+filepath.Join(r.dir, "terminfo"))
	tic := exec.Command("sh", "-c", `mkdir "$0" && infocmp xterm-256color | sed 's/^xterm-256color|/xterm-vix|/' | tic -x -o "$0" -`, filepath.Join(r.dir, "terminfo"))
	if out, err := tic.CombinedOutput(); err != nil {
		t.Fatalf("tic: %v: %s", err, out)
	}
	s := sub.onTerminal(24, 80, "exec", "t", "--tty", "--env", "TERM=xterm-vix", "--", "sh", "-c", "tput colors; echo $TERM")
	s.says("256\r\nxterm-vix\r\n")
	s.code()
	s = r.onTerminal(24, 80, "exec", "t", "--tty", "--env", "TERM=xterm-nowhere", "--", "sh", "-c", "tput colors; echo $TERM")
	s.says("TERM is xterm-256color there\r\n")
	s.says("256\r\nxterm-256color\r\n")
	s.code()
}

func testExecSignals(t *testing.T, r *rig) {
	for name, sig := range map[string]syscall.Signal{
		"INT": unix.SIGINT, "TERM": unix.SIGTERM, "HUP": unix.SIGHUP, "QUIT": unix.SIGQUIT,
		"USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2, "WINCH": unix.SIGWINCH,
	} {
		p := r.start(nil, "exec", "t", "--", "sh", "-c", "trap 'echo got "+name+"; exit 9' "+name+"; echo ready; while :; do sleep 0.1; done")
		p.says("ready\n")
		_ = p.Process.Signal(sig)
		if c := p.code(); c != 9 || !strings.HasSuffix(p.out.String(), "got "+name+"\n") {
			t.Errorf("%s: status %d, %q", name, c, p.out.String())
		}
	}
	p := r.start(nil, "exec", "t", "--", "sh", "-c", "echo ready; exec sleep 1000")
	p.says("ready\n")
	_ = p.Process.Signal(unix.SIGTERM)
	if c := p.code(); c != 143 {
		t.Errorf("not trapped: %d", c)
	}
	p = r.start(nil, "exec", "t", "--", "sh", "-c", "trap 'echo gone >/tmp/hup2; exit' HUP; echo ready; while :; do sleep 0.1; done")
	p.says("ready\n")
	_ = p.Process.Kill()
	r.vix(0, "exec", "t", "--", "sh", "-c", "until [ -s /tmp/hup2 ]; do sleep 0.1; done")
}

// rss returns a process's resident memory on the host, in KiB, without shared memory.
func rss(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "RssAnon:")
	var kib int
	_, _ = fmt.Sscan(after, &kib)
	return kib
}

// A program that writes more than its reader takes uses no memory, on either side.
func testExecSlowReader(t *testing.T, r *rig) { slowReader(t, r, 24) }

func slowReader(t testing.TB, r *rig, mib int) {
	t.Helper()
	guest := func() (kib int) {
		_, _ = fmt.Sscan(r.vix(0, "exec", "t", "--", "awk", "/RssAnon/ {print $2}", "/proc/1/status").out.String(), &kib)
		return kib
	}
	pids := r.list()[0].PIDs // of t, the first by name
	now := func() [3]int { return [3]int{guest(), rss(t, pids.Supervisor), rss(t, pids.QEMU)} }
	before := now()
	cmd := exec.Command(filepath.Join(r.bin, "vix-launcher"), "exec", "t", "--", "head", "-c", fmt.Sprint(mib<<20), "/dev/zero")
	cmd.Env = r.env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var most [3]int
	var clientMost, total int
	start := time.Now()
	buf := make([]byte, 1<<20)
	for next := 0; ; {
		n, err := io.ReadFull(out, buf)
		if total += n; err != nil {
			break
		}
		if total < next {
			continue
		}
		// Nobody reads during these requests, so every buffer on the way fills.
		next = total + mib<<20/8
		for i, n := range now() {
			most[i] = max(most[i], n)
		}
		clientMost = max(clientMost, rss(t, cmd.Process.Pid))
	}
	if err := cmd.Wait(); err != nil || total != mib<<20 {
		t.Errorf("%d bytes, %v", total, err)
	}
	t.Logf("%d MiB in %.1f s; KiB of the guest's agent, supervisor and QEMU: %d before, %d at most, %d after; exec itself %d at most",
		mib, time.Since(start).Seconds(), before, most, now(), clientMost)
	if most[0] > before[0]+8<<10 || most[1] > before[1]+16<<10 || most[2] > before[2]+64<<10 || clientMost > 32<<10 {
		t.Error("a slow reader takes memory")
	}
}

// Programs started at once are all run, and each has its own output and status.
func testExecAtOnce(t *testing.T, r *rig) {
	var all []*launched
	for i := range 20 {
		all = append(all, r.start(nil, "exec", "t", "--", "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i)))
	}
	for i, p := range all {
		if c := p.code(); c != i || p.out.String() != fmt.Sprintf("%d\n", i) {
			t.Errorf("program %d: status %d, %q, %q", i, c, p.out.String(), p.err.String())
		}
	}
}

// A terminalSession is a vix-launcher on a terminal of its own.
type terminalSession struct {
	*launched
	keys *os.File
	tty  *os.File
	seen int // bytes of output that were checked
}

// says waits for output after the part that was checked before.
func (s *terminalSession) says(want string) {
	s.t.Helper()
	limit := time.After(time.Minute)
	for {
		text, more := s.out.text()
		if i := strings.Index(text[s.seen:], want); i >= 0 {
			s.seen += i + len(want)
			return
		}
		select {
		case <-more:
		case <-limit:
			s.t.Fatalf("does not say %q: %q", want, text[s.seen:])
		}
	}
}

func (r *rig) onTerminal(rows, cols uint16, args ...string) *terminalSession {
	r.t.Helper()
	master, slave := pty(r.t)
	s := &terminalSession{&launched{Cmd: exec.Command(filepath.Join(r.bin, "vix-launcher"), args...), t: r.t, done: make(chan struct{})}, master, slave, 0}
	s.resize(rows, cols)
	s.Env = append(r.env, "TERM=vt100")
	s.Stdin, s.Stdout, s.Stderr = slave, slave, slave
	s.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(&s.out, master) }() // ends with the terminal
	go func() {
		_ = s.Wait()
		close(s.done)
	}()
	return s
}

func (s *terminalSession) resize(rows, cols uint16) {
	_ = descriptor(s.keys, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

func (s *terminalSession) types(keys string) { _, _ = s.keys.WriteString(keys) }

func (s *terminalSession) echoes() bool {
	t, err := termios(s.tty)
	return err == nil && t.Lflag&unix.ECHO != 0 && t.Lflag&unix.ICANON != 0
}

func testExecTerminal(t *testing.T, r *rig) {
	// The program has a terminal even if we have none.
	p := r.start(strings.NewReader("word\n"), "exec", "t", "--tty", "--", "sh", "-c", "tty; stty size; read a; echo got $a")
	if p.code() != 0 || !strings.Contains(p.out.String(), "/dev/pts/") || !strings.Contains(p.out.String(), "24 80\r\ngot word") && !strings.Contains(p.out.String(), "got word\r\n") {
		t.Errorf("%q, %q", p.out.String(), p.err.String())
	}
	s := r.onTerminal(33, 99, "exec", "t", "--tty", "--", "sh", "-c", "stty size; echo $TERM; read a; exit 7")
	s.says("33 99\r\n")
	s.says("vt100\r\n")
	s.types("x\r")
	if c := s.code(); c != 7 || !s.echoes() {
		t.Errorf("status %d; echo %v", c, s.echoes())
	}
}

func testShell(t *testing.T, r *rig) {
	s := r.onTerminal(30, 100, "shell", "t")
	s.types("stty size; echo one$((1+1)); pwd; echo $0\r")
	s.says("30 100\r\n")
	s.says("one2\r\n/home/user\r\n-")
	if s.echoes() {
		t.Error("the terminal is not raw")
	}
	s.resize(40, 120)
	s.types("sleep 0.3; stty size\r")
	s.says("40 120\r\n")
	// Job control works: a program in the foreground is stopped, listed, and interrupted.
	runs := func(stat string) {
		r.vix(0, "exec", "t", "--", "sh", "-c", "until [ \"$(ps -o stat= -C sleep)\" = "+stat+" ]; do sleep 0.1; done")
	}
	s.types("sleep 1000\r")
	runs("S+")
	s.types("\x1a")
	s.says("Stopped")
	s.says("$ ")
	runs("T")
	s.types("fg\r")
	runs("S+")
	s.types("\x03")
	s.says("$ ")
	s.types("echo after=$?\r")
	s.says("after=130\r\n")
	s.types("exit 5\r")
	if c := s.code(); c != 5 || !s.echoes() {
		t.Errorf("status %d; echo %v", c, s.echoes())
	}
	s = r.onTerminal(24, 80, "shell", "--user", "root", "t")
	s.types("echo uid=$(id -u)\r")
	s.says("uid=0\r\n")
	s.says("# ") // an end of file before the shell reads again has no effect
	s.types("\x04")
	if c := s.code(); c != 0 || !s.echoes() {
		t.Errorf("root's: status %d; echo %v", c, s.echoes())
	}
	// The shell is listed as a program of the VM until it has ended.
	for _, p := range r.list()[0].Programs {
		if p.Argv[0] == "(shell)" && p.State != "exited" {
			t.Errorf("%+v", p)
		}
	}
}

// If vix-launcher is killed, the terminal is given back, and the shell is hung up.
func testShellKilled(t *testing.T, r *rig) {
	for sig, code := range map[syscall.Signal]int{unix.SIGKILL: -1, unix.SIGTERM: 143, unix.SIGHUP: 129} {
		s := r.onTerminal(24, 80, "shell", "t")
		s.types("echo ready$((1+1)) $$\r")
		s.says("ready2 ")
		_ = s.Process.Signal(sig)
		if c := s.code(); c != code {
			t.Errorf("%v: status %d, %s", sig, c, s.out.String())
		}
		for limit := time.Now().Add(5 * time.Second); !s.echoes(); time.Sleep(10 * time.Millisecond) { // the guard is not our child
			if time.Now().After(limit) {
				t.Fatalf("%v: the terminal is left raw", sig)
			}
		}
	}
	r.vix(0, "exec", "t", "--", "sh", "-c", "while pgrep -x bash >/dev/null; do sleep 0.1; done")
	running := func(p vm.Program) bool { return p.State == "running" }
	n := 0
	for _, p := range r.list()[0].Programs {
		if running(p) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d programs run", n)
	}
}

func testShellLeft(t *testing.T, r *rig) {
	s := r.onTerminal(24, 80, "shell", "t")
	s.types("echo ready$((1+1)); kill -STOP $$\r") // a shell that does not answer
	s.says("ready2\r\n")
	s.types("\r~.")
	if c := s.code(); c != 125 || !s.echoes() {
		t.Errorf("status %d; echo %v", c, s.echoes())
	}
	s.says("VM t: left with ~.; the program was hung up, the VM keeps running")
}

// testCopy checks that a copy to the guest and back equals the source, by content, mode, time
// and kind.
func testCopy(t *testing.T, r *rig) {
	from := filepath.Join(r.dir, "tree")
	err := errors.Join(os.MkdirAll(filepath.Join(from, "a", "b"), 0o755), os.Mkdir(filepath.Join(from, "closed"), 0o755),
		os.WriteFile(filepath.Join(from, "a", "f"), bytes.Repeat([]byte("0123456789"), 300_000), 0o640),
		os.WriteFile(filepath.Join(from, "run"), []byte("#!/bin/sh\necho ran $1\n"), 0o755),
		os.WriteFile(filepath.Join(from, "closed", "x\n\x1b"), nil, 0o444),
		os.Symlink("../run", filepath.Join(from, "a", "link")), os.Symlink("/etc/passwd", filepath.Join(from, "out")),
		os.Truncate(filepath.Join(from, "run"), 22))
	if err == nil {
		f, ferr := os.Create(filepath.Join(from, "sparse"))
		_, werr := f.WriteAt([]byte("x"), 64<<20)
		err = errors.Join(ferr, werr, f.Close())
	}
	past := time.Unix(1234567890, 123456789)
	err = errors.Join(err, os.Chtimes(filepath.Join(from, "run"), past, past), os.Chmod(filepath.Join(from, "closed"), 0o555), os.Chtimes(filepath.Join(from, "a"), past, past))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r.vix(0, "cp", "-r", from, "t:")
	t.Logf("64 MiB of hole and 3 MB of bytes in %.1f s", time.Since(start).Seconds())
	p := r.vix(0, "exec", "t", "--", "sh", "-c", "cd tree; stat -c '%n %a %s %U' a/f run sparse closed; stat -c %y run a; readlink a/link out; ./run 1; du -k sparse | cut -f1; ls -A ~ | grep vix-copy; true")
	want := "a/f 640 3000000 user\nrun 755 22 user\nsparse 644 67108865 user\nclosed 555 4096 user\n"
	for _, line := range []string{"a/f 640 3000000 user\n", "run 755 22 user\n", "sparse 644 67108865 user\n", "2009-02-13 23:31:30.123456789", "../run\n/etc/passwd\n", "ran 1\n"} {
		if !strings.Contains(p.out.String(), line) {
			t.Errorf("no %q in %q (%q)", line, p.out.String(), want)
		}
	}
	if strings.Contains(p.out.String(), "vix-copy") {
		t.Errorf("half-made: %s", p.out.String())
	}
	back := filepath.Join(r.dir, "back")
	p = r.vix(0, "cp", "-r", "t:tree", back)
	if got, want := treeOf(t, back), treeOf(t, from); got != want {
		t.Errorf("came back as\n%s\nnot\n%s", got, want)
	}
	if !strings.Contains(p.err.String(), "1 symbolic links lead out") {
		t.Errorf("%q", p.err.String())
	}
	// A copy from guest to guest, here the same one, works even into its own source.
	r.vix(0, "cp", "-r", "t:tree", "t:/tmp/across")
	r.vix(0, "cp", "-r", "t:tree", "t:tree/a/b")
	r.vix(0, "cp", "-r", "t:/tmp/across", filepath.Join(r.dir, "across"))
	if got, want := treeOf(t, filepath.Join(r.dir, "across")), treeOf(t, from); got != want {
		t.Errorf("across came back as\n%s\nnot\n%s", got, want)
	}
	r.vix(0, "exec", "t", "--", "sh", "-c", "cmp tree/run tree/a/b/tree/run && chmod 755 /tmp/across/closed tree/a/b/tree/closed && rm -r /tmp/across tree/a/b/tree")
	// A directory without a name of its own gets one.
	r.vix(0, "cp", "-r", "t:tree/..", filepath.Join(r.dir, "home"))
	if _, err := os.Stat(filepath.Join(r.dir, "home", "tree", "run")); err != nil {
		t.Error(err)
	}
	// Files are copied in both directions, with their names.
	host := filepath.Join(r.dir, "one")
	r.vix(0, "cp", filepath.Join(from, "run"), "t:/tmp/renamed")
	many := filepath.Join(r.dir, "many")
	if err := os.Mkdir(many, 0o755); err != nil {
		t.Fatal(err)
	}
	r.vix(0, "cp", "t:/tmp/renamed", "t:tree/run", "t:/etc/hostname", many)
	if names, _ := os.ReadDir(many); len(names) != 3 {
		t.Errorf("%v", names)
	}
	r.vix(0, "cp", "t:/etc/hostname", host)
	if b, err := os.ReadFile(host); string(b) != "t\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	for args, want := range map[string]string{
		"t:none " + host:               "VM t: none: no such file or directory",
		"t:tree " + host + "2":         "VM t: tree: is a directory; copy it with -r",
		"t:/root " + host:              "VM t: /root: is a directory",
		host + " t:/usr/x":             "VM t: /usr/x: permission denied",
		host + " t:no/such":            "VM t: no: no such file or directory",
		"-r " + from + " t:tree/run":   "VM t: tree/run: is not a directory there",
		"-r t:/dev/null " + host + "3": "VM t: /dev/null: neither a file nor a directory",
	} {
		p := r.start(nil, append([]string{"cp"}, strings.Fields(args)...)...)
		if c := p.code(); c != 1 || !strings.Contains(p.err.String(), want) || strings.Count(p.err.String(), "\n") != 1 {
			t.Errorf("cp %s: %d, %q", args, c, p.err.String())
		}
	}
	_ = filepath.WalkDir(from, func(path string, e os.DirEntry, _ error) error { return os.Chmod(path, 0o755) }) // makes it removable
	for _, d := range []string{"back", "across", "home/tree"} {
		_ = os.Chmod(filepath.Join(r.dir, d, "closed"), 0o755)
	}
}

// treeOf lists what a copy keeps of a tree.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		content := ""
		switch {
		case st.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%d %x", len(data), sha256.Sum256(data))
		case st.Mode()&os.ModeSymlink != 0:
			content, _ = os.Readlink(path)
		}
		fmt.Fprintf(&b, "%q %v %d %s\n", rel, st.Mode(), st.ModTime().UnixNano(), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// hasUnnamed reports whether a process has a file without a name open in a directory.
func hasUnnamed(pid int, dir string) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	return slices.ContainsFunc(fds, func(fd string) bool {
		to, _ := os.Readlink(fd)
		return strings.HasPrefix(to, dir+"/#")
	})
}

// An interrupted or killed copy leaves nothing.
func testCopyCancelled(t *testing.T, r *rig) {
	big := filepath.Join(r.dir, "big")
	f, err := os.Create(big)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.CopyN(f, rand.Reader, 48<<20)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGKILL} {
		up := r.start(nil, "cp", big, "t:/tmp/big")
		r.vix(0, "exec", "t", "--", "sh", "-c", "until ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q ' /tmp/#'; do sleep 0.05; done") // a file without a name
		_ = up.Process.Signal(sig)
		if c := up.code(); sig == unix.SIGINT && (c != 130 || up.err.String() != "vix: interrupted; nothing half-written is left\n") {
			t.Errorf("up: status %d, %q", c, up.err.String())
		}
		r.vix(0, "exec", "t", "--", "sh", "-c", "while ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q ' /tmp/#'; do sleep 0.05; done; ! ls /tmp/big /tmp/.vix-new-*")
	}
	r.vix(0, "exec", "t", "--", "sh", "-c", "head -c 48M /dev/urandom >/tmp/big")
	to := filepath.Join(r.dir, "to")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGKILL} {
		down := r.start(nil, "cp", "t:/tmp/big", to)
		for limit := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // the start of a file has no event
			if hasUnnamed(down.Process.Pid, to) || time.Now().After(limit) {
				break
			}
		}
		_ = down.Process.Signal(sig)
		c := down.code()
		left, _ := os.ReadDir(to)
		if sig == unix.SIGINT && c != 130 || len(left) != 0 {
			t.Errorf("down, %v: status %d, %q, left %v", sig, c, down.err.String(), left)
		}
	}
	r.vix(0, "exec", "t", "--", "sh", "-c", "rm /tmp/big; truncate -s 1G /tmp/vast; head -c 1M /dev/zero | tee -a /tmp/vast >/dev/null")
	// A file is refused by its announced size.
	if p := r.vix(1, "cp", "--limit", "128M", "t:/tmp/vast", to); !strings.Contains(p.err.String(), "VM t: "+to+"/vast: more than the limit of 128 MiB") {
		t.Errorf("%q", p.err.String())
	}
}

func testInstall(t *testing.T, r *rig) {
	tool := filepath.Join(r.dir, "tool")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\necho tool of $(id -un) $1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.vix(0, "install", "t", tool, filepath.Join(r.bin, "vix-launcher"))
	if p := r.vix(0, "exec", "t", "--", "tool", "1"); p.out.String() != "tool of user 1\n" {
		t.Errorf("%q", p.out.String())
	}
	if p := r.vix(0, "exec", "t", "--", "vix-launcher", "--version"); !strings.HasPrefix(p.out.String(), "vix ") {
		t.Errorf("%q", p.out.String())
	}
	if p := r.vix(0, "run", "--vm", "t", "tool", "2"); p.out.String() != "tool of user 2\n" {
		t.Errorf("%q", p.out.String())
	}
	if p := r.vix(0, "exec", "t", "--", "stat", "-c", "%U %a", "/usr/local/bin/tool"); p.out.String() != "root 755\n" {
		t.Errorf("%q", p.out.String())
	}
}

// A long copy shows its progress, and Ctrl-C ends it.
func testCopyShown(t *testing.T, r *rig) {
	big := filepath.Join(r.dir, "big2")
	if err := os.WriteFile(big, bytes.Repeat([]byte("0123456789abcdef"), 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := r.onTerminal(24, 80, "cp", big, "t:")
	s.says("copying: ")
	s.says("/s: big2 ")
	s.says(" %")
	s.types("\x03")
	s.says("vix: interrupted; nothing half-written is left\r\n")
	if c := s.code(); c != 130 {
		t.Errorf("status %d", c)
	}
}

func testStatus(t *testing.T, r *rig) {
	out := r.vix(0, "status", "t").out.String()
	for _, want := range []string{"state      running, for ", " taken from the host\n", "tag        t\n", "program    1: sh -c echo up; read x\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var st vmUse
	if err := json.Unmarshal([]byte(r.vix(0, "status", "--json", "t").out.String()), &st); err != nil || st.Name != "t" || st.Used < 64<<20 || st.PIDs.QEMU == 0 {
		t.Errorf("%v: %+v", err, st)
	}
	watch := r.start(nil, "status", "--watch", "--json", "t")
	watch.says(`{"event":"state","name":"t","vm":{"name":"t","state":"running",`)
	watch.says(`{"event":"ready"}`)
	r.vix(77, "exec", "t", "--", "sh", "-c", "exit 77")
	watch.says(`"exit":{"code":77}`)
	if err := watch.Process.Signal(syscall.SIGINT); err != nil || watch.code() != 0 {
		t.Errorf("watch: %v, status %d: %s", err, watch.code(), watch.err.String())
	}
	if out := r.vix(0, "list").out.String(); !strings.Contains(out, "USED") || !strings.Contains(out, "MiB") {
		t.Error(out)
	}
}
