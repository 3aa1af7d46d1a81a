package main

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/menu"
)

func start(t *testing.T) *desktoptest.Desktop {
	t.Helper()
	needDesktop(t)
	return desktoptest.Start(t, desktoptest.Config{Width: 1280, Height: 800})
}

// The place of setup's menu on a screen of 1280×800.
const left, top, first, step = 330, 159, 159 + 54 + 8 + 21, 42

func TestKeys(t *testing.T) {
	d := start(t)
	open := func() *shown {
		m := show(t, d, setup())
		m.seen(d)
		return m
	}
	t.Run("type and run", func(t *testing.T) {
		m := open()
		d.Type(t, "widg")
		d.Key(t, "Return")
		if ev := m.want(menu.EventRun, "widget-factory", ""); ev.Token == "" || ev.Keep {
			t.Errorf("want an activation token, and a menu that closes: %+v", ev)
		}
		m.closed()
	})
	t.Run("choose and edit", func(t *testing.T) {
		m := open()
		d.Type(t, "xx gtkk")
		d.Key(t, "BackSpace", "Home", "End", "ctrl+a", "Delete", "Delete", "Down", "Down", "Up")
		d.Key(t, "ctrl+Return")
		if ev := m.want(menu.EventRun, "node-editor", ""); !ev.Keep {
			t.Errorf("ctrl+Return has the menu close: %+v", ev)
		}
		d.Key(t, "ctrl+u", "ctrl+e")
		d.Type(t, "fire")
		d.Key(t, "ctrl+w")
		d.Type(t, "calc")
		d.Key(t, "KP_Enter")
		m.want(menu.EventRun, "calc", "")
		m.closed()
	})
	t.Run("actions", func(t *testing.T) {
		m := open()
		d.Type(t, "node")
		d.Key(t, "Tab", "Down", "Down", "Return") // its VM runs, so the actions are: disposable, shell, stop
		if ev := m.want(menu.EventAction, "node-editor", "stop"); !ev.Keep {
			t.Error("stop closes the menu, which could show that it works")
		}
		m.update(menu.Update{VMs: map[string]menu.VM{}, HaveVMs: true})
		d.Key(t, "Tab", "End", "Return")
		m.want(menu.EventAction, "node-editor", "disposable")
		m.closed()
	})
	t.Run("a VM's entry", func(t *testing.T) {
		m := open()
		d.Type(t, "virtual web")
		d.Key(t, "Return", "Down", "Up", "Return")
		m.want(menu.EventAction, "vm:web", "shell")
		m.closed()
	})
	t.Run("dismiss", func(t *testing.T) {
		for _, key := range []string{"Escape", "ctrl+c"} {
			m := open()
			d.Key(t, key)
			m.closed()
		}
		m := open()
		m.proc.Signal(syscall.SIGTERM)
		m.closed()
		m = open()
		m.close() // vix-launcher was killed
		m.closed()
	})
}

// The letters of a layout other than the US one, and characters composed of two keys.
func TestLayoutAndCompose(t *testing.T) {
	d := start(t)
	s := setup()
	s.Items = append(s.Items, menu.Item{ID: "umlaut", Name: "Zürich"}, menu.Item{ID: "y", Name: "Yürich"}, menu.Item{ID: "cafe", Name: "Xé"})
	t.Run("de", func(t *testing.T) {
		d.SetLayout(t, "de")
		m := show(t, d, s)
		m.seen(d)
		for _, code := range []uint32{21, 26} { // KEY_Y is z, KEY_LEFTBRACE is ü
			d.KeyCode(t, code, true)
			d.KeyCode(t, code, false)
		}
		d.KeyCode(t, 28, true)
		d.KeyCode(t, 28, false)
		m.want(menu.EventRun, "umlaut", "")
		m.closed()
	})
	t.Run("compose", func(t *testing.T) {
		d.SetLayout(t, "us(intl)")
		m := show(t, d, s)
		img := m.seen(d)
		press := func(codes ...uint32) {
			for _, code := range codes {
				d.KeyCode(t, code, true)
				d.KeyCode(t, code, false)
			}
		}
		press(45)     // x
		press(40, 18) // dead_acute, e
		pictures(t, "menu-compose.png", changed(t, d, img))
		press(28)
		m.want(menu.EventRun, "cafe", "")
		m.closed()
	})
	t.Run("repeat", func(t *testing.T) {
		d.SetLayout(t, "us")
		m := show(t, d, setup())
		was := m.seen(d)
		d.KeyCode(t, 108, true) // down, held
		d.WaitScreen(t, "the list scrolled by a key that is held", func(img *image.RGBA) bool {
			// The bar at the right has moved from the top.
			return img.RGBAAt(left+614, first-10) != was.RGBAAt(left+614, first-10)
		})
		d.KeyCode(t, 108, false)
		d.Key(t, "Escape")
		m.closed()
	})
}

func TestPointer(t *testing.T) {
	d := start(t)
	// By name: calc, files, firefox, foot, gtk4-demo, …
	t.Run("click", func(t *testing.T) {
		m := show(t, d, setup())
		m.seen(d)
		d.Click(t, left+100, first+2*step)
		m.want(menu.EventRun, "firefox", "")
		m.closed()
	})
	t.Run("wheel and right button", func(t *testing.T) {
		m := show(t, d, setup())
		img := m.seen(d)
		d.Scroll(t, left+100, first, 1) // three lines
		img = changed(t, d, img)
		d.Button(t, desktoptest.Right, true)
		d.Button(t, desktoptest.Right, false)
		img = changed(t, d, img)
		d.Click(t, left+100, top+20) // a click on the title goes back
		changed(t, d, img)
		d.Click(t, left+100, first)
		m.want(menu.EventRun, "foot", "")
		m.closed()
	})
	t.Run("a pointer that rests selects nothing", func(t *testing.T) {
		d.MoveTo(t, left+100, first+3*step)
		m := show(t, d, setup())
		m.seen(d)
		d.Key(t, "Return")
		m.want(menu.EventRun, "calc", "")
		m.closed()
		d.MoveTo(t, 1279, 799)
	})
}

// The menu follows changes of VMs, schemes, notices and items.
func TestUpdates(t *testing.T) {
	d := start(t)
	m := show(t, d, setup())
	img := m.seen(d)
	for _, u := range []menu.Update{
		{HaveVMs: true, VMs: map[string]menu.VM{"web": {State: "starting", Progress: 0.9}}},
		{HaveVMs: true, VMs: map[string]menu.VM{"web": {State: "running"}}},
		{Notice: &menu.Notice{Text: "VM web: no such program: firefox; see vix logs web", Bad: true}},
		{Scheme: "light"},
	} {
		m.update(u)
		img = changed(t, d, img)
	}
	pictures(t, "menu-notice.png", img)
	m.update(menu.Update{Close: true})
	m.closed()
}

// The first frame shows the last menu's icons; their changes follow.
func TestRememberedIcons(t *testing.T) {
	d := start(t)
	pink := color.RGBA{0xff, 0, 0xff, 0xff}
	icon := image.NewRGBA(image.Rect(0, 0, 26, 26))
	draw.Draw(icon, icon.Rect, image.NewUniform(pink), image.Point{}, draw.Src)
	was := filepath.Join(t.TempDir(), "was.png")
	if err := desktoptest.SavePNG(was, icon); err != nil {
		t.Fatal(err)
	}
	s := setup()
	s.hold = make(chan struct{})
	s.Icons = []menu.Icon{
		{Name: "folder", Side: 26, Path: "/usr/share/icons/old/folder.svg", File: was},
		{Name: "org.gtk.Demo4", Side: 26, Path: "/gone.png", File: "/gone.png"},
		{Name: "firefox", Side: 26, Path: was, File: was}, // it is not installed
	}
	m := show(t, d, s)
	// By name: calc, files, firefox, foot, gtk4-demo, …
	icons := image.Rect(left+20, first-13, left+20+26, first+3*step)
	pinks := func(img *image.RGBA) int { return desktoptest.Count(img, icons, desktoptest.Near(pink, 0)) }
	d.WaitScreen(t, "the icons of the last menu", func(img *image.RGBA) bool { return pinks(img) > 0 })
	close(s.hold)
	d.WaitScreen(t, "the icons of now", func(img *image.RGBA) bool { return pinks(img) == 0 })
	demo := icons
	demo.Min.Y, demo.Max.Y = first+4*step-13, first+4*step+13
	d.WaitScreen(t, "an icon in the place of one that has gone", func(img *image.RGBA) bool {
		// The letter in place of a missing icon is grey.
		return desktoptest.Count(img, demo, func(c color.RGBA) bool { return max(c.R, c.G, c.B)-min(c.R, c.G, c.B) > 100 }) > 20
	})
	d.Key(t, "Escape")
	m.closed()
}

// Three thousand entries, names in other scripts, a hostile icon.
func TestMany(t *testing.T) {
	d := start(t)
	s := setup()
	bad := filepath.Join(t.TempDir(), "bad.png")
	if err := os.WriteFile(bad, []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x06\x00\x00\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		s.Items = append(s.Items, menu.Item{ID: fmt.Sprint("n", i), Name: fmt.Sprintf("Program %d", i), VM: "dev", Tag: "dev", Color: "#ef6c00", Icon: bad})
	}
	s.Items = append(s.Items, menu.Item{ID: "last", Name: "שלום مرحبا 漢字", Generic: strings.Repeat("long ", 50), VM: "work", Color: "#1565c0", Icon: "../../etc/passwd"})
	m := show(t, d, s)
	img := m.seen(d)
	d.Key(t, "End", "Page_Up", "End")
	pictures(t, "menu-many.png", changed(t, d, img))
	d.Type(t, "program 2999")
	d.Key(t, "Return")
	m.want(menu.EventRun, "n2999", "")
	m.closed()
}

// Weston has no layer shell: the menu is an ordinary window there. Here Weston itself is a
// window of sway's, which gives it keys and a screen.
func TestOrdinaryWindow(t *testing.T) {
	d := start(t)
	if _, err := exec.LookPath("weston"); err != nil {
		t.Skip("lacks: weston")
	}
	w := d.Client(t, "weston", "--backend=wayland", "--renderer=pixman", "--no-config", "--socket=wayland-7", "--idle-time=0", "--width=1280", "--height=800")
	defer w.Stop()
	socket := filepath.Join(d.Dir, "wayland-7")
	for again := time.NewTicker(20 * time.Millisecond); ; <-again.C { // a file in a shared directory has no event
		if _, err := os.Stat(socket); err == nil {
			break
		}
		select {
		case <-w.Done():
			t.Fatal("weston has ended: ", w.Output())
		default:
		}
	}
	d.WaitWindow(t, nil)
	before := d.Screenshot(t)
	inner := *d
	inner.Socket = socket
	m := show(t, &inner, setup(), "WAYLAND_DISPLAY=wayland-7")
	pictures(t, "menu-weston.png", changed(t, d, before))
	d.Type(t, "widg")
	d.Key(t, "Return")
	m.want(menu.EventRun, "widget-factory", "")
	m.closed()
}

// All threads are under the filter of internal/sandbox, whose tests check its effect.
func TestConfined(t *testing.T) {
	d := start(t)
	m := show(t, d, setup())
	m.seen(d)
	d.Type(t, "e") // by then the menu has used everything that it needs
	d.Key(t, "Down")
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", m.proc.PID))
	if err != nil || len(threads) < 3 {
		t.Fatal(threads, err)
	}
	for _, thread := range threads {
		b, err := os.ReadFile(thread)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		if text := string(b); err != nil || !strings.Contains(text, "\nSeccomp:\t2\n") || !strings.Contains(text, "\nNoNewPrivs:\t1\n") {
			t.Errorf("%s: %v: %s", thread, err, text)
		}
	}
	d.Key(t, "Escape")
	m.closed()
}

// A missing compositor is reported in one line.
func TestNoCompositor(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "XDG_RUNTIME_DIR=") }),
		"VIX_TEST_MENU=1", "XDG_RUNTIME_DIR="+t.TempDir())
	cmd.Stdin = strings.NewReader(`{"socket": "wayland-77", "look": {"lines": 3, "width": 400, "font_size": 15}}` + "\n")
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err == nil || !strings.HasPrefix(text, "vix-menu: no compositor at wayland-77") || strings.Contains(text, "\n") {
		t.Errorf("%v: %s", err, text)
	}
}
