package draw

import (
	"fmt"
	"image"
	"math"
	"unicode"

	"vix/internal/label"
	"vix/internal/menu"
)

// line adds the region of a row.
func (p *Painter) line(m *menu.Model, i int) {
	r := p.row(i)
	at := m.Top() + i
	it, action := m.Line(at)
	selected := it != nil && at == m.At()
	switch {
	case it == nil && i == 0 && m.Count() == 0:
		p.nothing(m, r)
	case it == nil:
		p.add(r, "none", func(c *Canvas) { c.fill(r, p.theme.ground) })
	case action != nil:
		key := plain("action", action.ID, action.Name, fmt.Sprint(selected))
		p.add(r, key, func(c *Canvas) { p.action(c, r, *action, selected) })
	default:
		query, _ := m.Query()
		vm := m.VM(*it)
		side := p.IconSide()
		var icon *image.RGBA
		pending := false
		if p.Look.Icons && it.Icon != "" && p.Icons != nil {
			icon, pending = p.Icons(it.Icon, side)
		}
		// The key ignores progress of less than a pixel.
		key := plain("item", it.ID, it.Name, it.Generic, it.Color, it.Tag, query, vm.State,
			fmt.Sprintf("%d %v %p %v", int(vm.Progress*float64(r.Dx())), selected, icon, pending))
		p.add(r, key, func(c *Canvas) { p.item(c, r, *it, vm, query, selected, icon, pending) })
	}
}

func (p *Painter) nothing(m *menu.Model, r image.Rectangle) {
	query, _ := m.Query()
	p.add(r, plain("nothing", query), func(c *Canvas) {
		c.fill(r, p.theme.ground)
		words := "No programs"
		if query != "" {
			words = "Nothing matches “" + query + "”"
		}
		t := p.text(words, p.Look.FontSize, r.Dx()-p.px(2*margin), false, nil)
		p.blit(c, t, r.Min.X+p.px(margin+iconSide+gap), (r.Min.Y+r.Max.Y)/2, p.theme.ground, p.theme.dim)
	})
}

// ground paints a row's background and returns its colour.
func (p *Painter) ground(c *Canvas, r image.Rectangle, selected bool) Color {
	c.fill(r, p.theme.ground)
	if !selected {
		return p.theme.ground
	}
	in := p.f(1)
	c.box(box{float64(r.Min.X), float64(r.Min.Y) + in, float64(r.Max.X), float64(r.Max.Y) - in, p.f(rowCorner)}, p.theme.selected)
	return p.theme.selected
}

// item paints the icon, name and description; and on the right the VM's state and tag.
func (p *Painter) item(c *Canvas, r image.Rectangle, it menu.Item, vm menu.VM, query string, selected bool, icon *image.RGBA, pending bool) {
	bg := p.ground(c, r, selected)
	mid := (r.Min.Y + r.Max.Y) / 2
	side := p.px(iconSide)
	left := r.Min.X + p.px(margin)
	switch {
	case icon != nil:
		c.picture(icon, left, mid-side/2)
	case it.Machine:
		p.machine(c, left, mid, side, it, vm, bg)
	case !pending:
		p.letter(c, left, mid, side, it.Name, bg)
	}
	left += side + p.px(gap)
	end := p.tag(c, r.Max.X-p.px(margin), mid, it, bg, vm.State != "")
	if words := stateWords(vm); words != "" {
		t := p.text(words, p.Look.FontSize*0.8, p.px(120), false, nil)
		end -= t.w + p.px(gap-2)
		p.blit(c, t, end, mid, bg, p.theme.dim)
	}
	room := end - left - p.px(gap)
	name := p.text(it.Name, p.Look.FontSize, room, false, menu.Marks(query, it.Name))
	p.blit(c, name, left, mid, bg, p.theme.ink)
	if room -= name.w + p.px(gap); it.Generic != "" && room > p.px(40) {
		p.blit(c, p.text(it.Generic, p.Look.FontSize*0.87, room, false, nil), left+name.w+p.px(gap), mid, bg, p.theme.dim)
	}
	if vm.State == "starting" {
		p.progress(c, r, left, r.Max.X-p.px(margin), it, vm.Progress, bg)
	}
}

func stateWords(vm menu.VM) string {
	switch vm.State {
	case "starting":
		return "starting…"
	case "stopping":
		return "stopping…"
	}
	return vm.State
}

// tag paints the VM's tag in the colour of its windows' frames: filled when the VM runs, and as
// an outline otherwise. Its right end is at x. It returns its left end.
func (p *Painter) tag(c *Canvas, x, mid int, it menu.Item, bg Color, runs bool) int {
	color, ok := parse(it.Color)
	words := it.Tag
	if words == "" {
		words = it.VM
	}
	if !ok || words == "" {
		return x
	}
	t := p.text(words, p.Look.FontSize*0.77, p.px(130), true, nil)
	w := t.w + 2*p.px(8)
	half := p.f(tagHeight) / 2
	b := box{float64(x - w), math.Round(float64(mid) - half), float64(x), math.Round(float64(mid) + half), p.f(tagCorner)}
	if runs {
		c.box(b, color)
		p.blit(c, t, x-w+p.px(8), mid, color, label.Ink(color))
	} else {
		c.outline(b, max(p.f(1.2), 1), p.visible(color, bg))
		p.blit(c, t, x-w+p.px(8), mid, bg, p.theme.dim)
	}
	return x - w
}

// visible mixes a colour with the ink until a thin line of it is visible: WCAG 2 asks for 3:1.
func (p *Painter) visible(color, bg Color) Color {
	for range 10 {
		if label.Contrast(color, bg) >= 3 {
			break
		}
		color = blend(color, p.theme.ink, 0.15)
	}
	return color
}

// progress paints the progress of the VM's start.
func (p *Painter) progress(c *Canvas, r image.Rectangle, x0, x1 int, it menu.Item, part float64, bg Color) {
	color, _ := parse(it.Color)
	y := float64(r.Max.Y) - p.f(1+barHeight+2)
	h := max(math.Round(p.f(barHeight)), 2)
	track := box{float64(x0), y, float64(x1), y + h, h / 2}
	c.box(track, blend(bg, p.theme.ink, 0.12))
	track.x1 = track.x0 + max((track.x1-track.x0)*min(max(part, 0), 1), h)
	c.box(track, color)
}

// machine paints the symbol of a VM: a screen in its colour.
func (p *Painter) machine(c *Canvas, x, mid, side int, it menu.Item, vm menu.VM, bg Color) {
	color, ok := parse(it.Color)
	if !ok {
		color = p.theme.dim
	}
	fx, fy, s := float64(x), float64(mid-side/2), float64(side)
	b := box{fx + s*0.08, fy + s*0.14, fx + s*0.92, fy + s*0.72, p.f(3)}
	if vm.State != "" {
		c.box(b, color)
	} else {
		color = p.visible(color, bg)
		c.outline(b, max(p.f(1.6), 1), color)
	}
	c.stroke(fx+s*0.34, fy+s*0.86, fx+s*0.66, fy+s*0.86, p.f(2), color)
}

// letter paints a letter in place of a missing icon.
func (p *Painter) letter(c *Canvas, x, mid, side int, name string, bg Color) {
	fill := blend(bg, p.theme.ink, 0.12)
	c.box(box{float64(x), float64(mid - side/2), float64(x + side), float64(mid - side/2 + side), p.f(6)}, fill)
	for _, r := range name {
		t := p.text(string(unicode.ToUpper(r)), p.Look.FontSize*0.9, side, true, nil)
		p.blit(c, t, x+(side-t.w)/2, mid, fill, p.theme.ink)
		break
	}
}

// action paints a line of the second pane.
func (p *Painter) action(c *Canvas, r image.Rectangle, a menu.Action, selected bool) {
	bg := p.ground(c, r, selected)
	left := r.Min.X + p.px(margin)
	if selected {
		mid := float64(r.Min.Y+r.Max.Y) / 2
		x := float64(left) + p.f(iconSide)/2
		c.stroke(x-p.f(2), mid-p.f(4.5), x+p.f(2.5), mid, p.f(1.8), p.theme.accent)
		c.stroke(x+p.f(2.5), mid, x-p.f(2), mid+p.f(4.5), p.f(1.8), p.theme.accent)
	}
	left += p.px(iconSide + gap)
	t := p.text(a.Name, p.Look.FontSize, r.Max.X-left-p.px(margin), false, nil)
	p.blit(c, t, left, (r.Min.Y+r.Max.Y)/2, bg, p.theme.ink)
}
