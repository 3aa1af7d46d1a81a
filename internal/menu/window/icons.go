package window

import (
	"image"
	"strings"
	"sync"

	"vix/internal/icon"
	"vix/internal/menu"
)

// A loader finds and reads icons in a goroutine of its own.
//
//	get ─► in ─► work: Find, Read, Decode, Fit ─► out ─► keep
//	                └─► an SVG: out with svg set ─► vix-launcher ─► rasterised ─► in
type loader struct {
	themes *icon.Themes
	in     chan job
	out    chan picture
	done   sync.WaitGroup
	ended  chan struct{}

	known map[iconKey]*entry // the loop's alone
}

type iconKey struct {
	name string
	side int
}

type entry struct {
	img     *image.RGBA
	pending bool
	svg     string // path of the file that is rasterised
}

type job struct {
	iconKey
	file string // a PNG that is known; "" for a search
}

type picture struct {
	iconKey
	img *image.RGBA
	svg string
}

// maxIcons bounds the pictures in memory: 27 MiB at scale 2 if all were there.
const maxIcons = 2500

func newLoader(t *icon.Themes) *loader {
	l := &loader{themes: t, in: make(chan job, 4*maxIcons), out: make(chan picture, 64), ended: make(chan struct{}), known: map[iconKey]*entry{}}
	l.done.Go(l.work)
	return l
}

func (l *loader) close() {
	close(l.ended)
	l.done.Wait()
}

func (l *loader) work() {
	for {
		select {
		case <-l.ended:
			return
		case j := <-l.in:
			select {
			case l.out <- l.load(j):
			case <-l.ended:
				return
			}
		}
	}
}

func (l *loader) load(j job) picture {
	p := picture{iconKey: j.iconKey}
	file := strings.TrimPrefix(j.file, "/")
	if file == "" {
		file = l.themes.Find(j.name, j.side)
	}
	if file == "" {
		return p
	}
	if strings.HasSuffix(file, ".svg") {
		p.svg = file
		return p
	}
	b, err := icon.Read(l.themes.FS, file)
	if err != nil {
		return p
	}
	if img, err := icon.Decode(b); err == nil {
		p.img = icon.Fit(img, j.side)
	}
	return p
}

// get returns what is known, and asks for what is not.
func (l *loader) get(name string, side int) (*image.RGBA, bool) {
	k := iconKey{name, side}
	e := l.known[k]
	if e == nil {
		if len(l.known) >= maxIcons {
			l.forget()
		}
		e = &entry{pending: true}
		l.known[k] = e
		l.send(job{iconKey: k})
	}
	return e.img, e.pending
}

// send never waits: the worker may wait for the loop.
func (l *loader) send(j job) {
	select {
	case l.in <- j:
	default:
		delete(l.known, j.iconKey) // asked for again when it is painted again
	}
}

func (l *loader) forget() {
	for k, e := range l.known {
		if !e.pending {
			delete(l.known, k)
		}
	}
}

// keep takes what the worker has made.
func (l *loader) keep(p picture) {
	e := l.known[p.iconKey]
	if e == nil {
		return
	}
	e.img, e.pending, e.svg = p.img, p.svg != "", p.svg
}

// rasterised takes vix-launcher's answer.
func (l *loader) rasterised(i menu.Icon) {
	for k, e := range l.known {
		if e.pending && "/"+e.svg == i.Path && k.side == i.Side {
			if i.File == "" {
				e.pending = false
				continue
			}
			e.svg = ""
			l.send(job{k, i.File})
		}
	}
}

// waiting says whether an icon that was asked for is not there.
func (l *loader) waiting() bool {
	for _, e := range l.known {
		if e.pending {
			return true
		}
	}
	return false
}
