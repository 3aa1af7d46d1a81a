package frame

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vix/internal/desktoptest"
)

// startKWin starts KWin as a window that fills a headless sway. KWin's own headless
// output gives pictures and takes input by OpenGL alone, which needs a render node;
// so the pictures are sway's of KWin's window, whose scale KWin takes over, and sway's
// pointer is a device of KWin's. KWin draws by QPainter.
func startKWin(t *testing.T, scale float64, options ...func(*desk)) *desk {
	d := newDesk(t, "kwin_wayland", scale, options...)
	d.name = "kwin"
	outer := startSway(t, scale, "", sized(d.w, d.h))
	for name, text := range map[string]string{
		"kwinrc":     "[Plugins]\nscreenedgeEnabled=false\n[ElectricBorders]\nTopLeft=None\n",
		"kdeglobals": "[KDE]\nAnimationDurationFactor=0\n",
	} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bus := d.bus(t)
	d.begin(t, []string{"DBUS_SESSION_BUS_ADDRESS=" + bus, "KWIN_COMPOSE=Q", "HOME=" + d.dir}, "kwin_wayland", "--wayland-display", outer.socket,
		fmt.Sprintf("--width=%d", d.w), fmt.Sprintf("--height=%d", d.h),
		"--no-lockscreen", "--no-global-shortcuts", "--socket", "wayland-9")
	d.shoot = outer.grim
	d.seat = outer.seat
	d.change = func(t *testing.T) { t.Helper(); outer.resize(t, d.w, d.h, d.scale) }
	return d
}

// bus starts a session bus in the desk's directory and returns its address.
func (d *desk) bus(t *testing.T) string {
	t.Helper()
	return desktoptest.Attach(filepath.Join(d.dir, "none"), "").StartBus(t, "")
}
