package programs

import (
	"bytes"
	_ "embed"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// The page shows its state by its title: what was typed, chosen, scrolled.
//
//go:embed testdata/page.html
var page []byte

// Firefox's own settings: nothing asked, nothing fetched, no second process that
// is not needed. Without them it is the same program, only slower.
const firefoxPrefs = `
user_pref("app.update.enabled", false);
user_pref("browser.bookmarks.restore_default_bookmarks", false);
user_pref("browser.places.importBookmarksHTML", true);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.homepage_override.mstone", "ignore");
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("datareporting.policy.dataSubmissionPolicyBypassNotification", true);
user_pref("dom.ipc.processCount", 1);
user_pref("dom.ipc.processPrelaunch.enabled", false);
user_pref("extensions.enabledScopes", 0);
user_pref("full-screen-api.transition-duration.enter", "0 0");
user_pref("full-screen-api.transition-duration.leave", "0 0");
user_pref("full-screen-api.warning.timeout", 0);
user_pref("fission.autostart", false);
user_pref("media.autoplay.default", 0);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("privacy.reduceTimerPrecision", false);
user_pref("services.settings.server", "");
user_pref("toolkit.telemetry.enabled", false);
user_pref("toolkit.cosmeticAnimations.enabled", false);
user_pref("ui.prefersReducedMotion", 1);
`

// heavy says whether a test is to run: make e2e-full, whose system root has the
// programs. The others do without.
func heavy(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getenv("VIX_E2E_FULL") == "" {
		t.Skip("make e2e-full runs it: it needs the larger system root and minutes")
	}
	for _, name := range append(programs, "ffmpeg") {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("lacks: " + name)
		}
	}
}

var (
	green   = color.RGBA{0x20, 0xa0, 0x40, 255} // the video's ground
	crimson = color.RGBA{0xd0, 0x20, 0x60, 255} // the bar in it
	pageLow = color.RGBA{0xc0, 0x80, 0x20, 255} // what is seen only when the page is scrolled
	pageTop = color.RGBA{0x20, 0x40, 0x60, 255}
)

// video returns three seconds of a bar that moves over a green ground.
func video(t *testing.T) []byte {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=c=0x20a040:s=320x180:r=10",
		"-f", "lavfi", "-i", "color=c=0xd02060:s=60x180:r=10", "-filter_complex", "[0][1]overlay=x=t*80:y=0",
		"-t", "3", "-c:v", "libvpx", "-b:v", "300k", "-pix_fmt", "yuv420p", "-f", "webm", "-")
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("making a video: %v: %s", err, stderr.String())
	}
	return out.Bytes()
}

// testPicture has a colour in each quarter.
func testPicture(t *testing.T) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 400, 300))
	for y := range 300 {
		for x := range 400 {
			c := [][]color.RGBA{{green, crimson}, {pageLow, pageTop}}[y/150][x/200]
			img.SetRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A document of one page, as small as PDF can be; readers rebuild its index.
const document = `%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R/Resources<<>>>>endobj
4 0 obj<</Length 46>>stream
0.8 0.125 0.376 rg 20 20 260 160 re f
endstream endobj
trailer<</Root 1 0 R>>
%%EOF
`

// Toolkits, players and compositors, in one VM.
func TestHeavy(t *testing.T) {
	heavy(t, "mousepad", "featherpad", "mpv", "imv-wayland", "evince", "cage")
	s := newSession(t, "full", "1500M", 6*time.Minute)
	s.put(t, "/home/user/text.txt", []byte("a line\nanother\n"))
	s.put(t, "/home/user/video.webm", video(t))
	s.put(t, "/home/user/picture.png", testPicture(t))
	s.put(t, "/home/user/document.pdf", []byte(document))
	s.run(t, "mousepad", []string{"mousepad", "text.txt"}, driveMousepad)
	s.run(t, "featherpad", []string{"featherpad", "text.txt"}, driveFeatherpad)
	s.run(t, "mpv", []string{"mpv", "--vo=wlshm", "--no-audio", "--loop=inf", "video.webm"}, driveMpv)
	s.run(t, "imv", []string{"imv-wayland", "picture.png"}, driveImv)
	s.run(t, "evince", []string{"evince", "document.pdf"}, driveEvince)
	s.run(t, "weston", []string{"weston", "--backend=wayland", "--renderer=pixman"}, driveWeston)
	// Last: a compositor that takes the next free display name must not take ours.
	s.run(t, "cage", []string{"env", "WLR_RENDERER=pixman", "cage", "--", "foot", "-o", "csd.preferred=none", "sh", "-c",
		`read line; echo "$line" >/tmp/caged; printf '\033[44m\033[2J%s' "$line"; read line`}, driveCage)
	s.end(t)
}

// editor is what a text editor must do: a menu opens and closes, what is typed
// is shown and saved.
func editor(p *program, firstLine int, save func()) {
	p.float(800, 600)
	p.Click(p.t, 400, 400)
	before := p.changes("a menu", image.Rect(0, 30, 400, 500), 5000, func() { p.Click(p.t, 20, 10) })
	p.picture("-menu")
	p.press("\x1b\x1b")
	p.restored("no menu", before, image.Rect(0, 150, 400, 500), 500)
	p.Click(p.t, 2, firstLine)
	p.changes("what was typed", image.Rect(0, 30, 800, 300), 300, func() { p.press("typed in a vm ") })
	save()
	p.WaitScreen(p.t, "the file to be saved", func(*image.RGBA) bool {
		return p.Guest(p.vm, "head -n 1 text.txt") == "typed in a vm a line"
	})
	p.float(1000, 700)
	p.quiet()
	p.picture("")
	p.Guest(p.vm, "printf 'a line\\nanother\\n' >text.txt")
}

func driveMousepad(p *program) {
	p.title("Mousepad")
	editor(p, 38, func() {
		p.changes("the menu", image.Rect(0, 30, 400, 500), 5000, func() { p.Click(p.t, 20, 10) })
		save := image.Rect(20, 160, 300, 182)
		p.changes("Save under the pointer", save, 1000, func() { p.MoveTo(p.t, 50, 171) })
		p.Click(p.t, 52, 172)
	})
}

func driveFeatherpad(p *program) {
	p.title("text.txt")
	editor(p, 100, func() {
		const s = 31
		p.Modifiers(p.t, "ctrl") // on a keyboard that it knows: see press
		p.KeyCode(p.t, s, true)
		p.KeyCode(p.t, s, false)
		p.Modifiers(p.t)
	})
}

// plays waits for the video to be shown in r, and to go on.
func plays(p *program, r image.Rectangle) {
	p.t.Helper()
	p.colored("the video", r, green, 0.3)
	before := p.Screenshot(p.t)
	p.WaitScreen(p.t, "the video to go on", func(img *image.RGBA) bool { return differing(before, img, r) > r.Dx()*r.Dy()/50 })
}

func driveMpv(p *program) {
	p.title("mpv")
	p.float(640, 360)
	plays(p, image.Rect(0, 0, 640, 360))
	p.Key(p.t, "f")
	p.WaitTree(p.t, "fullscreen", func(root *desktoptest.Node) bool { return root.Windows()[0].FullscreenMode == 1 })
	plays(p, image.Rect(0, 50, 1280, 750))
	p.picture("")
	p.Key(p.t, "f")
	p.WaitTree(p.t, "a window again", func(root *desktoptest.Node) bool { return root.Windows()[0].FullscreenMode == 0 })
}

func driveImv(p *program) {
	p.title("imv")
	p.float(800, 600)
	p.colored("the picture", image.Rect(0, 0, 800, 600), crimson, 0.03)
	p.changes("the picture smaller", image.Rect(0, 0, 800, 600), 5_000, func() { p.Scroll(p.t, 300, 200, 3) })
	p.picture("")
}

func driveEvince(p *program) {
	p.title("document.pdf")
	p.float(900, 650)
	p.colored("the page", image.Rect(100, 60, 900, 650), color.RGBA{204, 32, 96, 255}, 0.1)
	before := p.changes("the menu", image.Rect(300, 50, 900, 600), 5000, func() { p.Click(p.t, 900-75, 22) })
	p.picture("-menu")
	p.press("\x1b")
	p.restored("no menu", before, image.Rect(300, 100, 900, 600), 2000)
	p.changes("the search bar", image.Rect(100, 50, 900, 110), 5000, func() { p.Click(p.t, 900-113, 22) })
	p.quiet()
	p.picture("")
}

// A desktop in a desktop: its panel's button opens a terminal in it.
func driveWeston(p *program) {
	p.title("Weston Compositor")
	p.drawn(image.Rect(10, 70, 990, 690), 50)
	p.changes("a terminal in the inner desktop", image.Rect(10, 70, 990, 690), 100_000, func() { p.Click(p.t, 28, 43) })
	p.Type(p.t, "echo inner >/tmp/inner\n")
	p.WaitScreen(p.t, "what was typed into the inner terminal", func(*image.RGBA) bool {
		return p.Guest(p.vm, "cat /tmp/inner 2>&1 || true") == "inner"
	})
	p.quiet()
	p.picture("")
	p.resizeOutput()
}

// driveCage types on the desktop's own keyboard: a nested wlroots compositor has a
// keymap of its own, with or without Vix, and wtype's keys mean something else in it.
func driveCage(p *program) {
	p.title("foot")
	p.Click(p.t, 400, 250)
	p.changes("what the shell draws", image.Rect(0, 0, 1280, 700), 50_000, func() { p.press("in a vm\n") })
	if got := p.Guest(p.vm, "cat /tmp/caged"); got != "in a vm" {
		p.t.Errorf("the caged shell read %q", got)
	}
	p.picture("")
	p.resizeOutput()
	p.press("\n") // cage ends with its program
}

const keyF5 = 63

// browser drives the page: a popup, typing, scrolling, a video on the whole screen.
func browser(p *program) {
	p.title("a page")
	p.float(1200, 780)
	y := p.pageAt()
	video := image.Rect(500, y+40, 820, y+220)
	looks := 0
	p.WaitScreen(p.t, "the video", func(img *image.RGBA) bool {
		if looks++; looks%300 == 0 { // a slow machine's decoder came too late: once more
			p.KeyCode(p.t, keyF5, true)
			p.KeyCode(p.t, keyF5, false)
		}
		return desktoptest.Share(img, video, green, 12) > 0.3
	})
	plays(p, video)
	p.Click(p.t, 150, y+60)
	p.WaitScreen(p.t, "the list of a <select>", func(img *image.RGBA) bool {
		return desktoptest.Share(img, image.Rect(45, y+140, 335, y+190), pageTop, 6) < 0.5
	})
	p.picture("-select")
	p.Click(p.t, 100, y+150)
	p.title("chose")
	p.Click(p.t, 150, y+120)
	p.press("in a vm")
	p.title("typed in a vm")
	p.Click(p.t, video.Min.X+160, video.Min.Y+90)
	p.title("full")
	p.WaitTree(p.t, "fullscreen", func(root *desktoptest.Node) bool { return root.Windows()[0].FullscreenMode == 1 })
	plays(p, image.Rect(0, 100, 1280, 700))
	p.WaitScreen(p.t, "the video up to the screen's edge", func(img *image.RGBA) bool {
		return desktoptest.Share(img, image.Rect(1260, 200, 1279, 600), color.RGBA{A: 255}, 6) < 0.1
	})
	p.picture("-video")
	p.press("\x1b")
	p.title("window")
	p.MoveTo(p.t, 600, 600)
	p.WaitScreen(p.t, "the page's lower part", func(img *image.RGBA) bool {
		p.Scroll(p.t, 600, 600, 3)
		return desktoptest.Share(img, image.Rect(0, 300, 1180, 700), pageLow, 6) > 0.6
	})
	p.title("scrolled")
	p.picture("")
}

func TestFirefox(t *testing.T) {
	browse(t, "firefox-esr", func(s *session, page string) []string {
		return []string{"firefox-esr", "--no-remote", "--profile", s.home + "/profile", "file://" + s.home + "/" + page}
	}, browser, firefoxMenus)
}

func TestChromium(t *testing.T) {
	browse(t, "chromium", func(s *session, page string) []string {
		argv := []string{"chromium", "--ozone-platform=wayland", "--disable-gpu", "--no-first-run", "--no-default-browser-check",
			"--disable-background-networking", "--disable-extensions", "--disable-sync", "--password-store=basic",
			"--autoplay-policy=no-user-gesture-required", "--user-data-dir=" + s.home + "/chromium"}
		if s.local != "" && os.Getuid() == 0 {
			argv = append(argv, "--no-sandbox") // root must say so; in a VM it is not root
		}
		return append(argv, "file://"+s.home+"/"+page)
	}, chromiumInVM, chromiumMenus)
}

// chromiumInVM drives it where a VM is as fast as a machine. Emulated, its window
// and toolbar come after a minute and a half, but the page had not come after
// thirteen: each of its processes starts by compiling what it runs.
func chromiumInVM(p *program) {
	if strings.Contains(p.keep.Output(), "no KVM") {
		p.t.Log("no KVM: of Chromium in a VM only the window is looked at, because its page takes more than a quarter of an hour")
		p.picture("")
		return
	}
	browser(p)
}

// browse drives a browser behind the proxy alone, which takes seconds, and in a
// VM, which takes minutes without KVM. Its menus are looked at without a VM.
func browse(t *testing.T, name string, argv func(s *session, page string) []string, inVM, menus func(*program)) {
	heavy(t, name)
	t.Run("local", func(t *testing.T) {
		s := localSession(t, "browser", 2*time.Minute)
		s.site(t)
		s.run(t, name+"-local", argv(s, "page.html"), browser)
		s.run(t, name+"-menus", argv(s, "menus.html"), menus)
	})
	t.Run("vm", func(t *testing.T) {
		s := newSession(t, "browser", "2G", 15*time.Minute)
		s.site(t)
		s.run(t, name, argv(s, "page.html"), inVM)
		s.end(t)
	})
}

// site writes the page and what it shows.
func (s *session) site(t *testing.T) {
	t.Helper()
	s.put(t, s.home+"/page.html", page)
	s.put(t, s.home+"/menus.html", menusPage)
	s.put(t, s.home+"/video.webm", video(t))
	s.put(t, s.home+"/profile/user.js", []byte(firefoxPrefs))
	s.put(t, s.home+"/profile/bookmarks.html", []byte(bookmarks()))
}
