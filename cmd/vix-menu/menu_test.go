package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/menu"
)

// The test's binary is vix-menu too.
func TestMain(m *testing.M) {
	if os.Getenv("VIX_TEST_MENU") != "" {
		os.Args = os.Args[:1]
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A shown is a menu that runs.
type shown struct {
	t      *testing.T
	proc   *desktoptest.Proc
	in     *menu.Writer
	close  func()
	mu     sync.Mutex
	events chan menu.Event
}

// show starts a menu on d.
func show(t *testing.T, d *desktoptest.Desktop, s menu.Setup, env ...string) *shown {
	t.Helper()
	s.Socket = filepath.Base(d.Socket)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(d.Env(), "VIX_TEST_MENU=1"), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = write
	m := &shown{t: t, in: menu.NewWriter(in), close: func() { in.Close() }, events: make(chan menu.Event, 100)}
	if m.proc, err = desktoptest.Command(t, cmd, nil); err != nil {
		t.Fatal(err)
	}
	write.Close()
	go func() {
		defer close(m.events)
		defer read.Close()
		for dec := json.NewDecoder(read); ; {
			var ev menu.Event
			if err := dec.Decode(&ev); err != nil {
				if err != io.EOF {
					t.Errorf("an event: %v", err)
				}
				return
			}
			m.events <- ev
		}
	}()
	if err := m.in.Write(s); err != nil {
		t.Fatal(err)
	}
	return m
}

// next is the next event that is not about icons or fonts.
func (m *shown) next() menu.Event {
	m.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case ev, ok := <-m.events:
			if !ok {
				m.t.Fatalf("the menu has ended: %s", m.proc.Output())
			}
			if ev.Kind != menu.EventIcon && ev.Kind != menu.EventFont {
				return ev
			}
		case <-limit:
			m.t.Fatalf("nothing comes of it; the menu says: %s", m.proc.Output())
		}
	}
}

// update sends one.
func (m *shown) update(u menu.Update) {
	m.t.Helper()
	if err := m.in.Write(u); err != nil {
		m.t.Fatal(err)
	}
}
