package filter

import (
	"context"
	"encoding/binary"
	"image"
	"image/color"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// serveFramed serves a filter with a frame on a socket.
func serveFramed(t *testing.T, d *desktoptest.Desktop, frame string) (path string) {
	t.Helper()
	path = filepath.Join(d.Dir, "framed")
	f := New(Config{
		VM: "vm", Tag: "tag", Log: slog.New(slog.DiscardHandler), Frame: frame, Color: "#2060c0",
		Dial: func() (wayland.Transport, error) { return wayland.Dial(d.Socket) },
	})
	waylandtest.Serve(t, path, func(ctx context.Context, client *wayland.UnixConn) { _ = f.Serve(ctx, client) })
	return path
}

var (
	frameBlue = color.RGBA{0x20, 0x60, 0xc0, 0xff}
	guestRed  = color.RGBA{0xff, 0, 0, 0xff}
	guestLime = color.RGBA{0, 0xff, 0, 0xff}
	black     = color.RGBA{0, 0, 0, 0xff}
)

// fill paints buffer k in one colour.
func (p *painter) fill(k int, c color.RGBA) {
	v := uint32(c.R)<<16 | uint32(c.G)<<8 | uint32(c.B) | 0xff000000
	for off := k * p.w * p.h * 4; off < (k+1)*p.w*p.h*4; off += 4 {
		binary.NativeEndian.PutUint32(p.pool[off:], v)
	}
}

// present shows a buffer on a surface.
func (p *painter) present(surface uint32, buffer string) {
	p.Send(surface, wayland.WlSurfaceReqAttach, p.ids[buffer], 0, 0)
	p.Send(surface, wayland.WlSurfaceReqDamage, 0, 0, 1<<31-1, 1<<31-1)
	p.Send(surface, wayland.WlSurfaceReqCommit)
}

// child makes a sub-surface of the window with the second buffer on it.
func (p *painter) child(x, y int) (surface, sub uint32) {
	surface, sub = p.id(), p.id()
	p.Send(p.ids["wl_compositor"], wayland.WlCompositorReqCreateSurface, surface)
	p.Send(p.ids["wl_subcompositor"], wayland.WlSubcompositorReqGetSubsurface, sub, surface, p.surface)
	p.Send(sub, wayland.WlSubsurfaceReqSetPosition, uint32(x), uint32(y))
	p.present(surface, "buffer1")
	p.Send(p.surface, wayland.WlSurfaceReqCommit)
	return surface, sub
}

// A shot is a rectangle of the screen that should have a colour, all of it but the
// given share.
type shot struct {
	what   string
	at     image.Rectangle
	color  color.RGBA
	allBut float64
}

func look(t *testing.T, d *desktoptest.Desktop, shots ...shot) *image.RGBA {
	t.Helper()
	return d.WaitScreen(t, shots[0].what, func(img *image.RGBA) bool {
		for _, s := range shots {
			share := desktoptest.Share(img, s.at, s.color, 2)
			if share < 1-s.allBut || s.allBut > 0 && share == 1 {
				return false
			}
		}
		return true
	})
}

const framedSway = "default_border none\nfor_window [app_id=\".*\"] floating enable, border none, move absolute position 20 20\n"

// labelled is how much of the strip above a small window its label takes at most: the box
// of the tag, when the window has the focus.
const labelled = 0.45

// frameShots is a whole frame around content of w×h whose corner is at x, y.
func frameShots(x, y, w, h int) []shot {
	return []shot{
		{what: "a frame on the left", at: image.Rect(x-sideWidth, y-labelHeight, x, y+h+sideWidth), color: frameBlue},
		{what: "on the right", at: image.Rect(x+w, y-labelHeight, x+w+sideWidth, y+h+sideWidth), color: frameBlue},
		{what: "below", at: image.Rect(x-sideWidth, y+h, x+w+sideWidth, y+h+sideWidth), color: frameBlue},
		{what: "above, with a label", at: image.Rect(x-sideWidth, y-labelHeight, x+w+sideWidth, y), color: frameBlue, allBut: labelled},
		{what: "nothing on its left", at: image.Rect(x-sideWidth-5, y-labelHeight-5, x-sideWidth, y+h+sideWidth+5), color: black},
		{what: "nothing below", at: image.Rect(x-sideWidth, y+h+sideWidth, x+w+sideWidth, y+h+sideWidth+5), color: black},
	}
}

func startFramed(t *testing.T, frame string) (*desktoptest.Desktop, string) {
	t.Helper()
	if s := desktoptest.Lacks(); s != "" {
		t.Skipf("needs %s; make test runs it where they are", s)
	}
	d := desktoptest.Start(t, desktoptest.Config{Width: 400, Height: 300, Sway: framedSway, Timeout: 30 * time.Second})
	return d, serveFramed(t, d, frame)
}

// The content of a window whose frame's corner is at 20, 20.
const atX, atY = 20 + sideWidth, 20 + labelHeight

// TestFramePixels looks at the frame on sway: it is on all sides, nothing of the
// guest is above it, and nothing sticks out.
func TestFramePixels(t *testing.T) {
	d, socket := startFramed(t, "full")
	p := newPainter(t, socket, 160, 120)
	p.bind(p.globals["wl_subcompositor"], "wl_subcompositor", 1)
	p.fill(0, guestRed)
	p.fill(1, guestLime)
	p.present(p.surface, "buffer0")
	p.sync()
	content := shot{what: "the content", at: image.Rect(atX, atY, atX+160, atY+120), color: guestRed}
	look(t, d, append(frameShots(atX, atY, 160, 120), content)...)

	t.Run("above", func(t *testing.T) {
		// A sub-surface over the label and the left border, and one above that one:
		// what lies within the window's box is shown, the frame stays on top.
		s, sub := p.child(-20, -60)
		s2, sub2 := p.child(-20, -60)
		p.Send(sub, wayland.WlSubsurfaceReqPlaceAbove, s2)
		p.Send(sub2, wayland.WlSubsurfaceReqPlaceAbove, s)
		p.Send(p.surface, wayland.WlSurfaceReqCommit)
		p.sync()
		look(t, d,
			shot{what: "a sub-surface below the frame", at: image.Rect(atX, atY, atX+140, atY+60), color: guestLime},
			shot{what: "the left border", at: image.Rect(atX-sideWidth, atY, atX, atY+60), color: frameBlue},
			shot{what: "the label", at: image.Rect(atX-sideWidth, atY-labelHeight, atX+160+sideWidth, atY), color: frameBlue, allBut: labelled},
			// What sticks out is cut off at the frame.
			shot{what: "nothing beside the frame", at: image.Rect(0, atY, atX-sideWidth, atY+60), color: black},
		)
		p.Send(sub, wayland.WlSubsurfaceReqDestroy)
		p.Send(sub2, wayland.WlSubsurfaceReqDestroy)
		p.Send(s, wayland.WlSurfaceReqDestroy)
		p.Send(s2, wayland.WlSurfaceReqDestroy)
		p.Send(p.surface, wayland.WlSurfaceReqCommit)
		p.sync()
		look(t, d, append(frameShots(atX, atY, 160, 120), content)...)
	})
	t.Run("outside", func(t *testing.T) {
		s, sub := p.child(100, 40)
		p.sync()
		out := append(frameShots(atX, atY, 160, 120),
			shot{what: "nothing on its right", at: image.Rect(atX+160+sideWidth, atY, 380, 280), color: black},
			shot{what: "the sub-surface", at: image.Rect(atX+100, atY+40, atX+160, atY+120), color: guestLime})
		look(t, d, out...)
		// It moves by the window's commit alone, and is cut there too.
		p.Send(sub, wayland.WlSubsurfaceReqSetPosition, 20, 20)
		p.Send(p.surface, wayland.WlSurfaceReqCommit)
		p.sync()
		out[len(out)-1] = shot{what: "it moved", at: image.Rect(atX+20, atY+20, atX+160, atY+120), color: guestLime}
		look(t, d, out...)
		p.Send(sub, wayland.WlSubsurfaceReqDestroy)
		p.Send(s, wayland.WlSurfaceReqDestroy)
		p.Send(p.surface, wayland.WlSurfaceReqCommit)
		p.sync()
		look(t, d, append(frameShots(atX, atY, 160, 120), content)...)
	})
	t.Run("sneaks out", func(t *testing.T) {
		// A small sub-surface inside goes outside by the window's commit alone, with
		// its own next commit half prepared.
		s, sub := p.child(0, 0)
		v := p.id()
		p.Send(p.ids["wp_viewporter"], wayland.WpViewporterReqGetViewport, v, s)
		p.Send(v, wayland.WpViewportReqSetDestination, 30, 30)
		p.Send(s, wayland.WlSurfaceReqCommit)
		p.Send(p.surface, wayland.WlSurfaceReqCommit)
		p.sync()
		look(t, d, shot{what: "a small one", at: image.Rect(atX, atY, atX+30, atY+30), color: guestLime},
			shot{what: "no thin frame", at: image.Rect(atX+30, atY, atX+40, atY+30), color: guestRed})
		p.Send(s, wayland.WlSurfaceReqDamage, 0, 0, 1, 1)
		p.Send(sub, wayland.WlSubsurfaceReqSetPosition, 190, 20)
		p.Send(p.surface, wayland.WlSurfaceReqCommit)
		p.sync()
		look(t, d, append(frameShots(atX, atY, 160, 120), content,
			shot{what: "nothing outside", at: image.Rect(atX+160+sideWidth, 0, 380, 280), color: black})...)
		p.Send(sub, wayland.WlSubsurfaceReqSetPosition, 10, 10)
		p.Send(p.surface, wayland.WlSurfaceReqCommit)
		p.Send(s, wayland.WlSurfaceReqCommit)
		p.Send(p.surface, wayland.WlSurfaceReqCommit)
		p.sync()
		look(t, d, shot{what: "inside again", at: image.Rect(atX+10, atY+10, atX+40, atY+40), color: guestLime},
			shot{what: "around it the window", at: image.Rect(atX, atY+10, atX+10, atY+40), color: guestRed})
	})
}

// TestFrameCrop holds that a window larger than the screen shows its frame there.
func TestFrameCrop(t *testing.T) {
	d, socket := startFramed(t, "full")
	p := newPainter(t, socket, 800, 700)
	p.fill(0, guestRed)
	p.present(p.surface, "buffer0")
	p.sync()
	d.Command(t, `[app_id=".*"] move absolute position 0 0`)
	look(t, d,
		shot{what: "a frame on the right", at: image.Rect(400-sideWidth, 0, 400, 300-16), color: frameBlue},
		shot{what: "below", at: image.Rect(0, 300-sideWidth, 400-16, 300), color: frameBlue},
		shot{what: "the content", at: image.Rect(sideWidth, labelHeight, 400-sideWidth-16, 300-sideWidth-16), color: guestRed})
}

// TestFrameBorder holds that without the label all borders are alike.
func TestFrameBorder(t *testing.T) {
	d, socket := startFramed(t, "border")
	p := newPainter(t, socket, 160, 120)
	p.fill(0, guestRed)
	p.present(p.surface, "buffer0")
	p.sync()
	look(t, d,
		shot{what: "a border above", at: image.Rect(20, 20, 20+160+2*sideWidth, 20+sideWidth), color: frameBlue},
		shot{what: "the content", at: image.Rect(20+sideWidth, 20+sideWidth, 20+160, 20+120), color: guestRed})
}

// TestFrameResize drags a border: the compositor resizes the window, and tells the
// client its part.
func TestFrameResize(t *testing.T) {
	d, socket := startFramed(t, "full")
	p := newPainter(t, socket, 160, 120)
	p.bind(p.globals["wl_seat"], "wl_seat", 5)
	ptr := p.id()
	p.Send(p.ids["wl_seat"], wayland.WlSeatReqGetPointer, ptr)
	p.fill(0, guestRed)
	p.present(p.surface, "buffer0")
	p.sync()
	look(t, d, frameShots(atX, atY, 160, 120)...)
	edge := image.Pt(atX+160+1, atY+60)
	d.MoveTo(t, edge.X, edge.Y)
	d.Button(t, desktoptest.Left, true)
	p.sync() // the press has come back as a request of ours
	p.sync()
	told := uint32(0)
	for told < 160+20 {
		d.MoveTo(t, edge.X+50, edge.Y)
		d.MoveTo(t, edge.X+60, edge.Y)
		m, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case m.ID == p.ids["xdg_toplevel"] && m.Op == wayland.XdgToplevelEvtConfigure:
			told = m.Word(0)
		case m.ID == p.ids["xdg_surface"]:
			p.Send(m.ID, wayland.XdgSurfaceReqAckConfigure, m.Word(0))
			p.Send(p.surface, wayland.WlSurfaceReqCommit)
		case m.ID == ptr:
			t.Fatalf("the client hears event %d of the pointer on its frame", m.Op)
		}
	}
	d.Button(t, desktoptest.Left, false)
}

// TestLabelPixels looks at the label on sway: the tag's box is that of the window with the
// focus, the title follows the tag, changes with the guest's words, without a commit of the
// guest's, and ends before the window does.
func TestLabelPixels(t *testing.T) {
	d, socket := startFramed(t, "full")
	first := shows(t, d, socket, 300, 120, 300, 120)
	box := image.Rect(atX+3, 20+3, atX+6, 20+labelHeight-3)                   // left of the tag's letters
	tagEnd := atX + 37                                                        // the tag is "tag"
	rest := image.Rect(tagEnd+1, 20, atX+300-endRoom, 20+labelHeight)         // the title's place
	end := image.Rect(atX+300-endRoom, 20, atX+300+sideWidth, 20+labelHeight) // plain colour
	top := image.Rect(atX-sideWidth, 20, atX+300+sideWidth, 21)               // the frame's edge
	white := color.RGBA{255, 255, 255, 255}
	label := func(what string, focus bool, titled func(ink int) bool) {
		t.Helper()
		d.WaitScreen(t, what, func(img *image.RGBA) bool {
			is := frameBlue
			if focus {
				is = white
			}
			ink := rest.Dx()*rest.Dy() - desktoptest.Count(img, rest, desktoptest.Near(frameBlue, 2))
			return desktoptest.Share(img, box, is, 2) == 1 && titled(ink) && desktoptest.Share(img, end, frameBlue, 2) == 1 && desktoptest.Share(img, top, frameBlue, 2) >= 0.95
		})
	}
	none, some := func(ink int) bool { return ink == 0 }, func(ink int) bool { return ink > 30 }
	label("the tag's box, and no title", true, none)
	first.title("mail")
	label("the title", true, some)
	first.title(strings.Repeat("W", 200))
	label("a title that is too long", true, func(ink int) bool { return ink > 500 })
	first.title("")
	label("no title again", true, none)

	// Another window takes the focus: it lies elsewhere, by its own rule.
	d.Command(t, `for_window [title="second"] move absolute position 20 200`)
	second := newPainter(t, socket, 60, 40)
	second.title("second")
	second.fill(0, guestLime)
	second.present(second.surface, "buffer0")
	second.sync()
	label("the first without the focus", false, func(ink int) bool { return ink == 0 })
	first.title("mail")
	label("its title, behind a line", false, some)
	second.close()
	label("the focus is back", true, some)
}

func (p *painter) title(text string) {
	p.T.Helper()
	p.Put(p.ids["xdg_toplevel"], wayland.XdgToplevelReqSetTitle, text)
	p.sync()
}
