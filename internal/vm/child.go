package vm

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

// A nest makes children from one thread that lasts until close.
type nest struct {
	jobs chan func()
	done chan struct{}
	kept programFiles
}

// newNest returns a nest whose children run self as what runs now, and each of the
// others as what its path names now, whatever becomes of the files (kept.go).
func newNest(self string, others ...string) *nest {
	return &nest{jobs: make(chan func()), done: make(chan struct{}), kept: openPrograms(self, others)}
}

// run serves start until close. It must be a goroutine of its own, and ends
// with its thread.
func (n *nest) run() {
	defer close(n.done)
	runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
	for job := range n.jobs {
		job()
	}
}

func (n *nest) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	result := make(chan error, 1)
	n.jobs <- func() {
		// For as long as it takes to write the child's user namespace's maps. That it
		// may fail is seen by what it is for.
		_ = sandbox.SetDumpable(true)
		err := cmd.Start()
		_ = sandbox.SetDumpable(false)
		result <- err
	}
	return <-result
}

// close ends the thread, and with it any child that is still there.
func (n *nest) close() {
	n.kept.close()
	close(n.jobs)
	<-n.done
}

// A command is what a child is started from.
type command struct {
	name  string // in messages and in the log
	path  string
	args  []string
	files []*os.File // descriptors 3, 4, …; closed here by start
	attr  *syscall.SysProcAttr
	// own, if set, is tried before attr: namespaces of the child's own, of which
	// the child is told by an argument behind its verb.
	own *syscall.SysProcAttr
	env []string
	// stdout, if set, is given the lines of standard output; else they are
	// logged as those of standard error are.
	stdout func(string)
}

// A child is one process of a VM.
type child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is in the log
	err  error         // how it ended; read after done
	last tail          // of its standard error
	trap trapReader    // of its standard error; read after done
}

// startChild starts c; its output goes to the journal. It closes c.files, also
// when it fails.
func startChild(n *nest, j *journal, c command) (*child, error) {
	defer func() {
		for _, f := range c.files {
			f.Close()
		}
	}()
	ch := &child{name: c.name, done: make(chan struct{})}
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
	if ch.cmd, err = c.start(n, outW, errW); err != nil {
		err = fmt.Errorf("%s: cannot be started: %w", c.name, execCause(err))
	}
	errW.Close()
	outW.Close()
	if err != nil {
		stderr.Close()
		stdout.Close()
		return nil, err
	}
	if c.stdout == nil {
		c.stdout = func(line string) { j.add(c.name, line) }
	}
	var readers sync.WaitGroup
	readers.Go(func() { eachLine(stdout, c.stdout) })
	readers.Go(func() {
		eachLine(stderr, func(line string) {
			ch.last.add(line)
			ch.trap.line(line)
			j.add(c.name, line)
		})
	})
	go ch.wait(j, &readers, stdout, stderr)
	return ch, nil
}

// ownNamespaces is the argument that tells a child of its own namespaces.
const ownNamespaces = "--own-namespaces"

// start starts c's program, in its own namespaces if the machine lets it: what is
// missing, the child says in its report.
func (c command) start(n *nest, stdout, stderr *os.File) (*exec.Cmd, error) {
	build := func(attr *syscall.SysProcAttr, args []string) *exec.Cmd {
		cmd := exec.Command(c.path, args...)
		cmd.Env = c.env
		if c.env == nil {
			cmd.Env = []string{} // nil would be ours
		}
		cmd.ExtraFiles, cmd.SysProcAttr = c.files, attr
		n.kept.choose(cmd)
		cmd.Stdout, cmd.Stderr = stdout, stderr
		return cmd
	}
	if c.own != nil {
		cmd := build(c.own, slices.Insert(slices.Clone(c.args), 1, ownNamespaces))
		if err := n.start(cmd); err == nil {
			return cmd, nil
		}
	}
	cmd := build(c.attr, c.args)
	return cmd, n.start(cmd)
}

// drainLimit bounds the wait for output that a dead child's own children hold
// open.
const drainLimit = 200 * time.Millisecond

func (c *child) wait(j *journal, readers *sync.WaitGroup, outputs ...*os.File) {
	c.err = c.cmd.Wait()
	for _, f := range outputs {
		_ = f.SetReadDeadline(time.Now().Add(drainLimit))
	}
	readers.Wait()
	for _, f := range outputs {
		f.Close()
	}
	j.printf("vix", "%s ended: %s", c.name, c.status())
	close(c.done)
}

// kill ends the child for certain and waits for its end.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // an error means that it has ended already
	<-c.done
}

// end waits for the child to end by itself, and kills it after limit.
func (c *child) end(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
		c.kill()
	}
}

// status says how the child ended.
func (c *child) status() string {
	var ee *exec.ExitError
	switch {
	case c.err == nil:
		return "exit status 0"
	case errors.As(c.err, &ee):
		return ee.ProcessState.String()
	default:
		return c.err.Error()
	}
}

// killed reports that a signal ended the child.
func (c *child) killed() bool {
	st, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && st.Signaled()
}

// broken says, if the child made a system call that its confinement forbids, which
// one. The kernel kills for the worst of them, and tells nobody but its own log
// which it was; of the others, the Go runtime makes a crash that shows it.
func (c *child) broken() (what string, ok bool) {
	st, _ := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
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

// A trapReader finds in the crash of a Go program that a system call was trapped,
// and which: package sandbox says how; or that it could make no more threads.
type trapReader struct {
	trapped bool
	crowded bool
	call    string // its number
}

// noThread begins the crash of a Go program for which the kernel made no more threads.
const (
	noThread = "runtime: failed to create new OS thread"
	crowded  = "there is no room for another thread; end other programs of yours, or raise the limit of processes (ulimit -u, or pids.max of the control group)"
)

func (t *trapReader) line(line string) {
	if strings.HasPrefix(line, noThread) {
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

// execCause is the system's word alone: the path is in the message already.
func execCause(err error) error {
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
