package e2e

import (
	"fmt"
	"image"
	"image/color"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// A sizedProgram draws the same whenever it has the same size.
type sizedProgram struct {
	name  string
	argv  []string
	sizes []image.Point // one after the other
}

// rows is a shell script that fills a terminal with numbered rows, each in a
// colour of its own, and does so again at each new size: a row or column that is
// stale, missing or stretched shows.
const rows = `trap changed=1 WINCH
while :; do
	changed=
	set -- $(stty size)
	echo "$1 $2" >/tmp/size
	picture='\033[H\033[2J\033[?25l'
	i=1
	while [ $i -le $1 ]; do
		picture="$picture\033[$i;1H\033[$((i % 2 * 3 + 30));4$((i % 6 + 1))m$(printf "%-$(($2 - 9))s" "row $i of $1x$2")<< $i\033[K"
		i=$((i + 1))
	done
	printf "$picture"
	while [ -z "$changed" ]; do sleep 0.1; done
done`

// A resize by the compositor reaches the program, and at every size the screen is
// what it is without Vix, pixel for pixel: larger, smaller, odd, flat, narrow, and
// after a storm of sizes of which the program answers some.
func TestResize(t *testing.T) {
	r := newRig(t, Config{
		TOML: "[vm.size]\nmemory = \"1G\"\nframe = \"none\"\n",
		// Sway asks for the cursor when it gives a window its size, and not again
		// when a slow program has drawn there: with the cursor pictures differ.
		Desktop: desktoptest.Config{Sway: "seat * hide_cursor 100"},
	})
	keep := r.startIn("size", []string{"sleep", "1000"})
	for _, c := range []sizedProgram{
		{"foot", foot("1f7a3d", "-o", "pad=0x0", "sh", "-c", rows),
			[]image.Point{{640, 480}, {301, 203}, {1000, 700}, {800, 120}, {641, 481}}},
		{"gtk4-demo", []string{"env", "GSK_RENDERER=cairo", "gtk4-demo"}, []image.Point{{900, 600}, {1101, 701}}},
		{"gtk3-demo", []string{"gtk3-demo"}, []image.Point{{900, 600}, {777, 555}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.For(t)
			resized(t, r, c)
		})
	}
	r.Must("stop", "size")
	waitEnd(t, keep, 5*time.Second)
	r.CheckClean()
}

// resized shows a program at its sizes without Vix, then in the VM, and compares.
func resized(t *testing.T, r *Rig, c sizedProgram) {
	want := map[string]*image.RGBA{}
	p := r.Client(t, c.argv...)
	atSizes(t, r, c, func(what string, _ func()) { want[what] = settled(t, r, what) })
	waitEnd(t, p, 20*time.Second)

	q := r.startIn("size", c.argv)
	atSizes(t, r, c, func(what string, again func()) { same(t, r, c.name+" "+what, want[what], again) })
	waitEnd(t, q, 20*time.Second)
}

// atSizes gives the only window each of the sizes and calls look; then it makes
// the window tiled on an output of another size, and closes it. What look is given
// sets the size once more: sway takes a late answer to a former size for a wish.
func atSizes(t *testing.T, r *Rig, c sizedProgram, look func(what string, again func())) {
	t.Helper()
	w := r.WaitSettled(t, nil)
	for _, s := range c.sizes {
		set := func() { r.Float(t, w, 40, 10, s.X, s.Y) }
		set()
		look(fmt.Sprintf("at %dx%d", s.X, s.Y), set)
	}
	for i := range 40 {
		r.Desktop.Command(t, fmt.Sprintf("[con_id=%d] resize set width %d px height %d px", w.ID, 1150-i, 740-i))
	}
	last := func() { r.Float(t, w, 40, 10, c.sizes[0].X, c.sizes[0].Y) }
	last()
	look("after forty sizes", last)
	r.Desktop.Command(t, fmt.Sprintf("[con_id=%d] floating disable", w.ID))
	for _, s := range []image.Point{{1600, 900}, {1280, 800}} {
		r.SetSize(t, s.X, s.Y)
		look(fmt.Sprintf("on an output of %dx%d", s.X, s.Y), func() {})
	}
	r.CloseWindow(t, w)
	r.WaitNoWindow(t, nil)
}

// settled waits until the screen stays as it is for a while, which has no event.
func settled(t *testing.T, r *Rig, what string) *image.RGBA {
	t.Helper()
	var last *image.RGBA
	var since time.Time
	return r.WaitScreen(t, "a picture at rest "+what, func(img *image.RGBA) bool {
		if last == nil || len(difference(last, img)) > 0 {
			last, since = img, time.Now()
		}
		return time.Since(since) > time.Second
	})
}

// same waits until the screen is like want, keeps it in build/e2e, and fails with
// a picture of what differs.
func same(t *testing.T, r *Rig, what string, want *image.RGBA, again func()) {
	t.Helper()
	name := "TestResize-" + fileName(what)
	var img *image.RGBA
	var differ []image.Point
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond) // a picture has no event
	defer tick.Stop()
	for looks := 1; ; looks++ {
		img = r.Screenshot(t)
		if differ = difference(want, img); len(differ) == 0 || time.Now().After(deadline) {
			break
		}
		if looks%30 == 0 {
			again()
		}
		<-tick.C
	}
	r.save(t, name+".png", img)
	if len(differ) == 0 {
		return
	}
	box := image.Rectangle{}
	marked := image.NewRGBA(img.Rect)
	for _, p := range differ {
		box = box.Union(image.Rectangle{p, p.Add(image.Pt(1, 1))})
		marked.SetRGBA(p.X, p.Y, color.RGBA{255, 255, 255, 255})
	}
	r.save(t, name+"-without.png", want)
	r.save(t, name+"-difference.png", marked)
	t.Errorf("%s: %d pixels in %v differ from those without Vix; see build/e2e/%s*.png", what, len(differ), box, name)
}

// difference returns the pixels in which two pictures differ; all of them if
// their sizes do.
func difference(a, b *image.RGBA) []image.Point {
	var differ []image.Point
	for y := range max(a.Rect.Dy(), b.Rect.Dy()) {
		for x := range max(a.Rect.Dx(), b.Rect.Dx()) {
			if a.RGBAAt(x, y) != b.RGBAAt(x, y) {
				differ = append(differ, image.Pt(x, y))
			}
		}
	}
	return differ
}
