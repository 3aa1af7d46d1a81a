package main

import (
	"image"
	"os"
	"path/filepath"
	"testing"

	"vix/internal/desktoptest"
	"vix/internal/menu"
)

// entries are those of a small desktop.
func entries() []menu.Item {
	var items []menu.Item
	for _, e := range []struct{ id, name, generic, icon, vm, color string }{
		{"foot", "Foot", "Terminal", "foot", "demo", "#2e7d32"},
		{"gtk4-demo", "GTK Demo", "Code examples and demonstrations", "org.gtk.Demo4", "work", "#1565c0"},
		{"widget-factory", "Widget Factory", "All the widgets of GTK", "org.gtk.WidgetFactory4", "work", "#1565c0"},
		{"node-editor", "GTK Node Editor", "", "org.gtk.gtk4.NodeEditor", "work", "#1565c0"},
		{"print-editor", "Print Editor", "Text editor", "org.gtk.PrintEditor4", "office", "#6a1b9a"},
		{"firefox", "Firefox", "Web browser", "firefox", "web", "#c62828"},
		{"keepass", "KeePassXC", "Password manager", "dialog-password", "vault", "#37474f"},
		{"files", "Files", "File manager", "folder", "office", "#6a1b9a"},
		{"python", "Python", "Interpreter", "python3.13", "dev", "#ef6c00"},
		{"calc", "Calculator", "", "accessories-calculator", "office", "#6a1b9a"},
		{"mail", "Mail", "Read and write messages", "mail-unread", "mail", "#00838f"},
	} {
		items = append(items, menu.Item{ID: e.id, Name: e.name, Generic: e.generic, Icon: e.icon, VM: e.vm, Tag: e.vm, Color: e.color})
	}
	for _, v := range []struct{ name, color string }{{"work", "#1565c0"}, {"web", "#c62828"}, {"vault", "#37474f"}} {
		items = append(items, menu.Item{ID: "vm:" + v.name, Name: v.name, Generic: "Virtual machine", VM: v.name, Tag: v.name, Color: v.color, Machine: true})
	}
	return items
}

func setup() menu.Setup {
	return menu.Setup{
		Items: entries(),
		Actions: []menu.Action{
			{ID: "disposable", Name: "Run %n in a new disposable VM", Running: true, Stopped: true, Programs: true},
			{ID: "shell", Name: "Open a shell in %v", Running: true},
			{ID: "stop", Name: "Stop %v", Running: true, Keep: true},
		},
		VMs:      map[string]menu.VM{"work": {State: "running"}, "web": {State: "starting", Progress: 0.6}},
		Look:     menu.Look{Scheme: "dark", Width: 620, Lines: 9, FontSize: 15, Icons: true},
		IconDirs: []string{"/usr/share/icons", "/usr/share/pixmaps"}, IconThemes: []string{"Adwaita"}, Locale: "en_US.UTF-8",
		Fonts:     []string{"/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"},
		BoldFonts: []string{"/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"},
	}
}

// pictures is where they are kept.
func pictures(t *testing.T, name string, img image.Image) {
	t.Helper()
	dir := filepath.Join("..", "..", "build", "e2e")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := desktoptest.SavePNG(filepath.Join(dir, name), img); err != nil {
		t.Fatal(err)
	}
}

func needDesktop(t *testing.T) {
	t.Helper()
	if l := desktoptest.Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
}

func TestPictures(t *testing.T) {
	needDesktop(t)
	d := desktoptest.Start(t, desktoptest.Config{Width: 1280, Height: 800, Sway: "output * bg #3b4252 solid_color"})
	m := show(t, d, setup())

	d.WaitScreen(t, "the menu", func(img *image.RGBA) bool { return desktoptest.Colors(img, img.Rect) > 50 })
	pictures(t, "menu-dark.png", d.Screenshot(t))
	d.Key(t, "Escape")
	if ev := m.next(); ev.Kind != menu.EventClosed {
		t.Errorf("Escape makes %+v", ev)
	}
	if code := m.proc.Wait(); code != 0 {
		t.Errorf("status %d: %s", code, m.proc.Output())
	}
}
