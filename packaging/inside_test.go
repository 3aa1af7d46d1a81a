package packaging

import (
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// TestInside is TestDebInstalled's part with a desktop: it runs where the package
// is installed, and opens the demo's program from its desktop entry, on a session
// bus that starts Vix's service as it was installed.
func TestInside(t *testing.T) {
	if os.Getenv("VIX_INSTALLED") == "" {
		t.Skip("is run by TestDebInstalled")
	}
	r := e2e.New(t, e2e.Config{Bin: "/usr/bin", TOML: "[vm.demo]\ncolor = \"green\"\nprograms = [\"foot\"]\n"})
	data := t.TempDir()
	sync := r.Command("/usr/bin/vix", "desktop", "sync")
	sync.Env = append(sync.Env, "XDG_DATA_HOME="+data)
	if out, err := sync.CombinedOutput(); err != nil {
		t.Fatalf("desktop sync: %v: %s", err, out)
	}
	entry := filepath.Join(data, "applications/dev.vix.demo.foot.desktop")
	if text := read(t, entry); !strings.Contains(text, "\nExec=/usr/bin/vix") && !strings.Contains(text, "\nExec=vix") {
		t.Errorf("entry: %s", text)
	}
	// The bus lives as long as its command does.
	launch := r.Command("dbus-run-session", "--", "sh", "-c", `gio launch "$1" && exec sleep infinity`, "sh", entry)
	launch.Env = append(launch.Env, "XDG_DATA_HOME="+data)
	r.StartCommand(launch)
	w := r.WaitWindow(t, desktoptest.ByAppID("vix.demo.foot"))
	img := r.WaitScreen(t, "the frame of the program's window", func(img *image.RGBA) bool {
		return desktoptest.Colors(img, w.Content().Image()) > 2
	})
	if err := desktoptest.SavePNG(filepath.Join(project(t), "build/e2e/installed.png"), img); err != nil {
		t.Error(err)
	}
	// A name of a VM that runs is completed.
	complete := r.Command("/usr/bin/vix", "__complete", "stop", "")
	if out, err := complete.Output(); err != nil || !strings.HasPrefix(string(out), "demo") {
		t.Errorf("completion of stop: %v: %s", err, out)
	}
}
