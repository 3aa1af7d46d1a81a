package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/vm"
)

// A terminal is the user's own, lent to a guest's program: in raw mode, so that every key goes
// to the guest, and with its size passed on. It is given back unchanged however the verb ends:
// by restore or, if the process had no time for that (SIGKILL, a crash), by the guard.
type terminal struct {
	file   *os.File
	saved  *unix.Termios
	sizes  chan vm.Size // the newest only
	guard  *guard
	output *guestOutput // the guest's output on it; nil if none

	signals chan os.Signal
	done    chan struct{} // closed when watch has ended
}

// ttyOf returns f as a terminal; nil if it is not one.
func ttyOf(f any) *os.File {
	file := fileOf(f)
	if file == nil {
		return nil
	}
	if _, err := termios(file); err != nil {
		return nil
	}
	return file
}

func termios(f *os.File) (t *unix.Termios, err error) {
	err = descriptor(f, func(fd int) error {
		t, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	return t, err
}

// descriptor runs f on a file's descriptor without making it blocking.
func descriptor(file *os.File, f func(fd int) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = c.Control(func(fd uintptr) { ferr = f(int(fd)) })
	return errors.Join(err, ferr)
}

// lend puts the terminal into raw mode. The caller keeps g until lend has returned without an
// error.
func lend(file *os.File, g *guard, output *guestOutput) (*terminal, error) {
	saved, err := termios(file)
	if err != nil {
		return nil, err
	}
	t := &terminal{
		file: file, saved: saved, sizes: make(chan vm.Size, 1), guard: g, output: output,
		signals: make(chan os.Signal, 4), done: make(chan struct{}),
	}
	g.tell(guardTermios, saved)
	signal.Notify(t.signals, unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT)
	if err := t.raw(); err != nil {
		signal.Stop(t.signals)
		return nil, err
	}
	go t.watch()
	return t, nil
}

// raw is cfmakeraw of termios(3).
func (t *terminal) raw() error {
	r := *t.saved
	r.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	r.Oflag &^= unix.OPOST
	r.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	r.Cflag = r.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	r.Cc[unix.VMIN], r.Cc[unix.VTIME] = 1, 0
	return setTermios(t.file, &r)
}

func setTermios(f *os.File, t *unix.Termios) error { return applyTermios(f, t, unix.TCSETSW) }

func applyTermios(f *os.File, t *unix.Termios, how uint) error {
	return descriptor(f, func(fd int) error { return unix.IoctlSetTermios(fd, how, t) })
}

// restore gives the terminal back. If it reported the mouse, unread input is discarded: the
// next reader would take it for typed text.
func (t *terminal) restore() {
	signal.Stop(t.signals)
	close(t.signals)
	<-t.done
	how := uint(unix.TCSETSW)
	if t.output != nil {
		if t.output.reports() {
			how = unix.TCSETSF
		}
		t.output.end()
	}
	if applyTermios(t.file, t.saved, how) == nil {
		t.guard.dismiss()
	}
}

// watch follows the terminal's size, and this process's stops and continues.
func (t *terminal) watch() {
	defer close(t.done)
	for sig := range t.signals {
		if sig == unix.SIGTSTP { // sent by kill(1): the key goes to the guest
			t.output.suspend()
			_ = setTermios(t.file, t.saved)
			_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
			continue // SIGCONT follows
		}
		if sig == unix.SIGCONT {
			_ = t.raw()
			t.output.resume()
		}
		select {
		case <-t.sizes: // replaces an older size that nobody has taken
		default:
		}
		t.sizes <- t.size()
	}
}

// size is 24×80 if the terminal does not report one.
func (t *terminal) size() vm.Size { return sizeOf(t.file) }

func sizeOf(f *os.File) vm.Size {
	var w *unix.Winsize
	err := descriptor(f, func(fd int) (err error) {
		w, err = unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		return err
	})
	if err != nil || w.Row == 0 || w.Col == 0 {
		return vm.Size{Rows: 24, Cols: 80}
	}
	return vm.Size{Rows: w.Row, Cols: w.Col}
}

// A guard is a process that gives the terminal back if this one cannot. It receives its tasks
// by a pipe, and learns of this process's end by the pipe's end:
//
//	┌────────┬──────────┬──────────────┐
//	│ u8 what│ u16 size │ size bytes   │  …
//	└────────┴──────────┴──────────────┘
//	't' the state of the keyboard's terminal (struct termios)
//	's' output for the screen's terminal; a new one replaces the last
//	'd' the tasks are done
//
// Numbers are in the machine's byte order.
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File
}

const guardVerb = "terminal-guard"

const (
	guardTermios   = 't'
	guardScreen    = 's'
	guardDismissed = 'd'
)

// startGuard starts a guard over the terminals of the keyboard and the screen; either may be
// nil.
func startGuard(e *env, keyboard, screen *os.File) (*guard, error) {
	cmd, err := e.again(context.Background(), guardVerb)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Env = []string{}
	if keyboard != nil {
		cmd.Stdin = keyboard
	}
	if screen != nil {
		cmd.Stdout = screen
	}
	cmd.ExtraFiles = []*os.File{r}
	// It has a process group of its own, so that keys and kills do not reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	r.Close()
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return &guard{cmd, w}, nil
}

// tell sends the guard a task. The loss of the guard is no reason to end.
func (g *guard) tell(what byte, v any) {
	size := 0
	if v != nil {
		size = binary.Size(v)
	}
	b := binary.NativeEndian.AppendUint16([]byte{what}, uint16(size))
	if v != nil {
		b, _ = binary.Append(b, binary.NativeEndian, v) // has a fixed size
	}
	_, _ = g.pipe.Write(b)
}

func (g *guard) dismiss() {
	g.tell(guardDismissed, nil)
	g.pipe.Close()
	_ = g.cmd.Wait()
}

// guardCommand is the guard: descriptors 0 and 1 are the terminals, 3 is the pipe.
func guardCommand(*env) *cobra.Command {
	return &cobra.Command{
		Use: guardVerb, Hidden: true, Args: args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			keyboard, screen := ttyOf(os.Stdin), ttyOf(os.Stdout)
			if keyboard == nil && screen == nil || !isKind(3, unix.S_IFIFO) {
				return usagef("%s: started only by vix shell", guardVerb)
			}
			// A terminal's state is set from the background too.
			signal.Ignore(unix.SIGTTOU, unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
			return watchOver(keyboard, screen, os.NewFile(3, "pipe"))
		},
	}
}

// cancelled cancels a sequence that was half written when this process was killed.
const cancelled = "\x18"

func watchOver(keyboard, screen *os.File, pipe io.Reader) error {
	var saved unix.Termios
	var lent bool
	var rest []byte
	r := bufio.NewReader(pipe)
	for {
		var head struct {
			What byte
			Size uint16
		}
		if binary.Read(r, binary.NativeEndian, &head) != nil {
			break
		}
		b := make([]byte, head.Size)
		if _, err := io.ReadFull(r, b); err != nil {
			break
		}
		switch head.What {
		case guardTermios:
			_, err := binary.Decode(b, binary.NativeEndian, &saved)
			lent = err == nil
		case guardScreen:
			rest = b
		case guardDismissed:
			return nil
		}
	}
	var err error
	how := uint(unix.TCSETSW)
	if screen != nil && len(rest) > 0 {
		how = unix.TCSETSF // the terminal may have sent reports
		_, err = screen.WriteString(cancelled + string(rest))
	}
	if keyboard != nil && lent {
		err = errors.Join(err, applyTermios(keyboard, &saved, how))
	}
	return err
}

// An escapeReader finds "~." at the beginning of a typed line: the way out of a guest that
// does not answer. "~~" stands for one '~'.
type escapeReader struct {
	r      io.Reader
	escape func()
	// interrupt takes a Ctrl-C that is not the guest's, because no program runs yet; or nil.
	interrupt func() (taken bool)

	inLine bool // not at the beginning of a line
	tilde  bool // a '~' is held back
	ended  bool
}

func (e *escapeReader) Read(p []byte) (int, error) {
	if e.ended || len(p) < 2 { // a held '~' may need a byte of space
		return 0, io.EOF
	}
	buf := make([]byte, len(p)-1)
	for {
		n, err := e.r.Read(buf)
		out := e.filter(p[:0], buf[:n])
		if e.ended {
			e.escape()
			return len(out), io.EOF
		}
		if err != nil && e.tilde {
			e.tilde = false
			out = append(out, '~')
		}
		if len(out) > 0 || err != nil {
			return len(out), err
		}
	}
}

// keyInterrupt is what Ctrl-C sends on a raw terminal.
const keyInterrupt = 3

func (e *escapeReader) filter(out, in []byte) []byte {
	for _, c := range in {
		switch {
		case c == keyInterrupt && e.interrupt != nil && e.interrupt():
			continue
		case e.tilde && c == '.':
			e.ended = true
			return out
		case e.tilde && c == '~':
			e.tilde, e.inLine = false, true
			out = append(out, '~')
			continue
		case e.tilde:
			e.tilde = false
			out = append(out, '~')
		case c == '~' && !e.inLine:
			e.tilde = true
			continue
		}
		out = append(out, c)
		e.inLine = c != '\r' && c != '\n'
	}
	return out
}

// errLeft is the error of a verb that "~." ended.
var errLeft = errors.New("left with ~.; the program was hung up, the VM keeps running")

// terminalEnv returns the variables that tell a program about the terminal.
func (e *env) terminalEnv() []string {
	var list []string
	for _, name := range []string{"TERM", "COLORTERM"} {
		if v := e.getenv(name); v != "" {
			list = append(list, name+"="+v)
		}
	}
	return list
}

// attach runs a program on the user's terminals, if stdin and stdout are terminals.
func attach(ctx context.Context, e *env, run vm.Run, raw bool) (_ vm.Run, _ context.Context, detach func(), _ error) {
	run.How.TTY = true
	run.How.Size = vm.Size{Rows: 24, Cols: 80}
	run.Env = append(e.terminalEnv(), run.Env...)
	run.How.Terminfo = e.terminfo(run.Env)
	keyboard, screen := ttyOf(e.stdin), ttyOf(e.stdout)
	if screen != nil {
		run.How.Size = sizeOf(screen)
	}
	var g *guard
	out := e.guestOutput(true, raw, func(b []byte) { g.tell(guardScreen, b) })
	run.Stdout, run.Stderr = out.stdout, out.stderr
	if keyboard == nil && screen == nil {
		return run, ctx, out.end, nil
	}
	var err error
	if g, err = startGuard(e, keyboard, screen); err != nil {
		return run, ctx, nil, err
	}
	if keyboard == nil {
		return run, ctx, func() { out.end(); g.dismiss() }, nil
	}
	t, err := lend(keyboard, g, out)
	if err != nil {
		g.dismiss()
		return run, ctx, nil, err
	}
	run.How.Size, run.Sizes = t.size(), t.sizes
	var started atomic.Bool
	onStart := run.OnStart
	run.OnStart = func(p vm.Program) {
		started.Store(true)
		if onStart != nil {
			onStart(p)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	run.Stdin = &escapeReader{
		r: keyboard,
		escape: func() {
			cancel(&vm.Failure{Code: vm.CodeVix, Text: fmt.Sprintf("VM %s: %v", run.VM, errLeft)})
		},
		interrupt: func() bool { // the signal that a terminal sends otherwise; it ends the start
			return !started.Load() && unix.Kill(os.Getpid(), unix.SIGINT) == nil
		},
	}
	return run, ctx, func() { t.restore(); cancel(nil) }, nil
}
