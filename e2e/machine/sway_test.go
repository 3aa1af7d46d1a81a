package machine

import (
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

var (
	swaySequences = flag.Int("sway", 80, "how many pairs of random sequences are tried on sway")
	shrinkTime    = flag.Duration("shrink", 15*time.Second, "how long a sequence on sway is made smaller")
)

// A vm is a filter on a socket of its own, with colours that nobody else has.
type vm struct {
	name, color string
	frame       color.RGBA
	socket      string
	pixels      *pixels
	content     [2]color.RGBA
}

// A soft T panics where a test would end, so that the end of the compositor is a finding.
type soft struct{ *testing.T }

type failed string

func (s soft) Fatalf(format string, a ...any) { panic(failed(fmt.Sprintf(format, a...))) }

// A desk is a headless sway with two VMs. A test has its own for as long as sway lives.
type desk struct {
	*desktoptest.Desktop
	full bool
	lost int // how often sway ended
	vms  [2]*vm
	x, y int  // of the pointer
	down bool // the button
	last *image.RGBA
}

const deskWidth, deskHeight = 800, 600

func startDesk(t *testing.T, full bool, sway string) *desk {
	t.Helper()
	if s := desktoptest.Lacks(); s != "" {
		t.Skipf("needs %s; make test runs it where they are", s)
	}
	d := &desk{full: full, Desktop: desktoptest.Start(t, desktoptest.Config{Width: deskWidth, Height: deskHeight, Sway: sway, Timeout: 10 * time.Second})}
	d.x, d.y = deskWidth-1, deskHeight-1 // where desktoptest has put the pointer
	d.vms = [2]*vm{
		{name: "alpha", color: "#2060c0", frame: color.RGBA{0x20, 0x60, 0xc0, 255}, pixels: newPixels(t, lime, yellow), content: [2]color.RGBA{lime, yellow}},
		{name: "beta", color: "#c06020", frame: color.RGBA{0xc0, 0x60, 0x20, 255}, pixels: newPixels(t, magenta, cyan), content: [2]color.RGBA{magenta, cyan}},
	}
	for _, v := range d.vms {
		v.socket = filepath.Join(d.Dir, v.name)
		f := newFilter(v.name, v.color, rules{full: full}, func() (wayland.Transport, error) { return wayland.Dial(d.Socket) })
		waylandtest.Serve(t, v.socket, func(ctx context.Context, client *wayland.UnixConn) { _ = f.Serve(ctx, client) })
	}
	return d
}

// open starts a guest of a VM.
func (d *desk) open(t *testing.T, v *vm, r rules) *guest {
	t.Helper()
	tr, err := wayland.Dial(v.socket)
	if err != nil {
		t.Fatal(err)
	}
	g := newGuest(r, tr, v.pixels)
	g.start()
	return g
}

// act carries out a step of a person's or of the desktop's.
func (d *desk) act(t soft, o op) {
	t.Helper()
	windows := d.Windows(t, desktoptest.ByAppIDPrefix("vix."))
	some := func(k int) string {
		if len(windows) == 0 {
			return ""
		}
		return fmt.Sprintf("[con_id=%d] ", windows[o.n(k)%len(windows)].ID)
	}
	switch o.name {
	case "point":
		d.x, d.y = o.n(0), o.n(1)
		d.MoveTo(t, d.x, d.y)
	case "press", "release":
		if down := o.name == "press"; down != d.down {
			d.down = down
			d.Button(t, desktoptest.Left, down)
		}
	case "told":
		if w := some(0); w != "" {
			if o.n(3)&3 == 2 {
				d.Command(t, w+"fullscreen toggle")
			} else {
				d.Command(t, w+fmt.Sprintf("floating enable, resize set %d px %d px, move absolute position %d %d", max(o.n(1), 80), max(o.n(2), 60), o.n(1)%400, o.n(2)%300))
			}
		}
	case "dismiss":
		if w := some(0); w != "" {
			d.Command(t, w+"kill")
		}
	}
}

// The classes of a picture's pixels.
const (
	other = iota // the background, a label's text
	ofA
	frameA
	ofB
	frameB
)

// classes sorts a picture's pixels.
func (d *desk) classes(img *image.RGBA) []uint8 {
	k := make([]uint8, img.Rect.Dx()*img.Rect.Dy())
	of := map[color.RGBA]uint8{}
	for n, v := range d.vms {
		for _, c := range v.content {
			of[c] = uint8(ofA + 2*n)
		}
		of[v.frame] = uint8(frameA + 2*n)
	}
	for i := range k {
		p := img.Pix[4*i : 4*i+4]
		k[i] = of[color.RGBA{p[0], p[1], p[2], p[3]}]
	}
	return k
}

// judge holds that what VMs show is enclosed by their frames: what lies beside a
// pixel of a VM's is another of it, or some VM's frame, because another window may lie
// above. A window that declares more than it shows has a hole, inside its frame, in which
// anything is seen. Only an image of the pointer's size, at the pointer, is without.
func (d *desk) judge(t soft, img *image.RGBA) (found []finding) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	k := d.classes(img)
	for n, v := range d.vms {
		own := uint8(ofA + 2*n)
		var windows []*desktoptest.Node // asked for when there is something to forgive
		holes := func(p image.Point) bool {
			if windows == nil {
				windows = d.Windows(t, func(n *desktoptest.Node) bool { return d.owner(n) == v })
			}
			return slices.ContainsFunc(windows, func(n *desktoptest.Node) bool {
				c := n.Content()
				if c.Width != n.Geometry.Width || c.Height != n.Geometry.Height {
					// Sway waits for the window to have another size, and meanwhile cuts and
					// centres it as it likes, its frame with it.
					return true
				}
				return p.In(image.Rect(c.X, c.Y, c.X+min(c.Width, n.Geometry.Width), c.Y+min(c.Height, n.Geometry.Height)))
			})
		}
		var leak image.Rectangle
		var first image.Point
		for i, c := range k {
			if c != own {
				continue
			}
			x, y := i%w, i/w
			for _, q := range [8]image.Point{{-1, 0}, {1, 0}, {0, -1}, {0, 1}, {-1, -1}, {1, -1}, {-1, 1}, {1, 1}} {
				p := image.Pt(x, y).Add(q)
				if p.X < 0 || p.Y < 0 || p.X >= w || p.Y >= h {
					continue
				}
				if b := k[p.Y*w+p.X]; b != own && b != frameA && b != frameB && !holes(p) {
					if leak.Empty() {
						first = p
					}
					leak = leak.Union(image.Rect(x, y, x+1, y+1))
				}
			}
		}
		if leak.Empty() {
			continue
		}
		near := image.Rect(d.x-maxImage, d.y-maxImage, d.x+maxImage+1, d.y+maxImage+1)
		if leak.In(near) && leak.Dx() <= maxImage && leak.Dy() <= maxImage && image.Pt(d.x, d.y).In(leak.Inset(-1)) {
			continue
		}
		var places []string
		for _, n := range windows {
			places = append(places, fmt.Sprintf("%+v for %+v", n.Content(), n.Geometry))
		}
		found = append(found, finding{"outside of the frame", fmt.Sprintf("%s shows something in %v beside no frame, first at %v; the pointer is at %d,%d; windows: %v", v.name, leak, first, d.x, d.y, places)})
	}
	return found
}

// frames holds that the frame of a VM's only window is whole.
func (d *desk) frames(t soft, img *image.RGBA, guests []*guest, full bool) (found []finding) {
	k := d.classes(img)
	w := img.Rect.Dx()
	all := d.Windows(t, desktoptest.ByAppIDPrefix("vix."))
	if len(all) != 1 {
		return nil // what covers what is not known
	}
	n := slices.IndexFunc(d.vms[:], func(v *vm) bool {
		return strings.HasPrefix(all[0].AppID, "vix."+v.name+".") || all[0].AppID == "vix."+v.name
	})
	if n < 0 {
		return nil
	}
	for _, g := range guests {
		if slices.ContainsFunc(g.model.roots, func(s *surface) bool { return s.role == "popup" && s.mapped() }) {
			return nil
		}
	}
	c := all[0].Content()
	top := sideWidth
	if full {
		top = topHeight
	}
	at := c.Image()
	if g := all[0].Geometry; g.Width != c.Width || g.Height != c.Height {
		return nil // sway keeps more room for it than it takes
	}
	if in := image.Rect(at.Min.X+sideWidth, at.Min.Y+top, at.Max.X-sideWidth, at.Max.Y-sideWidth); in.Empty() || !at.In(img.Rect) {
		return nil
	}
	pointer := image.Rect(d.x-maxImage, d.y-maxImage, d.x+maxImage+1, d.y+maxImage+1) // it lies over a window that fills the screen
	for y := at.Min.Y; y < at.Max.Y; y++ {
		for x := at.Min.X; x < at.Max.X; x++ {
			if image.Pt(x, y).In(pointer) || x >= at.Min.X+sideWidth && x < at.Max.X-sideWidth && y >= at.Min.Y+top && y < at.Max.Y-sideWidth {
				continue
			}
			v := k[y*w+x]
			if inLabel := full && y < at.Min.Y+topHeight; v == uint8(frameA+2*n) || inLabel && v == other {
				continue
			}
			return []finding{{"frame broken", fmt.Sprintf("%s: %v at %d,%d of the window %v", d.vms[n].name, img.RGBAAt(x, y), x, y, at)}}
		}
	}
	return nil
}

// hidden holds that a VM hides little of the screen beside its own windows.
func (d *desk) hidden(t soft, img *image.RGBA) (found []finding) {
	k := d.classes(img)
	w := img.Rect.Dx()
	count := [2]int{}
	for _, c := range k {
		if c != other {
			count[(c-ofA)/2]++
		}
	}
	for n, v := range d.vms {
		if count[n]*10 <= len(k)*6 {
			continue
		}
		left := count[n]
		mine := d.Windows(t, func(n *desktoptest.Node) bool { return d.owner(n) == v })
		for i, c := range k {
			p := image.Pt(i%w, i/w)
			if (c == uint8(ofA+2*n) || c == uint8(frameA+2*n)) && slices.ContainsFunc(mine, func(n *desktoptest.Node) bool { return p.In(n.Content().Image()) }) {
				left--
			}
		}
		if left*10 > len(k)*6 {
			found = append(found, finding{"screen hidden", fmt.Sprintf("%s hides %d %% beside its windows", v.name, left*100/len(k))})
		}
	}
	return found
}

// owner returns the VM that a window is of.
func (d *desk) owner(n *desktoptest.Node) *vm {
	for _, v := range d.vms {
		if n.AppID == "vix."+v.name || strings.HasPrefix(n.AppID, "vix."+v.name+".") {
			return v
		}
	}
	return nil
}

// revive, deferred, makes a finding of a compositor that has ended, or does not answer,
// and starts it anew.
func (d *desk) revive(t *testing.T, found *[]finding) {
	r := recover()
	if r == nil {
		return
	}
	why, ok := r.(failed)
	if !ok {
		panic(r)
	}
	if strings.Contains(string(why), "No matching node") {
		return // the window has gone meanwhile
	}
	kind := "the compositor ended"
	select {
	case <-d.Sway.Done():
	case <-time.After(time.Second):
		kind = "the compositor does not answer"
		d.Sway.Stop()
	}
	out := d.Sway.Output()
	for line := range strings.Lines(out) {
		if strings.Contains(line, "Assertion") {
			kind += ": " + strings.TrimSpace(line)
		}
	}
	*found = append(*found, finding{kind, string(why)})
	if d.lost++; d.lost == 1 {
		t.Logf("%s: %s; sway's last words: %s", kind, why, out[max(len(out)-800, 0):])
	}
	lost := d.lost
	*d = *startDesk(t, d.full, deskSway)
	d.lost = lost
}

// play carries out two VMs' sequences in turns, and judges pictures. A sway that has
// ended is started anew.
func (d *desk) play(t *testing.T, s [2]sequence) (found []finding) {
	defer d.revive(t, &found)
	return d.try(soft{t}, s)
}

func (d *desk) try(t soft, s [2]sequence) (found []finding) {
	var g [2]*guest
	for n := range g {
		g[n] = d.open(t.T, d.vms[n], s[n].rules)
	}
	for k := range max(len(s[0].ops), len(s[1].ops)) {
		for n := range g {
			if k < len(s[n].ops) {
				d.step(t, g[n], s[n].ops[k])
			}
		}
	}
	for n := range g {
		g[n].sync()
		g[n].sync()
		if g[n].ended != nil && g[n].model.broken == "" && !g[n].rude && !policy(g[n].why) {
			found = append(found, finding{endedWell, fmt.Sprintf("%s: %v", d.vms[n].name, g[n].ended)})
		}
	}
	found = append(found, d.look(t, g, s[0].full)...)
	for n := range g {
		_ = g[n].tr.Close()
	}
	d.WaitNoWindow(t, desktoptest.ByAppIDPrefix("vix."))
	return append(found, d.empty(t)...)
}

// empty waits until nothing of the VMs' is seen any more, which it should not be for
// longer than sway's transactions take.
func (d *desk) empty(t soft) []finding {
	for end := time.Now().Add(2 * time.Second); ; {
		img := d.Screenshot(t)
		at := slices.IndexFunc(d.classes(img), func(c uint8) bool { return c != other })
		if at < 0 {
			return nil
		}
		if time.Now().After(end) {
			d.last = img
			d.repaint(t)
			return []finding{{"left behind", fmt.Sprintf("no window is left, but %v at %d,%d", img.RGBAAt(at%deskWidth, at/deskWidth), at%deskWidth, at/deskWidth)}}
		}
	}
}

// repaint has sway paint all of the screen.
func (d *desk) repaint(t soft) {
	d.SetSize(t, deskWidth, deskHeight+8)
	d.SetSize(t, deskWidth, deskHeight)
}

func (d *desk) step(t soft, g *guest, o op) {
	if _, ok := acts[o.name]; ok {
		g.sync()
		d.act(t, o)
		g.sync()
		return
	}
	g.step(o)
}

// lasts is how long what is outside of a frame is to be seen before it counts: sway shows
// what it has saved of a window, in parts of two moments, while it waits for others'
// answers, for at most 200 ms. (Each moment is judged on the model: TestPictureMachine.)
const lasts = 500 * time.Millisecond

// outside judges the screen until it is good, or bad for as long as that.
func (d *desk) outside(t soft, img *image.RGBA) (found []finding) {
	for end := time.Now().Add(lasts); ; {
		if found = d.judge(t, img); found == nil || time.Now().After(end) {
			return found
		}
		d.repaint(t)
		img = d.Screenshot(t)
	}
}

// watch takes pictures until sway has carried out what it was told: it waits for a
// program that does not answer for 200 ms. Nothing may be shown outside of a frame; a
// frame must be whole, and the screen free, in the end.
func (d *desk) watch(t soft, g [2]*guest, full bool) (img *image.RGBA, found []finding) {
	shown := 0
	for end := time.Now().Add(time.Second); ; {
		img = d.Screenshot(t)
		if found = d.outside(t, img); found != nil {
			return img, found
		}
		found = append(d.frames(t, img, g[:], full), d.hidden(t, img)...)
		if found == nil && d.shows(t, img) {
			shown++
		}
		// The first picture may be of what was there when sway began.
		if shown == 2 || time.Now().After(end) {
			return img, found
		}
	}
}

// shows tells whether there is a picture of every VM that has windows.
func (d *desk) shows(t soft, img *image.RGBA) bool {
	k := d.classes(img)
	for n, v := range d.vms {
		if d.Windows(t, func(n *desktoptest.Node) bool { return d.owner(n) == v }) != nil && !slices.Contains(k, uint8(frameA+2*n)) {
			return false
		}
	}
	return true
}

// look takes a picture with the pointer in the corner, and one with it on a window,
// whose VM shows its image.
func (d *desk) look(t soft, g [2]*guest, full bool) []finding {
	if d.down {
		d.act(t, mk("release"))
	}
	d.act(t, mk("point", deskWidth-1, deskHeight-1))
	for n := range g {
		g[n].answer(false)
	}
	img, found := d.watch(t, g, full)
	images := false
	for n := range g {
		images = images || slices.ContainsFunc(g[n].slots[:], func(s slot) bool { return s.hotspot })
	}
	if all := d.Windows(t, desktoptest.ByAppIDPrefix("vix.")); len(all) > 0 && images {
		c := all[len(all)-1].Content()
		d.act(t, mk("point", min(max(c.X+c.Width/2, 0), deskWidth-1), min(max(c.Y+c.Height/2, 0), deskHeight-1)))
		for n := range g {
			g[n].sync()
			for k, s := range g[n].slots {
				if s.hotspot && s.surface != 0 {
					g[n].step(mk("cursor", k, 1, g[n].hotX, g[n].hotY))
				}
			}
			g[n].sync()
		}
		img = d.Screenshot(t)
		found = append(found, d.judge(t, img)...)
	}
	d.last = img
	return found
}

// save keeps the last picture.
func (d *desk) save(t *testing.T) {
	img := d.last
	if img == nil {
		return // sway has ended
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("vix-machine-%d.png", time.Now().UnixNano()))
	if err := desktoptest.SavePNG(path, img); err == nil {
		t.Logf("the picture: %s", path)
	}
}

const deskSway = "for_window [app_id=\"vix.*\"] floating enable, border none\n"

// TestPictureOnSway tries pairs of sequences, each of a VM, on headless sway.
func TestPictureOnSway(t *testing.T) {
	for _, full := range []bool{true, false} {
		t.Run(rules{full: full}.String(), func(t *testing.T) {
			d := startDesk(t, full, deskSway)
			all := kept(t)
			for _, name := range slices.Sorted(maps.Keys(all)) {
				if s := all[name]; s.full == full {
					for _, f := range d.play(t, [2]sequence{s}) {
						t.Errorf("%s: %s: %s", name, f.kind, f.detail)
					}
				}
			}
			begin := time.Now()
			said := map[string]int{}
			for k := range uint64(*swaySequences / 2) {
				seed := *seedFlag + 1_000_000 + 2*k
				var s [2]sequence
				for n := range s {
					s[n] = forSway(seed+uint64(n), full)
				}
				for _, f := range d.play(t, s) {
					if said[f.kind]++; said[f.kind] == 1 {
						d.save(t)
						t.Errorf("%s (-seed=%d): %s\n%s", f.kind, seed-1_000_000, f.detail, smallestPair(t, d, s, f.kind))
					}
				}
			}
			t.Logf("%d pairs in %.1f s; found %v", *swaySequences/2, time.Since(begin).Seconds(), said)
		})
	}
}

// forSway makes a random sequence without what a model of ours is needed for.
func forSway(seed uint64, full bool) sequence {
	s := random(seed)
	s.full, s.version4 = full, rand.New(rand.NewPCG(seed, 5)).IntN(2) == 0
	s.ops = slices.DeleteFunc(s.ops, func(o op) bool { return o.name == "output" || o.name == "unplug" || o.name == "other" })
	return s
}

func smallestPair(t *testing.T, d *desk, s [2]sequence, kind string) string {
	bad := func(s [2]sequence) bool {
		return slices.ContainsFunc(d.play(t, s), func(f finding) bool { return f.kind == kind })
	}
	tries, end := 250, time.Now().Add(*shrinkTime)
	for n := range s {
		if one := s; true {
			one[n].ops = nil
			if bad(one) {
				s = one
				continue
			}
		}
		s[n] = smallest(s[n], func(one sequence) bool {
			if tries--; tries < 0 || time.Now().After(end) {
				return false
			}
			t := s
			t[n] = one
			return bad(t)
		})
	}
	return fmt.Sprintf("alpha: %sbeta: %s", s[0], s[1])
}
