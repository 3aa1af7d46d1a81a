// Package draw paints the menu into a buffer's memory, by software, and only where it has
// changed.
//
//	menu.Model ─► regions: edge, entry, a row each, foot ─► a key for each one's content
//	              painted where the buffer holds another key ─► pixels, and the rectangles to damage
//
// All lengths are logical pixels times the scale, rounded to whole pixels where an edge should
// be sharp: at 1.25 or 1.5, as at 1 or 2, text is drawn at its own size and not stretched. The
// package opens no files: it is given fonts and icons.
package draw

import (
	"fmt"
	"image"
	"math"
	"slices"
	"strings"

	"vix/internal/label"
	"vix/internal/menu"
)

// Lengths of the layout, in logical pixels.
const (
	entryHeight = 54
	rowHeight   = 42
	footHeight  = 34
	padding     = 8  // around the rows
	margin      = 12 // within a row, before the icon and after the tag
	iconSide    = 26
	gap         = 12
	corner      = 12
	rowCorner   = 7
	tagHeight   = 20
	tagCorner   = 5
	barHeight   = 3
)

// Icons returns an icon's picture, side pixels wide. It is nil if there is none yet; pending
// reports whether one may still come.
type Icons func(name string, side int) (img *image.RGBA, pending bool)

// A Painter paints a menu with one look at one scale.
type Painter struct {
	Look  menu.Look
	Scale float64
	Fonts *label.Fonts // of names
	Bold  *label.Fonts // of tags
	Icons Icons

	theme   theme
	mix     mixer
	texts   map[textKey]text
	marks   map[markKey]*image.Alpha
	regions []region
	shown   []string // keys of the last painted regions, in any canvas
	missing map[rune]bool
}

// A region is a part of the picture that is painted as a whole.
type region struct {
	rect  image.Rectangle
	key   string
	paint func(*Canvas)
}

type textKey struct {
	bold bool
	size float64
	room int
	text string
}

// A text is a drawn line: the whole line, and the marked characters alone.
type text struct {
	all, marked *image.Alpha
	w           int
	line        *label.Line
	base        float64 // y of its baseline
}

// A markKey identifies the marked characters of a text.
type markKey struct {
	all  *image.Alpha
	mark string
}

// maxTexts bounds the caches, which keep rows that were scrolled away.
const maxTexts = 300

// Reset must be called after a change of a public field.
func (p *Painter) Reset() {
	p.theme = themeOf(p.Look.Scheme, p.Look.Accent)
	p.mix, p.texts, p.marks, p.shown, p.missing = mixer{}, map[textKey]text{}, map[markKey]*image.Alpha{}, nil, map[rune]bool{}
}

// Size returns the menu's size in logical pixels.
func Size(l menu.Look) (w, h int) {
	return l.Width, entryHeight + 2*padding + rowHeight*l.Lines + footHeight
}

// Pixels returns the buffer's size.
func (p *Painter) Pixels() (w, h int) {
	lw, lh := Size(p.Look)
	return p.px(float64(lw)), p.px(float64(lh))
}

// px rounds a logical length to whole pixels.
func (p *Painter) px(v float64) int { return int(math.Round(v * p.Scale)) }

// IconSide returns the width of the rows' icons, in pixels.
func (p *Painter) IconSide() int { return p.px(iconSide) }

// f converts a logical length to pixels.
func (p *Painter) f(v float64) float64 { return v * p.Scale }

// row returns the rectangle of a row, counted from the first on the screen.
func (p *Painter) row(i int) image.Rectangle {
	w, _ := p.Pixels()
	top := entryHeight + padding + float64(rowHeight*i)
	return image.Rect(p.px(padding), p.px(top), w-p.px(padding), p.px(top+rowHeight))
}

// RowAt returns the row at a logical position; -1 for none.
func RowAt(l menu.Look, x, y float64) int {
	i := int(math.Floor((y - entryHeight - padding) / rowHeight))
	if i < 0 || i >= l.Lines || x < padding || x >= float64(l.Width-padding) {
		return -1
	}
	return i
}

// Heights in logical pixels, for converting a finger's movement to rows.
const (
	RowHeight   = rowHeight
	EntryHeight = entryHeight
)

// A State is the part of the picture that is not in the model.
type State struct {
	Notice  *menu.Notice
	Preedit string // an incomplete compose sequence
}

// Paint paints the model into c where it differs from c's content, and returns the rectangles
// that differ from the last painting, in pixels.
func (p *Painter) Paint(c *Canvas, m *menu.Model, s State) []image.Rectangle {
	p.regions = p.regions[:0]
	p.frame()
	p.entry(m, s)
	for i := range p.Look.Lines {
		p.line(m, i)
	}
	p.foot(m, s)
	p.scrollbar(m)
	if len(c.contents) != len(p.regions) {
		c.contents = make([]string, len(p.regions))
	}
	if len(p.shown) != len(p.regions) {
		p.shown = make([]string, len(p.regions))
	}
	var damage []image.Rectangle
	for i, r := range p.regions {
		if c.contents[i] != r.key {
			r.paint(c)
			c.contents[i] = r.key
		}
		if p.shown[i] != r.key {
			damage = append(damage, r.rect)
			p.shown[i] = r.key
		}
	}
	if len(damage) > maxDamage {
		all := damage[0]
		for _, r := range damage[1:] {
			all = all.Union(r)
		}
		damage = []image.Rectangle{all}
	}
	return damage
}

// maxDamage bounds the separate rectangles: each costs a message.
const maxDamage = 3

// Prepare draws the texts of the model in advance.
func (p *Painter) Prepare(m *menu.Model, s State) {
	p.Paint(NewCanvas(0, 0, nil), m, s)
	p.shown = nil
}

func (p *Painter) add(r image.Rectangle, key string, paint func(*Canvas)) {
	p.regions = append(p.regions, region{r, key, paint})
}

// frame paints the background with its edge, and the lines.
func (p *Painter) frame() {
	w, h := p.Pixels()
	t := p.theme
	p.add(image.Rect(0, 0, w, h), "frame", func(c *Canvas) {
		for i := range c.Pix {
			c.Pix[i] = 0
		}
		b := box{0, 0, float64(w), float64(h), p.f(corner)}
		c.box(b, t.edge)
		edge := max(math.Round(p.Scale), 1)
		c.box(b.inset(edge), t.ground)
		for _, y := range []int{p.px(entryHeight), h - p.px(footHeight)} {
			c.fill(image.Rect(int(edge), y-int(edge), w-int(edge), y), t.line)
		}
	})
}

// Missing returns, once, the painted characters that the fonts lack.
func (p *Painter) Missing() string {
	var out []rune
	for r, fresh := range p.missing {
		if fresh {
			out = append(out, r)
			p.missing[r] = false
		}
	}
	slices.Sort(out)
	return string(out)
}

// text draws a line, or takes it from the cache. A line that is too long ends with an
// ellipsis.
func (p *Painter) text(s string, size float64, room int, bold bool, marks map[int]bool) text {
	k := textKey{bold, size, room, s}
	t, ok := p.texts[k]
	if !ok {
		t = p.drawText(k)
		if len(p.texts) >= maxTexts {
			clear(p.texts)
		}
		p.texts[k] = t
	}
	if len(marks) == 0 || t.all == nil {
		return t
	}
	m := markKey{t.all, fmt.Sprint(marks)}
	if t.marked = p.marks[m]; t.marked == nil {
		t.marked = image.NewAlpha(t.all.Rect)
		t.line.Draw(t.marked, 0, t.base, func(i int) bool { return marks[i] })
		if len(p.marks) >= maxTexts {
			clear(p.marks)
		}
		p.marks[m] = t.marked
	}
	return t
}

func (p *Painter) drawText(k textKey) (t text) {
	fonts := p.Fonts
	if k.bold {
		fonts = p.Bold
	}
	runes, px := []rune(k.text), p.f(k.size)
	for _, r := range runes {
		if _, known := p.missing[r]; !known && r > ' ' && !fonts.Has(r) {
			p.missing[r] = true
		}
	}
	if t.line = fonts.Fit(runes, px, float64(k.room)); t.line != nil && k.room > 0 {
		h := int(math.Ceil(px * 1.6))
		t.w, t.base = int(math.Ceil(t.line.Width)), fonts.Baseline(px, h)
		t.all = image.NewAlpha(image.Rect(0, 0, t.w+2, h))
		t.line.Draw(t.all, 0, t.base, nil)
	}
	return t
}

// blit paints a text with its middle at y.
func (p *Painter) blit(c *Canvas, t text, x, y int, bg, fg Color) {
	if t.all == nil {
		return
	}
	top := y - t.all.Rect.Dy()/2
	c.mask(t.all, x, top, p.mix.of(bg, fg))
	if t.marked != nil {
		// Painting over the same glyphs would make them bolder, so the background comes first.
		c.mask(t.marked, x, top, p.mix.of(bg, p.theme.accent))
	}
}

// entry paints the field with the typed text, or the item of the second pane.
func (p *Painter) entry(m *menu.Model, s State) {
	w, _ := p.Pixels()
	edge := int(max(math.Round(p.Scale), 1))
	r := image.Rect(p.px(corner), edge, w-p.px(corner), p.px(entryHeight)-edge)
	query, at := m.Query()
	key := fmt.Sprintf("entry\x00%s\x00%d\x00%d\x00%s", query, at, m.Count(), s.Preedit)
	if it := m.Pane(); it != nil {
		key = "pane\x00" + it.ID
	}
	p.add(r, key, func(c *Canvas) {
		c.fill(r, p.theme.ground)
		mid := (r.Min.Y + r.Max.Y) / 2
		if it := m.Pane(); it != nil {
			p.paneTitle(c, r, mid, *it)
			return
		}
		p.lens(c, float64(p.px(padding+margin+iconSide/2)), float64(mid))
		x := p.px(padding + margin + iconSide + gap)
		room := r.Max.X - x - p.px(70)
		if query != "" {
			count := p.text(fmt.Sprint(m.Count()), p.Look.FontSize*0.83, p.px(60), false, nil)
			p.blit(c, count, w-p.px(padding+margin)-count.w, mid, p.theme.ground, p.theme.dim)
		}
		p.drawQuery(c, x, mid, room, query, at, s.Preedit)
	})
}

// drawQuery paints the query with its cursor; if it is too long, only its end.
func (p *Painter) drawQuery(c *Canvas, x, mid, room int, query string, at int, preedit string) {
	size := p.Look.FontSize * 1.13
	before := []rune(query)[:at]
	before = append(before, []rune(preedit)...)
	after := []rune(query)[at:]
	width := func(r []rune) int { return int(math.Round(p.Fonts.Line(r, p.f(size)).Width)) }
	for len(before) > 0 && width(before) > room {
		before = before[1:]
	}
	if query == "" && preedit == "" {
		hint := p.text("Search programs and VMs", size, room, false, nil)
		p.blit(c, hint, x+p.px(4), mid, p.theme.ground, p.theme.dim)
	}
	all := p.text(string(before)+string(after), size, room, false, nil)
	p.blit(c, all, x, mid, p.theme.ground, p.theme.ink)
	cx, half := x+width(before), p.px(11)
	c.fill(image.Rect(cx, mid-half, cx+max(p.px(1.6), 1), mid+half), p.theme.accent)
}

// lens paints the search symbol.
func (p *Painter) lens(c *Canvas, x, y float64) {
	r := p.f(5.6)
	c.ring(x-p.f(1.5), y-p.f(1.5), r, p.f(1.7), p.theme.dim)
	d := r * 0.78
	c.stroke(x-p.f(1.5)+d, y-p.f(1.5)+d, x+p.f(6.6), y+p.f(6.6), p.f(1.7), p.theme.dim)
}

func (p *Painter) paneTitle(c *Canvas, r image.Rectangle, mid int, it menu.Item) {
	x := float64(p.px(padding + margin + iconSide/2))
	c.stroke(x+p.f(2), float64(mid)-p.f(5), x-p.f(3), float64(mid), p.f(1.8), p.theme.dim)
	c.stroke(x-p.f(3), float64(mid), x+p.f(2), float64(mid)+p.f(5), p.f(1.8), p.theme.dim)
	left := p.px(padding + margin + iconSide + gap)
	end := p.tag(c, r.Max.X-p.px(padding), mid, it, p.theme.ground, true)
	p.blit(c, p.text(it.Name, p.Look.FontSize*1.13, end-left-p.px(gap), false, nil), left, mid, p.theme.ground, p.theme.ink)
}

// foot paints the help for keys, or a notice.
func (p *Painter) foot(m *menu.Model, s State) {
	w, h := p.Pixels()
	edge := int(max(math.Round(p.Scale), 1))
	r := image.Rect(p.px(corner), h-p.px(footHeight), w-p.px(corner), h-edge)
	words, fg := hints(m), p.theme.dim
	if s.Notice != nil {
		words, fg = s.Notice.Text, p.theme.ink
		if s.Notice.Bad {
			fg = p.theme.bad
		}
	}
	p.add(r, fmt.Sprint("foot\x00", words, fg), func(c *Canvas) {
		c.fill(r, p.theme.ground)
		t := p.text(words, p.Look.FontSize*0.8, r.Dx()-p.px(padding), false, nil)
		p.blit(c, t, p.px(padding+margin), (r.Min.Y+r.Max.Y)/2, p.theme.ground, fg)
	})
}

func hints(m *menu.Model) string {
	it := m.Selected()
	switch {
	case m.Pane() != nil:
		return "Enter  do it      Esc  back"
	case it == nil:
		return "Esc  close"
	case it.Machine:
		return "Enter  actions      Esc  close"
	}
	return "Enter  run      Tab  actions      Ctrl+Enter  run, stay open      Esc  close"
}

func (p *Painter) scrollbar(m *menu.Model) {
	w, _ := p.Pixels()
	first, last := p.row(0), p.row(p.Look.Lines-1)
	wide := max(p.px(3), 2)
	r := image.Rect(w-p.px(padding/2)-wide, first.Min.Y, w-p.px(padding/2), last.Max.Y)
	n, top := m.Count(), m.Top()
	p.add(r, fmt.Sprintf("bar %d %d", n, top), func(c *Canvas) {
		c.fill(r, p.theme.ground)
		if n <= p.Look.Lines {
			return
		}
		long := max(float64(r.Dy())*float64(p.Look.Lines)/float64(n), p.f(20))
		at := float64(r.Min.Y) + (float64(r.Dy())-long)*float64(top)/float64(n-p.Look.Lines)
		c.box(box{float64(r.Min.X), at, float64(r.Max.X), at + long, float64(wide) / 2}, p.theme.edge)
	})
}

func plain(words ...string) string { return strings.Join(words, "\x00") }
