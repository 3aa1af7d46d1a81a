// Package machine looks for breaks of the boundary by chance: it makes random
// sequences of what a hostile guest may say and a person may do, carries them out
// through the real filter, and looks at what comes of it.
//
//	steps ─► guest ──► filter ──► compositor of our own    TestPictureMachine: a model judges every
//	           │                  (world, judge)            state that could be shown
//	           └─► world: what an unfiltered compositor would show
//	steps ─► guest ──► filter ──► headless sway             TestPictureOnSway: pictures are judged
//	steps ─► two VMs, a program, a lock screen ─► sway      TestInputMachine: who hears which key
//
// A sequence is text (see sequence); those that once found something lie in testdata
// and are tried first. It knows of the filter only how to start it.
package machine

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vix/internal/filter"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

var (
	sequences = flag.Int("sequences", 4000, "how many random sequences are tried on the model")
	seedFlag  = flag.Uint64("seed", 1, "of the first random sequence; the others' follow")
	each      = flag.Int("each", 1, "how many sequences of each kind of finding are made small")
	only      = flag.String("only", "", "a regular expression: which kinds of findings are made small")
	replay    = flag.String("replay", "", "a file with one sequence, tried instead of all others")
)

const frameColor = "#2060c0"

// newFilter starts nothing; it serves the guest's connections to what dial gives.
func newFilter(vm string, color string, r rules, dial func() (wayland.Transport, error)) *filter.Filter {
	cfg := filter.Config{VM: vm, Tag: vm, Color: color, Frame: "border", Dial: dial, Log: slog.New(slog.DiscardHandler)}
	if r.full {
		cfg.Frame = "full"
	}
	for _, rate := range []string{"requests", "commits", "opens", "connects"} {
		_ = cfg.Limits.Set(rate, 1<<30) // time is not what is looked at
	}
	return filter.New(cfg)
}

// A rig is one sequence's: a filter, a compositor of our own, and a guest with one
// connection, or two.
type rig struct {
	comp   *compositor
	guests []*guest // each one's connection is that of the same number of the compositor's
	guest  *guest   // whose steps are taken
	open   func() *guest
}

// other lets the other connection take the steps that follow.
func (r *rig) other() {
	if len(r.guests) == 1 {
		r.guests = append(r.guests, r.open())
	}
	if r.guest == r.guests[0] {
		r.guest = r.guests[1]
	} else {
		r.guest = r.guests[0]
	}
}

func (r *rig) sync() {
	for _, g := range r.guests {
		g.sync()
	}
}

// broke tells whether a guest has broken the protocol, by its own model.
func (r *rig) broke() bool {
	return slices.ContainsFunc(r.guests, func(g *guest) bool { return g.model.broken != "" })
}

// acts are the steps of a person, and of the desktop.
var acts = map[string]func(c *compositor, o op){
	"point":   func(c *compositor, o op) { c.px, c.py = o.n(0), o.n(1); c.motion() },
	"press":   func(c *compositor, _ op) { c.click(1) },
	"release": func(c *compositor, _ op) { c.click(0) },
	"told": func(c *compositor, o op) {
		if k, s := c.nth("toplevel", o.n(0)); s != nil {
			w, h := c.largest()
			k.configureTop(s.xdg, max(min(o.n(1), w), 40), max(min(o.n(2), h), 40), []uint32{0, 1, 2, 4}[o.n(3)&3])
		}
	},
	"output":  func(c *compositor, o op) { c.plug(max(o.n(0), 300), max(o.n(1), 300)) },
	"unplug":  func(c *compositor, o op) { c.unplug(o.n(0)) },
	"dismiss": func(c *compositor, o op) { c.dismiss(o.n(0)) },
}

// result is what a sequence came to.
type result struct {
	found []finding
	ended string // why the filter ended the connection
}

func (r result) has(kind string) bool {
	return slices.ContainsFunc(r.found, func(f finding) bool { return f.kind == kind })
}

const endedWell = "ended without a fault"

// play carries a sequence out.
func play(t *testing.T, s sequence, p *pixels) result {
	c := newCompositor(s.rules, p)
	f := newFilter("vm", frameColor, s.rules, func() (wayland.Transport, error) {
		a, b := waylandtest.Pair(t)
		c.serve(a)
		return b, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	var served [2]error
	r := &rig{comp: c}
	r.open = func() *guest {
		near, far := waylandtest.Pair(t)
		n := len(r.guests)
		serving.Go(func() { served[n] = f.Serve(ctx, far) })
		g := newGuest(s.rules, near, p)
		g.start()
		return g
	}
	r.guest = r.open()
	r.guests = []*guest{r.guest}
	for _, o := range s.ops {
		r.do(o)
	}
	r.settle()
	res := r.judge()
	for _, g := range r.guests {
		_ = g.tr.Close()
	}
	cancel()
	serving.Wait()
	for _, k := range c.conns {
		<-k.done
	}
	for k, f := range res.found {
		if f.kind == endedWell {
			res.found[k].detail = fmt.Sprintf("%s; %v", f.detail, served)
		}
	}
	return res
}

// do carries out one step.
func (r *rig) do(o op) {
	if o.name == "other" {
		r.other()
		return
	}
	act, ok := acts[o.name]
	if !ok {
		r.guest.step(o)
		return
	}
	r.sync()
	r.comp.mu.Lock()
	act(r.comp, o)
	for _, k := range r.comp.conns {
		k.flush()
	}
	r.comp.mu.Unlock()
	r.sync()
	if o.name == "unplug" || o.name == "output" {
		r.sync() // the filter's own answers to what it has heard
	}
}

// settle waits until nothing is on its way.
func (r *rig) settle() {
	for range 3 {
		r.sync()
	}
}

// judge adds what only both models together tell.
func (r *rig) judge() result {
	c := r.comp
	c.mu.Lock()
	defer c.mu.Unlock()
	ended := slices.IndexFunc(r.guests, func(g *guest) bool { return g.ended != nil })
	if ended < 0 {
		c.settled()
	}
	for k, g := range r.guests {
		if g.ended == nil && g.model.broken == "" && k < len(c.conns) {
			r.compare(g, c.conns[k])
		}
	}
	refused := slices.ContainsFunc(c.conns, func(k *conn) bool { return k.world.broken != "" })
	for k, f := range c.found {
		if !r.broke() || !refused {
			continue
		}
		// The guest's own error: all is well if the filter sees it before it sends anything.
		switch {
		case strings.HasPrefix(f.kind, "protocol error"):
			c.found[k].kind = "error passed on: " + strings.TrimPrefix(f.kind, "protocol error ")
		case strings.HasPrefix(f.kind, "frame "), strings.HasPrefix(f.kind, "unframed "):
			c.found[k].kind = "frame taken away before an error that is passed on"
		}
	}
	res := result{found: c.found}
	for _, g := range r.guests {
		if g.ended == nil {
			continue
		}
		res.ended = g.ended.Error()
		if g.model.broken == "" && !policy(g.why) && len(c.found) == 0 {
			res.found = append(res.found, finding{endedWell, res.ended})
		}
	}
	return res
}

// policy tells of a wl_display.error whether the filter says no to what the protocol allows.
func policy(text string) bool {
	for _, s := range []string{"popup", "pointer image", "pointer's", "sub-surface", "limit reached", "drag", "icon", "serial", "grab", "too large", "more than", "size"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// compare holds what the compositor shows of the guest's against what it would show
// without the filter: nothing may be shown that would not be, or at another place in its
// window, and no window be lost.
func (r *rig) compare(g *guest, k *conn) {
	would := map[int]shown{}
	roots := map[int]shown{} // of the trees of those
	for _, s := range g.model.roots {
		if !s.mapped() {
			continue
		}
		all := tree(s, 0, 0)
		for _, k := range all {
			would[k.s.cur.buf.key], roots[k.s.cur.buf.key] = k, shown{s, rect{}}
		}
	}
	seen := map[int]bool{}
	for _, s := range k.world.roots {
		if !s.mapped() {
			continue
		}
		for _, k := range tree(s, 0, 0) {
			if key := k.s.cur.buf.key; key != 0 {
				seen[key] = true
				r.compareOne(shown{s, rect{}}, k, roots[key], would[key])
			}
		}
	}
	for key, k := range would {
		if k.s.role == "toplevel" && !seen[key] {
			r.comp.find("window lost", "buffer %d", key)
		}
	}
}

// compareOne compares one surface in its tree with what it should be in its own.
func (r *rig) compareOne(root, is, rootWould, would shown) {
	role := root.s.role
	switch {
	case would.s == nil:
		r.comp.find("shown though it should not be in a "+role, "%v", is.at)
	case role != rootWould.s.role:
		r.comp.find("shown in a "+role+" instead of a "+rootWould.s.role, "%v", is.at)
	case is.at.w > would.at.w || is.at.h > would.at.h:
		r.comp.find("larger than it should be in a "+role, "%v instead of %v", is.at, would.at)
	case !r.guest.weston && root.s.guest() && plainly(would.s) && plainly(rootWould.s):
		// Where the buffers' corners are, whatever is cut off.
		x, y := corner(is)
		rx, ry := corner(root)
		if dx, dy := x-rx-would.at.x, y-ry-would.at.y; dx < -1 || dx > 1 || dy < -1 || dy > 1 {
			r.comp.find("at another place than it should be in a "+role, "by %d,%d: %v should be at %d,%d of its window", dx, dy, is.at, would.at.x, would.at.y)
		}
	}
}

// plainly tells whether a surface shows all of its buffer, pixel by pixel.
func plainly(s *surface) bool {
	c := &s.cur
	return c.scale == 1 && c.transform == 0 && c.src[2] == 0 && c.dst[0] == 0
}

// corner returns where the corner of a surface's buffer is, shown or not.
func corner(k shown) (x, y int) { return k.at.x - k.s.cur.src[0]>>8, k.at.y - k.s.cur.src[1]>>8 }

// TestPictureMachine tries sequences on the model: those of testdata, then random ones.
func TestPictureMachine(t *testing.T) {
	p := newPixels(t, lime, yellow)
	if *replay != "" {
		b, err := os.ReadFile(*replay)
		if err != nil {
			t.Fatal(err)
		}
		s, err := read(string(b))
		if err != nil {
			t.Fatal(err)
		}
		r := play(t, s, p)
		for _, f := range r.found {
			t.Errorf("%s: %s", f.kind, f.detail)
		}
		t.Logf("the connection: %q", r.ended)
		return
	}
	t.Run("regressions", func(t *testing.T) { regressions(t, p) })
	t.Run("random", func(t *testing.T) { randoms(t, p) })
}

// kept returns the sequences that once found something, by name.
func kept(t *testing.T) map[string]sequence {
	t.Helper()
	files, err := filepath.Glob("testdata/*.seq")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sequences in testdata: %v", err)
	}
	all := map[string]sequence{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := read(string(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[strings.TrimSuffix(filepath.Base(name), ".seq")] = s
	}
	return all
}

func regressions(t *testing.T, p *pixels) {
	all := kept(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			for _, f := range play(t, all[name], p).found {
				t.Errorf("%s: %s", f.kind, f.detail)
			}
		})
	}
}

// A tally counts what random sequences came to.
type tally struct {
	mu    sync.Mutex
	next  uint64
	count map[string]int
	seeds map[string][]uint64 // of the first ones of each kind
	ends  map[string]int
}

func (a *tally) take() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	return a.next - 1
}

func (a *tally) add(seed uint64, r result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ends[plain(r.ended)]++
	for _, f := range r.found {
		a.count[f.kind]++
		if len(a.seeds[f.kind]) < *each {
			a.seeds[f.kind] = append(a.seeds[f.kind], seed)
		}
	}
}

// randoms tries random sequences, and makes the first of each kind of finding small.
func randoms(t *testing.T, p *pixels) {
	begin := time.Now()
	a := &tally{next: *seedFlag, count: map[string]int{}, seeds: map[string][]uint64{}, ends: map[string]int{}}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := a.take(); seed < *seedFlag+uint64(*sequences); seed = a.take() {
				a.add(seed, play(t, random(seed), p))
			}
		})
	}
	wg.Wait()
	t.Logf("%d sequences from seed %d in %.1f s", *sequences, *seedFlag, time.Since(begin).Seconds())
	for _, e := range slices.SortedFunc(maps.Keys(a.ends), func(x, y string) int { return a.ends[y] - a.ends[x] })[:min(len(a.ends), 12)] {
		t.Logf("ended by %q: %d", e, a.ends[e])
	}
	want, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range slices.Sorted(maps.Keys(a.seeds)) {
		if !want.MatchString(kind) {
			t.Errorf("%s (%d times; -seed=%d -sequences=1)", kind, a.count[kind], a.seeds[kind][0])
			continue
		}
		report(t, p, kind, a)
	}
}

// report prints the smallest sequences that come to a kind of finding.
func report(t *testing.T, p *pixels, kind string, a *tally) {
	shapes := map[string]bool{}
	for _, seed := range a.seeds[kind] {
		s := smallest(random(seed), func(s sequence) bool { return play(t, s, p).has(kind) })
		if shapes[s.shape()] {
			continue
		}
		shapes[s.shape()] = true
		detail := "not seen again: it depends on time"
		for _, f := range play(t, s, p).found {
			if f.kind == kind {
				detail = f.detail
			}
		}
		t.Errorf("%s (%d times; -seed=%d -sequences=1): %s\n# %s\n%s", kind, a.count[kind], seed, detail, kind, s)
	}
}

// plain is an error without its numbers, to be counted.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, s)
}
