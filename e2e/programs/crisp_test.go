package programs

import (
	"fmt"
	"image"
	"testing"
	"time"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// TestCrisp holds that what a program draws looks the same pixel by pixel as without
// Vix, on screens of scale 2 and 1.5: nothing is drawn smaller and stretched, or moved
// by part of a pixel.
func TestCrisp(t *testing.T) {
	argvs := [][]string{
		{"gtk3-demo-application"}, // draws at whole scales only
		{"foot", "-o", "csd.preferred=none", "-o", "resize-by-cells=no", "sh", "-c", "echo A terminal; read line"},
	}
	s := localSession(t, "crisp", 30*time.Second)
	s.Desktop.SetSize(t, 1600, 1000)
	for _, scale := range []float64{2, 1.5} {
		s.Desktop.Command(t, fmt.Sprintf("output HEADLESS-1 scale %g", scale))
		for _, argv := range argvs {
			t.Run(fmt.Sprintf("%s/%g", argv[0], scale), func(t *testing.T) {
				s.For(t)
				s.crisp(t, scale, argv)
			})
		}
	}
}

func (s *session) crisp(t *testing.T, scale float64, argv []string) {
	const w, h = 500, 360 // logical pixels of the program's window
	pixels := func(n int) int { return int(float64(n) * scale) }
	// Without the outermost pixels, which a compositor mixes with what is beside them.
	inside := image.Rect(pixels(e2e.FrameSide), pixels(e2e.FrameTop), pixels(e2e.FrameSide+w), pixels(e2e.FrameTop+h)).Inset(1)
	// drawn opens the program, gives it a place and a size, and returns what the screen
	// shows when it is at rest.
	drawn := func(what, socket string, at image.Rectangle) *image.RGBA {
		cmd := s.Command(argv...)
		cmd.Env = append(cmd.Env, "WAYLAND_DISPLAY="+socket, "HOME="+s.home)
		proc := s.StartCommand(cmd)
		win := s.WaitSettled(t, nil)
		s.Float(t, win, at.Min.X, at.Min.Y, at.Dx(), at.Dy())
		p := &program{session: s, Proc: proc, t: t, win: win, name: fmt.Sprintf("crisp-%s-%g-%s", argv[0], scale, what)}
		p.Desktop.MoveTo(t, pixels(w+100), pixels(h+100))
		p.WaitScreen(t, p.name, func(img *image.RGBA) bool { return desktoptest.Colors(img, img.Rect) > 3 })
		p.quiet()
		img := s.Desktop.Screenshot(t)
		p.keepPicture(p.name+".png", img)
		s.CloseWindow(t, win)
		s.WaitNoWindow(t, nil)
		s.waitEnd(t, proc)
		return img
	}
	with := drawn("vix", s.local, image.Rect(0, 0, w+2*e2e.FrameSide, h+e2e.FrameTop+e2e.FrameSide))
	without := drawn("plain", s.Socket, image.Rect(e2e.FrameSide, e2e.FrameTop, e2e.FrameSide+w, e2e.FrameTop+h))
	if n := desktoptest.Colors(without, inside); n < 20 {
		t.Fatalf("%d colours: no text to compare", n)
	}
	if n := differing(with, without, inside); n > 0 {
		t.Errorf("%d of %d pixels differ: build/e2e/crisp-%s-%g-*.png", n, inside.Dx()*inside.Dy(), argv[0], scale)
	}
}
