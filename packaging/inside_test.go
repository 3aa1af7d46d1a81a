package packaging

import (
	"image"
	"os"
	"path/filepath"
	"testing"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// TestInside is TestDebInstalled's part with a desktop: it runs where the package
// is installed, and opens the demo's program with what is there.
func TestInside(t *testing.T) {
	if os.Getenv("VIX_INSTALLED") == "" {
		t.Skip("is run by TestDebInstalled")
	}
	r := e2e.New(t, e2e.Config{Bin: "/usr/bin", TOML: "[vm.demo]\ncolor = \"green\"\n"})
	r.Start("run", "--vm", "demo", "foot", "-o", "csd.preferred=none", "sleep", "infinity")
	w := r.WaitWindow(t, desktoptest.ByAppID("vix.demo.foot"))
	img := r.WaitScreen(t, "the window's frame", func(img *image.RGBA) bool {
		return desktoptest.Colors(img, w.Content().Image()) > 2
	})
	if err := desktoptest.SavePNG(filepath.Join(project(t), "build/e2e/installed.png"), img); err != nil {
		t.Error(err)
	}
}
