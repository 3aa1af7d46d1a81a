package session

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Only takes the lock of the one menu of a session. Where another holds it, that
// one is told to close.
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

// closeMenu tells the process that holds f's lock to end; or it has ended by itself just
// now. Its number is looked at again once there is a descriptor of it: so the one that
// is told is the one that holds the lock, and nobody who got the number after it.
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
