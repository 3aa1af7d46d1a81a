package desktop

import (
	"context"
	"fmt"
	"strings"
	"time"

	"vix/internal/plain"
)

// startupAfter is how long a start may take before it is worth a notification.
const startupAfter = time.Second

// startupStages has, for each finished stage, the progress of a VM's start, of 100, and the
// next step (vm.Stage has the names).
var startupStages = map[string]struct {
	done int
	next string
}{
	"":         {2, "preparing kernel and initramfs"},
	"prepared": {10, "starting QEMU"},
	"qemu":     {15, "booting the kernel"},
	"init":     {50, "mounting the root"},
	"root":     {65, "starting the Wayland proxy"},
	"proxy":    {80, "nearly there"},
	"ready":    {90, "starting the program"},
}

// A Startup is the notification of one program's start: how far its VM is, if that
// takes longer than a moment, and why it failed, if it does.
type Startup struct {
	stages chan string
	end    chan error
	done   chan struct{}
}

// Startup begins a Startup for a program of a VM. The caller has to call End. A server that
// shows it slowly, or not at all, delays nothing but End.
func (n *Notifier) Startup(ctx context.Context, vm, program string) *Startup {
	s := &Startup{stages: make(chan string, 1), end: make(chan error, 1), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.show(context.WithoutCancel(ctx), n, vm, program)
	}()
	return s
}

// Stage shows that a stage is done. If stages come faster than the server shows them, it
// shows the newest.
func (s *Startup) Stage(name string) {
	if _, ok := startupStages[name]; !ok {
		return
	}
	for {
		select {
		case s.stages <- name:
			return
		default:
		}
		select {
		case <-s.stages:
		default:
		}
	}
}

// End takes the notification away, or has it say why the program did not start.
func (s *Startup) End(err error) {
	s.end <- err
	<-s.done
}

func (s *Startup) show(ctx context.Context, n *Notifier, vm, program string) {
	var id uint32
	var at string
	patience := time.NewTimer(startupAfter)
	defer patience.Stop()
	shown := false
	for {
		select {
		case at = <-s.stages:
		case <-patience.C:
			shown = true
		case err := <-s.end:
			select {
			case at = <-s.stages: // which came before
			default:
			}
			if err != nil {
				// In the place of the progress, if there was any.
				_, _ = n.Show(ctx, failure(vm, program, err, at != "", id))
			} else if id != 0 {
				_ = n.Close(ctx, id)
			}
			return
		}
		if shown {
			stage := startupStages[at]
			// Without a server there is nobody to tell that there is none.
			id, _ = n.Show(ctx, Note{
				Summary: fmt.Sprintf("Starting %s in %s", program, vm), Body: stage.next + " …",
				Icon: "system-run", Urgency: Low, Replaces: id, Progress: &stage.done, Expire: -1, Category: "device",
			})
		}
	}
}

// maxCause bounds a failure's cause, in bytes: servers cut long texts, and what to do next
// comes after it.
const maxCause = 512

// failure is the notification of a program that did not start: the cause, then where to look
// further. Of a VM that did not begin to start there is no log.
func failure(vm, program string, err error, began bool, replaces uint32) Note {
	body := plain.Text(err.Error(), maxCause, plain.Lines)
	if look := "vix logs " + vm; began && !strings.Contains(err.Error(), look) {
		body += "\nSee " + look
	}
	return Note{
		Summary: fmt.Sprintf("%s did not start in %s", program, vm), Body: body,
		Icon: "dialog-error", Replaces: replaces, Category: "device.error",
	}
}

// Failed shows that something did not work.
func (n *Notifier) Failed(ctx context.Context, vm, program string, err error) error {
	_, err = n.Show(ctx, failure(vm, program, err, false, 0))
	return err
}
