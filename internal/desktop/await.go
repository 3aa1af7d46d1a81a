package desktop

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"vix/internal/vm"
)

// Limits of the wait for a program's first window.
const (
	lateAfter   = 10 * time.Second // then it is told that it still starts
	awaitLimit  = time.Minute      // a program without a window is not waited for any longer
	slowLimit   = 15 * time.Minute // on an emulated machine
	mappedLimit = 5 * time.Second  // for sway to show a window that the VM has opened
	closeLimit  = 3 * time.Second  // for the notification to go
	foundFor    = 5 * time.Second  // where the window is stays to be read
)

// Await is supervise.Desktop's: a notification says that a program starts, from a moment
// after it was asked for until its VM opens a window, and on which workspace that is if it is
// not to be seen. slow is whether the VM is emulated.
func Await(ctx context.Context, l vm.Launch, program string, slow bool, asked time.Time, opened <-chan struct{}) error {
	if l.Bus == "" {
		return nil
	}
	// Not ctx: the notification has to be taken away when ctx has ended.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(closeLimit, cancel) })()
	mapped := mappedWindows(own, l)
	conn, err := DialBus(own, l.Bus)
	if err != nil {
		return err
	}
	defer conn.Close()
	a := awaited{Notifier: NewNotifier(conn), program: program, vm: l.VM.Name}
	patience, late := time.NewTimer(time.Until(asked.Add(startupAfter))), time.NewTimer(time.Until(asked.Add(lateAfter)))
	limit := time.NewTimer(awaitLimit)
	if slow {
		limit.Reset(slowLimit)
	}
	defer patience.Stop()
	defer late.Stop()
	defer limit.Stop()
	early := patience.C
	var unmapped <-chan time.Time
	for {
		select {
		case <-early:
			err = a.show(own, "its window is about to come …")
		case <-late.C:
			early = nil
			body := "it is still starting …"
			if slow {
				body = "it is still starting: this machine has no KVM, and emulated VMs are slow …"
			}
			err = a.show(own, body)
		case <-opened:
			switch opened = nil; {
			case mapped == nil && a.id == 0: // quickly, and probably seen
				return nil
			case mapped == nil:
				return a.found(own, "its window is there")
			}
			unmapped = time.After(mappedLimit)
		case <-unmapped: // sway did not say so, perhaps before it was asked
			return a.end(own)
		case w, ok := <-mapped:
			if !ok { // sway is gone, or another's
				if mapped = nil; opened == nil {
					return a.end(own)
				}
				continue
			}
			if name := hiddenWorkspace(own, l, w); name != "" {
				return a.found(own, "its window is on workspace "+name)
			}
			return a.end(own)
		case <-limit.C:
			return a.end(own)
		case <-ctx.Done():
			return a.end(own)
		}
		if err != nil {
			return err
		}
	}
}

// An awaited is the notification of one wait.
type awaited struct {
	*Notifier
	program, vm string
	id          uint32 // 0 before it is shown
}

func (a *awaited) show(ctx context.Context, body string) (err error) {
	done := 95
	a.id, err = a.Show(ctx, Note{
		Summary: fmt.Sprintf("Starting %s in %s", a.program, a.vm), Body: body,
		Icon: "system-run", Urgency: Low, Replaces: a.id, Progress: &done, Expire: -1, Category: "device",
	})
	return err
}

// found says for a moment where the window is.
func (a *awaited) found(ctx context.Context, body string) error {
	_, err := a.Show(ctx, Note{
		Summary: fmt.Sprintf("%s runs in %s", a.program, a.vm), Body: body,
		Icon: "system-run", Urgency: Low, Replaces: a.id, Expire: foundFor, Category: "device",
	})
	return err
}

func (a *awaited) end(ctx context.Context) error {
	if a.id == 0 {
		return nil
	}
	return a.Close(ctx, a.id)
}

// mappedWindows returns the new windows of a VM that sway shows, until ctx ends; nil without a sway.
func mappedWindows(ctx context.Context, l vm.Launch) <-chan Window {
	if l.Sway == "" {
		return nil
	}
	ev, err := Sway{Socket: l.Sway}.Subscribe(ctx, "window")
	if err != nil {
		return nil
	}
	windows := make(chan Window)
	go func() {
		defer close(windows)
		defer ev.Close()
		for {
			e, err := ev.Next()
			if err != nil {
				return
			}
			if name, _, ours := e.Window.VM(); !ours || name != l.VM.Name || e.Change != "new" {
				continue
			}
			select {
			case windows <- e.Window:
			case <-ctx.Done():
				return
			}
		}
	}()
	return windows
}

// hiddenWorkspace returns the workspace of a new window, "" if that is to be seen now.
func hiddenWorkspace(ctx context.Context, l vm.Launch, w Window) string {
	s := Sway{Socket: l.Sway}
	at := l.VM.Workspace // to which Place is about to move it
	if at == "" {
		all, err := s.Windows(ctx)
		if err != nil {
			return ""
		}
		for _, x := range all {
			if x.ID == w.ID {
				at = x.Workspace
			}
		}
	}
	list, err := s.Workspaces(ctx)
	if err != nil {
		return ""
	}
	for _, ws := range list {
		if ws.Visible && (ws.Name == at || strconv.Itoa(ws.Num) == at) {
			return ""
		}
	}
	return at
}
