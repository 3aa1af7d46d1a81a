package session

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Only takes the lock of the session's only menu. If another menu holds it, Only asks that one
// to close.
func Only(runtimeDir string) (unlock func(), first bool, err error) {
	f, err := os.OpenFile(filepath.Join(runtimeDir, "vix-menu.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock) == nil {
		return func() { f.Close() }, true, nil
	}
	defer f.Close()
	closeMenu(f)
	return nil, false, nil
}

// closeMenu asks the process that holds f's lock to end; it may have just ended by itself. The
// pid is checked again after its pidfd is open: so the signal goes to the process that holds
// the lock, and to no later process with the same pid.
func closeMenu(f *os.File) {
	holder := func() int {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK {
			return 0
		}
		return int(lock.Pid)
	}
	pid := holder()
	if pid <= 0 {
		return
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(process)
	if holder() == pid {
		_ = unix.PidfdSendSignal(process, unix.SIGTERM, nil, 0)
	}
}
