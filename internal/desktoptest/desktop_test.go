package desktoptest

import (
	"bufio"
	"fmt"
	"image"
	"image/color"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv("VIX_TEST_DESKTOP_CHILD") != "" {
		desktopChild()
	}
	os.Exit(m.Run())
}

func needDesktop(t *testing.T) {
	t.Helper()
	if l := Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
}

// waitOutput waits until p has written text.
func waitOutput(t *testing.T, p *Proc, text string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for again := time.NewTicker(20 * time.Millisecond); ; {
		if strings.Contains(p.Output(), text) {
			return
		}
		select {
		case <-again.C:
		case <-p.Done():
			t.Fatalf("ended without writing %q: %s", text, p.Output())
		case <-deadline:
			t.Fatalf("%q not written: %s", text, p.Output())
		}
	}
}

func TestInputReachesAClient(t *testing.T) {
	needDesktop(t)
	d := Start(t, Config{Width: 800, Height: 600})
	wev := d.Client(t, "stdbuf", "-oL", "wev")
	w := d.WaitSettled(t, ByAppID("wev"))
	if w.Content().Width != 800 || w.Content().Height != 600 {
		t.Errorf("the only window has %v, want the whole output", w)
	}
	d.Click(t, 400, 300)
	waitOutput(t, wev, "button: 272 (left), state: 1 (pressed)")
	waitOutput(t, wev, "button: 272 (left), state: 0 (released)")
	waitOutput(t, wev, "x, y: 400.000000, 300.000000")
	d.Scroll(t, 10, 20, -2)
	waitOutput(t, wev, "discrete: -1")
	d.Type(t, "hi")
	waitOutput(t, wev, "utf8: 'h'")
	waitOutput(t, wev, "utf8: 'i'")
	d.Key(t, "ctrl+c", "Return")
	d.KeyCode(t, 57, true)
	d.KeyCode(t, 57, false)
	waitOutput(t, wev, "sym: space")
	d.Modifiers(t, "ctrl")
	waitOutput(t, wev, "depressed: 00000004: Control")
	d.Modifiers(t)
	waitOutput(t, wev, "sym: Return")
	d.CloseWindow(t, w)
	d.WaitNoWindow(t, nil)
	if code := wev.Wait(); code != 0 {
		t.Errorf("wev ended with %d", code)
	}
	// A program that starts after wtype has gone finds a keyboard with a keymap.
	second := d.Client(t, "stdbuf", "-oL", "wev")
	d.WaitSettled(t, ByAppID("wev"))
	waitOutput(t, second, "wl_keyboard] keymap: format: 1")
	d.Type(t, "x")
	waitOutput(t, second, "utf8: 'x'")
}

// TestLock locks a desktop: the lock screen is seen and hears all keys, and the window
// none; after it the window hears them again.
func TestLock(t *testing.T) {
	needDesktop(t)
	d := Start(t, Config{Width: 400, Height: 300})
	wev := d.Client(t, "stdbuf", "-oL", "wev")
	d.WaitSettled(t, ByAppID("wev"))
	l := d.Lock(t)
	d.WaitScreen(t, "the lock screen", func(img *image.RGBA) bool {
		return Share(img, img.Rect, color.RGBA{LockColor[0], LockColor[1], LockColor[2], 255}, 2) > 0.95
	})
	d.Type(t, "secret")
	if got := len(l.Pressed(t)); got != len("secret") {
		t.Errorf("the lock screen heard %d keys, want %d", got, len("secret"))
	}
	if strings.Contains(wev.Output(), "utf8: 's'") {
		t.Error("a window heard what was typed at the lock screen")
	}
	l.Unlock(t)
	d.Type(t, "x")
	waitOutput(t, wev, "utf8: 'x'")
}

func TestScreenAndSize(t *testing.T) {
	needDesktop(t)
	d := Start(t, Config{Width: 640, Height: 480})
	red := color.RGBA{0xc0, 0x10, 0x20, 0xff}
	d.Client(t, "foot", "-o", "colors.background=c01020", "-o", "csd.preferred=none", "sleep", "1000")
	d.WaitWindow(t, ByAppID("foot"))
	for _, size := range []image.Point{{640, 480}, {1024, 700}, {320, 200}} {
		d.SetSize(t, size.X, size.Y)
		img := d.WaitScreen(t, "red", func(img *image.RGBA) bool { return Share(img, img.Rect, red, 2) > 0.95 })
		if img.Rect.Size() != size {
			t.Errorf("a screenshot of %v, want %v", img.Rect.Size(), size)
		}
	}
}

// TestKilled kills a process that has a desktop, and sees sway die.
func TestKilled(t *testing.T) {
	needDesktop(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "VIX_TEST_DESKTOP_CHILD=1")
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	_, err = fmt.Fscan(bufio.NewReader(out), &pid, &dir)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := child.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 5000); n != 1 {
		t.Fatalf("sway (%d) outlived the process that started it: %v", pid, err)
	}
}

// childT is the T of a process that waits to be killed.
type childT struct{}

func (childT) Helper()                   {}
func (childT) Logf(string, ...any)       {}
func (childT) Cleanup(func())            {}
func (childT) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func desktopChild() {
	d := Start(childT{}, Config{})
	fmt.Println(d.Sway.PID, d.Dir)
	select {}
}

func TestPPM(t *testing.T) {
	img, err := DecodePPM([]byte("P6\n2 1\n255\n\x01\x02\x03\x04\x05\x06"))
	if err != nil {
		t.Fatal(err)
	}
	if got := img.RGBAAt(1, 0); got != (color.RGBA{4, 5, 6, 255}) {
		t.Errorf("second pixel %v", got)
	}
	for _, bad := range []string{"", "P5\n1 1\n255\n000", "P6\n1 1\n255\n00", "P6\n1 1\n65535\n000000", "P6\n-1 1\n255\n000"} {
		if _, err := DecodePPM([]byte(bad)); err == nil {
			t.Errorf("%q decoded", bad)
		}
	}
}

func TestCutModifier(t *testing.T) {
	for in, want := range map[string]string{"ctrl+c": "ctrl c", "Return": " Return", "shift+": " shift+", "plus": " plus"} {
		mod, rest, _ := cutModifier(in)
		if mod+" "+rest != want {
			t.Errorf("cutModifier(%q) = %q, %q", in, mod, rest)
		}
	}
}
