package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"vix/internal/agent"
)

// TestPrograms runs programs in one VM; its subtests share it.
func TestPrograms(t *testing.T) {
	v := startVM(t, "root").ready(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *vm)
	}{
		{"identity", testIdentity},
		{"environment", testEnvironment},
		{"session bus", testBus},
		{"status", testStatus},
		{"failures", testFailures},
		{"ten", testTen},
		{"ten megabytes", testTenMegabytes},
		{"slow reader", testSlowReader},
		{"hangup", testHangup},
		{"terminal", testTerminal},
		{"stop", testStop},
		{"orphans", testOrphans},
		{"tree", testTree},
		{"clock", testClock},
		{"many", testMany},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, v) })
	}
}

// expect runs a program that must succeed, and returns its output.
func (v *vm) expect(t *testing.T, s agent.Spawn) string {
	t.Helper()
	out, errOut, st := v.output(t, "", s)
	if st != (agent.Status{}) {
		t.Errorf("%q: %s, stderr %q", s.Argv, st, errOut)
	}
	return strings.TrimSpace(out)
}

func testIdentity(t *testing.T, v *vm) {
	for script, want := range map[string]string{
		"id -u; id -g; id -G; id -un":                                 "1000\n1000\n1000\nuser",
		"pwd; echo $HOME; stat -c %a:%u ~":                            "/home/user\n/home/user\n700:1000",
		"stat -c %a:%u $XDG_RUNTIME_DIR":                              "700:1000",
		"hostname; cat /etc/hostname":                                 "testvm\ntestvm",
		"touch /usr/x 2>/dev/null; echo $?":                           "1",
		"head -c1 /dev/mem 2>/dev/null || echo no":                    "no",
		"cat /proc/self/status | grep -c 'CapEff:\t0000000000000000'": "1",
		"echo $(($(cut -d' ' -f6 /proc/$$/stat) == $$))":              "1", // leads its session
		"echo hi > ~/f; cat ~/f; echo hi > /tmp/f; cat /tmp/f":        "hi\nhi",
		"cat /sys/class/net/lo/flags; ls /sys/class/net":              "0x9\nlo",
		"grep -c '^user:' /etc/passwd; wc -c < /etc/machine-id":       "1\n33",
		"ulimit -Sn; ulimit -Hn":                                      "1024\n524288",
		"ls /proc/self/fd | wc -l":                                    "4", // those of ls, and three
	} {
		if got := v.expect(t, sh(script)); got != want {
			t.Errorf("%s: %q, not %q", script, got, want)
		}
	}
	now := v.expect(t, sh("date +%s"))
	if n, err := strconv.ParseInt(now, 10, 64); err != nil || abs(n-timeNow()) > 5 {
		t.Errorf("the guest's clock says %s, the host's %d", now, timeNow())
	}
}

func abs(n int64) int64 { return max(n, -n) }

func testEnvironment(t *testing.T, v *vm) {
	s := sh(`echo "$VIX_TEST $LANG $MORE"; pwd`)
	s.Env, s.Cwd = []string{"LANG=xx", "MORE=a b=c"}, "/usr/bin"
	if got, want := v.expect(t, s), "boot xx a b=c\n/usr/bin"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	if got := v.expect(t, sh("echo ${WAYLAND_DISPLAY-none}")); got != "none" {
		t.Errorf("WAYLAND_DISPLAY=%s without a GPU", got)
	}
	if got, want := v.expect(t, sh(`printf '%s|' "$@"`, "", "a b", "*", "ü", "-n")), "|a b|*|ü|-n|"; got != want {
		t.Errorf("arguments %q, not %q", got, want)
	}
}

// testBus checks that a program finds a session bus, whose daemon starts with the first
// connection, as the user.
func testBus(t *testing.T, v *vm) {
	if _, err := os.Stat(busDaemon); err != nil {
		t.Skipf("the root has no %s", busDaemon)
	}
	const names = "dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames"
	const daemons = "ps -C dbus-daemon -o user="
	out := v.expect(t, agent.Spawn{Argv: []string{"sh", "-c", daemons + "; " + names + "; " + daemons}})
	if !strings.Contains(out, "org.freedesktop.DBus") || !strings.HasSuffix(out, "\nuser") || strings.HasPrefix(out, "user") {
		t.Errorf("%q", out)
	}
}

func testStatus(t *testing.T, v *vm) {
	for script, want := range map[string]int{
		"exit 0": 0, "exit 3": 3, "exit 255": 255, "kill -9 $$": 128 + 9, "kill -TERM $$": 128 + 15, "kill -SEGV $$": 128 + 11,
	} {
		if _, _, st := v.output(t, "", sh(script)); st.ExitCode() != want {
			t.Errorf("%s: %d, not %d", script, st.ExitCode(), want)
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGINT} {
		p, err := v.host.Spawn(t.Context(), sh("sleep 1000 & wait"))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(sig); err != nil {
			t.Fatal(err)
		}
		st, err := p.Wait()
		if err != nil || st.Signal != sig {
			t.Errorf("killed by %v: %v, %v", sig, st, err)
		}
		// The group was signalled, so nobody holds the output. A background job of sh ignores SIGINT.
		if sig != syscall.SIGINT {
			if _, err := io.ReadAll(p.Stdout); err != nil {
				t.Error(err)
			}
		}
	}
	v.expect(t, sh("pkill -9 sleep || [ $? = 1 ]"))
}

func testFailures(t *testing.T, v *vm) {
	v.expect(t, sh("printf '#!/no/such\\n' > /tmp/noshebang; chmod +x /tmp/noshebang; printf 'x\\000y' > /tmp/noexec; chmod +x /tmp/noexec; : > /tmp/plain"))
	for _, c := range []struct {
		s    agent.Spawn
		code int
		text string
	}{
		{agent.Spawn{Argv: []string{"no-such-program"}}, 127, "no-such-program: not found in the guest's PATH"},
		{agent.Spawn{Argv: []string{"/no/such"}}, 127, "not there"},
		{agent.Spawn{Argv: []string{"/etc/passwd/x"}}, 127, "not there"},
		{agent.Spawn{Argv: []string{"/tmp"}}, 126, "is a directory"},
		{agent.Spawn{Argv: []string{"/tmp/plain"}}, 126, "not executable"},
		{agent.Spawn{Argv: []string{"/tmp/noshebang"}}, 126, "interpreter is missing"},
		{agent.Spawn{Argv: []string{"/tmp/noexec"}}, 126, "not a program"},
		{agent.Spawn{Argv: []string{"true"}, Cwd: "/no/such"}, 126, "directory /no/such"},
		{agent.Spawn{Argv: []string{"true"}, Env: []string{"PATH=/nowhere"}}, 127, "(/nowhere)"},
	} {
		p, err := v.host.Spawn(t.Context(), c.s)
		var se *agent.SpawnError
		if !errors.As(err, &se) || se.Code != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q: %v, %v; not code %d with %q", c.s.Argv, p, err, c.code, c.text)
		}
	}
	if p, err := v.host.Spawn(t.Context(), agent.Spawn{}); err == nil {
		t.Errorf("an empty argv started %v", p)
	}
}

func testTen(t *testing.T, v *vm) {
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			in := strings.Repeat(fmt.Sprintf("line of %d\n", i), 1000)
			out, errOut, st := v.output(t, in, sh(fmt.Sprintf("cat; echo err %d >&2; exit %d", i, i)))
			if out != in || errOut != fmt.Sprintf("err %d\n", i) || st.Code != i {
				t.Errorf("program %d: %d of %d bytes, stderr %q, %v", i, len(out), len(in), errOut, st)
			}
		})
	}
	all.Wait()
}

func testTenMegabytes(t *testing.T, v *vm) {
	data := make([]byte, 10<<20)
	src := rand.NewChaCha8([32]byte{1})
	_, _ = src.Read(data)
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	out, _, st := v.output(t, string(data), agent.Spawn{Argv: []string{"sha256sum"}})
	if got, _, _ := strings.Cut(out, " "); got != sum || st.Code != 0 {
		t.Errorf("stdin: hash %s, not %s (%v)", got, sum, st)
	}
	out, _, st = v.output(t, string(data), agent.Spawn{Argv: []string{"cat"}})
	if out != string(data) || st.Code != 0 {
		t.Errorf("through cat: %d bytes with hash %x, not %s (%v)", len(out), sha256.Sum256([]byte(out)), sum, st)
	}
}

// rss is PID 1's resident memory in KiB.
func (v *vm) rss(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(v.expect(t, sh("awk '/VmRSS/ {print $2}' /proc/1/status")))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func testSlowReader(t *testing.T, v *vm) {
	const size = 30 << 20
	guestBefore, hostBefore := v.rss(t), heap()
	p, err := v.host.Spawn(t.Context(), sh(fmt.Sprintf("head -c %d /dev/zero; echo done >&2", size)))
	if err != nil {
		t.Fatal(err)
	}
	// When this has run, the writer has filled the window.
	v.expect(t, sh("head -c 3000000 /dev/zero | sha256sum"))
	guest, host := v.rss(t)-guestBefore, int64(heap())-int64(hostBefore)
	t.Logf("a program of %d MiB of output unread: guest +%d KiB, host +%d KiB", size>>20, guest, host>>10)
	if guest > 4<<10 || host > 2<<20 {
		t.Error("an unread program takes memory")
	}
	n, err := io.Copy(io.Discard, p.Stdout)
	if n != size || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if b, err := io.ReadAll(p.Stderr); string(b) != "done\n" || err != nil {
		t.Errorf("stderr %q, %v", b, err)
	}
	if st, err := p.Wait(); st.Code != 0 || err != nil {
		t.Error(st, err)
	}
}

func testHangup(t *testing.T, v *vm) {
	p, err := v.host.Spawn(t.Context(), agent.Spawn{Argv: []string{"yes"}})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := io.ReadFull(p.Stdout, b); err != nil || string(b) != "y\ny\ny\ny\ny\n" {
		t.Errorf("%q, %v", b, err)
	}
	_ = p.Stdout.Close()
	if st, err := p.Wait(); st.ExitCode() != 128+13 && st.Code != 1 || err != nil {
		t.Errorf("yes without a reader: %v, %v", st, err)
	}
	// In the other direction, the program does not read.
	p, err = v.host.Spawn(t.Context(), sh("exec <&-; echo closed; read x <&1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(p.Stdin, bytes.NewReader(make([]byte, 1<<20))); err == nil {
		t.Error("a megabyte was taken by a program that does not read")
	}
	_ = p.Kill(syscall.SIGKILL)
	_, _ = p.Wait()
}

func testTerminal(t *testing.T, v *vm) {
	s := sh("tty; stty size; read a; stty size; echo got $a; cat; exit 7")
	s.TTY, s.Rows, s.Cols = true, 24, 80
	p, err := v.host.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Resize(30, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(p.Stdin, "word\nmore\n"); err != nil {
		t.Fatal(err)
	}
	_ = p.Stdin.Close()
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Wait()
	if st.Code != 7 || err != nil {
		t.Error(st, err)
	}
	for _, want := range []string{"/dev/pts/", "30 100\r\n", "got word\r\n", "more\r\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	if b, err := io.ReadAll(p.Stderr); len(b) > 0 || err != nil {
		t.Errorf("stderr %q, %v", b, err)
	}
	// Ctrl-C ends the foreground program: a cat, once it has answered. (The shell may miss the
	// signal while it is still making its child.)
	s.Argv[2] = "cat; echo no"
	p, err = v.host.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(p.Stdin, "x\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p.Stdout, make([]byte, len("x\r\nx\r\n"))); err != nil {
		t.Fatal(err)
	}
	_, _ = p.Stdin.Write([]byte{3})
	if st, err := p.Wait(); st.ExitCode() != 128+2 || err != nil {
		t.Errorf("after ctrl-c: %v, %v", st, err)
	}
}

func testStop(t *testing.T, v *vm) {
	p, err := v.host.Spawn(t.Context(), sh("echo $$; kill -STOP $$; echo on; exit 4"))
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	for b[0] != '\n' {
		if _, err := io.ReadFull(p.Stdout, b); err != nil {
			t.Fatal(err)
		}
	}
	_ = p.Kill(syscall.SIGCONT)
	v.expect(t, sh(fmt.Sprintf("while kill -CONT %d 2>/dev/null; do sleep 0.01; done", p.PID)))
	if st, err := p.Wait(); st.Code != 4 || err != nil {
		t.Errorf("stopped and continued: %v, %v", st, err)
	}
}

func testOrphans(t *testing.T, v *vm) {
	v.expect(t, sh("for i in 1 2 3 4 5; do (sh -c 'sleep 0.1; exit 3' >/dev/null 2>&1 &); done"))
	v.expect(t, sh("while pgrep -x sleep >/dev/null; do sleep 0.05; done"))
	if got := v.expect(t, sh("sleep 0.2; ps -eo stat | grep -c ^Z; true")); got != "0" {
		t.Errorf("%s zombies", got)
	}
}

// testTree: SIGKILL reaches processes that left the program's session and group, and none of
// another program; an unused group is removed.
func testTree(t *testing.T, v *vm) {
	const sleeps = "pgrep -fc '^sleep 7[0-9]*$'; true"
	other, err := v.host.Spawn(t.Context(), sh("echo; exec sleep 71"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := v.host.Spawn(t.Context(), sh("setsid -f sleep 72; setsid -f sh -c 'setsid -f sleep 73; exec sleep 74'; until [ $(pgrep -fc '^sleep 7[234]$') = 3 ]; do sleep 0.05; done; echo; exec sleep 75"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []io.Reader{other.Stdout, p.Stdout} {
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if got := v.expect(t, sh(sleeps)); got != "5" {
		t.Errorf("%s programs sleep, not 5", got)
	}
	if err := p.Kill(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || st.Signal != syscall.SIGKILL {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := io.ReadAll(p.Stdout); err != nil { // its children held it too
		t.Error(err)
	}
	if got := v.expect(t, sh(sleeps)); got != "1" {
		t.Errorf("%s programs sleep, not 1", got)
	}
	_ = other.Kill(syscall.SIGTERM)
	if st, err := other.Wait(); err != nil || st.Signal != syscall.SIGTERM {
		t.Errorf("%v, %v", st, err)
	}
	if got := v.expect(t, sh("grep -o '/programs/[0-9]*' /proc/self/cgroup | wc -l; ls -d /sys/fs/cgroup/programs/[0-9]* | wc -l")); got != "1\n1" {
		t.Errorf("control groups: %q", got)
	}
}

// testClock checks that the clock of a guest that is late is corrected.
func testClock(t *testing.T, v *vm) {
	root := sh("date -s 2001-01-01")
	root.User = "root"
	v.expect(t, root)
	if err := v.host.SetClock(); err != nil {
		t.Fatal(err)
	}
	now := v.expect(t, sh("date +%s"))
	if n, err := strconv.ParseInt(now, 10, 64); err != nil || abs(n-timeNow()) > 5 {
		t.Errorf("the guest's clock says %s, the host's %d", now, timeNow())
	}
}

// testMany: PID 1 has at most 1024 descriptors, so a leak of each program's three streams would
// show; and a lost status would hang.
func testMany(t *testing.T, v *vm) {
	const programs, atOnce = 400, 10
	next := make(chan int)
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for i := range next {
				_, errOut, st := v.output(t, "", agent.Spawn{Argv: []string{[]string{"true", "false"}[i%2]}})
				if st.Code != i%2 || errOut != "" {
					t.Errorf("program %d: %v, %q", i, st, errOut)
				}
			}
		})
	}
	for i := range programs {
		next <- i
	}
	close(next)
	all.Wait()
}
