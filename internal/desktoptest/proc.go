package desktoptest

import (
	"bytes"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"vix/internal/logtest"
)

// A Proc is a process that ends with the test.
type Proc struct {
	PID  int
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}
	err  error // of Wait; valid when done is closed
}

// catchHangUp makes SIGHUP end what is started from here, under nohup too: a program inherits
// that a signal is ignored, but not that it is caught.
var catchHangUp = sync.OnceFunc(func() { signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) })

// Command starts cmd as a Proc. Output that cmd does not send elsewhere is kept
// for Output, and for a test that fails. The kernel kills the process if the test's process dies.
func Command(t T, cmd *exec.Cmd, cred *syscall.Credential) (*Proc, error) {
	catchHangUp()
	p := &Proc{cmd: cmd, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.out
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if cred != nil {
		cmd.SysProcAttr.Credential = cred
	}
	// A grandchild that holds the output open must not keep Wait waiting.
	cmd.WaitDelay = 2 * time.Second
	started := make(chan error)
	go func() {
		// The parent-death signal is the thread's, not the process's: the thread
		// that starts the child has to live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.PID = cmd.Process.Pid
	t.Cleanup(func() {
		p.Stop()
		logtest.Save(t, filepath.Base(cmd.Path)+".txt", p.Output())
	})
	return p, nil
}

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for the end and returns the exit status, 128+n for a signal.
func (p *Proc) Wait() int {
	<-p.done
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends sig; a process that has ended does not mind.
func (p *Proc) Signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// Output returns what the process has written so far.
func (p *Proc) Output() string { return p.out.String() }

// Stop ends the process: SIGTERM, and SIGKILL after five seconds.
func (p *Proc) Stop() {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(5 * time.Second):
	}
	p.Signal(syscall.SIGKILL)
	<-p.done
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
