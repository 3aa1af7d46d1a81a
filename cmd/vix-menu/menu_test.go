package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/menu"
)

// The test binary also serves as vix-menu.
func TestMain(m *testing.M) {
	if os.Getenv("VIX_TEST_MENU") != "" {
		os.Args = os.Args[:1]
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A shown is a running menu.
type shown struct {
	t      *testing.T
	proc   *desktoptest.Proc
	in     *menu.Writer
	close  func()
	icons  string
	events chan menu.Event
	asked  atomic.Int32 // number of icons in the making
	hold   chan struct{}
}

// A content is a menu's initial input.
type content struct {
	menu.Setup
	menu.Update
	hold chan struct{} // if set, icons are made after it is closed
}

// show starts a menu on d.
func show(t *testing.T, d *desktoptest.Desktop, s content, env ...string) *shown {
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
	m := &shown{t: t, in: menu.NewWriter(in), close: func() { in.Close() }, icons: t.TempDir(), events: make(chan menu.Event, 100), hold: s.hold}
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
			if ev.Kind == menu.EventIcon {
				m.asked.Add(1)
				if m.hold != nil {
					<-m.hold
				}
				m.rasterise(ev)
				m.asked.Add(-1)
				continue
			}
			m.events <- ev
		}
	}()
	for _, v := range []any{s.Setup, s.Update} {
		if err := m.in.Write(v); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// rasterise does the work of vix-launcher's confined child.
func (m *shown) rasterise(ev menu.Event) {
	if !strings.HasSuffix(ev.Path, ".svg") {
		return
	}
	file := filepath.Join(m.icons, fmt.Sprintf("%x-%d.png", ev.Path, ev.Side))
	side := fmt.Sprint(ev.Side)
	if err := exec.Command("rsvg-convert", "-a", "-w", side, "-h", side, "-o", file, ev.Path).Run(); err != nil {
		file = ""
	}
	_ = m.in.Write(menu.Update{Icon: &menu.Icon{Name: ev.Name, Path: ev.Path, Side: ev.Side, File: file}}) // fails if the menu has closed
}

// next returns the next event that is not about fonts.
func (m *shown) next() menu.Event {
	m.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case ev, ok := <-m.events:
			if !ok {
				m.t.Fatalf("the menu has ended: %s", m.proc.Output())
			}
			if ev.Kind != menu.EventFont && ev.Kind != menu.EventShown {
				return ev
			}
		case <-limit:
			m.t.Fatalf("nothing comes of it; the menu says: %s", m.proc.Output())
		}
	}
}

// update sends an update.
func (m *shown) update(u menu.Update) {
	m.t.Helper()
	if err := m.in.Write(u); err != nil {
		m.t.Fatal(err)
	}
}

// closed waits for the menu's end, and ignores its events.
func (m *shown) closed() {
	m.t.Helper()
	for m.next().Kind != menu.EventClosed {
	}
	if code := m.proc.Wait(); code != 0 {
		m.t.Errorf("the menu ended with %d: %s", code, m.proc.Output())
	}
}

// want waits for an event, and fails if a different one comes.
func (m *shown) want(kind, item, action string) menu.Event {
	m.t.Helper()
	ev := m.next()
	if ev.Kind != kind || ev.Item != item || ev.Action != action {
		m.t.Fatalf("got %+v, want %s %s %s", ev, kind, item, action)
	}
	return ev
}

// seen waits until the screen shows more than a plain background, with all icons, and
// does not change any more.
func (m *shown) seen(d *desktoptest.Desktop) *image.RGBA {
	m.t.Helper()
	var before []byte
	still := 0
	return d.WaitScreen(m.t, "the menu, still", func(img *image.RGBA) bool {
		if still++; !bytes.Equal(before, img.Pix) || m.asked.Load() > 0 || desktoptest.Colors(img, img.Rect) <= 50 {
			still = 0
		}
		before = img.Pix
		return still >= 3
	})
}

// changed waits until the screen differs from before and does not change any more.
func changed(t *testing.T, d *desktoptest.Desktop, was *image.RGBA) *image.RGBA {
	t.Helper()
	var before []byte
	return d.WaitScreen(t, "a change", func(img *image.RGBA) bool {
		still := bytes.Equal(before, img.Pix)
		before = img.Pix
		return still && !bytes.Equal(was.Pix, img.Pix)
	})
}
