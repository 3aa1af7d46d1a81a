package vm

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/proc"
	"vix/internal/rootfs"
)

// A FolderState is a share of a running VM, as its supervisor reports it to others.
type FolderState struct {
	VM    string         `json:"vm"`
	Path  string         `json:"path"`
	Write bool           `json:"write"`
	Above []rootfs.DirID `json:"above"` // its own ID, and those of the directories that it lies in now
}

func (f FolderState) ID() rootfs.DirID { return f.Above[0] }

// folderLimit bounds the wait for another VM's shares.
const folderLimit = 10 * time.Second

// LockFolders lets one process at a time decide on a share. The lock is the registry's
// directory itself.
func (r *Registry) LockFolders(ctx context.Context) (*os.File, error) {
	f, err := r.Root.Open(".")
	if err != nil {
		return nil, Failf("%s: %v", r.Path, proc.Cause(err))
	}
	if err := waitLock(ctx, f); err != nil {
		return nil, err
	}
	return f, nil
}

// Folders asks a running VM for its shares; a VM at its end has none.
func (r *Registry) Folders(ctx context.Context, name string) ([]FolderState, error) {
	isGone := func(err error) bool {
		return errors.Is(err, ErrNotRunning) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET)
	}
	conn, _, err := r.Dial(name)
	if err != nil {
		if isGone(err) {
			err = nil
		}
		return nil, err
	}
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	defer unhook()
	_ = conn.SetDeadline(time.Now().Add(folderLimit))
	c := &Control{Conn: conn}
	var rep Reply
	if err = c.Send(Request{Version: ControlVersion, Op: OpFolders}); err == nil {
		err = c.Recv(&rep, MaxFrame)
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case isGone(err) || errors.Is(err, unix.EPIPE):
		return nil, nil // its shares end before its socket does
	case err != nil:
		return nil, err
	case rep.Fail != nil:
		return nil, rep.Fail
	case rep.Folders == nil || slices.ContainsFunc(*rep.Folders, func(f FolderState) bool { return len(f.Above) == 0 }):
		return nil, errors.New("no folders in the reply")
	}
	return *rep.Folders, nil
}
