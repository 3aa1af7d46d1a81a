package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/plain"
	"vix/internal/proc"
)

// Limits of a run's patience.
const (
	leaveLimit = 10 * time.Second // for a stopping VM to be gone, before a new run
	heardLimit = time.Second      // for a signal to reach a guest, after which a second one leaves the run
	maxTries   = 3                // of a run that keeps meeting stopping VMs
)

// A Run is one program to run in a VM.
type Run struct {
	VM string
	// Launch is called when the VM does not run yet and has to start. If it is nil, that is an
	// error.
	Launch     func() (Launch, error)
	How        How
	Argv       []string
	Env        []string // K=V, over the VM's
	Background bool     // return when the program runs, and has not ended at once
	Disposable bool     // do not join a VM that keeps its home
	Fresh      bool     // do not join a VM at all: if it runs, the error is ErrTaken
	GUI        bool     // do not join a VM without a display
	// Wants is what the VM is to have, whoever has started it.
	Wants Wanted
	// Detached: the program starts even if the caller ends before it runs.
	Detached bool
	// Quiet: nobody is notified when the program, in the background, fails soon after its start.
	Quiet bool
	// Await: somebody waits for the program's window: a notification says that it starts, until
	// the window is there.
	Await bool
	// Token is an xdg-activation token of the host's compositor, for the first window
	// that the VM shows from now on; "" is none. The guest never sees it.
	Token string
	// Session is the caller's session, which shows the program's windows if the VM's own
	// session is over.
	Session Session

	Stdin          io.Reader // not used in the background
	Stdout, Stderr io.Writer
	// Pipes: if Stdin or Stdout is an *os.File, it is the end of a pipe that the supervisor
	// may read or write itself, which saves a copy. The caller closes its own.
	Pipes   bool
	Signals <-chan os.Signal // passed on to the program; before it runs, they end the run
	Sizes   <-chan Size      // of the terminal, if How has one

	// The events before the program runs, and "window" after it. The functions are called from
	// one goroutine and may be nil.
	OnStage func(Stage)
	OnNote  func(string)
	// OnWindows gets the reason if the caller's session does not show the program's windows.
	OnWindows func(string)
	OnStart   func(Program)
	// OnTake is called when this run has begun to start the VM.
	OnTake func()
	// OnSilent is called when the VM does not answer any more, at any time.
	OnSilent func()

	// OnHeard is called when the guest has taken the signals that were passed on.
	OnHeard func()

	signalPending *atomic.Bool // a signal is on its way to the guest; converse makes the field
}

// Run starts the VM if it does not run, and the program in it. It returns how
// the program ended (in the background: nil, unless it ended at once). The error is a *Failure,
// or ErrTaken.
//
// A reader of Stdin that does not end (a terminal) is still read when Run
// returns: the caller is expected to exit.
func (r *Registry) Run(ctx context.Context, run Run) (*Exit, error) {
	name := run.VM
	if err := config.CheckName(name); err != nil {
		return nil, Failf("%v", err)
	}
	if err := run.request().checkLength(name); err != nil {
		return nil, err
	}
	if err := checkUTF8(name, run.Session.Wayland, run.Session.Sway); err != nil {
		return nil, err
	}
	for range maxTries {
		var exit *Exit
		conn, err := r.ensure(ctx, &run)
		if err == nil {
			exit, err = run.converse(ctx, conn)
		}
		if errors.Is(err, errLost) {
			// The connection ends a moment before the lock is free. After this line a list has to
			// show nothing, and a run has to work.
			wait, cancel := context.WithTimeout(ctx, leaveLimit)
			_ = r.WaitGone(wait, name)
			cancel()
			return nil, Failf("VM %s: %v, and the VM with it%s; run it again", name, err, r.lastPanic(name))
		}
		if !errors.Is(err, errLeaving) {
			return exit, asFailure(name, err)
		}
		wait, cancel := context.WithTimeout(ctx, leaveLimit)
		err = r.WaitGone(wait, name)
		cancel()
		if err != nil {
			return nil, Failf("VM %s: does not finish stopping: %v; try vix stop --force %s", name, err, name)
		}
		if last := r.lastPanic(name); last != "" {
			return nil, Failf("VM %s: its supervisor crashed%s", name, last)
		}
	}
	return nil, Failf("VM %s: stopped %d times while it was asked to run a program", name, maxTries)
}

// lastPanic returns the last words of a crashed supervisor, from its log.
func (r *Registry) lastPanic(name string) string {
	b, err := r.Root.ReadFile(filepath.Join(name, proc.LogName))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, proc.NoThread) {
			return ": " + proc.NoThreadText
		}
		// A supervisor's own lines begin with a time; these are Go's last words, and main's.
		for _, prefix := range []string{"panic: ", "fatal error: ", "vix: "} {
			if strings.HasPrefix(line, prefix) {
				return ": " + plain.Text(strings.TrimSpace(line), MaxTitle, plain.OneLine)
			}
		}
	}
	return ""
}

func (run *Run) request() Request {
	return Request{
		Version: ControlVersion, Op: OpRun, How: run.How, Argv: run.Argv, Env: run.Env, Background: run.Background,
		Disposable: run.Disposable, GUI: run.GUI, Detached: run.Detached, Quiet: run.Quiet, Await: run.Await, Token: run.Token, Session: run.Session, Wants: run.Wants,
	}
}

func asFailure(name string, err error) error {
	var f *Failure
	if err == nil || errors.As(err, &f) || errors.Is(err, ErrTaken) {
		return err
	}
	return Failf("VM %s: %v", name, err)
}

// ensure returns a connection to the VM's supervisor, which it starts if there
// is none.
func (r *Registry) ensure(ctx context.Context, run *Run) (*net.UnixConn, error) {
	if run.Launch == nil {
		return r.join(run.VM)
	}
	seat, err := r.Take(ctx, run.VM)
	if err != nil {
		return nil, err
	}
	if seat == nil && run.Fresh {
		return nil, ErrTaken
	}
	if seat != nil {
		l, err := run.Launch()
		if err == nil {
			err = r.startSupervisor(seat, l)
		}
		if err != nil {
			err = errors.Join(err, r.RemoveDir(ctx, run.VM))
		}
		seat.Close()
		if err != nil {
			return nil, err
		}
		if run.OnTake != nil {
			run.OnTake()
		}
	}
	conn, _, err := r.Dial(run.VM)
	if err != nil {
		return nil, errLeaving
	}
	return conn, nil
}

// startSupervisor starts the process that will own the VM. It leads a session
// of its own, so that no terminal's signals or end reach it, and has neither
// the caller's environment nor its directory.
func (r *Registry) startSupervisor(s *Seat, l Launch) error {
	if err := l.checkPaths(); err != nil {
		return err
	}
	spec, err := json.Marshal(l)
	if err != nil {
		return err
	}
	logFile, err := r.Root.OpenFile(filepath.Join(l.VM.Name, proc.LogName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(l.Parts.Self, "supervise", l.VM.Name)
	cmd.Path = proc.Running
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(spec)
	cmd.Stderr = logFile // a panic's last words
	cmd.ExtraFiles = []*os.File{s.Lock, s.Listener}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Failf("VM %s: its supervisor cannot be started: %v", l.VM.Name, proc.ExecCause(err))
	}
	go func() { _ = cmd.Wait() }() // if it does not outlive us, this reaps it
	return nil
}

// ErrTaken: the VM of a run that is to have one of its own runs already.
var ErrTaken = errors.New("the VM runs already")

// errLeaving: the VM is stopping; wait, and start it anew.
var errLeaving = errors.New("the VM is stopping")

// errLost: the supervisor's end of the connection closed without a last word.
var errLost = errors.New("its supervisor was killed")

// converse asks for the program, and stays until it has ended.
func (run *Run) converse(ctx context.Context, conn *net.UnixConn) (*Exit, error) {
	c := &Control{Conn: conn}
	run.signalPending = new(atomic.Bool)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	defer unhook()
	defer conn.Close()

	streams, err := openStreams(run)
	if err != nil {
		return nil, err
	}
	defer streams.close()
	err = c.ask(run.request(), streams.theirs...)
	proc.CloseFiles(streams.theirs)
	switch refusal := (*Failure)(nil); {
	case errors.As(err, &refusal):
		return nil, refusal
	case err != nil:
		return nil, errLeaving // it went away before it saw the request
	}
	started := make(chan struct{})
	go run.forward(ctx, c, started, cancel)
	exit, err := run.listen(c, streams, started)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, cause
	}
	return exit, err
}

// listen reads the supervisor's replies until the last.
func (run *Run) listen(c *Control, streams *streams, started chan struct{}) (*Exit, error) {
	begun := false
	for heard := false; ; heard = true {
		var r Reply
		if err := c.Recv(&r, MaxFrame); err != nil {
			if !heard {
				return nil, errLeaving
			}
			if begun && run.Background {
				return nil, nil
			}
			return nil, errLost
		}
		switch {
		case r.Leaving:
			return nil, errLeaving
		case r.Stage != nil && run.OnStage != nil:
			run.OnStage(*r.Stage)
		case r.Silent && run.OnSilent != nil:
			run.OnSilent()
		case r.Heard:
			run.signalPending.Store(false)
			if run.OnHeard != nil {
				run.OnHeard()
			}
		case r.Note != "" && run.OnNote != nil:
			run.OnNote(r.Note)
		case r.Windows != "" && run.OnWindows != nil:
			run.OnWindows(r.Windows)
		case r.Started != nil && !begun:
			begun = true
			close(started)
			if run.OnStart != nil {
				run.OnStart(*r.Started)
			}
			if !run.Background {
				streams.copy(run)
			}
		case r.Done && run.Background:
			return nil, nil // it runs on
		case r.Exit != nil:
			streams.wait()
			return r.Exit, nil
		case r.Fail != nil:
			streams.wait()
			return nil, r.Fail
		}
	}
}

// forward passes signals and sizes on. A signal before the program runs ends the run, as it
// would have ended a program. A second signal that is to end the program also ends the run,
// if the guest has not got the first: then the VM stands still.
func (run *Run) forward(ctx context.Context, c *Control, started <-chan struct{}, cancel context.CancelCauseFunc) {
	runs := func() bool {
		select {
		case <-started:
			return true
		default:
			return false
		}
	}
	early, sizes := started, (<-chan Size)(nil) // no size before there is a terminal
	var sentAt time.Time                        // when the last signal that is to end the program was sent
	var second syscall.Signal                   // the signal that came while the first was pending
	var patience <-chan time.Time               // ends it
	for {
		var word Request
		select {
		case <-ctx.Done():
			return
		case <-early:
			early, sizes = nil, run.Sizes
			continue
		case size := <-sizes:
			word.Size = &size
		case sig, ok := <-run.Signals:
			n, _ := sig.(syscall.Signal)
			switch {
			case !ok:
				return
			case runs() && ends(n) && run.signalPending.Load():
				second = n
				if patience == nil {
					patience = time.After(time.Until(sentAt.Add(heardLimit)))
				}
				continue
			case runs():
				word.Signal = int(n)
			case n == syscall.SIGWINCH: // ends no program
				continue
			default:
				cancel(&Failure{128 + int(n), fmt.Sprintf("VM %s: %v before %s ran", run.VM, n, run.How.Shown(run.Argv)[0])})
				return
			}
		case <-patience:
			if run.signalPending.Load() {
				cancel(&Failure{128 + int(second), fmt.Sprintf("VM %s: does not answer; left %s, which may still be running there; vix stop --force %s ends the VM", run.VM, run.How.Shown(run.Argv)[0], run.VM)})
				return
			}
			patience, word.Signal = nil, int(second)
		}
		if ends(syscall.Signal(word.Signal)) {
			sentAt = time.Now()
			run.signalPending.Store(true)
		}
		if err := c.Send(word); err != nil {
			return
		}
	}
}

// ends reports whether a signal is meant to end a program.
func ends(n syscall.Signal) bool {
	return n == unix.SIGINT || n == unix.SIGTERM || n == unix.SIGQUIT || n == unix.SIGHUP
}

// streams are the pipes of one run: our ends, and the supervisor's.
type streams struct {
	ours, theirs []*os.File // stdin, stdout, stderr; nil of ours where the caller has it
	out          sync.WaitGroup
}

func openStreams(run *Run) (*streams, error) {
	s := &streams{}
	if run.Background {
		return s, nil
	}
	for i, stream := range []any{run.Stdin, run.Stdout, run.Stderr} {
		f, ok := stream.(*os.File)
		if ok && run.Pipes {
			dup, err := proc.DupFile(f)
			if err != nil {
				s.close()
				proc.CloseFiles(s.theirs)
				return nil, err
			}
			s.ours, s.theirs = append(s.ours, nil), append(s.theirs, dup)
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			s.close()
			proc.CloseFiles(s.theirs)
			return nil, err
		}
		if i == 0 {
			r, w = w, r
		}
		s.ours, s.theirs = append(s.ours, r), append(s.theirs, w)
	}
	return s, nil
}

func (s *streams) close() { proc.CloseFiles(s.ours) }

// copy begins to copy once there is a program to copy for: until then it leaves Stdin's
// content to whoever reads it next.
func (s *streams) copy(run *Run) {
	if s.ours[0] != nil {
		go func() {
			_, _ = io.Copy(s.ours[0], run.Stdin)
			s.ours[0].Close()
		}()
	}
	for i, dst := range []io.Writer{run.Stdout, run.Stderr} {
		src := s.ours[i+1]
		if src == nil {
			continue
		}
		s.out.Go(func() {
			// The reader of dst may end first: the program has to notice.
			_, _ = io.Copy(dst, src)
			src.Close()
		})
	}
}

// wait returns when all output of the program has been copied.
func (s *streams) wait() { s.out.Wait() }
