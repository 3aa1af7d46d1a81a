package main

import (
	"fmt"
	"image"
	"image/draw"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vix/internal/desktoptest"
	"vix/internal/menu"
)

// entries are a small desktop's.
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

func setup() content {
	return content{Update: menu.Update{
		Items: entries(), HaveVMs: true,
		Actions: []menu.Action{
			{ID: "disposable", Name: "Run %n in a new disposable VM", Running: true, Stopped: true, Programs: true},
			{ID: "shell", Name: "Open a shell in VM %v", Running: true},
			{ID: "stop", Name: "Stop VM %v", Running: true, Keep: true},
		},
		VMs: map[string]menu.VM{"work": {State: "running"}, "web": {State: "starting", Progress: 0.6}},
	}, Setup: menu.Setup{
		Look:     menu.Look{Scheme: "dark", Width: 620, Lines: 9, FontSize: 15, Icons: true},
		IconDirs: []string{"/usr/share/icons", "/usr/share/pixmaps"}, IconThemes: []string{"Adwaita"}, Locale: "en_US.UTF-8",
		Fonts:     []string{"/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"},
		BoldFonts: []string{"/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"},
	}}
}

// pictures is the directory of the pictures.
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

func scheme(s content, name string) content {
	s.Look.Scheme = name
	return s
}

// TestPictures leaves pictures of both schemes at three scales. The menu has the same
// logical place at each, and the colours of its scheme.
func TestPictures(t *testing.T) {
	needDesktop(t)
	for _, scale := range []float64{1, 1.5, 2} {
		w, h := int(900*scale), int(640*scale)
		d := desktoptest.Start(t, desktoptest.Config{Width: w, Height: h, Sway: fmt.Sprintf("output HEADLESS-1 scale %v\noutput * bg #7d8a9c solid_color", scale)})
		for _, name := range []string{"dark", "light"} {
			m := show(t, d, scheme(setup(), name))
			img := m.seen(d)
			pictures(t, fmt.Sprintf("menu-%s-%v.png", name, scale), img)
			// The entry shows only the background right of the hint.
			at := img.RGBAAt(int(620*scale), int((79+27)*scale))
			if bright := int(at.R)+int(at.G)+int(at.B) > 3*128; bright != (name == "light") {
				t.Errorf("%s at scale %v: the ground is %v", name, scale, at)
			}
			// An upscaled picture has pixels in pairs.
			if scale == 2 && pairs(img) {
				t.Error("at scale 2 the menu is drawn at scale 1")
			}
			if scale == 1 && name == "dark" {
				moments(t, d, img)
			}
			d.Key(t, "Escape")
			m.closed()
		}
	}
}

// pairs reports whether all pixels in the middle of img come in pairs.
func pairs(img *image.RGBA) bool {
	b := img.Rect
	for y := b.Max.Y / 3; y < 2*b.Max.Y/3; y++ {
		for x := b.Max.X / 4 &^ 1; x < b.Max.X/2; x += 2 {
			if img.RGBAAt(x, y) != img.RGBAAt(x+1, y) {
				return false
			}
		}
	}
	return true
}

// moments takes pictures of the menu's other states.
func moments(t *testing.T, d *desktoptest.Desktop, img *image.RGBA) {
	d.Type(t, "ed")
	img = changed(t, d, img)
	pictures(t, "menu-filtered.png", img)
	d.Key(t, "Tab")
	img = changed(t, d, img)
	pictures(t, "menu-actions.png", img)
	d.Key(t, "Escape")
	img = changed(t, d, img)
	d.Type(t, "qqq")
	img = changed(t, d, img)
	pictures(t, "menu-nothing.png", img)
	d.Key(t, "ctrl+u")
	changed(t, d, img)
}

// TestBesideFuzzel leaves a picture of our menu and fuzzel's with the same entries.
func TestBesideFuzzel(t *testing.T) {
	needDesktop(t)
	if _, err := exec.LookPath("fuzzel"); err != nil {
		t.Skip("lacks: fuzzel")
	}
	d := desktoptest.Start(t, desktoptest.Config{Width: 900, Height: 640, Sway: "output * bg #7d8a9c solid_color"})
	m := show(t, d, setup())
	ours := m.seen(d)
	d.Key(t, "Escape")
	m.closed()
	cmd := exec.Command("fuzzel", "--dmenu", "--icon-theme=Adwaita", "--width=44", "--lines=9")
	cmd.Env = append(d.Env(), "XDG_CACHE_HOME="+t.TempDir())
	var lines strings.Builder
	for _, it := range entries() {
		if !it.Machine {
			fmt.Fprintf(&lines, "%s  [%s]\x00icon\x1f%s\n", it.Name, it.VM, it.Icon)
		}
	}
	cmd.Stdin = strings.NewReader(lines.String())
	p, err := desktoptest.Command(t, cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs := m.seen(d) // the same of fuzzel
	p.Stop()
	both := image.NewRGBA(image.Rect(0, 0, 1800, 640))
	draw.Draw(both, ours.Rect, ours, image.Point{}, draw.Src)
	draw.Draw(both, ours.Rect.Add(image.Pt(900, 0)), theirs, image.Point{}, draw.Src)
	pictures(t, "menu-beside-fuzzel.png", both)
}
