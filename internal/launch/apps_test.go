package launch

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"vix/config"
)

// A program's desktop entry says whether it shows windows of its own.
func TestWantsWindow(t *testing.T) {
	system := t.TempDir()
	apps, bin := filepath.Join(system, "usr/share/applications"), filepath.Join(system, "usr/bin")
	if err := errors.Join(os.MkdirAll(apps, 0o755), os.MkdirAll(bin, 0o755), os.WriteFile(filepath.Join(bin, "foot"), nil, 0o755),
		os.WriteFile(filepath.Join(bin, "maps"), nil, 0o755), os.WriteFile(filepath.Join(bin, "htop"), nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, lines := range map[string]string{"maps": "Exec=maps --new %F", "htop": "Exec=htop\nTerminal=true"} {
		entry := "[Desktop Entry]\nType=Application\nName=" + name + "\n" + lines + "\n"
		if err := os.WriteFile(filepath.Join(apps, name+".desktop"), []byte(entry), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := &Launcher{System: system, Dirs: Dirs{Cache: t.TempDir()}}
	for program, want := range map[string]bool{"maps": true, "/usr/bin/maps": true, "htop": false, "make": false, "foot": false} {
		if got := l.WantsWindow(config.VM{Name: "v", Root: config.RootHost}, program); got != want {
			t.Errorf("%s: %v", program, got)
		}
	}
	if l.WantsWindow(config.VM{Name: "v", Root: "debian:none"}, "maps") {
		t.Error("a root that is not built has entries")
	}
}
