package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"vix/internal/sandbox"
)

// PDEATHSIG kills a child when the *thread* that made it ends, not the process
// (prctl(2)), and Go ends threads when it likes. So every child is made by one
// goroutine that is locked to its thread and lives as long as the children.

// A Nest makes children from one thread that lasts until close.
type Nest struct {
	jobs  chan func()
	done  chan struct{}
	files programFiles
}

// NewNest returns a nest whose children run self as what runs now, and each of the
// others as what its path names now, whatever becomes of the files (kept.go).
func NewNest(self string, others ...string) *Nest {
	return &Nest{jobs: make(chan func()), done: make(chan struct{}), files: openPrograms(self, others)}
}

// Run serves start until close. It must be a goroutine of its own, and ends
// with its thread.
func (n *Nest) Run() {
	defer close(n.done)
	runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
	for job := range n.jobs {
		job()
	}
}

func (n *Nest) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	result := make(chan error, 1)
	n.jobs <- func() {
		// Dumpable for as long as it takes to write the maps of the child's user namespace. If
		// this fails, writing the maps fails, and reports it.
		_ = sandbox.SetDumpable(true)
		err := cmd.Start()
		_ = sandbox.SetDumpable(false)
		result <- err
	}
	return <-result
}

// Close ends the thread, and with it any child that is still there.
func (n *Nest) Close() {
	n.files.close()
	close(n.jobs)
	<-n.done
}

// A Command describes a child to start.
type Command struct {
	Name  string // in messages and in the log
	Path  string
	Args  []string
	Files []*os.File // descriptors 3, 4, …; Start closes ours
	Attr  *syscall.SysProcAttr
	// Own, if set, is tried before Attr: namespaces of the child's own. An argument after
	// its verb tells the child about them.
	Own *syscall.SysProcAttr
	Env []string
	// Stdout, if set, gets the lines of standard output; otherwise they go to the log, as
	// those of standard error do.
	Stdout func(string)
}

// A Child is one process of a VM.
type Child struct {
	Name string
	Cmd  *exec.Cmd
	Done chan struct{} // closed when it has ended and its output is in the log
	Err  error         // how it ended; read after done
	Last Tail          // of its standard error
	trap trapReader    // of its standard error; read after done
}

// Start starts c; its output goes to the journal. Start closes c.Files, also
// when it fails.
func Start(n *Nest, j *Journal, c Command) (*Child, error) {
	defer func() {
		for _, f := range c.Files {
			f.Close()
		}
	}()
	ch := &Child{Name: c.Name, Done: make(chan struct{})}
	stderr, errW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	stdout, outW, err := os.Pipe()
	if err != nil {
		stderr.Close()
		errW.Close()
		return nil, err
	}
	if ch.Cmd, err = c.start(n, outW, errW); err != nil {
		err = fmt.Errorf("%s: cannot be started: %w", c.Name, ExecCause(err))
	}
	errW.Close()
	outW.Close()
	if err != nil {
		stderr.Close()
		stdout.Close()
		return nil, err
	}
	if c.Stdout == nil {
		c.Stdout = func(line string) { j.Add(c.Name, line) }
	}
	var readers sync.WaitGroup
	readers.Go(func() { EachLine(stdout, c.Stdout) })
	readers.Go(func() {
		EachLine(stderr, func(line string) {
			ch.Last.Add(line)
			ch.trap.line(line)
			j.Add(c.Name, line)
		})
	})
	go ch.wait(j, &readers, stdout, stderr)
	return ch, nil
}

// start starts c's program, in its own namespaces if the machine permits that: the child's
// report says what is missing.
func (c Command) start(n *Nest, stdout, stderr *os.File) (*exec.Cmd, error) {
	build := func(attr *syscall.SysProcAttr, args []string) *exec.Cmd {
		cmd := exec.Command(c.Path, args...)
		cmd.Env = c.Env
		if c.Env == nil {
			cmd.Env = []string{} // nil would be ours
		}
		cmd.ExtraFiles, cmd.SysProcAttr = c.Files, attr
		n.files.choose(cmd)
		cmd.Stdout, cmd.Stderr = stdout, stderr
		return cmd
	}
	if c.Own != nil {
		cmd := build(c.Own, slices.Insert(slices.Clone(c.Args), 1, sandbox.OwnNamespaces))
		if err := n.start(cmd); err == nil {
			return cmd, nil
		}
	}
	cmd := build(c.Attr, c.Args)
	return cmd, n.start(cmd)
}

// DrainLimit bounds the wait for output that a dead child's own children hold
// open.
const DrainLimit = 200 * time.Millisecond

func (c *Child) wait(j *Journal, readers *sync.WaitGroup, outputs ...*os.File) {
	c.Err = c.Cmd.Wait()
	for _, f := range outputs {
		_ = f.SetReadDeadline(time.Now().Add(DrainLimit))
	}
	readers.Wait()
	for _, f := range outputs {
		f.Close()
	}
	j.Printf("vix", "%s ended: %s", c.Name, c.Status())
	close(c.Done)
}

// Kill ends the child for certain and waits for its end.
func (c *Child) Kill() {
	_ = c.Cmd.Process.Kill() // an error means that it has ended already
	<-c.Done
}

// End waits for the child to end by itself, and kills it after limit.
func (c *Child) End(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c.Done:
	case <-t.C:
		c.Kill()
	}
}

// Status says how the child ended.
func (c *Child) Status() string {
	var ee *exec.ExitError
	switch {
	case c.Err == nil:
		return "exit status 0"
	case errors.As(c.Err, &ee):
		return ee.ProcessState.String()
	default:
		return c.Err.Error()
	}
}

// Killed reports that a signal ended the child.
func (c *Child) Killed() bool {
	st, ok := c.Cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && st.Signaled()
}

// Broken reports whether the child made a system call that its confinement forbids, and
// which one. For the worst calls the kernel kills the child, and names the call in its own
// log alone; for the others, the Go runtime crashes and names it.
func (c *Child) Broken() (what string, ok bool) {
	st, _ := c.Cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case st.Signaled() && st.Signal() == syscall.SIGSYS:
		return "a forbidden system call, which the kernel's log names", true
	case c.trap.trapped && c.trap.call != "":
		return "system call " + c.trap.call, true
	case c.trap.trapped:
		return "a system call", true
	}
	return "", false
}

// Crowded reports that the child, a Go program, crashed because the kernel made no more
// threads for it.
func (c *Child) Crowded() bool { return c.trap.crowded }

// A trapReader finds the reason in the crash of a Go program: a trapped system call, and
// which (package sandbox says how), or that there were no more threads.
type trapReader struct {
	trapped bool
	crowded bool
	call    string // its number
}

// NoThread begins the crash of a Go program for which the kernel made no more threads.
const (
	NoThread     = "runtime: failed to create new OS thread"
	NoThreadText = "there is no room for another thread; end other programs of yours, or raise the limit of processes (ulimit -u, or pids.max of the control group)"
)

func (t *trapReader) line(line string) {
	if strings.HasPrefix(line, NoThread) {
		t.crowded = true
	}
	if strings.HasPrefix(line, "SIGSYS: bad system call") {
		t.trapped = true
	}
	if rax, ok := strings.CutPrefix(line, "rax "); ok && t.trapped && t.call == "" {
		if n, err := strconv.ParseUint(strings.TrimSpace(rax), 0, 32); err == nil {
			t.call = strconv.FormatUint(n, 10)
		}
	}
}

// ExecCause returns the system's error alone: the path is in the message already.
func ExecCause(err error) error {
	var pe *os.PathError
	var ee *exec.Error
	switch {
	case errors.As(err, &pe):
		return fmt.Errorf("%s: %w", pe.Path, pe.Err)
	case errors.As(err, &ee):
		return fmt.Errorf("%s: %w", ee.Name, ee.Err)
	}
	return err
}
