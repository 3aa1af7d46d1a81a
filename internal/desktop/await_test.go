package desktop_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/vm"
)

// A notification lasts from a program's start until its window, says that it is slow, and
// where the window is if that is not to be seen.
func TestAwait(t *testing.T) {
	d := start(t)
	conn := busOf(t, d)
	wait := func(body string) { // "" for none
		t.Helper()
		deadline := time.Now().Add(limit)
		for { // mako tells nobody
			list := shownNotes(t, conn)
			if body == "" && len(list) == 0 || len(list) == 1 && body != "" && strings.HasPrefix(list[0].Body, body) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("mako shows %+v, want %q", list, body)
			}
		}
	}
	closeAll := func() {
		t.Helper()
		for _, note := range shownNotes(t, conn) {
			if err := desktop.NewNotifier(conn).Close(within(t), note.ID); err != nil {
				t.Error(err)
			}
		}
	}
	address := "unix:path=" + d.Dir + "/bus"
	begin := func(l vm.Launch, slow bool, asked time.Time) (opened chan struct{}, end func() error, leave context.CancelFunc) {
		l.VM.Name, l.Bus = "web", address
		ctx, cancel := context.WithCancel(within(t))
		opened = make(chan struct{})
		done := make(chan error, 1)
		go func() { done <- desktop.Await(ctx, l, "firefox", slow, asked, opened) }()
		return opened, func() error {
			select {
			case err := <-done:
				return err
			case <-time.After(limit):
				return context.DeadlineExceeded
			}
		}, cancel
	}
	long := time.Now().Add(-time.Hour)

	// The window is seen: the notification goes.
	_, end, _ := begin(vm.Launch{Sway: d.IPC}, true, long)
	wait("it is still starting: this machine has no KVM")
	d.Client(t, "foot", "--app-id=vix.web.firefox", "cat")
	if err := end(); err != nil {
		t.Error(err)
	}
	wait("")

	// It is on another workspace, which the notification names.
	_, end, _ = begin(vm.Launch{Sway: d.IPC, VM: config.VM{Workspace: "3"}}, false, long)
	wait("it is still starting …")
	d.Client(t, "foot", "--app-id=vix.other.firefox", "cat")
	d.Client(t, "foot", "--app-id=vix.web.firefox", "cat")
	if err := end(); err != nil {
		t.Error(err)
	}
	wait("its window is on workspace 3")
	closeAll()

	// Elsewhere than on sway.
	opened, end, _ := begin(vm.Launch{}, false, time.Now())
	wait("its window is about to come")
	close(opened)
	if err := end(); err != nil {
		t.Error(err)
	}
	wait("its window is there")
	closeAll()

	// What comes at once needs no words.
	opened, end, _ = begin(vm.Launch{}, false, time.Now().Add(time.Hour))
	close(opened)
	if err := end(); err != nil {
		t.Error(err)
	}
	wait("")

	// The program has ended.
	_, end, leave := begin(vm.Launch{}, false, time.Now())
	wait("its window is about to come")
	leave()
	if err := end(); err != nil {
		t.Error(err)
	}
	wait("")
}
