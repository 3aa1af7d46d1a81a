package machine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// A sequence is a rig and steps, as text:
//
//	full weston 4 polite
//	window 0 160 120
//	child 1 0 40 40 -20 -60
//
// The first line says how much of a frame there is, whose ways the compositor has
// where the protocol leaves a choice, the version of wl_compositor, and whether steps
// that break the protocol are left out.
type sequence struct {
	rules
	ops []op
}

// An op is one step: its name, and numbers. A missing one is 0.
type op struct {
	name string
	a    []int
}

func (o op) n(k int) int {
	if k < len(o.a) {
		return o.a[k]
	}
	return 0
}
func (o op) u(k int) uint32 { return uint32(int32(o.n(k))) }

func (o op) String() string {
	s := o.name
	for _, v := range o.a {
		s += " " + strconv.Itoa(v)
	}
	return s
}

func (r rules) String() string {
	word := func(b bool, yes, no string) string {
		if b {
			return yes
		}
		return no
	}
	return word(r.full, "full", "border") + " " + word(r.weston, "weston", "wlroots") + " " + word(r.version4, "4", "6") + " " + word(r.rude, "rude", "polite")
}

func (s sequence) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, s.rules)
	for _, o := range s.ops {
		fmt.Fprintln(&b, o)
	}
	return b.String()
}

// read reads what String writes; lines that begin with # are comments.
func read(text string) (s sequence, err error) {
	head, rest, more := strings.Cut(text, "\n")
	for more && (head == "" || head[0] == '#') {
		head, rest, more = strings.Cut(rest, "\n")
	}
	f := strings.Fields(head)
	if len(f) != 4 {
		return s, fmt.Errorf("%q: want a frame, a compositor, a version and manners", head)
	}
	s.rules = rules{f[0] == "full", f[1] == "weston", f[2] == "4", f[3] == "rude"}
	s.ops, err = readOps(rest)
	return s, err
}

func readOps(text string) (ops []op, err error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		o := op{name: f[0]}
		if steps[o.name] == nil && acts[o.name] == nil && !slices.Contains(macros, o.name) && !slices.Contains(roomOnly, o.name) {
			return nil, fmt.Errorf("%q: no such step", o.name)
		}
		for _, w := range f[1:] {
			v, err := strconv.Atoi(w)
			if err != nil {
				return nil, err
			}
			o.a = append(o.a, v)
		}
		ops = append(ops, o)
	}
	return ops, nil
}

// roomOnly are the steps that are neither a guest's nor a desktop's: those of the input
// machine, and the change to another connection.
var roomOnly = []string{"focus", "place", "key", "click", "lock", "unlock", "other"}

// shape is what a sequence does, without its numbers.
func (s sequence) shape() string {
	var b strings.Builder
	for _, o := range s.ops {
		b.WriteString(o.name + " ")
	}
	return b.String()
}

var (
	sizes  = []int{1, 2, 10, 30, 40, 60, 64, 65, 100, 128, 129, 160, 200, 256, 257, 300, 390, 520, 800, 900, 1200}
	places = []int{-300, -100, -60, -24, -20, -4, -2, -1, 0, 0, 0, 1, 4, 10, 40, 100, 160, 300, 700}
)

// A chooser makes random steps that mostly mean something: it knows which slots
// probably hold what.
type chooser struct {
	*rand.Rand
	has  [slots]bool
	role [slots]string
}

func (c *chooser) of(l []int) int { return l[c.IntN(len(l))] }
func (c *chooser) size() int      { return c.of(sizes) }
func (c *chooser) small() int     { return sizes[c.IntN(12)] }
func (c *chooser) place() int     { return c.of(places) }

// pick returns a slot that is so, or any.
func (c *chooser) pick(ok func(k int) bool) int {
	start := c.IntN(slots)
	if c.IntN(20) == 0 {
		return start
	}
	for k := range slots {
		if n := (start + k) % slots; ok(n) {
			return n
		}
	}
	return start
}

func (c *chooser) free() int { return c.pick(func(k int) bool { return !c.has[k] }) }
func (c *chooser) any() int  { return c.pick(func(k int) bool { return c.has[k] }) }
func (c *chooser) with(roles ...string) int {
	return c.pick(func(k int) bool { return c.has[k] && slices.Contains(roles, c.role[k]) })
}

func (c *chooser) note(k int, role string) { c.has[k], c.role[k] = true, role }

// A choice is a kind of step with its weight.
type choice struct {
	weight int
	make   func(c *chooser) op
}

func mk(name string, a ...int) op { return op{name, a} }

var choices = []choice{
	{8, func(c *chooser) op { k := c.free(); c.note(k, "toplevel"); return mk("window", k, c.size(), c.size()) }},
	{10, func(c *chooser) op {
		k, p := c.free(), c.with("toplevel", "popup")
		c.note(k, "popup")
		return mk("menu-popup", k, p, c.size(), c.size(), c.place(), c.place(), c.IntN(9), c.IntN(9), c.IntN(128))
	}},
	{14, func(c *chooser) op {
		k, p := c.free(), c.any()
		c.note(k, "sub")
		return mk("child", k, p, c.size(), c.size(), c.place(), c.place())
	}},
	{6, func(c *chooser) op { k := c.free(); c.note(k, ""); return mk("surface", k) }},
	{3, func(c *chooser) op { k := c.any(); c.has[k] = false; return mk("destroy", k) }},
	{16, func(c *chooser) op { return mk("attach", c.any(), c.size(), c.size(), c.offset(), c.offset()) }},
	{3, func(c *chooser) op { return mk("pixel", c.any()) }},
	{6, func(c *chooser) op { return mk("null", c.any()) }},
	{1, func(c *chooser) op { return mk("unbuffer", c.any()) }},
	{2, func(c *chooser) op { return mk("damage", c.any()) }},
	{34, func(c *chooser) op { return mk("commit", c.any()) }},
	{2, func(c *chooser) op { return mk("frame", c.any()) }},
	{5, func(c *chooser) op { return mk("offset", c.any(), c.place(), c.place()) }},
	{3, func(c *chooser) op { return mk("scale", c.any(), 1+c.IntN(3)) }},
	{3, func(c *chooser) op { return mk("transform", c.any(), c.IntN(8)) }},
	{2, func(c *chooser) op { return mk("input", c.any(), c.IntN(3)*20) }},
	{1, func(c *chooser) op { return mk("opaque", c.any(), c.IntN(3)*20) }},
	{6, func(c *chooser) op { return mk("viewport", c.any()) }},
	{3, func(c *chooser) op {
		return mk("source", c.any(), max(c.place(), 0), max(c.place(), 0), c.small(), c.small())
	}},
	{8, func(c *chooser) op { return mk("destination", c.any(), c.size(), c.size()) }},
	{2, func(c *chooser) op { return mk("unviewport", c.any()) }},
	{8, func(c *chooser) op { k := c.with("", "sub", "cursor"); c.note(k, "sub"); return mk("sub", k, c.any()) }},
	{9, func(c *chooser) op { return mk("position", c.with("sub"), c.place(), c.place()) }},
	{4, func(c *chooser) op { return mk("above", c.with("sub"), c.any()) }},
	{4, func(c *chooser) op { return mk("below", c.with("sub"), c.any()) }},
	{3, func(c *chooser) op { return mk("sync", c.with("sub")) }},
	{8, func(c *chooser) op { return mk("desync", c.with("sub")) }},
	{2, func(c *chooser) op { return mk("unsub", c.with("sub")) }},
	{2, func(c *chooser) op { return mk("xdg", c.any()) }},
	{2, func(c *chooser) op { k := c.any(); c.note(k, "toplevel"); return mk("toplevel", k) }},
	{2, func(c *chooser) op {
		k := c.any()
		c.note(k, "popup")
		return mk("popup", k, c.with("toplevel", "popup"), c.size(), c.size(), c.place(), c.place(), c.IntN(9), c.IntN(9), c.IntN(128))
	}},
	{4, func(c *chooser) op {
		return mk("reposition", c.with("popup"), c.size(), c.size(), c.place(), c.place(), c.IntN(9), c.IntN(9), c.IntN(128))
	}},
	{2, func(c *chooser) op { return mk("unrole", c.with("toplevel", "popup")) }},
	{2, func(c *chooser) op { return mk("unxdg", c.with("toplevel", "popup")) }},
	{7, func(c *chooser) op {
		return mk("geometry", c.with("toplevel", "popup"), c.place(), c.place(), c.size(), c.size())
	}},
	{9, func(c *chooser) op { return mk("ack", c.with("toplevel", "popup"), c.IntN(2)) }},
	{1, func(c *chooser) op { return mk("max", c.with("toplevel"), c.size(), c.size()) }},
	{1, func(c *chooser) op { return mk("min", c.with("toplevel"), c.size(), c.size()) }},
	{2, func(c *chooser) op { return mk("maximize", c.with("toplevel")) }},
	{1, func(c *chooser) op { return mk("unmaximize", c.with("toplevel")) }},
	{2, func(c *chooser) op { return mk("fullscreen", c.with("toplevel")) }},
	{1, func(c *chooser) op { return mk("restore", c.with("toplevel")) }},
	{2, func(c *chooser) op { return mk("move", c.with("toplevel"), c.IntN(5)) }},
	{2, func(c *chooser) op { return mk("resize", c.with("toplevel"), c.IntN(5)) }},
	{1, func(c *chooser) op { return mk("menu", c.with("toplevel"), c.IntN(5)) }},
	{3, func(c *chooser) op { return mk("grab", c.with("popup"), c.IntN(5)) }},
	{8, func(c *chooser) op {
		k := c.with("", "cursor")
		c.note(k, "cursor")
		kind := 1
		if c.IntN(3) == 0 {
			kind = c.IntN(5)
		}
		return mk("cursor", k, kind, c.place(), c.place())
	}},
	{1, func(c *chooser) op { return mk("nocursor", c.IntN(5)) }},
	{1, func(c *chooser) op { return mk("shape", c.IntN(5)) }},
	{5, func(c *chooser) op {
		k, from := c.with("", "icon"), c.with("toplevel", "popup", "sub")
		c.note(k, "icon")
		kind := 0
		if c.IntN(3) == 0 {
			kind = c.IntN(5)
		}
		return mk("drag", from, k, kind, c.IntN(2))
	}},
	{16, func(*chooser) op { return mk("wait") }},
	{9, func(c *chooser) op { return mk("point", c.IntN(800), c.IntN(600)) }},
	{5, func(*chooser) op { return mk("press") }},
	{4, func(*chooser) op { return mk("release") }},
	{4, func(c *chooser) op { return mk("told", c.IntN(4), c.size(), c.size(), c.IntN(4)) }},
	{1, func(c *chooser) op {
		return mk("output", []int{300, 640, 800, 1366}[c.IntN(4)], []int{400, 600, 768}[c.IntN(3)])
	}},
	{1, func(c *chooser) op { return mk("unplug", c.IntN(3)) }},
	{1, func(c *chooser) op { return mk("dismiss", c.IntN(4)) }},
	{2, func(*chooser) op { return mk("other") }},
}

// offset is that of an attach: mostly none.
func (c *chooser) offset() int {
	if c.IntN(4) > 0 {
		return 0
	}
	return c.place()
}

var weights = func() (sum int) {
	for _, c := range choices {
		sum += c.weight
	}
	return sum
}()

// random makes a sequence that only the seed decides on.
func random(seed uint64) sequence {
	c := &chooser{Rand: rand.New(rand.NewPCG(seed, 12))}
	s := sequence{rules: rules{full: c.IntN(2) == 0, weston: c.IntN(2) == 0, version4: c.IntN(2) == 0, rude: c.IntN(5) == 0}}
	for range 1 + c.IntN(2) {
		k := c.free()
		c.note(k, "toplevel")
		s.ops = append(s.ops, mk("window", k, c.size(), c.size()))
	}
	for range 10 + c.IntN(40) {
		n := c.IntN(weights)
		for _, ch := range choices {
			if n -= ch.weight; n < 0 {
				s.ops = append(s.ops, ch.make(c))
				break
			}
		}
	}
	return s
}

// smallest takes steps away from a sequence for as long as bad holds, and then makes
// its numbers small.
func smallest(s sequence, bad func(sequence) bool) sequence {
	for n := max(len(s.ops)/2, 1); n >= 1; n /= 2 {
		for at := 0; at < len(s.ops); {
			t := s
			t.ops = slices.Delete(slices.Clone(s.ops), at, min(at+n, len(s.ops)))
			if bad(t) {
				s = t
			} else {
				at += n
			}
		}
	}
	for i := range s.ops {
		for k := range s.ops[i].a {
			for _, v := range []int{0, 1, 40, 100, 300} {
				if s.ops[i].a[k] == v {
					break
				}
				t := s
				t.ops = slices.Clone(s.ops)
				t.ops[i].a = slices.Clone(t.ops[i].a)
				t.ops[i].a[k] = v
				if bad(t) {
					s = t
					break
				}
			}
		}
	}
	for _, f := range []func(*rules){
		func(r *rules) { r.full = true }, func(r *rules) { r.weston = false }, func(r *rules) { r.version4 = false }, func(r *rules) { r.rude = false },
	} {
		t := s
		f(&t.rules)
		if t.rules != s.rules && bad(t) {
			s = t
		}
	}
	return s
}
