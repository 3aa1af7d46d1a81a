package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

// start starts a program as the requested user, in a session and a control group of its own.
// It may be called before the guest is ready, and then waits.
func (g *guest) start(ctx context.Context, s agent.Spawn) (*agent.Program, error) {
	select {
	case <-g.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	who, err := g.account(s.User)
	if err != nil {
		return nil, err
	}
	env := mergeEnv(withHabits("/", who.environment(g), s.Zone), s.Env)
	otherTerm := false
	if s.TTY {
		if env, otherTerm, err = fitTerminal("/", terminfoDir, env, s.Terminfo); err != nil {
			return nil, err
		}
	}
	dir := string(s.Cwd)
	if dir == "" {
		dir = who.home
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, &agent.SpawnError{Code: 126, Text: fmt.Sprintf("directory %s: not there in the guest", dir)}
	}
	var path string
	switch s.Kind {
	case agent.KindShell:
		path, s.Argv = who.shell, append([]string{"-" + filepath.Base(who.shell)}, s.Argv...)
	case agent.KindRequest:
		if s.Request.Drivers != nil {
			g.hotplug.Do(func() { go g.ownDevices() })
		}
		if s.Argv, err = ownCommand(*s.Request); err != nil {
			return nil, err
		}
		path = "/proc/self/exe"
	default:
		if path, err = lookPath(s.Argv[0], dir, env); err != nil {
			return nil, err
		}
	}
	attr := &syscall.ProcAttr{Dir: dir, Env: env, Sys: &syscall.SysProcAttr{Setsid: true, Credential: who.credential()}}
	tree, err := g.trees.plant(attr.Sys)
	if err != nil {
		return nil, err
	}
	var p *agent.Program
	if s.TTY {
		p, err = g.startTTY(path, who.uid, s, attr)
	} else {
		p, err = g.startPipes(path, s.Argv, attr)
	}
	tree.planted()
	if err != nil {
		tree.fell()
		return nil, err
	}
	p.OtherTerm = otherTerm
	wait := p.Wait
	p.Signal = tree.signal(p.Signal)
	p.Wait = func() agent.Status {
		st := wait()
		tree.fell()
		return st
	}
	return p, nil
}

func credential(u agent.User, groups ...uint32) *syscall.Credential {
	return &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID), Groups: groups}
}

// exec starts the program with the given descriptors, and closes our copies of them.
func (g *guest) exec(path string, argv []string, attr *syscall.ProcAttr, files ...*os.File) (*child, error) {
	for _, f := range files {
		// Fd makes the file blocking, as programs expect theirs to be.
		attr.Files = append(attr.Files, f.Fd())
	}
	c, err := g.reaper.start(path, argv, attr)
	closeAll(files)
	if err != nil {
		return nil, execError(path, err)
	}
	return c, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// execError returns a shell's code for a file that was found but not executed: always 126 (a
// missing interpreter is ENOENT too).
func execError(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return &agent.SpawnError{Code: 126, Text: path + ": its interpreter is missing in the guest"}
	case errors.Is(err, unix.ENOEXEC):
		return &agent.SpawnError{Code: 126, Text: path + ": not a program for this machine"}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return &agent.SpawnError{Code: 126, Text: path + ": not executable by the guest's user"}
	case errors.Is(err, unix.EAGAIN): // the error of execve(2) after a change of user
		return &agent.SpawnError{Code: 126, Text: "the guest's user has as many processes as it may; end some in the VM"}
	}
	return &agent.SpawnError{Code: 126, Text: path + ": " + err.Error()}
}

// pipeSize is the capacity of a program's pipes. The default of 64 KiB is less than cat writes
// at once, and a guest then spends up to a third of its processor on switching between the
// program and us.
const pipeSize = 256 << 10

// widen enlarges a pipe, unless the guest's kernel refuses.
func widen(pipe *os.File) {
	if c, err := pipe.SyscallConn(); err == nil { // Fd would make the pipe blocking
		_ = c.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}

func (g *guest) startPipes(path string, argv []string, attr *syscall.ProcAttr) (_ *agent.Program, err error) {
	var ends []*os.File // stdin, stdout, stderr: each a read end and a write end
	defer func() {
		if err != nil {
			closeAll(ends)
		}
	}()
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		ends = append(ends, r, w)
		widen(r)
	}
	c, err := g.exec(path, argv, attr, ends[0], ends[3], ends[5])
	if err != nil {
		return nil, err
	}
	return &agent.Program{
		PID: c.pid, Stdin: ends[1], Stdout: ends[2], Stderr: ends[4],
		Signal: groupSignal(c.pid), Wait: func() agent.Status { return <-c.status },
	}, nil
}

// groupSignal signals the program's process group, which it leads as the leader of its
// session.
func groupSignal(pid int) func(syscall.Signal) error {
	return func(sig syscall.Signal) error { return unix.Kill(-pid, sig) }
}

// lookPath finds a program as a shell does; the error carries 126 or 127.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		switch err := executable(path); {
		case err == nil:
			return path, nil
		case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
			return "", &agent.SpawnError{Code: 127, Text: "not there in the guest"}
		default:
			return "", &agent.SpawnError{Code: 126, Text: err.Error()}
		}
	}
	var found error
	search := getEnv(env, "PATH")
	for _, d := range filepath.SplitList(search) {
		if !filepath.IsAbs(d) {
			continue // the caller's working directory is never searched
		}
		path := filepath.Join(d, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if found == nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			found = fmt.Errorf("%s: %w", path, err)
		}
	}
	if found != nil {
		return "", &agent.SpawnError{Code: 126, Text: found.Error()}
	}
	return "", &agent.SpawnError{Code: 127, Text: "not found in the guest's PATH (" + search + ")"}
}

func executable(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return errors.Unwrap(err) // a PathError: the caller adds the path
	case st.IsDir():
		return errors.New("is a directory")
	case st.Mode()&0o111 == 0:
		return errors.New("not executable")
	}
	return nil
}
