package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// "~." leaves at the beginning of a line alone, in whatever pieces it comes.
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

// A terminal that is lent is raw, and given back as it was.
func TestLend(t *testing.T) {
	_, tty := pty(t)
	before, err := termios(tty)
	if err != nil {
		t.Fatal(err)
	}
	e := osEnv()
	e.self = func() (string, error) { return exec.LookPath("vix-launcher") } // this binary: see TestMain
	l, err := lend(e, tty)
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

// The guard gives the terminal back when it is not dismissed.
func TestGuard(t *testing.T) {
	_, tty := pty(t)
	saved, err := termios(tty)
	if err != nil {
		t.Fatal(err)
	}
	changed := *saved
	changed.Lflag &^= unix.ECHO
	for _, c := range []struct {
		last string
		echo bool
	}{{"", true}, {string(dismissed), false}, {"x", true}} {
		if err := setTermios(tty, &changed); err != nil {
			t.Fatal(err)
		}
		var pipe bytes.Buffer
		_ = binary.Write(&pipe, binary.NativeEndian, saved)
		pipe.WriteString(c.last)
		if err := watchOver(tty, &pipe); err != nil {
			t.Error(err)
		}
		if now, _ := termios(tty); (now.Lflag&unix.ECHO != 0) != c.echo {
			t.Errorf("after %q: echo is %v", c.last, !c.echo)
		}
	}
	if err := watchOver(tty, strings.NewReader("short")); err != nil {
		t.Errorf("a short state: %v", err)
	}
}
