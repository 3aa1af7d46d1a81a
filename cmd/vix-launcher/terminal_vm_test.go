package main

import (
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/termsafe"
	"vix/internal/termsafe/termsafetest"
)

// The output of a hostile program, in the form of printf's %b, and the sequences that must not
// reach a person's terminal.
const (
	forbidden = `\033]52;c;b3duZWQ=\007\033]0;title\007\033]2;title\033\\\033]11;?\007\033]8;;http://evil\033\\\033P$qm\033\\\033_Gpicture\033\\\033^pm\033\\\033Xsos\033\\` +
		`\005\033[c\033[>c\033[6n\033[?u\033[21t\033[?2026$p\033[1;1;1;1;1;1*y\033Z\033kname\033\\\302\235` + `52;c;eA==\302\234`
	leftOn = `\033[?1049h\033[>1u\033[?1000h\033[?1003h\033[?1006h\033[?1004h\033[?2004h\033[?1h\033=\033[?25l\033[5 q\033[>4;2m\033(0\016\033[4h\033[?7l\033[2;4r\033[31m`
)

// decoded returns the output of printf '%b' for text.
func decoded(t *testing.T, text string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `printf '%b' "$1"`, "sh", text).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// putBack returns the sequences that restore a terminal after text.
func putBack(text string) string {
	f := termsafe.Filter{Kind: termsafe.Screen}
	f.Append(nil, []byte(text))
	return string(f.Restore(nil))
}

// witness checks everything that a terminal received.
func (s *terminalSession) witness(kind termsafe.Kind) {
	s.t.Helper()
	s.settle()
	text, _ := s.out.text()
	w := termsafetest.New(kind)
	w.See([]byte(text))
	if p := w.Problem(); p != "" {
		s.t.Errorf("the terminal got %s: %q", p, text)
	}
	if left := w.Left(); left != "" {
		s.t.Errorf("the terminal is left with %s: %q", left, text)
	}
}

// settle waits until all output has reached the terminal.
func (s *terminalSession) settle() {
	s.t.Helper()
	const mark = "<all of it>"
	if _, err := s.tty.WriteString(mark); err != nil {
		s.t.Fatal(err)
	}
	s.says(mark)
}

// TestVMTerminal checks which of a program's bytes reach a person's terminal, and its state
// afterwards, however the program ends; the last case ends the VM.
func TestVMTerminal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stdin, keep := io.Pipe()
	first := r.start(stdin, "run", "--vm", "t", "sh", "-c", "echo up; read x")
	first.says("up\n")
	for _, c := range []struct {
		name string
		test func(*testing.T, *rig)
	}{
		{"line", testLine},
		{"raw", testRawOutput},
		{"pipes", testPipes},
		{"logs", testLogsShown},
		{"screen", testScreen},
		{"own line", testOwnLine},
		{"programs", testScreenPrograms},
		{"stopped", testScreenStopped},
		{"killed", testScreenKilled},
		{"left", testScreenLeft},
		{"VM killed", testScreenVMKilled},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub := *r
			sub.t = t
			c.test(t, &sub)
		})
	}
	keep.Close()
	first.code()
	r.nothingLeft()
}

func testLine(t *testing.T, r *rig) {
	script := `printf 'one\n'; printf '%b' "$1"; printf '\033[31mred\033[0m \342\200\256x\n10%%\r20%%\033[K\n'; printf '%b' "$2" >&2; printf '\033[1;1Hup\033[A\n\033[?1000h'; printf '\033[32mgreen' >&2`
	for _, verb := range [][]string{{"exec", "t", "--"}, {"run", "--vm", "t"}} {
		s := r.onTerminal(24, 80, append(verb, "sh", "-c", script, "sh", forbidden, leftOn)...)
		if c := s.code(); c != 0 {
			t.Errorf("%v: status %d", verb, c)
		}
		s.witness(termsafe.Line)
		text, _ := s.out.text()
		for _, want := range []string{"one\r\n", "\x1b[31mred\x1b[0m x\r\n10%\r20%\x1b[K\r\n", "up\r\n", "green"} {
			if !strings.Contains(text, want) {
				t.Errorf("%v: no %q in %q", verb, want, text)
			}
		}
	}
}

// A clipboard sequence comes in pieces, from two streams of one terminal.
func testRawOutput(t *testing.T, r *rig) {
	s := r.onTerminal(24, 80, "exec", "t", "--", "sh", "-c", `i=0; while [ $i -lt 50 ]; do printf '\033]5'; printf '2;c;eA==\007' >&2; printf '\302'; printf '\2336n' >&2; i=$((i+1)); done`)
	if c := s.code(); c != 0 {
		t.Errorf("status %d", c)
	}
	s.witness(termsafe.Line)
	for _, verb := range [][]string{{"exec", "t", "--raw", "--"}, {"run", "--vm", "t", "--raw"}, {"exec", "t", "--tty", "--raw", "--"}} {
		s := r.onTerminal(24, 80, append(verb, "sh", "-c", `printf '%b' "$1"`, "sh", forbidden)...)
		if c := s.code(); c != 0 {
			t.Errorf("%v: status %d", verb, c)
		}
		s.says(decoded(t, forbidden))
	}
}

// A pipe gets every byte, even if the other output is a terminal.
func testPipes(t *testing.T, r *rig) {
	script := `printf '%b' "$1"; printf '%b' "$1" >&2`
	want := decoded(t, forbidden+leftOn)
	p := r.vix(0, "exec", "t", "--", "sh", "-c", script, "sh", forbidden+leftOn)
	if p.out.String() != want || p.err.String() != want {
		t.Errorf("%q, %q, not %q", p.out.String(), p.err.String(), want)
	}
	p = r.vix(0, "exec", "t", "--tty", "--", "sh", "-c", `printf '%b' "$1"`, "sh", forbidden+leftOn)
	if p.out.String() != want {
		t.Errorf("--tty into a pipe: %q, not %q", p.out.String(), want)
	}
	master, slave := pty(t)
	s := &terminalSession{&launched{Cmd: exec.Command(filepath.Join(r.bin, "vix-launcher"), "exec", "t", "--", "sh", "-c", script, "sh", forbidden+leftOn), t: t, done: make(chan struct{})}, master, slave, 0}
	var piped lines
	s.Env, s.Stdout, s.Stderr = r.env, &piped, slave
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(&s.out, master) }()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	if text, _ := piped.text(); text != want {
		t.Errorf("the pipe: %q, not %q", text, want)
	}
	s.witness(termsafe.Line)
}

func testLogsShown(t *testing.T, r *rig) {
	r.vix(0, "run", "--vm", "t", "--background", "sh", "-c", `printf 'begin%bend\n' "$1"`, "sh", forbidden+leftOn)
	r.vix(0, "exec", "t", "--user", "root", "--", "sh", "-c", `printf 'begin%bend\n' "$1" >/dev/kmsg`, "sh", `\033]52;c;b3duZWQ=\007\033[?1000h\302\2336n`)
	for _, args := range [][]string{{"logs", "t"}, {"logs", "--raw", "t"}} {
		var s *terminalSession
		for limit := time.Now().Add(time.Minute); ; { // background output has no event
			s = r.onTerminal(24, 200, args...)
			s.code()
			s.settle()
			if text, _ := s.out.text(); strings.Contains(text, "[sh] begin") || time.Now().After(limit) {
				break
			}
		}
		s.witness(termsafe.Line)
	}
}

// A program with a terminal of its own has what it needs, and no more; and modes that it leaves
// on are reset.
func testScreen(t *testing.T, r *rig) {
	on := decoded(t, leftOn)
	s := r.onTerminal(24, 80, "exec", "t", "--tty", "--", "sh", "-c", `printf '%b' "$1$2"; exit 3`, "sh", forbidden, leftOn)
	if c := s.code(); c != 3 {
		t.Errorf("status %d", c)
	}
	s.says(on)
	s.says(putBack(on))
	s.witness(termsafe.Screen)
	if text, _ := s.out.text(); text != on+putBack(on)+"<all of it>" {
		t.Errorf("%q, not %q and %q", text, on, putBack(on))
	}
	// One terminal shows the output, but there is none for input.
	master, slave := pty(t)
	s = &terminalSession{&launched{Cmd: exec.Command(filepath.Join(r.bin, "vix-launcher"), "exec", "t", "--tty", "--", "sh", "-c", `printf '%b' "$1$2"; exit 3`, "sh", forbidden, leftOn), t: t, done: make(chan struct{})}, master, slave, 0}
	s.Env, s.Stdout = r.env, slave
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(&s.out, master) }()
	_ = s.Wait()
	s.says(putBack(on))
	s.witness(termsafe.Screen)
}

// Vix's messages start on a new line, and contain no program output.
func testOwnLine(t *testing.T, r *rig) {
	s := r.onTerminal(24, 80, "exec", "t", "--", "no-such\x1b]0;x\a\u202e")
	if c := s.code(); c != 127 {
		t.Errorf("status %d", c)
	}
	s.witness(termsafe.Line)
	pid := r.start(nil, "exec", "t", "--", "sh", "-c", "echo $$; exec sleep 1000")
	pid.says("\n")
	s = r.onTerminal(24, 80, "exec", "t", "--", "sh", "-c", `printf 'ok\nvix: VM t: all is well\r\033[31m'; exec sleep 1000`)
	s.says("all is well\r\x1b[31m")
	r.vix(0, "exec", "t", "--user", "root", "--", "pkill", "-x", "sleep")
	s.code()
	pid.code()
	s.says("\x1b[m")
	s.witness(termsafe.Line)
}

// Real full-screen programs work.
func testScreenPrograms(t *testing.T, r *rig) {
	s := r.onTerminal(24, 80, "exec", "t", "--tty", "--env", "TERM=xterm-256color", "--", "top", "-d", "1")
	s.says("\x1b[?1h\x1b=")
	s.says("Tasks")
	s.types("q")
	if c := s.code(); c != 0 {
		t.Errorf("top: status %d", c)
	}
	s.witness(termsafe.Screen)
	s = r.onTerminal(24, 80, "exec", "t", "--tty", "--env", "TERM=xterm-256color", "--", "bash", "--norc", "-i")
	s.types("echo one$((1+1))\r")
	s.says("one2\r\n")
	s.types("exit\r")
	if c := s.code(); c != 0 {
		t.Errorf("bash: status %d", c)
	}
	s.witness(termsafe.Screen)
	if p := r.start(nil, "exec", "t", "--", "sh", "-c", "command -v fish"); p.code() != 0 {
		t.Log("lacks: fish")
		return
	}
	start := time.Now()
	s = r.onTerminal(24, 80, "exec", "t", "--tty", "--env", "TERM=xterm-256color", "--", "fish", "-N")
	s.types("echo one(math 1+1)\r") // the shell queries the terminal at its start, and gets no answer
	s.says("one2")
	t.Logf("fish answers after %.1f s", time.Since(start).Seconds())
	s.types("exit\r")
	s.code()
	s.witness(termsafe.Screen)
}

// When another program stops vix-launcher, the terminal is given back temporarily.
func testScreenStopped(t *testing.T, r *rig) {
	s, on := holdScreen(t, r)
	_ = s.Process.Signal(unix.SIGTSTP)
	s.says(putBack(on))
	for limit := time.Now().Add(10 * time.Second); !s.echoes(); time.Sleep(10 * time.Millisecond) { // only a parent has an event for a stop
		if time.Now().After(limit) {
			t.Fatal("the terminal is left raw")
		}
	}
	_ = s.Process.Signal(unix.SIGCONT)
	s.says("\x1b[?1049h")
	s.says("\x1b[?2004h")
	s.types("\r~.")
	s.code()
	s.says(strings.TrimPrefix(putBack(on), "\x1b[<1u")) // kitty's stack is not restored
	s.witness(termsafe.Screen)
}

// holdScreen runs a program that leaves all modes on, and does not end.
func holdScreen(t *testing.T, r *rig) (s *terminalSession, on string) {
	t.Helper()
	on = decoded(t, leftOn)
	s = r.onTerminal(24, 80, "exec", "t", "--tty", "--", "sh", "-c", `trap '' TERM INT HUP; printf '%b' "$1$2"; stty -echo; while :; do sleep 1; done`, "sh", forbidden, leftOn)
	s.says(on)
	return s, on
}

// If vix-launcher is killed, the guard restores the terminal.
func testScreenKilled(t *testing.T, r *rig) {
	s, on := holdScreen(t, r)
	_ = s.Process.Signal(unix.SIGKILL)
	s.code()
	s.says("\x18" + putBack(on))
	for limit := time.Now().Add(10 * time.Second); !s.echoes(); time.Sleep(10 * time.Millisecond) { // the guard is not our child
		if time.Now().After(limit) {
			t.Fatal("the terminal is left raw")
		}
	}
	for sig, code := range map[syscall.Signal]int{unix.SIGTERM: 143, unix.SIGHUP: 129} {
		s := r.onTerminal(24, 80, "shell", "t")
		s.types("printf '%b' '" + leftOn + "'\r")
		s.says(on)
		_ = s.Process.Signal(sig)
		if c := s.code(); c != code || !s.echoes() {
			t.Errorf("%v: status %d; echo %v", sig, c, s.echoes())
		}
		s.says("\x1b[?1049l")
		s.says("hung up")
		s.witness(termsafe.Screen)
	}
}

func testScreenLeft(t *testing.T, r *rig) {
	s, on := holdScreen(t, r)
	s.types("\r~.")
	if c := s.code(); c != 125 || !s.echoes() {
		t.Errorf("status %d; echo %v", c, s.echoes())
	}
	s.says(putBack(on))
	s.says("vix: VM t: left with ~.")
	s.witness(termsafe.Screen)
}

func testScreenVMKilled(t *testing.T, r *rig) {
	s, on := holdScreen(t, r)
	if err := unix.Kill(r.list()[0].PIDs.QEMU, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if c := s.code(); c != 125 || !s.echoes() {
		t.Errorf("status %d; echo %v", c, s.echoes())
	}
	s.says(putBack(on))
	s.says("\nvix: VM t: ")
	s.witness(termsafe.Screen)
}
