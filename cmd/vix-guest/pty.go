package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

// ttyGroup owns terminals, as in devpts's mount options (Debian's "tty").
const ttyGroup = 5

// startTTY starts a program on a new terminal, which is its stdin, stdout and stderr and its
// session's controlling terminal.
func (g *guest) startTTY(path string, uid int, s agent.Spawn, attr *syscall.ProcAttr) (*agent.Program, error) {
	master, slave, err := openPTY(uid)
	if err != nil {
		return nil, err
	}
	resize := func(rows, cols uint16) error { return setSize(master, rows, cols) }
	if s.Rows > 0 && s.Cols > 0 {
		if err := resize(s.Rows, s.Cols); err != nil {
			closeAll([]*os.File{master, slave})
			return nil, err
		}
	}
	fd := slave.Fd()
	attr.Files = []uintptr{fd, fd}
	attr.Sys.Setctty, attr.Sys.Ctty = true, 0
	c, err := g.exec(path, s.Argv, attr, slave)
	if err != nil {
		_ = master.Close()
		return nil, err
	}
	return &agent.Program{
		PID: c.pid, Stdin: ttyInput{master}, Stdout: master, Resize: resize,
		Signal: groupSignal(c.pid), Wait: func() agent.Status { return <-c.status },
	}, nil
}

// openPTY returns both ends of a new terminal (pty(7)).
func openPTY(uid int) (master, slave *os.File, err error) {
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	var sfd uintptr
	err = control(m, func(fd uintptr) error {
		if err := unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return errno
		}
		sfd = r
		return unix.Fchown(int(sfd), uid, ttyGroup)
	})
	if err != nil {
		_ = m.Close()
		return nil, nil, err
	}
	return m, os.NewFile(sfd, "tty"), nil
}

func setSize(master *os.File, rows, cols uint16) error {
	return control(master, func(fd uintptr) error {
		return unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// control runs f on a file's descriptor without making the file blocking, as Fd would.
func control(file *os.File, f func(fd uintptr) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := c.Control(func(fd uintptr) { ferr = f(fd) }); err != nil {
		return err
	}
	return ferr
}

// A ttyInput writes to a terminal. Its Close sends the end-of-file character, since the
// terminal itself still shows output.
type ttyInput struct{ *os.File }

func (t ttyInput) Close() error {
	_, err := t.Write([]byte{4})
	return err
}
