package frame

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"strconv"
	"strings"
	"sync"
	"testing"

	"vix/internal/desktoptest"
	"vix/internal/hostile"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// An attack is one of internal/hostile's, against the filter of a VM.
type attack struct {
	mu    sync.Mutex
	out   bytes.Buffer
	conns []*hostile.Client
	hold  chan struct{}
	done  chan struct{}
}

// Write takes in what the attack says.
func (a *attack) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.Write(b)
}

func (a *attack) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.String()
}

// begin starts an attack on a VM's socket, and waits for a word of it.
func begin(t *testing.T, socket, word, name string, args ...string) *attack {
	t.Helper()
	a := &attack{hold: make(chan struct{}), done: make(chan struct{})}
	r := &hostile.Run{
		Open: func() (*hostile.Client, error) {
			c, err := hostile.OverSocket(socket)
			if err == nil {
				a.mu.Lock()
				a.conns = append(a.conns, c)
				a.mu.Unlock()
			}
			return c, err
		},
		Out: a, Args: args, Hold: func() { <-a.hold },
	}
	go func() {
		defer close(a.done)
		if err := hostile.Do(name, r); err != nil {
			fmt.Fprintln(a, "ended:", err)
		}
	}()
	wait(t, fmt.Sprintf("%s to say %q", name, word), func() bool {
		select {
		case <-a.done:
			return true
		default:
			return strings.Contains(a.said(), word)
		}
	})
	if !strings.Contains(a.said(), word) {
		a.end()
		t.Fatalf("%s: %s", name, a.said())
	}
	return a
}

// end ends it, and its connections.
func (a *attack) end() {
	a.mu.Lock()
	for _, c := range a.conns {
		_ = c.Close()
	}
	a.mu.Unlock()
	close(a.hold)
	<-a.done
}

// attackPink is what the attacks want to show outside their frames.
var attackPink = color.RGBA{255, 0, 255, 255}

// TestThreatsOnDesks tries rows 17 to 19 of the threat table on labwc and Weston: a real
// VM tries them on sway (e2e/threats).
func TestThreatsOnDesks(t *testing.T) {
	rows := map[int]string{17: "takes input by a grab or an invented serial", 18: "makes the filter's model and the compositor differ", 19: "shows something outside its frame"}
	broken := map[int]bool{}
	for kind, start := range map[string]func(t *testing.T) *desk{
		"labwc":  func(t *testing.T) *desk { return startLabwc(t, 1, labwcPlaces) },
		"weston": startWestonInside,
	} {
		t.Run(kind, func(t *testing.T) {
			d := start(t)
			socket := work.serve(t, d.socket)
			for row, try := range map[int]func(t *testing.T, socket string){17: d.takesInput, 18: d.differs, 19: d.showsOutside} {
				broken[row] = !t.Run(strconv.Itoa(row), func(t *testing.T) { try(t, socket) }) || broken[row]
			}
		})
	}
	for row := 17; row <= 19; row++ {
		if b, tried := broken[row]; tried {
			fmt.Printf("threat %d: %s, on labwc and Weston: %s\n", row, rows[row], map[bool]string{false: "held", true: "broken"}[b])
		}
	}
}

// takesInput clicks into a program of the host's while popups with grabs are shown.
func (d *desk) takesInput(t *testing.T, socket string) {
	c := newClient(t, d, d.socket)
	pointer, clicks := uint32(0), 0
	c.event = func(m waylandtest.Msg) {
		if m.ID == pointer && m.Op == wayland.WlPointerEvtButton && m.Word(3) == 1 {
			clicks++
		}
	}
	seat := c.bound("wl_seat", 5)
	pointer = c.id()
	c.Send(seat, wayland.WlSeatReqGetPointer, pointer)
	c.window(500, 300, lime)
	c.sync()
	d.waitScreen(t, "the host's program", func(img *image.RGBA) bool { return count(img, lime) > 1000 })
	a := begin(t, socket, "grabbed", "take-input")
	defer a.end()
	for n := range 3 {
		at := roomIn(d.steadyIn(t, lime), lime)
		before := clicks
		d.click(at.X, at.Y)
		wait(t, fmt.Sprintf("click %d to reach the host's program", n), func() bool { c.sync(); return clicks > before })
	}
	if s := a.said(); strings.Contains(s, "button") || strings.Contains(s, "ended") {
		t.Errorf("the VM says %s", s)
	}
}

// steadyIn waits until a colour's place stays: other things on the screen come and go.
func (d *desk) steadyIn(t *testing.T, c color.RGBA) *image.RGBA {
	t.Helper()
	var last image.Rectangle
	return d.waitScreen(t, "a place that stays", func(img *image.RGBA) bool {
		now := d.extent(img, c)
		same := now == last && !now.Empty()
		last = now
		return same
	})
}

// roomIn returns a place that a colour is all around of.
func roomIn(img *image.RGBA, c color.RGBA) image.Point {
	const room = 20
	for y := img.Rect.Min.Y; y < img.Rect.Max.Y; y += room / 2 {
		for x := img.Rect.Min.X; x < img.Rect.Max.X; x += room / 2 {
			if r := image.Rect(x, y, x+room, y+room); r.In(img.Rect) && desktoptest.Share(img, r, c, 2) == 1 {
				return image.Pt(x+room/2, y+room/2)
			}
		}
	}
	return image.Point{}
}

// differs plays what makes a filter's model and the compositor differ, and popups that are
// larger than they were told.
func (d *desk) differs(t *testing.T, socket string) {
	for _, name := range hostile.Confusions() {
		d.seat.move(d.w-1, d.h-1)
		d.waitScreen(t, "no window", func(img *image.RGBA) bool { return count(img, workBlue) == 0 })
		a := begin(t, socket, "tried: ", "confuse", name)
		if !strings.Contains(a.said(), "error") {
			d.waitScreen(t, "the window", func(img *image.RGBA) bool { return count(img, workBlue) > 0 })
		}
		img := d.steady(t)
		if bad := d.unframed(img, desktoptest.Near(attackPink, 24)); bad != "" {
			keep(t, d.picture("-threat18-"+name), img)
			t.Errorf("%s: %s", name, bad)
		}
		if out, frame := d.extent(img, attackPink), d.extent(img, workBlue); !out.In(frame) {
			t.Errorf("%s: the guest shows %v, its frame is %v", name, out, frame)
		}
		a.end()
	}
}

// showsOutside gives the pointer images that are large, or far from it.
func (d *desk) showsOutside(t *testing.T, socket string) {
	for _, args := range [][]string{{"256", "200", "200"}, {"60", "-100", "-100"}, {"60", "5000", "5000"}} {
		d.seat.move(d.w-1, d.h-1)
		d.waitScreen(t, "no window", func(img *image.RGBA) bool { return count(img, workBlue) == 0 })
		a := begin(t, socket, "shown", "cursor", args...)
		d.waitScreen(t, "the window", func(img *image.RGBA) bool { return count(img, workBlue) > 0 })
		frame := d.extent(d.steady(t), workBlue)
		at := frame.Min.Add(frame.Size().Div(2))
		d.seat.move(at.X, at.Y)
		img := d.waitScreen(t, "the image", func(img *image.RGBA) bool { return count(img, attackPink) > 0 })
		if r := d.extent(img, attackPink); r.Dx() > maxImage || r.Dy() > maxImage || !at.In(r.Inset(-1)) {
			keep(t, d.picture("-threat19-"+args[0]), img)
			t.Errorf("%v: an image in %v with the pointer at %v", args, r, at)
		}
		a.end()
	}
}
