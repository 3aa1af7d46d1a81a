package programs

import (
	_ "embed"
	"fmt"
	"image"
	"image/color"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// Menus. No grab of a popup reaches the compositor; what it is for, the filter does.
// So each toolkit's menus are opened here by pointer and by keyboard, an item chosen,
// and closed in every way that there is.

// Keys of linux/input-event-codes.h.
const (
	keyEscape = 1
	keyEnter  = 28
	keyO      = 24
	keyF10    = 68
	keyHome   = 102
	keyUp     = 103
	keyRight  = 106
	keyEnd    = 107
	keyDown   = 108
)

// strike presses keys of the desktop's own keyboard by their codes, one after another.
func (p *program) strike(codes ...uint32) {
	p.t.Helper()
	for _, k := range codes {
		p.KeyCode(p.t, k, true)
		p.KeyCode(p.t, k, false)
	}
}

// ownWindow opens one of the desktop's own, which fills the screen behind the
// program's.
func (p *program) ownWindow() {
	p.t.Helper()
	p.Client(p.t, "foot", "-o", "csd.preferred=none", "sh", "-c", "read line")
	p.WaitSettled(p.t, desktoptest.ByAppID("foot"))
	p.Focus(p.t, p.win)
}

// closes opens a menu again and again, and closes it in each way that there is. The
// menu changes at least n pixels of area; beside is a place of the program's window
// that is outside of it. Grabs is unset for programs that do without a grab.
func (p *program) closes(area image.Rectangle, n int, beside image.Point, grabs bool, open func()) {
	p.t.Helper()
	p.ownWindow()
	windows := len(p.Windows(p.t, nil))
	const onFrame = "a press on the frame"
	ways := []struct {
		what string
		do   func()
	}{
		{"Escape", func() { p.strike(keyEscape) }},
		{"a click beside it", func() { p.Click(p.t, beside.X, beside.Y) }},
		{onFrame, func() { p.Click(p.t, 300, -10) }},
		{"a click on another window", func() { p.Click(p.t, 1276, 796) }},
		{"another window with the focus", func() { p.Focus(p.t, p.WaitWindow(p.t, desktoptest.ByAppID("foot"))) }},
		{"a lock screen", p.lockedAway},
	}
	for _, w := range ways {
		if w.what == onFrame && !grabs {
			continue // nobody tells it of the press, as of one on a title bar of the compositor's
		}
		before := p.opens("a menu, to be closed by "+w.what, area, n, open)
		w.do()
		p.restored("no menu after "+w.what, before, area, 500)
		p.Focus(p.t, p.win)
	}
	if is := len(p.Windows(p.t, nil)); is != windows {
		p.t.Errorf("%d windows after the menu was closed in all ways, %d before: an item was chosen", is, windows)
	}
}

// opens is changes, and waits until what is opened is at rest: a toolkit may not hear
// what comes while it is still about to show a menu.
func (p *program) opens(what string, area image.Rectangle, n int, open func()) *image.RGBA {
	p.t.Helper()
	before := p.changes(what, area, n, open)
	p.opened = p.quiet()
	return before
}

// lockedAway locks the screen, types what would choose an item, and unlocks it.
func (p *program) lockedAway() {
	p.t.Helper()
	l := p.Lock(p.t)
	typed := []uint32{keyDown, keyEnter, keyDown, keyEnter}
	p.strike(typed...)
	if got := l.Pressed(p.t); !slices.Equal(got, typed) {
		p.t.Errorf("the lock screen heard %v, not all of %v", got, typed)
	}
	l.Unlock(p.t)
}

// drag presses at the first place and moves on to the others, a frame at each; then
// it looks, and releases.
func (p *program) drag(look func(), places ...image.Point) {
	p.t.Helper()
	p.MoveTo(p.t, places[0].X, places[0].Y)
	p.Screenshot(p.t)
	p.Button(p.t, desktoptest.Left, true)
	for _, at := range places[1:] {
		p.MoveTo(p.t, at.X, at.Y)
		p.Screenshot(p.t) // programs take several motions in one frame for one
		p.Screenshot(p.t)
	}
	look()
	p.Button(p.t, desktoptest.Left, false)
}

// TestMenus drives programs of GTK 3 and Weston behind the filter, without a VM.
func TestMenus(t *testing.T) {
	s := localSession(t, "menus", time.Minute)
	s.run(t, "menus-gtk3", []string{"gtk3-demo-application"}, driveGTK3Menus)
	s.run(t, "menus-dnd", []string{"weston-dnd"}, driveWestonDnd)
	s.run(t, "menus-subsurfaces", []string{"weston-subsurfaces"}, driveSubsurfaces)
	s.Desktop.SetSize(t, 1366, 768)
	s.put(t, s.home+"/long.ui", []byte(longList()))
	s.run(t, "menus-long", []string{"gtk-builder-tool", "preview", s.home + "/long.ui"}, driveLongList)
}

// TestToolkitMenus does so with GTK 4 and Qt 6.
func TestToolkitMenus(t *testing.T) {
	heavy(t, "featherpad", "gtk4-widget-factory")
	s := localSession(t, "menus", time.Minute)
	s.run(t, "menus-gtk4", []string{"gtk4-widget-factory"}, driveGTK4Menus)
	s.run(t, "menus-gtk4-dnd", []string{"gtk4-demo", "--run=dnd"}, driveGTK4Dnd)
	s.run(t, "menus-qt6", []string{"featherpad"}, driveQtMenus)
}

func driveGTK3Menus(p *program) {
	p.title("Application Class")
	p.float(892, 576)
	menu, sub := image.Rect(96, 27, 470, 156), image.Rect(480, 80, 625, 156)
	open := func() { p.Click(p.t, 148, 13) }
	p.closes(menu, 5000, image.Pt(500, 300), true, open)

	before := p.opens("a menu", menu, 5000, open)
	p.MoveTo(p.t, 160, 80)
	p.MoveTo(p.t, 166, 88)
	p.WaitScreen(p.t, "its sub-menu", func(img *image.RGBA) bool { return differing(before, img, sub) > 1000 })
	p.picture("-submenu")
	p.strike(keyEscape, keyEscape, keyEscape)
	p.restored("no menu", before, menu, 500)

	p.opens("the first menu by its key", image.Rect(0, 27, 190, 156), 3000, func() { p.strike(keyF10) })
	p.opens("the second", menu, 3000, func() { p.strike(keyRight) })
	p.strike(keyDown, keyEnter)
	chosen := func(n *desktoptest.Node) bool { return n.AppID != "foot" }
	p.WaitWindows(p.t, 2, chosen) // it says what was chosen
	p.quiet()
	p.picture("-chosen")
	p.strike(keyEscape)
	p.WaitNoWindow(p.t, func(n *desktoptest.Node) bool { return chosen(n) && n.ID != p.win.ID })
}

func driveWestonDnd(p *program) {
	p.title("Drag and Drop")
	p.float(492, 476)
	p.quiet()
	from, to := image.Pt(135, 74), image.Pt(380, 420)
	around := func(at image.Point) image.Rectangle { return image.Rectangle{at, at}.Inset(-32) }
	before := p.Screenshot(p.t)
	p.drag(func() {
		p.WaitScreen(p.t, "the image that is dragged", func(img *image.RGBA) bool { return differing(before, img, around(to)) > 600 })
		p.picture("-icon")
	}, from, image.Pt(140, 90), image.Pt(200, 200), image.Pt(379, 419), to)
	p.WaitScreen(p.t, "what was dropped, and nothing where it was", func(img *image.RGBA) bool {
		return differing(before, img, around(to)) > 600 && differing(before, img, around(from)) > 600
	})
	p.picture("")

	// By the program's own title bar, and by the frame.
	is := func() desktoptest.Rect {
		return p.WaitWindow(p.t, func(n *desktoptest.Node) bool { return n.ID == p.win.ID }).Rect
	}
	p.drag(func() {}, image.Pt(200, 10), image.Pt(210, 20), image.Pt(400, 100), image.Pt(402, 102))
	r := p.WaitWindow(p.t, func(n *desktoptest.Node) bool { return n.ID == p.win.ID && n.Rect.X > 150 && n.Rect.Y > 50 }).Rect
	low := image.Pt(r.X+r.Width-2-e2e.FrameSide, r.Y+r.Height-2-e2e.FrameTop)
	p.drag(func() {}, low, low.Add(image.Pt(5, 5)), low.Add(image.Pt(80, 60)), low.Add(image.Pt(81, 61)))
	p.WaitWindow(p.t, func(n *desktoptest.Node) bool {
		return n.ID == p.win.ID && n.Rect.Width > r.Width+60 && n.Rect.Height > r.Height+40
	})
	p.quiet()
	p.picture("-resized")
	if now := is(); now.X != r.X || now.Y != r.Y {
		p.t.Errorf("the window went from %d,%d to %d,%d when its lower right corner was dragged", r.X, r.Y, now.X, now.Y)
	}
}

// A window of four surfaces: each shows something, and moves where it moves.
func driveSubsurfaces(p *program) {
	p.title("Sub-surface")
	p.float(492, 476)
	green, red, dark := color.RGBA{0, 0xa0, 0, 255}, color.RGBA{0xa0, 0x20, 0, 255}, color.RGBA{0, 0x30, 0, 255}
	p.colored("the window's own surface", image.Rect(20, 60, 240, 440), green, 0.9)
	p.colored("a sub-surface", image.Rect(280, 60, 480, 240), red, 0.7)
	p.colored("another one", image.Rect(280, 280, 480, 440), dark, 0.7)
	before := p.Screenshot(p.t)
	p.WaitScreen(p.t, "the sub-surface to move", func(img *image.RGBA) bool { return differing(before, img, image.Rect(280, 60, 480, 240)) > 100 })
	p.picture("")
}

// longList is a window with a list of 200 names of fonts, and two lines to type in.
func longList() string {
	var items strings.Builder
	for k := range 200 {
		fmt.Fprintf(&items, "<item>Font number %d of a long list</item>", k)
	}
	object := func(class, more string) string {
		return fmt.Sprintf(`<child><object class=%q><property name="visible">1</property>%s</object></child>`, class, more)
	}
	return `<?xml version="1.0"?><interface><object class="GtkWindow" id="w"><property name="title">a long list</property>` +
		`<property name="visible">1</property>` +
		object("GtkBox", `<property name="orientation">vertical</property>`+
			object("GtkComboBoxText", `<property name="active">100</property><items>`+items.String()+`</items>`)+
			object("GtkEntry", "")+object("GtkEntry", "")) + `</object></interface>`
}

// The longest menus are as high as a small screen, and are neither dismissed nor cut.
func driveLongList(p *program) {
	p.title("a long list")
	p.float(592, 272)
	name := image.Rect(5, 5, 500, 30)
	before := p.opens("a list as high as the screen", image.Rect(10, 300, 580, 735), 570*435*9/10, func() { p.Click(p.t, 300, 15) })
	p.picture("")
	p.changes("more of the list", image.Rect(10, 300, 580, 735), 3000, func() { p.Scroll(p.t, 300, 500, 5) })
	p.strike(keyDown, keyDown, keyEnter)
	p.restored("no list", before, image.Rect(10, 300, 580, 735), 500)
	p.WaitScreen(p.t, "the name that was chosen", func(img *image.RGBA) bool { return differing(before, img, name) > 30 })

	// What is selected by keys is pasted by the middle button.
	p.Click(p.t, 100, 50)
	p.changes("what was typed", image.Rect(5, 38, 300, 64), 30, func() { p.press("in a vm") })
	p.Modifiers(p.t, "shift")
	p.strike(keyHome)
	p.Modifiers(p.t)
	p.changes("what was pasted", image.Rect(5, 74, 300, 98), 30, func() {
		p.MoveTo(p.t, 100, 85)
		p.Button(p.t, desktoptest.Middle, true)
		p.Button(p.t, desktoptest.Middle, false)
	})
	p.picture("-pasted")
	p.Stop() // it goes on without a window
	p.WaitNoWindow(p.t, nil)
}

func driveGTK4Menus(p *program) {
	p.title("GTK Widget Factory")
	p.float(1280, 800)
	p.calm = image.Rect(0, 225, 580, 410) // around it something moves all the time
	list := image.Rect(432, 272, 572, 402)
	open := func() { p.Click(p.t, 504, 250) }
	p.closes(list, 5000, image.Pt(700, 680), true, open)
	before := p.opens("a drop-down's list", list, 5000, open)
	p.picture("-list")
	p.strike(keyDown, keyDown, keyEnter)
	p.restored("no list", before, list, 500)
	p.WaitScreen(p.t, "what was chosen", func(img *image.RGBA) bool { return differing(before, img, image.Rect(440, 238, 540, 262)) > 60 })

	menu := image.Rect(200, 252, 460, 460)
	before = p.opens("an entry's own menu", menu, 5000, func() { p.rightClick(196, 250) })
	p.picture("-context")
	p.strike(keyEscape)
	p.restored("no menu", before, menu, 500)
	tip := image.Rect(350, 304, 460, 330)
	p.changes("a tooltip", tip, 1000, func() { p.MoveTo(p.t, 404, 292); p.MoveTo(p.t, 404, 294) })
	p.picture("-tooltip")
}

func driveGTK4Dnd(p *program) {
	p.title("Drag-and-Drop")
	p.float(992, 676)
	p.quiet()
	from, to := image.Pt(76, 65), image.Pt(296, 400)
	near := image.Rectangle{to, to}.Inset(-45)
	p.drag(func() {
		p.WaitScreen(p.t, "the image that is dragged", func(img *image.RGBA) bool {
			return desktoptest.Count(img, near, desktoptest.Near(color.RGBA{255, 255, 0, 255}, 8)) > 500
		})
		p.picture("-icon")
	}, from, image.Pt(86, 70), image.Pt(120, 80), image.Pt(200, 150), image.Pt(294, 398), to)
	p.WaitScreen(p.t, "what was dropped", func(img *image.RGBA) bool {
		yellow := desktoptest.Near(color.RGBA{255, 255, 0, 255}, 8)
		return desktoptest.Count(img, near, yellow) > 500 && desktoptest.Count(img, image.Rectangle{from, from}.Inset(-20), yellow) == 0
	})
	p.picture("")
}

func driveQtMenus(p *program) {
	p.title("Untitled")
	p.float(892, 576)
	menu := image.Rect(6, 30, 312, 440)
	p.closes(menu, 10_000, image.Pt(700, 300), true, func() { p.Click(p.t, 20, 13) })

	before := p.quiet()
	p.Modifiers(p.t, "alt")
	p.strike(keyO)
	p.Modifiers(p.t)
	p.WaitScreen(p.t, "a menu by its key", func(img *image.RGBA) bool { return differing(before, img, image.Rect(90, 30, 370, 170)) > 5000 })
	p.opens("its sub-menu", image.Rect(380, 110, 490, 195), 3000, func() { p.strike(keyUp, keyUp, keyUp, keyRight) })
	p.picture("-submenu")
	p.strike(keyDown, keyEnter)
	p.WaitScreen(p.t, "the encoding that was chosen, and no menu", func(img *image.RGBA) bool {
		n := differing(before, img, image.Rect(60, 548, 400, 574))
		return n > 5 && differing(before, img, image.Rect(90, 100, 370, 170)) < 500
	})
	context := image.Rect(300, 285, 570, 500)
	before = p.opens("a menu of the text", context, 2000, func() { p.rightClick(296, 280) })
	p.picture("-context")
	p.strike(keyEscape)
	p.restored("no menu", before, context, 500)
	p.changes("a tooltip", image.Rect(26, 48, 100, 72), 300, func() { p.MoveTo(p.t, 24, 33); p.MoveTo(p.t, 26, 37) })
	p.picture("-tooltip")
}

//go:embed testdata/menus.html
var menusPage []byte

// bookmarks is a file of 150, which Firefox takes in when it starts.
func bookmarks() string {
	b := "<!DOCTYPE NETSCAPE-Bookmark-file-1>\n<TITLE>Bookmarks</TITLE><H1>Bookmarks Menu</H1><DL><p>\n"
	for k := range 150 {
		b += fmt.Sprintf("<DT><A HREF=\"file:///nowhere/%d\">Bookmark number %d of a rather long list</A>\n", k, k)
	}
	return b + "</DL><p>\n"
}

// browserMenus drives the menus that all browsers have.
func browserMenus(p *program) {
	p.title("a page")
	p.float(1200, 780)
	y := p.pageAt()
	context := image.Rect(604, 304, 1000, 700)
	open := func() { p.rightClick(600, 300) }
	p.closes(context, 10_000, image.Pt(300, 600), false, open)
	before := p.opens("the page's menu", context, 10_000, open)
	p.WaitScreen(p.t, "all of the menu", func(img *image.RGBA) bool {
		return desktoptest.Share(img, image.Rect(780, 320, 800, 500), pageTop, 6) < 0.1
	})
	p.picture("-context")
	p.strike(keyEscape)
	p.restored("no menu", before, context, 500)

	p.Click(p.t, 150, y+60)
	p.WaitScreen(p.t, "the list of a <select>", func(img *image.RGBA) bool {
		return desktoptest.Share(img, image.Rect(45, y+160, 300, 700), pageTop, 6) < 0.1
	})
	p.quiet()
	p.picture("-select")
	p.strike(keyDown, keyDown, keyEnter)
	p.title("chose option 2")
}

// leaves waits until the program's window has not that title any more.
func (p *program) leaves(title string) {
	p.t.Helper()
	p.WaitWindow(p.t, func(n *desktoptest.Node) bool { return n.ID == p.win.ID && !strings.Contains(n.Name, title) })
}

// pageAt returns where the page begins, below the browser's own.
func (p *program) pageAt() int {
	p.t.Helper()
	img := p.WaitScreen(p.t, "the page", func(img *image.RGBA) bool {
		return desktoptest.Share(img, image.Rect(0, 0, 1200, 780), pageTop, 6) > 0.5
	})
	y := 0
	for desktoptest.Share(img, image.Rect(0, y, 1000, y+1), pageTop, 6) < 0.9 {
		y++
	}
	return y
}

func firefoxMenus(p *program) {
	browserMenus(p)
	p.bookmarks()
}

func chromiumMenus(p *program) {
	browserMenus(p)
	p.opens("the browser's menu", image.Rect(850, 100, 1150, 750), 50_000, func() { p.Click(p.t, 1176, 64) })
	p.picture("-menu")
	p.strike(keyDown, keyEnter) // New tab
	p.leaves("chose option 2")
}

// bookmarks opens a menu that is longer than a small screen, and chooses its last item.
func (p *program) bookmarks() {
	p.t.Helper()
	p.Desktop.SetSize(p.t, 1366, 768)
	for _, own := range p.Windows(p.t, desktoptest.ByAppID("foot")) {
		p.CloseWindow(p.t, own)
	}
	p.WaitNoWindow(p.t, desktoptest.ByAppID("foot"))
	p.Desktop.Command(p.t, fmt.Sprintf("[con_id=%d] floating disable", p.win.ID))
	p.Focus(p.t, p.win)
	menu := image.Rect(205, 300, 540, 720)
	before := p.opens("the menu bar's first menu", image.Rect(0, 30, 300, 390), 5000, func() { p.strike(keyF10) })
	for range 4 { // to Bookmarks, a menu at a time
		p.strike(keyRight)
		p.quiet()
	}
	p.WaitScreen(p.t, "the bookmarks", func(img *image.RGBA) bool { return differing(before, img, image.Rect(215, 300, 250, 720)) > 10_000 })
	p.changes("more of them", menu, 3000, func() { p.Scroll(p.t, 400, 400, 10) })
	p.changes("the last of them", menu, 3000, func() { p.strike(keyEnd) })
	p.picture("-bookmarks")
	p.strike(keyEnter)
	p.leaves("chose option 2")
}
