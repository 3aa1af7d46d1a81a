package draw

import (
	"fmt"
	"image"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"vix/internal/label"
	"vix/internal/menu"
)

// Text is legible on both backgrounds of both schemes: WCAG 2 asks for 4.5:1.
func TestContrast(t *testing.T) {
	for _, scheme := range []string{"light", "dark"} {
		for _, accent := range []string{"", "#000000", "#ffffff", "#808080", "#ffff00", "#00f"} {
			th := themeOf(scheme, accent)
			for name, c := range map[string]Color{"ink": th.ink, "dim": th.dim, "accent": th.accent, "bad": th.bad} {
				for where, ground := range map[string]Color{"ground": th.ground, "selected": th.selected} {
					least := 4.5
					if name == "accent" && where == "selected" {
						least = 3.5 // a user's own accent is checked only against the ground
					}
					if r := label.Contrast(c, ground); r < least {
						t.Errorf("%s, accent %q: %s on %s: %.2f", scheme, accent, name, where, r)
					}
				}
			}
		}
	}
}

var fonts = label.NewFonts()

func painter(look menu.Look, scale float64) *Painter {
	p := &Painter{Look: look, Scale: scale, Fonts: fonts, Bold: fonts}
	p.Icons = func(name string, side int) (*image.RGBA, bool) {
		if name == "none" {
			return nil, false
		}
		return image.NewRGBA(image.Rect(0, 0, side, side)), false
	}
	p.Reset()
	return p
}

func canvas(p *Painter) *Canvas {
	w, h := p.Pixels()
	return NewCanvas(w, h, make([]uint32, w*h))
}

var drawScale = rapid.SampledFrom([]float64{0.5, 1, 1.25, 1.5, 1.75, 2, 2.6, 3})

// At every scale the rows do not overlap, lie within the picture, and match the positions that
// a pointer finds.
func TestLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		look := menu.Look{Width: rapid.IntRange(320, 2000).Draw(t, "width"), Lines: rapid.IntRange(3, 30).Draw(t, "lines"), FontSize: 15}
		p := painter(look, drawScale.Draw(t, "scale"))
		w, h := p.Pixels()
		last := p.px(entryHeight)
		for i := range look.Lines {
			r := p.row(i)
			if r.Min.Y < last || r.Min.X < 0 || r.Max.X > w || r.Max.Y > h-p.px(footHeight) || r.Empty() {
				t.Fatalf("row %d: %v in %d×%d, the one before ends at %d", i, r, w, h, last)
			}
			last = r.Max.Y
			x, y := float64(r.Min.X+r.Max.X)/2/p.Scale, float64(r.Min.Y+r.Max.Y)/2/p.Scale
			if got := RowAt(look, x, y); got != i {
				t.Fatalf("the pointer is on row %d, and finds %d", i, got)
			}
		}
		for _, at := range [][2]float64{{-1, 100}, {100, -1}, {100, 1e6}, {1e6, 100}} {
			if got := RowAt(look, at[0], at[1]); got != -1 {
				t.Fatalf("%v is row %d", at, got)
			}
		}
	})
}

// Painting step by step, in two alternating buffers, gives the same picture as painting at
// once; and nothing outside of the damage has changed.
func TestDamage(t *testing.T) {
	var items []menu.Item
	for i := range 20 {
		items = append(items, menu.Item{ID: fmt.Sprint(i), Name: fmt.Sprintf("Name %d é", i*7), Generic: "What it is", VM: fmt.Sprint("vm", i%3),
			Tag: "tag", Color: []string{"#1565c0", "#ffee58", "none"}[i%3], Icon: []string{"x", "none", ""}[i%3], Machine: i%5 == 0})
	}
	actions := []menu.Action{{ID: "a", Name: "Stop %v", Running: true, Stopped: true}}
	rapid.Check(t, func(t *rapid.T) {
		look := menu.Look{Width: 320, Lines: 3, FontSize: 13, Icons: true, Scheme: "dark"}
		scale := rapid.SampledFrom([]float64{0.5, 0.75, 1, 1.25}).Draw(t, "scale")
		p := painter(look, scale)
		m := menu.NewModel(items, actions, look.Lines)
		buffers := []*Canvas{canvas(p), canvas(p)}
		var shown []uint32
		state := State{}
		for i := range rapid.IntRange(1, 6).Draw(t, "steps") {
			n := rapid.IntRange(-3, 5).Draw(t, "n")
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0:
				m.Insert("e")
			case 1:
				m.Backspace(false)
			case 2:
				m.Move(n, true)
			case 3:
				m.Scroll(n)
			case 4:
				if !m.Back() {
					m.Open()
				}
			case 5:
				m.SetVMs(map[string]menu.VM{"vm1": {State: "starting", Progress: float64(n) / 5}, "vm2": {State: "running"}})
			case 6:
				state.Notice = &menu.Notice{Text: fmt.Sprint("notice ", n), Bad: n > 0}
			}
			c := buffers[i%2]
			damage := p.Paint(c, m, state)
			fresh := painter(look, scale)
			whole := canvas(fresh)
			fresh.Paint(whole, m, state)
			if !slices.Equal(c.Pix, whole.Pix) {
				t.Fatalf("step %d: what was painted bit by bit is another picture", i)
			}
			for at := range shown {
				where := image.Pt(at%c.W, at/c.W)
				if shown[at] != c.Pix[at] && !slices.ContainsFunc(damage, func(r image.Rectangle) bool { return where.In(r) }) {
					t.Fatalf("step %d: %v has changed, and the damage is %v", i, where, damage)
				}
			}
			shown = slices.Clone(c.Pix)
		}
	})
}

// A step of the selection damages two rows, not the window.
func TestDamageIsSmall(t *testing.T) {
	var items []menu.Item
	for i := range 9 {
		items = append(items, menu.Item{ID: fmt.Sprint(i), Name: fmt.Sprint("Name ", i)})
	}
	p := painter(menu.Look{Width: 600, Lines: 9, FontSize: 15}, 1)
	m := menu.NewModel(items, nil, 9)
	c := canvas(p)
	p.Paint(c, m, State{})
	m.Move(1, false)
	if damage := p.Paint(c, m, State{}); len(damage) != 2 || damage[0] != p.row(0) || damage[1] != p.row(1) {
		t.Errorf("damage %v", damage)
	}
	if damage := p.Paint(c, m, State{}); damage != nil {
		t.Errorf("nothing has changed, and the damage is %v", damage)
	}
}

func BenchmarkPaint(b *testing.B) {
	var items []menu.Item
	for i := range 500 {
		items = append(items, menu.Item{ID: fmt.Sprint(i), Name: fmt.Sprint("Program ", i), Generic: "Something", VM: "vm", Tag: "vm", Color: "#1565c0"})
	}
	for _, scale := range []float64{1, 2} {
		b.Run(fmt.Sprint("first/", scale), func(b *testing.B) {
			for b.Loop() {
				p := painter(menu.Look{Width: 620, Lines: 9, FontSize: 15}, scale)
				p.Paint(canvas(p), menu.NewModel(items, nil, 9), State{})
			}
		})
		b.Run(fmt.Sprint("step/", scale), func(b *testing.B) {
			p := painter(menu.Look{Width: 620, Lines: 9, FontSize: 15}, scale)
			m := menu.NewModel(items, nil, 9)
			c := canvas(p)
			for b.Loop() {
				m.Move(1, true)
				p.Paint(c, m, State{})
			}
		})
	}
}
