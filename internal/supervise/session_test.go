package supervise

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"vix/internal/vm"
)

// listenAt is a compositor's socket.
func listenAt(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func acceptOne(t *testing.T, l *net.UnixListener) *net.UnixConn {
	t.Helper()
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestJoinSession(t *testing.T) {
	s, c, first := brokerRig(t)
	dir := filepath.Dir(first.Addr().String())
	at := func(name string) vm.Session {
		return vm.Session{Wayland: filepath.Join(dir, name), Sway: name + ".ipc"}
	}
	was, renewed := s.broker.now()
	witness := acceptOne(t, first)
	for _, his := range []vm.Session{was, {}, {Wayland: "wayland-2"}, at("none")} {
		if note := s.broker.join(his); note != "" {
			t.Errorf("%v: %s", his, note)
		}
	}
	second := listenAt(t, at("wayland-2").Wayland)
	// Two live: the VM's windows stay where they are.
	if note := s.broker.join(at("wayland-2")); !strings.Contains(note, "wayland-1, whose compositor still runs, not at "+second.Addr().String()) {
		t.Errorf("%q", note)
	}
	acceptOne(t, second).Close()
	for _, what := range []string{"connect", "listen", "through"} {
		if answer, _ := askBroker(t, c, what); answer != "ok" {
			t.Fatalf("%s: %s", what, answer)
		}
	}
	acceptOne(t, first)
	select {
	case <-renewed:
		t.Error("another session")
	default:
	}
	// The first ends.
	witness.Close()
	first.Close()
	if note := s.broker.join(at("none")); !strings.Contains(note, "no compositor at "+was.Wayland+": ") {
		t.Errorf("%q", note)
	}
	if note := s.broker.join(at("wayland-2")); note != "" {
		t.Errorf("%q", note)
	}
	witness = acceptOne(t, second)
	<-renewed
	now, renewed := s.broker.now()
	if now != at("wayland-2") {
		t.Errorf("%+v", now)
	}
	if answer, f := askBroker(t, c, "connect"); answer != "ok" || f == nil {
		t.Errorf("connect: %s", answer)
	}
	acceptOne(t, second)
	// The first name comes back while the second lives.
	again := listenAt(t, was.Wayland)
	if note := s.broker.join(was); !strings.Contains(note, "still runs") {
		t.Errorf("%q", note)
	}
	acceptOne(t, again).Close()
	// A compositor that returns under its own name is another session.
	witness.Close()
	if answer, _ := askBroker(t, c, "connect"); answer != "ok" {
		t.Errorf("connect: %s", answer)
	}
	<-renewed
	_, renewed = s.broker.now()
	if note := s.broker.join(vm.Session{Wayland: now.Wayland, Sway: "other"}); note != "" {
		t.Errorf("%q", note)
	}
	<-renewed
}

// Who runs a program in a VM is told why its windows cannot be shown.
func TestJoinIsTold(t *testing.T) {
	b := newBench(t)
	first := b.goRun(b.start("t", "sleep", "60"))
	b.state(first)
	second := b.start("t", "true")
	var notes []string
	second.run.OnWindows = func(text string) { notes = append(notes, text) }
	<-b.goRun(second).done
	if len(notes) != 1 || !strings.HasPrefix(notes[0], "VM t: no compositor at /nowhere: ") {
		t.Errorf("%q", notes)
	}
	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Error(err)
	}
	<-first.done
}
