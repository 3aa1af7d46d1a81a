package main

import (
	"bytes"
	"image"
	"image/draw"
	"image/png"
	"os/exec"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/menu"
)

// shot is a picture of one output.
func shot(t *testing.T, d *desktoptest.Desktop, output string) *image.RGBA {
	t.Helper()
	cmd := exec.Command("grim", "-l", "0", "-o", output, "-")
	cmd.Env = d.Env()
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("grim -o %s: %v", output, err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out := image.NewRGBA(img.Bounds())
	draw.Draw(out, out.Rect, img, image.Point{}, draw.Src)
	return out
}

// The menu opens on the focused output, at its scale, even if the last
// output had another scale.
func TestOutputs(t *testing.T) {
	needDesktop(t)
	d := desktoptest.Start(t, desktoptest.Config{Width: 900, Height: 640, Sway: "output * bg #7d8a9c solid_color"})
	d.Command(t, "create_output")
	d.Command(t, "output HEADLESS-2 mode 1800x1280 position 900 0 scale 2")
	scales := map[string]float64{"HEADLESS-1": 1, "HEADLESS-2": 2}
	last := 0.0
	for _, on := range []string{"HEADLESS-2", "HEADLESS-1", "HEADLESS-2"} {
		d.Command(t, "focus output "+on)
		other := map[string]string{"HEADLESS-1": "HEADLESS-2", "HEADLESS-2": "HEADLESS-1"}[on]
		was := shot(t, d, other)
		s := setup()
		s.Scale = last
		m := show(t, d, s)
		select {
		case ev := <-m.events:
			if ev.Kind != menu.EventShown || ev.Scale != scales[on] {
				t.Errorf("on %s, after one at scale %v: %+v", on, last, ev)
			}
		case <-time.After(time.Minute):
			t.Fatal("no frame: ", m.proc.Output())
		}
		last = scales[on]
		img := shot(t, d, on) // a commit appears on the screen some frames later
		for deadline := time.Now().Add(time.Minute); desktoptest.Colors(img, img.Rect) < 50; img = shot(t, d, on) {
			if time.Now().After(deadline) {
				t.Fatalf("%s has the focus, and no menu", on)
			}
		}
		if scales[on] == 2 && pairs(img) {
			t.Error("at scale 2 the menu is drawn at scale 1")
		}
		if !bytes.Equal(was.Pix, shot(t, d, other).Pix) {
			t.Errorf("the menu for %s is on %s", on, other)
		}
		pictures(t, "menu-on-"+on+".png", img)
		d.Key(t, "Escape")
		m.closed()
	}
}
