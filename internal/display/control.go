package display

import (
	"os"

	"golang.org/x/sys/unix"
)

// displayRequest is a packet of the display's control channel
// (vix-waylandproxy(1), --control-fd).
type DisplayRequest struct {
	Request string `json:"request"`
	Classes string `json:"classes,omitempty"`
	Token   string `json:"token,omitempty"`
}

// newDisplayControl makes the display's control channel: seqpacket, so that a
// request and its descriptor stay together.
func NewDisplayControl() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "display control"), os.NewFile(uintptr(fds[1]), "display control"), nil
}
