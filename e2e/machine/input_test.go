package machine

import (
	"flag"
	"fmt"
	"image"
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
)

var inputSequences = flag.Int("input", 40, "how many random sequences of input are tried on sway")

// A room is a desk with two VMs' guests, a program of the host's, and, at times, a
// lock screen. Who should hear of a key is what sway says has the focus, and the lock
// screen while there is one; who should hear of a button, the window at that place.
type room struct {
	*desk
	guests [3]*guest // alpha, beta, and the host's program
	locker *locker   // nil while the screen is not locked
	tame   bool      // requests that take input are left out: a control
}

const host = 2

var parties = []string{"alpha", "beta", "the host's program", "the lock screen", "nobody"}

// A locker is a client of ext-session-lock-v1.
type locker struct {
	*guest
	lock, role, surface uint32
	locked              bool
}

// bindRaw binds a global that no table describes.
func (g *guest) bindRaw(iface string, version uint32) uint32 {
	id := g.id()
	_ = g.out.Put(2, wayland.WlRegistryReqBind, g.names[iface][0], iface, version, id)
	return id
}

// Opcodes of ext_session_lock_manager_v1, ext_session_lock_v1 and
// ext_session_lock_surface_v1 (ext-session-lock-v1.xml).
const (
	managerLock   = 1
	lockSurface   = 1
	lockUnlock    = 2
	surfaceAck    = 1
	evtLocked     = 0
	evtConfigured = 0
)

func (r *room) lockScreen(t soft) {
	tr, err := wayland.Dial(r.Socket)
	if err != nil {
		t.Fatal(err)
	}
	l := &locker{guest: newGuest(rules{}, tr, r.vms[0].pixels)}
	l.start()
	manager, output := l.bindRaw("ext_session_lock_manager_v1", 1), l.bindRaw("wl_output", 1)
	l.lock = l.id()
	l.out.Msg(manager, managerLock, l.lock)
	l.run("surface", 0)
	l.surface, l.role = l.slots[0].surface, l.id()
	l.out.Msg(l.lock, lockSurface, l.role, l.surface, output)
	shown := false
	for range 100 {
		l.events(func(id uint32, op uint16, body []byte) {
			switch {
			case id == l.lock && op == evtLocked:
				l.locked = true
			case id == l.role && op == evtConfigured:
				l.out.Msg(l.role, surfaceAck, wayland.Word(body, 0))
				l.attach(&l.slots[0], int(wayland.Word(body, 4)), int(wayland.Word(body, 8)), 0, 0)
				l.run("commit", 0)
				shown = true
			}
		})
		if l.locked && shown {
			r.locker = l
			r.settle() // of the keyboard it hears after it is shown, if nobody keeps it
			return
		}
	}
	t.Fatalf("the screen is not locked: %v", l.ended)
}

func (r *room) unlock() {
	r.locker.out.Msg(r.locker.lock, lockUnlock)
	r.locker.sync()
	_ = r.locker.tr.Close()
	r.locker = nil
}

// all returns who is there: of the lock screen's nothing, when there is none.
func (r *room) all() []*guest {
	l := r.guests[:]
	if r.locker != nil {
		l = append(slices.Clone(l), r.locker.guest)
	}
	return l
}

// settle waits until everybody has heard what there was to hear.
func (r *room) settle() {
	for range 2 {
		for _, g := range r.all() {
			g.sync()
		}
	}
}

// focused returns who has the keyboard by sway's word, 4 for nobody.
func (r *room) focused(t soft) int {
	if r.locker != nil {
		return 3
	}
	for _, n := range r.Windows(t, nil) {
		if n.Focused {
			return r.party(n)
		}
	}
	return 4
}

func (r *room) party(n *desktoptest.Node) int {
	for k, v := range r.vms {
		if r.owner(n) == v {
			return k
		}
	}
	return host
}

// at returns whose window is the topmost at a place, 4 for nobody's, and whether that
// is sure: it is not near an edge, or near a popup.
func (r *room) at(t soft, p image.Point) (who int, sure bool) {
	if r.locker != nil {
		return 3, true
	}
	who, sure = 4, true
	// Tiled windows come first, floating ones as they are stacked.
	for _, n := range r.stack(t) {
		c := n.Content().Image()
		if p.In(c.Inset(-30)) {
			sure = p.In(c.Inset(30))
		}
		if p.In(c) {
			who = r.party(n)
		}
	}
	for k, v := range r.guests[:2] {
		if slices.ContainsFunc(v.model.roots, func(s *surface) bool { return s.role == "popup" && s.mapped() }) && r.popupNear(t, k, p) {
			sure = false
		}
	}
	return who, sure
}

// stack returns the windows of the workspace that is seen, the lowest first.
func (r *room) stack(t soft) []*desktoptest.Node {
	all := r.Windows(t, func(n *desktoptest.Node) bool { return n.Visible })
	slices.SortStableFunc(all, func(a, b *desktoptest.Node) int {
		rank := func(n *desktoptest.Node) int {
			switch {
			case n.FullscreenMode > 0:
				return 2
			case n.Type == "floating_con":
				return 1
			}
			return 0
		}
		return rank(a) - rank(b)
	})
	return all
}

// popupNear tells whether a popup of a VM's may be at a place: popups of this machine
// are small, and near their windows' corners.
func (r *room) popupNear(t soft, vm int, p image.Point) bool {
	for _, n := range r.Windows(t, func(n *desktoptest.Node) bool { return r.party(n) == vm }) {
		c := n.Content()
		if p.In(image.Rect(c.X-150, c.Y-150, c.X+250, c.Y+250)) {
			return true
		}
	}
	return false
}

// keys of linux/input-event-codes.h: q to p.
const firstKey, lastKey = 16, 25

// acts of this machine, by name. The first argument of a guest's step is the party.
var roomActs = map[string]func(r *room, t soft, o op) []finding{
	"focus": func(r *room, t soft, o op) []finding {
		if all := r.Windows(t, nil); len(all) > 0 && r.locker == nil {
			r.Focus(t, all[o.n(0)%len(all)])
		}
		return nil
	},
	"place": func(r *room, t soft, o op) []finding {
		if all := r.Windows(t, desktoptest.ByAppIDPrefix("vix.")); len(all) > 0 {
			r.Command(t, fmt.Sprintf("[con_id=%d] floating enable, move absolute position %d %d", all[o.n(0)%len(all)].ID, o.n(1), o.n(2)))
		}
		return nil
	},
	"key": func(r *room, t soft, o op) []finding { return r.key(t, uint32(firstKey+o.n(0)%(lastKey-firstKey+1))) },
	"click": func(r *room, t soft, o op) []finding {
		r.act(t, mk("point", o.n(0), o.n(1)))
		r.settle()
		return r.click(t)
	},
	"press":   func(r *room, t soft, _ op) []finding { r.act(t, mk("press")); return nil },
	"release": func(r *room, t soft, _ op) []finding { r.act(t, mk("release")); return nil },
	"point":   func(r *room, t soft, o op) []finding { r.act(t, o); return nil },
	"lock": func(r *room, t soft, _ op) []finding {
		if r.locker == nil {
			r.lockScreen(t)
		}
		return nil
	},
	"unlock": func(r *room, _ soft, _ op) []finding {
		if r.locker != nil {
			r.unlock()
		}
		return nil
	},
	"dismiss": func(r *room, t soft, o op) []finding { r.act(t, o); return nil },
}

// clear forgets what was heard.
func (r *room) clear() {
	for _, g := range r.all() {
		g.heard = nil
	}
}

func (r *room) state() string {
	s := "not locked"
	if r.locker != nil {
		s = "locked"
	}
	if r.down {
		s += ", a button held"
	}
	return s
}

// key types one, and holds that nobody hears it but who has the focus, who does.
func (r *room) key(t soft, code uint32) (found []finding) {
	r.settle()
	r.clear()
	want := r.focused(t)
	r.KeyCode(t, code, true)
	r.KeyCode(t, code, false)
	r.settle()
	for k, g := range r.all() {
		n := 0
		for _, h := range g.heard {
			if h.what == "key" {
				n++
			}
		}
		switch {
		case k != want && n > 0:
			found = append(found, finding{fmt.Sprintf("a key for %s goes to %s (%s)", kindOf(want), kindOf(k), r.state()), fmt.Sprintf("%s hears %d key events that are %s's", parties[k], n, parties[want])})
		case k == want && n < 2 && g.ended == nil:
			found = append(found, finding{fmt.Sprintf("%s does not hear its key (%s)", kindOf(k), r.state()), fmt.Sprintf("%s hears %d key events of 2", parties[k], n)})
		}
	}
	return found
}

// kindOf is a party's name in a kind of finding: both VMs are alike.
func kindOf(k int) string {
	if k < host {
		return "a VM"
	}
	return parties[k]
}

// click presses and releases the button, and holds that nobody hears of it but whose
// window is there.
func (r *room) click(t soft) (found []finding) {
	if r.down {
		return nil
	}
	r.clear()
	want, sure := r.at(t, image.Pt(r.x, r.y))
	r.act(t, mk("press"))
	r.settle()
	r.act(t, mk("release"))
	r.settle()
	for k, g := range r.all() {
		n := 0
		for _, h := range g.heard {
			if h.what == "button" {
				n++
			}
		}
		switch {
		case !sure:
		case k != want && n > 0:
			found = append(found, finding{fmt.Sprintf("a click on %s goes to %s (%s)", kindOf(want), kindOf(k), r.state()), fmt.Sprintf("at %d,%d: %s hears %d events", r.x, r.y, parties[k], n)})
		// That nobody hears is sway's: it tells a program of the pointer that had its window
		// before its pointer only when that moves, without any request of a VM's too.
		case k == want && n == 1 && g.ended == nil:
			found = append(found, finding{fmt.Sprintf("%s hears half a click (%s)", kindOf(k), r.state()), fmt.Sprintf("at %d,%d: %s hears %d events of 2", r.x, r.y, parties[k], n)})
		}
	}
	return found
}

// invariant holds that nobody has the keyboard but who should, whether keys come or not.
func (r *room) invariant(t soft) (found []finding) {
	want := r.focused(t)
	for k, g := range r.all() {
		if g.typed != 0 && k != want && g.ended == nil {
			found = append(found, finding{fmt.Sprintf("the keyboard of %s is %s's (%s)", kindOf(want), kindOf(k), r.state()), fmt.Sprintf("%s has had wl_keyboard.enter and no leave", parties[k])})
		}
	}
	return found
}

// takes are steps with which a guest may try to take input.
var takes = []string{"grab", "quick", "move", "resize", "menu", "drag", "cursor", "shape"}

// party returns who a guest's step is of.
func (o op) split() (party int, rest op) { return o.n(0) % 3, op{o.name, o.a[min(1, len(o.a)):]} }

func (r *room) step(t soft, o op) (found []finding) {
	if act := roomActs[o.name]; act != nil {
		found = act(r, t, o)
	} else {
		who, rest := o.split()
		if r.tame && slices.Contains(takes, o.name) {
			return nil
		}
		r.guests[who].step(rest)
		r.guests[who].sync()
	}
	r.settle()
	for _, g := range r.guests {
		g.answer(true)
	}
	return append(found, r.invariant(t)...)
}

// randomInput makes a sequence of input that only the seed decides on.
func randomInput(seed uint64) []op {
	rnd := rand.New(rand.NewPCG(seed, 34))
	n := rnd.IntN
	ops := []op{mk("window", host, 0, 800, 600)}
	for vm := range 2 {
		ops = append(ops, mk("window", vm, 0, 160+n(100), 120+n(80)), mk("place", 0, n(500), n(350)))
	}
	makes := []struct {
		weight int
		make   func() op
	}{
		{16, func() op { return mk("key", n(10)) }},
		{12, func() op { return mk("click", n(800), n(600)) }},
		{14, func() op { return mk("focus", n(6)) }},
		{5, func() op { return mk("lock") }},
		{5, func() op { return mk("unlock") }},
		{8, func() op { return mk("menu-popup", n(2), 1+n(3), n(3), 20+n(40), 20+n(40), n(60), n(60)) }},
		{10, func() op { return mk("quick", n(2), 1+n(3), n(3), n(5)) }},
		{6, func() op { return mk("grab", n(2), 1+n(3), n(5)) }},
		{4, func() op { return mk("window", n(2), n(4), 100+n(150), 80+n(100)) }},
		{4, func() op { return mk("place", n(4), n(500), n(350)) }},
		{4, func() op { return mk("point", n(800), n(600)) }},
		{4, func() op { return mk("press") }},
		{5, func() op { return mk("release") }},
		{4, func() op { return mk("move", n(2), n(4), n(5)) }},
		{4, func() op { return mk("resize", n(2), n(4), n(5)) }},
		{5, func() op { return mk("drag", n(2), n(4), 7, n(5), n(2)) }},
		{2, func() op { return mk("menu", n(2), n(4), n(5)) }},
		{2, func() op { return mk("unrole", n(2), n(4)) }},
		{2, func() op { return mk("fullscreen", n(2), n(4)) }},
		{2, func() op { return mk("restore", n(2), n(4)) }},
		{1, func() op { return mk("dismiss", n(4)) }},
	}
	sum := 0
	for _, m := range makes {
		sum += m.weight
	}
	for range 15 + n(25) {
		k := n(sum)
		for _, m := range makes {
			if k -= m.weight; k < 0 {
				ops = append(ops, m.make())
				break
			}
		}
	}
	return ops
}

// play carries out a sequence of input.
func (r *room) play(t *testing.T, ops []op) (found []finding) {
	defer func() {
		if found != nil && r.locker != nil {
			_ = r.locker.tr.Close()
			r.locker = nil
		}
	}()
	defer r.revive(t, &found)
	s := soft{t}
	for k := range r.guests {
		if k == host {
			tr, err := wayland.Dial(r.Socket)
			if err != nil {
				t.Fatal(err)
			}
			r.guests[k] = newGuest(rules{}, tr, r.vms[0].pixels)
			r.guests[k].start()
			continue
		}
		r.guests[k] = r.open(t, r.vms[k], rules{})
	}
	for _, o := range ops {
		found = append(found, r.step(s, o)...)
	}
	if r.locker != nil {
		r.unlock()
	}
	if r.down {
		r.act(s, mk("release"))
	}
	for _, g := range r.guests {
		_ = g.tr.Close()
	}
	r.WaitNoWindow(s, nil)
	return found
}

func (r *room) text(ops []op) string {
	var b strings.Builder
	for _, o := range ops {
		fmt.Fprintln(&b, o)
	}
	return b.String()
}

// keptInput returns the sequences that once found something, by name.
func keptInput(t *testing.T) map[string][]op {
	t.Helper()
	files, err := filepath.Glob("testdata/*.input")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sequences of input in testdata: %v", err)
	}
	all := map[string][]op{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if all[name], err = readOps(string(b)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return all
}

// TestInputMachine tries random input, requests that try to take it among it.
func TestInputMachine(t *testing.T) {
	r := &room{desk: startDesk(t, true, deskSway)}
	kept := keptInput(t)
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		for _, f := range r.play(t, kept[name]) {
			t.Errorf("%s: %s: %s", name, f.kind, f.detail)
		}
	}
	begin := time.Now()
	said := map[string]int{}
	for seed := *seedFlag; seed < *seedFlag+uint64(*inputSequences); seed++ {
		ops := randomInput(seed)
		for _, tame := range []bool{false, true} {
			if tame && seed%5 != 0 {
				continue
			}
			r.tame = tame
			kind := ""
			for _, f := range r.play(t, ops) {
				if tame {
					f.kind = "without requests: " + f.kind
				}
				if said[f.kind]++; said[f.kind] > 1 {
					continue
				}
				kind = strings.TrimPrefix(f.kind, "without requests: ")
				tries, end := 200, time.Now().Add(*shrinkTime)
				small := smallest(sequence{ops: ops}, func(s sequence) bool {
					tries--
					return tries >= 0 && time.Now().Before(end) && slices.ContainsFunc(r.play(t, s.ops), func(f finding) bool { return f.kind == kind })
				})
				t.Errorf("%s (-seed=%d): %s\n%s", f.kind, seed, f.detail, r.text(small.ops))
			}
		}
	}
	t.Logf("%d sequences in %.1f s; found %v", *inputSequences, time.Since(begin).Seconds(), said)
}
