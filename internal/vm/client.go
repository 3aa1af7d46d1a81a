package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/proc"
)

// Limits of a client's patience.
const (
	stateLimit = 2 * time.Second  // for a supervisor's state
	stopLimit  = 15 * time.Second // for a VM to be gone after a stop
	forceLimit = 3 * time.Second  // the same by force, before its supervisor is killed
)

// Dial connects to a supervisor and makes sure that it is this user's. It
// returns the supervisor's process id too.
func (r *Registry) Dial(name string) (*net.UnixConn, int, error) {
	conn, err := net.DialUnix("unix", nil, r.Socket(name, controlName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, ErrNotRunning
	case err != nil:
		return nil, 0, DialCause(err)
	}
	pid, err := CheckPeer(conn, os.Getuid())
	if err != nil {
		conn.Close()
		return nil, 0, fmt.Errorf("control socket: %w", err)
	}
	return conn, pid, nil
}

// DialCause returns err without the address, which means nothing to the user.
func DialCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// State asks one supervisor for its VM's state.
func (r *Registry) State(ctx context.Context, name string) (State, error) {
	conn, _, err := r.Dial(name)
	if err != nil {
		return State{}, err
	}
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	defer unhook()
	_ = conn.SetDeadline(time.Now().Add(stateLimit))
	c := &Control{Conn: conn}
	if err := c.ask(Request{Version: ControlVersion, Op: OpState}); err != nil {
		return State{}, err
	}
	var rep Reply
	switch err := c.Recv(&rep, MaxFrame); {
	case err != nil && !Foreign(err):
		return State{}, err
	case rep.Fail != nil:
		return State{}, rep.Fail
	case rep.State == nil:
		return State{}, errors.New("no state in the reply")
	}
	return *rep.State, nil
}

// List returns the state of every running VM, by name. It removes what dead supervisors
// have left.
func (r *Registry) List(ctx context.Context) ([]State, error) {
	names, err := r.Names(ctx)
	if err != nil {
		return nil, err
	}
	found := make([]*State, len(names))
	var queries sync.WaitGroup
	for i, name := range names {
		queries.Go(func() { found[i] = r.stateOrSaved(ctx, name) })
	}
	queries.Wait()
	list := []State{}
	for _, st := range found {
		if st != nil {
			list = append(list, *st)
		}
	}
	return list, nil
}

// stateOrSaved returns a VM's state, from state.json if its supervisor does not answer. It
// returns nil for a VM that is gone after all.
func (r *Registry) stateOrSaved(ctx context.Context, name string) *State {
	st, err := r.State(ctx, name)
	if err == nil {
		return &st
	}
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		// Nobody listens any more: the supervisor is at its very end, or was killed just now.
		wait, cancel := context.WithTimeout(ctx, stateLimit)
		defer cancel()
		if r.WaitGone(wait, name) == nil {
			return nil
		}
	}
	return r.savedState(name)
}

// savedState returns the state in state.json, for a supervisor that does not answer. It
// returns nil for a VM that is gone.
func (r *Registry) savedState(name string) *State {
	st, err := LoadState(r.Root, name)
	if err != nil {
		return nil
	}
	if st.State != StateStopping {
		st.State = StateUnresponsive
	}
	return &st
}

// Stop stops a VM and returns when it is gone. With force the guest is not asked, and a
// supervisor that does not answer is killed.
func (r *Registry) Stop(ctx context.Context, name string, force bool) error {
	if err := config.CheckName(name); err != nil {
		return Failf("%v", err)
	}
	live, err := r.Names(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(live, name) {
		return Failf("VM %s: %v", name, ErrNotRunning)
	}
	limit := stopLimit
	if force {
		limit = forceLimit
	}
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	process, refusal := r.askToStop(wait, name, force)
	defer proc.CloseFiles([]*os.File{process})
	switch {
	case refusal != nil && !force:
		return refusal
	case refusal != nil:
		cancel() // it will not end by itself
	}
	err = r.WaitGone(wait, name)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if !force {
		return Failf("VM %s: does not stop; try vix stop --force %s", name, name)
	}
	if process == nil || proc.KillTree(process) != nil {
		return Failf("VM %s: does not stop, and its supervisor cannot be killed", name)
	}
	wait, cancel = context.WithTimeout(ctx, forceLimit)
	defer cancel()
	if err := r.WaitGone(wait, name); err != nil {
		return Failf("VM %s: does not end: %v", name, err)
	}
	_, err = r.Names(ctx) // clears what it left
	return err
}

// askToStop sends the request, and waits for the answer or the end. It returns the
// supervisor's process if that could be reached; the caller closes it. (By the time of a
// kill, the process id may be another's.) refusal is the supervisor's reason not to stop.
func (r *Registry) askToStop(ctx context.Context, name string, force bool) (process *os.File, refusal error) {
	conn, pid, err := r.Dial(name)
	if err != nil {
		return nil, nil // on its way out already
	}
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	defer unhook()
	process = peerProcess(conn, pid)
	c := &Control{Conn: conn}
	var rep Reply
	if err = c.ask(Request{Version: ControlVersion, Op: OpStop, Force: force}); err == nil {
		_ = c.Recv(&rep, MaxFrame) // done, gone, or refused
	}
	if rep.Fail == nil {
		errors.As(err, &rep.Fail)
	}
	if rep.Fail != nil {
		return process, rep.Fail
	}
	return process, nil
}

// Logs copies a VM's log to w; with follow, until the VM ends or ctx does. The error is
// ErrNotRunning if the VM does not run: Store has its last log.
func (r *Registry) Logs(ctx context.Context, name string, follow bool, w io.Writer) error {
	if err := config.CheckName(name); err != nil {
		return Failf("%v", err)
	}
	conn, _, err := r.Dial(name)
	switch {
	case errors.Is(err, ErrNotRunning), errors.Is(err, unix.ECONNREFUSED):
		return ErrNotRunning
	case err != nil:
		return Failf("VM %s: %v", name, err)
	}
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	defer unhook()
	c := &Control{Conn: conn}
	if err := c.ask(Request{Version: ControlVersion, Op: OpLogs, Follow: follow}); err != nil {
		return Failf("VM %s: %v", name, err)
	}
	for {
		var rep Reply
		err := c.Recv(&rep, MaxFrame)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return Failf("VM %s: its supervisor has ended", name)
		case rep.Fail != nil:
			return rep.Fail
		case rep.Done:
			return nil
		}
		if _, err := io.WriteString(w, rep.Line); err != nil {
			return err
		}
	}
}

// AttachUSB gives a host device to a running VM. config.ParseUSB reads device.
func (r *Registry) AttachUSB(ctx context.Context, name, device string) (USBState, error) {
	return r.askUSB(ctx, name, Request{Op: OpUSBAttach, Path: device})
}

// DetachUSB takes the device back.
func (r *Registry) DetachUSB(ctx context.Context, name, device string) (USBState, error) {
	return r.askUSB(ctx, name, Request{Op: OpUSBDetach, Path: device})
}

func (r *Registry) askUSB(ctx context.Context, name string, req Request) (USBState, error) {
	rep, err := r.ask(ctx, name, req)
	if err == nil && rep.USB == nil {
		err = Failf("VM %s: no device in the reply", name)
	}
	if err != nil {
		return USBState{}, err
	}
	return *rep.USB, nil
}

// Mount adds a share to a running VM, and returns where it is.
func (r *Registry) Mount(ctx context.Context, name, share string) (ShareState, error) {
	if err := checkUTF8(name, share); err != nil {
		return ShareState{}, err
	}
	rep, err := r.ask(ctx, name, Request{Op: OpMount, Share: share})
	if err != nil {
		return ShareState{}, err
	}
	if rep.Mounted == nil {
		return ShareState{}, Failf("VM %s: no share in the reply", name)
	}
	return *rep.Mounted, nil
}

// Umount takes away the share at a path of the guest; with force also if it is in use.
func (r *Registry) Umount(ctx context.Context, name, path string, force bool) error {
	if !utf8.ValidString(path) {
		return Failf("VM %s: %.128q is not a share; vix list --json shows those there are", name, path)
	}
	_, err := r.ask(ctx, name, Request{Op: OpUmount, Path: path, Force: force})
	return err
}

// ask sends a request to the supervisor of a running VM, and waits for the one reply. It
// is an error if the VM does not run.
func (r *Registry) ask(ctx context.Context, name string, req Request) (rep Reply, err error) {
	if err := config.CheckName(name); err != nil {
		return rep, Failf("%v", err)
	}
	conn, err := r.join(name)
	if err != nil {
		return rep, err
	}
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	defer unhook()
	c := &Control{Conn: conn}
	req.Version = ControlVersion
	if err = c.ask(req); err == nil {
		_ = c.Recv(&rep, MaxFrame) // an empty rep says that there was none
	} else {
		errors.As(err, &rep.Fail)
	}
	switch {
	case ctx.Err() != nil:
		return rep, context.Cause(ctx)
	case rep.Fail != nil:
		return rep, rep.Fail
	case rep == Reply{}:
		return rep, Failf("VM %s: its supervisor has ended", name)
	}
	return rep, nil
}

// join returns a connection to the supervisor of a running VM, or an error if it does not run.
func (r *Registry) join(name string) (*net.UnixConn, error) {
	conn, _, err := r.Dial(name)
	if errors.Is(err, ErrNotRunning) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, Failf("VM %s: not running; start it with vix run --vm %s PROGRAM", name, name)
	}
	return conn, err
}
