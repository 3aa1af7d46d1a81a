package frame

import (
	"fmt"
	"image"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// TestVMs shows the windows of two real VMs on sway at a scale of 1.5, one with a
// menu open and then maximised, the other then fullscreen.
func TestVMs(t *testing.T) {
	if l := e2e.Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
	const scale = 1.5
	d := &desk{name: "vms", scale: scale, w: deskW, h: deskH}
	r := e2e.New(t, e2e.Config{
		Bin: "../../build/bin",
		Desktop: desktoptest.Config{
			Timeout: 3 * time.Minute,
			Width:   deskW * 3 / 2, Height: deskH * 3 / 2,
			Sway: fmt.Sprintf("output HEADLESS-1 scale %v\n%s", scale, swayFloats),
		},
		TOML: "[vm.work]\ncolor = \"#2060c0\"\n[vm.vault]\ncolor = \"#f0c000\"\n",
	})
	a := r.Start("run", "--vm", "work", "foot", "--window-size-pixels=750x450")
	b := r.Start("run", "--vm", "vault", "env", "GSK_RENDERER=cairo", "gtk4-demo")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("work: %s\nvault: %s", a.Output(), b.Output())
			for _, name := range []string{"work", "vault"} {
				log, _ := os.ReadFile(filepath.Join(r.Dir, "vix", name, "log"))
				t.Logf("%s's log: %s", name, log)
			}
		}
	})
	r.WaitWindows(t, 2, func(*desktoptest.Node) bool { return true })
	before := 0
	r.WaitScreen(t, "both frames", func(img *image.RGBA) bool {
		n := count(img, vaultYellow)
		steady := n == before && n > 20_000 && count(img, workBlue) > 5000
		before = n
		return steady
	})
	menu := vaultAt.Add(image.Pt(652, 43))
	r.Click(t, menu.X, menu.Y)
	img := r.WaitScreen(t, "the menu's frame", func(img *image.RGBA) bool { return count(img, vaultYellow) > before+700 })
	keep(t, d.picture("-popup"), img)
	r.Key(t, "Escape")
	r.Desktop.Command(t, `[app_id="^vix\.vault"] floating disable`)
	r.MoveTo(t, deskW-1, deskH-1)
	img = r.WaitScreen(t, "a window that fills the screen", func(img *image.RGBA) bool {
		// The other one floats above it.
		return desktoptest.Share(img, d.px(image.Rect(0, 60, 4, deskH-4)).Inset(1), vaultYellow, 2) == 1 && count(img, workBlue) > 5000
	})
	keep(t, d.picture("-maximised"), img)
	r.Desktop.Command(t, `[app_id="^vix\.work"] fullscreen enable`)
	img = r.WaitScreen(t, "a frame around the screen", func(img *image.RGBA) bool { return d.whole(img, workBlue, 0) })
	keep(t, d.picture("-fullscreen"), img)
}
