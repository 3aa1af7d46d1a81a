package vm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/plain"
	"vix/internal/proc"
)

// The control protocol, over control.sock. Both ends are processes of one user
// (SO_PEERCRED); frames are [length u32 LE][one JSON object]:
//
//	client                                supervisor
//	request{op: run} + 3 pipe ends  ──►
//	                                ◄──   reply{stage}, reply{note}, …      while the VM starts
//	                                ◄──   reply{started}                    the program runs
//	request{signal | size}          ──►
//	                                ◄──   reply{heard}                      the guest has taken the signal
//	                                ◄──   reply{silent}                     the guest does not answer
//	                                ◄──   reply{exit} | reply{fail}         last; reply{done}: it runs on, in the background
//	request{op: state}              ──►
//	                                ◄──   reply{state}
//	request{op: watch}              ──►
//	                                ◄──   reply{state}
//	request{}                       ──►                                     for the next, when there is one
//	                                ◄──   reply{state}, …, reply{done}
//	request{op: stop}               ──►
//	                                ◄──   reply{done}                       all is ended and removed
//	request{op: logs}               ──►
//	                                ◄──   reply{line}, …, reply{done}
//	request{op: mount, share}       ──►
//	                                ◄──   reply{mounted}
//	request{op: umount, path}       ──►
//	                                ◄──   reply{done}
//	request{op: folders}            ──►                                     of another VM's supervisor
//	                                ◄──   reply{folders}
//	request{op: usb attach | usb detach, path}  ──►
//	                                ◄──   reply{usb}
//	request{op: trace} + 1 pipe end ──►
//	                                ◄──   reply{done}                       the display writes to it
//	request{op: take | give | follow} + 1 socket ►
//	                                ◄──   reply{done}                       the display speaks on it (package clipboard)
//
// A program's stdin, stdout and stderr are three pipes that the client makes;
// their far ends travel with the request (SCM_RIGHTS). So the kernel does the
// flow control, each stream is independent of the others and of signals, and
// the supervisor never holds the client's terminal, from which a read could
// not be taken back. A client that goes away hangs up its program (SIGHUP).

// Some of it never changes, so that any version can list and stop a VM of any other: the
// frames, and
//
//	{"version":N,"op":"state"}               ─►   ◄─ {"state":{"name":S,"state":S,…}}
//	{"version":N,"op":"stop","force":true}   ─►   ◄─ {"done":true}, when all is ended and removed
//	                                              ◄─ {"fail":{"text":S,…}}, for what is not done
//
// with any other members, of any type, on both sides (frozen_test.go holds the bytes).

const (
	ControlVersion = 4
	// maxFrame bounds a frame: the state of a VM with all its windows.
	MaxFrame = 1 << 20
	// MaxRequest bounds a request: arguments and environment of one program, which are at
	// most agent.MaxPayload, and what else is in it.
	MaxRequest = 128 << 10
)

// The operations.
const (
	OpRun    = "run"
	OpState  = "state"
	OpStop   = "stop"
	OpLogs   = "logs"
	OpTrace  = "trace"
	OpTake   = "take"
	OpGive   = "give"
	OpFollow = "follow"
	OpWatch  = "watch"

	OpMount  = "mount"
	OpUmount = "umount"

	OpFolders = "folders"

	OpUSBAttach = "usb attach"
	OpUSBDetach = "usb detach"
)

type Request struct {
	Version    int           `json:"version,omitempty"`
	Op         string        `json:"op,omitempty"`
	Argv       agent.Strings `json:"argv,omitempty"`
	Env        agent.Strings `json:"env,omitempty"`
	Background bool          `json:"background,omitempty"`
	Disposable bool          `json:"disposable,omitempty"`
	GUI        bool          `json:"gui,omitempty"`      // do not join a VM without a display
	Detached   bool          `json:"detached,omitempty"` // the client's end does not end the start
	Quiet      bool          `json:"quiet,omitempty"`    // no notification of a background program's failure
	Await      bool          `json:"await,omitempty"`    // a notification lasts until the program's window
	Token      string        `json:"token,omitempty"`    // an xdg-activation token of the host's compositor
	Session    Session       `json:"session,omitzero"`   // the client's
	Wants      Wanted        `json:"wants,omitzero"`
	Force      bool          `json:"force,omitempty"`
	Follow     bool          `json:"follow,omitempty"`
	Signal     int           `json:"signal,omitempty"`
	How        How           `json:"how,omitzero"`
	Size       *Size         `json:"size,omitempty"`
	Classes    string        `json:"classes,omitempty"`
	Share      string        `json:"share,omitempty"` // as config.ParseShare reads it
	Path       string        `json:"path,omitempty"`  // of the guest; or a USB device, as config.ParseUSB reads it
}

// A Wanted is what a run asks of the VM itself. A VM that runs already is given the shares; a
// run that wants anything else that the VM does not have is refused.
type Wanted struct {
	Memory  config.Size `json:"memory,omitempty"` // bytes; 0: any
	CPUs    int         `json:"cpus,omitempty"`   // 0: any
	Net     string      `json:"net,omitempty"`    // config.NetNone or NetNAT; "": any
	Publish []string    `json:"publish,omitempty"`
	NoGUI   bool        `json:"no_gui,omitempty"`
	Shares  []string    `json:"shares,omitempty"` // as config.ParseShare reads them
}

// A Reply has one field set.
type Reply struct {
	Stage   *Stage      `json:"stage,omitempty"`
	Note    string      `json:"note,omitempty"`
	Windows string      `json:"windows,omitempty"` // why they are not shown in the client's session
	Started *Program    `json:"started,omitempty"`
	Exit    *Exit       `json:"exit,omitempty"`
	Fail    *Failure    `json:"fail,omitempty"`
	State   *State      `json:"state,omitempty"`
	Line    string      `json:"line,omitempty"`
	Done    bool        `json:"done,omitempty"`
	Mounted *ShareState `json:"mounted,omitempty"`
	USB     *USBState   `json:"usb,omitempty"`
	// Folders are the VM's shares, without its home and staging folders.
	Folders *[]FolderState `json:"folders,omitempty"`
	// Leaving: the VM is stopping; wait until it is gone, then start it anew.
	Leaving bool `json:"leaving,omitempty"`
	// Heard: the guest has taken the signals that came before.
	Heard bool `json:"heard,omitempty"`
	// Silent: the guest does not answer any more.
	Silent bool `json:"silent,omitempty"`
}

// Exit says how a program ended.
type Exit struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"`
	// Words is the last line of the standard error of a program in the background, made
	// plain; only in the reply to its client.
	Words string `json:"words,omitempty"`
}

// Status returns the status as a shell has it: 128+n for signal n.
func (x *Exit) Status() int {
	if x.Signal != 0 {
		return 128 + x.Signal
	}
	return x.Code
}

// EndedSummary and EndedText are the notification of a program in the background that has
// failed: first the cause, as far as the program has told it.
func EndedSummary(name, program string) string {
	return fmt.Sprintf("%s failed in %s", plain.Clip(filepath.Base(program)), name)
}

func EndedText(name, program string, x *Exit) string {
	text := fmt.Sprintf("%s ended with status %d; see vix logs %s", plain.Clip(filepath.Base(program)), x.Status(), name)
	if x.Words != "" {
		text = x.Words + "\n" + text
	}
	return text
}

// A Control is one end of a connection. One goroutine may read while others
// write.
type Control struct {
	Conn *net.UnixConn
	wmu  sync.Mutex
}

// Send writes v as one frame, with files' descriptors beside it.
func (c *Control) Send(v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > MaxFrame {
		return fmt.Errorf("message of %d bytes: at most %d", len(b), MaxFrame)
	}
	frame := append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	n, _, err := c.Conn.WriteMsgUnix(frame, oob, nil)
	for err == nil && n < len(frame) {
		var k int
		k, err = c.Conn.Write(frame[n:])
		n += k
	}
	return err
}

// ask sends a client's request. A supervisor that refuses a client does not wait for the
// request: then the error is its reply's, a *Failure.
func (c *Control) ask(v any, files ...*os.File) error {
	err := c.Send(v, files...)
	var rep Reply
	if err != nil && c.Recv(&rep, MaxFrame) == nil && rep.Fail != nil {
		return rep.Fail
	}
	return err
}

// Recv reads one frame of at most limit bytes into v.
func (c *Control) Recv(v any, limit int) error {
	var head [4]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		return err
	}
	return c.body(head, v, limit)
}

// maxFiles is how many descriptors come with a request: a program's three streams.
const maxFiles = 3

// ErrNoDescriptor: the kernel could not give us a descriptor that was sent.
var ErrNoDescriptor error = unix.EMFILE

func (c *Control) body(head [4]byte, v any, limit int) error {
	n := binary.LittleEndian.Uint32(head[:])
	if n > uint32(limit) {
		return fmt.Errorf("message of %d bytes: at most %d", n, limit)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.Conn, b); err != nil {
		return err
	}
	err := json.Unmarshal(b, v)
	if r, ok := v.(*Request); ok && Foreign(err) {
		// The decoder stops at such a member if its type is one of ours: read what never changes by itself.
		var frozen struct {
			Version int
			Op      string
			Force   bool
		}
		_ = json.Unmarshal(b, &frozen)
		r.Version, r.Op, r.Force = frozen.Version, frozen.Op, frozen.Force
	}
	return err
}

// Foreign reports whether err says that a member has another type than ours, as another
// version may have it. The other members have been read all the same.
func Foreign(err error) bool {
	var t *json.UnmarshalTypeError
	return errors.As(err, &t)
}

// RecvFiles reads one frame with up to three descriptors, which the caller
// owns, also when it fails.
func (c *Control) RecvFiles(v any, limit int) ([]*os.File, error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace((maxFiles+1)*4))
	n, oobn, flags, _, err := c.Conn.ReadMsgUnix(head[:], oob)
	if err != nil {
		return nil, err
	}
	files, err := proc.ParseFiles(oob[:oobn])
	switch {
	case err != nil:
		return files, err
	case n == 0:
		return files, io.EOF
	case len(files) > maxFiles:
		return files, errors.New("more descriptors than three")
	case flags&unix.MSG_CTRUNC != 0:
		// There was room for one descriptor more than allowed: the kernel could not give us the rest.
		return files, ErrNoDescriptor
	}
	if _, err := io.ReadFull(c.Conn, head[n:]); err != nil {
		return files, err
	}
	return files, c.body(head, v, limit)
}

// CheckPeer refuses a peer that is not a process of this user, and returns its
// process id.
func CheckPeer(conn *net.UnixConn, uid int) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	if int(cred.Uid) != uid {
		return 0, fmt.Errorf("the peer is user %d, not %d", cred.Uid, uid)
	}
	return int(cred.Pid), nil
}

// peerProcess returns a descriptor of the process pid, the peer's by CheckPeer; nil if the
// process has ended.
func peerProcess(conn *net.UnixConn, pid int) *os.File {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	process := os.NewFile(uintptr(fd), "process")
	// The number was the peer's while the peer lived, and it lives as long as its end of the
	// connection is open: then the descriptor is the peer's too.
	raw, err := conn.SyscallConn()
	hungUp := true
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			_, err := unix.Poll(p, 0)
			hungUp = err != nil || p[0].Revents&(unix.POLLHUP|unix.POLLRDHUP|unix.POLLERR) != 0
		})
	}
	if err != nil || hungUp {
		process.Close()
		return nil
	}
	return process
}
