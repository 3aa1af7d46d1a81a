package vm

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
)

// What Watch follows, and by which event:
//
//	a VM appears      inotify on $XDG_RUNTIME_DIR/vix         ─┐
//	its state changes reply{state} after a request{op: watch}  ├─► one Event at a time
//	it is gone        reply{done}, or its lock is free        ─┘
//
// A supervisor sends its state, and the next one only after the client's empty request: a
// slow client gets the newest state, and nothing queues up for it.

// WatchPace is the least time between two states of one VM: a guest that changes a
// title a thousand times a second must not keep every bar of the desktop busy.
const WatchPace = 100 * time.Millisecond

// Kinds of events.
const (
	EventState = "state" // a VM has appeared, or its state has changed
	EventEnded = "ended" // a VM is gone
	EventReady = "ready" // there was an event of every VM that ran when the watch began
)

// An Event is a line of "status --watch --json".
type Event struct {
	Event string `json:"event"`
	Name  string `json:"name,omitempty"` // of the VM
	State *State `json:"vm,omitempty"`   // with EventState
}

// Watch calls each with the state of every VM, or of the VM name alone: first the present
// state, then each change, until ctx ends (nil) or each fails (its error). It waits for a VM
// that does not run. The VMs go on changing while each works, and the next event has the
// newest state; each is called from the caller's goroutine.
func (r *Registry) Watch(ctx context.Context, name string, each func(Event) error) error {
	if name != "" {
		if err := config.CheckName(name); err != nil {
			return Failf("%v", err)
		}
	}
	notes, err := r.watchDir()
	if err != nil {
		return Failf("%s: %v", r.Path, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{reg: r, name: name, events: make(chan Event), ends: make(chan string), followers: map[string]bool{}}
	defer w.running.Wait()
	defer cancel()
	looks := make(chan error)
	w.running.Go(func() { lookOut(ctx, notes, looks) })
	return w.run(ctx, looks, each)
}

// A watch is the state of one call of Watch.
type watch struct {
	reg       *Registry
	name      string // or "": all
	events    chan Event
	ends      chan string     // names of VMs whose follower has ended
	followers map[string]bool // VMs that have a follower; true after its first event, or its end
	running   sync.WaitGroup
}

func (w *watch) run(ctx context.Context, looks <-chan error, each func(Event) error) error {
	if err := w.look(ctx); err != nil {
		return errorUnlessDone(ctx, err)
	}
	for ready := false; ; {
		if !ready && w.isComplete() {
			ready = true
			if err := each(Event{Event: EventReady}); err != nil {
				return err
			}
		}
		var err error
		select {
		case e := <-w.events:
			w.followers[e.Name] = true
			err = each(e)
		case name := <-w.ends:
			delete(w.followers, name)
			err = errorUnlessDone(ctx, w.look(ctx)) // another of that name may have come meanwhile
		case err = <-looks:
			if err == nil {
				err = errorUnlessDone(ctx, w.look(ctx))
			}
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

func errorUnlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (w *watch) isComplete() bool {
	for _, told := range w.followers {
		if !told {
			return false
		}
	}
	return true
}

// look starts a follower for each VM that has none.
func (w *watch) look(ctx context.Context) error {
	// Names takes the upper lock: a directory that is being made is whole then.
	names, err := w.reg.Names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := w.followers[name]; ok || w.name != "" && w.name != name {
			continue
		}
		w.followers[name] = false
		w.running.Go(func() {
			w.follow(ctx, name)
			select {
			case w.ends <- name:
			case <-ctx.Done():
			}
		})
	}
	return nil
}

// follow sends one VM's events until the VM is gone.
func (w *watch) follow(ctx context.Context, name string) {
	// This VM's own lock: another of the same name has another file.
	lock, err := w.reg.Root.OpenFile(filepath.Join(name, lockName), os.O_RDWR, 0)
	if err != nil {
		return // gone already
	}
	var told atomic.Bool
	ended := w.reg.watchVM(ctx, name, func(st *State) error {
		if st == nil {
			return nil // gone; its end follows
		}
		told.Store(true)
		return w.tell(ctx, Event{Event: EventState, Name: name, State: st})
	})
	if !ended && ctx.Err() == nil && waitLock(ctx, lock) != nil {
		return
	}
	lock.Close()
	if told.Load() {
		_ = w.tell(ctx, Event{Event: EventEnded, Name: name})
	}
}

func (w *watch) tell(ctx context.Context, e Event) error {
	select {
	case w.events <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchVM passes on a supervisor's states until the connection ends. It reports whether
// the VM has ended in good order.
func (r *Registry) watchVM(ctx context.Context, name string, tell func(*State) error) (ended bool) {
	conn, _, err := r.Dial(name)
	if err != nil {
		return false
	}
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	defer unhook()
	c := &Control{Conn: conn}
	if c.Send(Request{Version: ControlVersion, Op: OpWatch}) != nil {
		return false
	}
	// A supervisor that hangs gets an event too; it may answer yet.
	answered := make(chan struct{})
	var patience sync.WaitGroup
	patience.Go(func() {
		select {
		case <-answered:
		case <-time.After(stateLimit):
			_ = tell(r.savedState(name))
		}
	})
	var rep Reply
	err = c.Recv(&rep, MaxFrame)
	close(answered)
	patience.Wait()
	for ; err == nil && rep.State != nil; err = c.Recv(&rep, MaxFrame) {
		if tell(rep.State) != nil || c.Send(Request{}) != nil {
			return false
		}
		rep = Reply{}
	}
	if rep.Fail != nil { // it has another version; its state is in its file
		_ = tell(r.savedState(name))
	}
	return err == nil && rep.Done
}

// watchDir watches for new directories of VMs. The descriptor is for lookOut.
func (r *Registry) watchDir() (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify", err)
	}
	notes := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, r.Path, unix.IN_CREATE|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_ONLYDIR); err != nil {
		return nil, errors.Join(os.NewSyscallError("inotify", err), notes.Close())
	}
	return notes, nil
}

// lookOut asks for a new look after each batch of notes, and closes notes when ctx ends.
// The names in the notes do not matter: the look finds what is there.
func lookOut(ctx context.Context, notes *os.File, looks chan<- error) {
	defer notes.Close()
	unhook := context.AfterFunc(ctx, func() { notes.Close() })
	defer unhook()
	buf := make([]byte, 16<<10)
	for {
		n, err := notes.Read(buf)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		select {
		case looks <- err:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}
