package display

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The control channel is a unix seqpacket socket held by the supervisor. A request is one
// packet, a JSON object, with a descriptor where noted:
//
//	{"request":"policy","policy":{…}}            the first, and never again
//	{"request":"trace","classes":"input,shell"}  + where to write: a pipe or a socket
//	{"request":"activate","token":"…"}           for the next window
//	{"request":"take"}                           + a stream socket (package clipboard)
//	{"request":"give"}                           + the same
//	{"request":"follow"}                         + the same
//
// The trace runs until nobody reads the descriptor any more, or the display ends. There is
// no reply: a mistake is written to the descriptor, as its only line; one in the policy ends
// the display, which says it on standard error.

// The kinds of requests.
const (
	RequestPolicy   = "policy"
	RequestTrace    = "trace"
	RequestActivate = "activate"
	RequestTake     = "take"
	RequestGive     = "give"
	RequestFollow   = "follow"
)

// MaxRequest bounds a packet: the user may write any number of drag rules.
const MaxRequest = 64 << 10

// A Request is a packet of the control channel.
type Request struct {
	Request string  `json:"request"`
	Classes string  `json:"classes,omitempty"`
	Token   string  `json:"token,omitempty"`
	Policy  *Policy `json:"policy,omitempty"`
}

// NewControl makes the channel: seqpacket, so that a request and its descriptor stay
// together.
func NewControl() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "display control"), os.NewFile(uintptr(fds[1]), "display control"), nil
}

// Send sends a request, with a descriptor or nil. It does not wait: the queue is full only
// when the display hangs.
func Send(control *os.File, r Request, file *os.File) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(b) > MaxRequest {
		return fmt.Errorf("%s of %d bytes: at most %d", r.Request, len(b), MaxRequest)
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	raw, err := control.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		sendErr = unix.Sendmsg(int(fd), b, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
	return errors.Join(err, sendErr)
}

// Parse reads a packet.
func Parse(packet []byte) (r Request, err error) {
	err = json.Unmarshal(packet, &r)
	return r, err
}
