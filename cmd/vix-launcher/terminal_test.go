package main

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"vix/internal/termsafe"
)

// "~." leaves only at the beginning of a line, in whatever pieces it arrives.
func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"ls\r":          "ls\r",
		"~.":            "!",
		"ls\r~.rest":    "ls\r!",
		"ls\n~.":        "ls\n!",
		"a~.":           "a~.",
		"~~.":           "~.",
		"~~\r~.":        "~\r!",
		"~a~.":          "~a~.",
		"~":             "~",
		"~\r~.":         "~\r!",
		"cd ~\r~/x\r":   "cd ~\r~/x\r",
		"\r\r~":         "\r\r~",
		"":              "",
		"ls ~.\r\x03~.": "ls ~.\r\x03~.",
	} {
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in)),
			"with the end": iotest.DataErrReader(strings.NewReader(in)),
		} {
			left := ""
			got, err := io.ReadAll(&escapeReader{r: r, escape: func() { left = "!" }})
			if string(got)+left != want || err != nil {
				t.Errorf("%q, %s: %q, %v, want %q", in, name, string(got)+left, err, want)
			}
		}
	}
}

// Ctrl-C is the guest's once its program runs.
func TestEscapeInterrupt(t *testing.T) {
	starting, interrupts := true, 0
	r := &escapeReader{r: strings.NewReader("a\x03b\x03c\x03"), escape: func() {}, interrupt: func() bool {
		taken := starting
		if taken {
			interrupts++
			starting = interrupts < 2
		}
		return taken
	}}
	if got, err := io.ReadAll(r); string(got) != "abc\x03" || err != nil || interrupts != 2 {
		t.Errorf("%q, %v, %d interrupts", got, err, interrupts)
	}
}

// pty returns both ends of a terminal.
func pty(t testing.TB) (master, slave *os.File) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("lacks: /dev/ptmx")
	}
	t.Cleanup(func() { m.Close() })
	err = descriptor(m, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return errno
		}
		slave = os.NewFile(r, "tty")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return m, slave
}

// A lent terminal is raw, and is given back unchanged.
func TestLend(t *testing.T) {
	_, tty := pty(t)
	before, err := termios(tty)
	if err != nil {
		t.Fatal(err)
	}
	e := osEnv()
	e.self = func() (string, error) { return exec.LookPath("vix-launcher") } // this binary: see TestMain
	g, err := startGuard(e, tty, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lend(tty, g, nil)
	if err != nil {
		t.Fatal(err)
	}
	if raw, _ := termios(tty); raw.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Error("not raw")
	}
	l.restore()
	if after, _ := termios(tty); *after != *before {
		t.Errorf("%+v, before %+v", after, before)
	}
}

// The guard gives the terminal back if it is not dismissed, by its latest tasks.
func TestGuard(t *testing.T) {
	master, tty := pty(t)
	saved, err := termios(tty)
	if err != nil {
		t.Fatal(err)
	}
	changed := *saved
	changed.Lflag &^= unix.ECHO
	changed.Oflag &^= unix.OPOST
	for _, c := range []struct {
		name   string
		act    func(*guard)
		echo   bool
		screen string
	}{
		{"nothing", func(*guard) {}, false, ""},
		{"the state", func(g *guard) { g.tell(guardTermios, saved) }, true, ""},
		{"dismissed", func(g *guard) {
			g.tell(guardTermios, saved)
			g.tell(guardScreen, []byte("x"))
			g.tell(guardDismissed, nil)
		}, false, ""},
		{"the screen", func(g *guard) { g.tell(guardScreen, []byte("x")); g.tell(guardScreen, []byte("\x1b[?1000l")) }, false, "\x18\x1b[?1000l"},
		{"both", func(g *guard) { g.tell(guardTermios, saved); g.tell(guardScreen, []byte("y")) }, true, "\x18y"},
		{"nothing left on", func(g *guard) {
			g.tell(guardTermios, saved)
			g.tell(guardScreen, []byte("y"))
			g.tell(guardScreen, []byte{})
		}, true, ""},
		{"an unfinished word", func(g *guard) { g.tell(guardTermios, saved); _, _ = g.pipe.WriteString("s\xff\xffx") }, true, ""},
	} {
		if err := setTermios(tty, &changed); err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c.act(&guard{pipe: w})
		w.Close()
		if err := watchOver(tty, tty, r); err != nil {
			t.Error(err)
		}
		r.Close()
		if now, _ := termios(tty); (now.Lflag&unix.ECHO != 0) != c.echo {
			t.Errorf("%s: echo is %v", c.name, !c.echo)
		}
		_, _ = tty.WriteString("|") // the end of the expected output
		got := make([]byte, len(c.screen)+1)
		if _, err := io.ReadFull(master, got); err != nil || string(got) != c.screen+"|" {
			t.Errorf("%s: the screen got %q, %v, want %q", c.name, got, err, c.screen)
		}
	}
}

// Each output is treated separately: a terminal shows only safe sequences, a pipe gets every
// byte; and Vix's own message starts on a new line.
func TestConsole(t *testing.T) {
	const output = "a\x1b]52;c;eA==\a\x1b[31mb\x1b[H\xe2\x80\xaec"
	master, tty := pty(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	screen := &termsafe.Terminal{}
	e := &env{stdout: onConsole(screen, w), stderr: onConsole(screen, tty)}
	if e.stdout != io.Writer(w) {
		t.Error("a pipe is not left alone")
	}
	if fileOf(e.stderr) != tty || ttyOf(e.stderr) != tty {
		t.Error("the terminal is not found behind its console")
	}
	out := e.guestOutput(false, false, nil)
	_, _ = io.WriteString(out.stdout, output)
	_, _ = io.WriteString(out.stderr, output)
	out.end()
	if _, err := io.WriteString(out.stderr, "late"); err == nil {
		t.Error("written after the end")
	}
	_, _ = io.WriteString(e.stderr, "vix: \x1b]0;x\agone\n")
	w.Close()
	if got, _ := io.ReadAll(r); string(got) != output {
		t.Errorf("the pipe got %q", got)
	}
	want := "a\x1b[31mbc\x1b[m\r\r\nvix: gone\r\n" // the terminal adds a return
	got := make([]byte, len(want))
	if _, err := io.ReadFull(master, got); err != nil || string(got) != want {
		t.Errorf("the terminal got %q, %v, want %q", got, err, want)
	}
}
