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
//	                └─► the icon found: out ─► vix-launcher ─► for an SVG, its picture ─► in
//
// For an icon that the last menu found, the file is read at once (lastIcons). The search for
// it follows when the first frame is on the screen (verify).
type loader struct {
	themes    *icon.Themes
	lastIcons map[iconKey]menu.Icon
	in        chan job
	out       chan picture
	done      sync.WaitGroup
	quit      chan struct{}

	entries map[iconKey]*entry // used by the loop alone
}

type iconKey struct {
	name string
	side int
}

type entry struct {
	img     *image.RGBA
	pending bool
	file    string // the file that was read, or is being read
	guess   bool   // file comes from the last menu
}

type job struct {
	iconKey
	file string // a PNG that is known; "" for a search
	have string // a file that a search need not read again
}

type picture struct {
	iconKey
	img   *image.RGBA
	found bool   // a search has found path
	path  string // absolute; "" if there is no such icon
	same  bool   // path equals job.have
}

// maxIcons bounds the pictures in memory: 27 MiB at scale 2 if all are loaded.
const maxIcons = 2500

func newLoader(t *icon.Themes, lastIcons []menu.Icon) *loader {
	l := &loader{themes: t, lastIcons: map[iconKey]menu.Icon{}, in: make(chan job, 512), out: make(chan picture, 64), quit: make(chan struct{}), entries: map[iconKey]*entry{}}
	for _, i := range lastIcons {
		l.lastIcons[iconKey{i.Name, i.Side}] = i
	}
	l.done.Go(l.work)
	return l
}

func (l *loader) close() {
	close(l.quit)
	l.done.Wait()
}

func (l *loader) work() {
	for {
		select {
		case <-l.quit:
			return
		case j := <-l.in:
			select {
			case l.out <- l.load(j):
			case <-l.quit:
				return
			}
		}
	}
}

func (l *loader) load(j job) picture {
	p := picture{iconKey: j.iconKey}
	file := strings.TrimPrefix(j.file, "/")
	if file == "" {
		p.found = true
		if file = l.themes.Find(j.name, j.side); file == "" {
			return p
		}
		p.path = "/" + file
		p.same = p.path == j.have
		if p.same || isSVG(file) {
			return p
		}
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

func isSVG(path string) bool { return strings.HasSuffix(path, ".svg") }

// get returns a known picture, and requests a missing one.
func (l *loader) get(name string, side int) (*image.RGBA, bool) {
	k := iconKey{name, side}
	e := l.entries[k]
	if e == nil {
		if len(l.entries) >= maxIcons {
			l.forget()
		}
		was, guess := l.lastIcons[k]
		e = &entry{pending: !guess || was.File != "", file: was.File, guess: guess}
		l.entries[k] = e
		if e.pending {
			l.send(job{iconKey: k, file: was.File})
		}
	}
	return e.img, e.pending
}

// send never blocks: the worker may wait for the loop.
func (l *loader) send(j job) {
	select {
	case l.in <- j:
	default:
		delete(l.entries, j.iconKey) // the next painting requests it again
	}
}

func (l *loader) forget() {
	for k, e := range l.entries {
		if !e.pending {
			delete(l.entries, k)
		}
	}
}

// verify searches for all icons of the last menu, to check that they are unchanged.
func (l *loader) verify() {
	for k := range l.lastIcons {
		if e := l.entries[k]; e != nil && e.guess {
			e.guess = false
			l.send(job{iconKey: k, have: l.lastIcons[k].Path})
		}
	}
	clear(l.lastIcons)
}

// keep stores a picture from the worker.
func (l *loader) keep(p picture) {
	e := l.entries[p.iconKey]
	switch {
	case e == nil:
	case !p.found && p.img == nil && e.guess:
		e.guess, e.file = false, "" // the file has vanished
		l.send(job{iconKey: p.iconKey})
	case p.found && (p.same || isSVG(p.path)):
		// The old picture stays until that of the SVG arrives.
	default:
		e.img, e.pending = p.img, false
	}
}

// onRasterised handles vix-launcher's answer about an SVG.
func (l *loader) onRasterised(i menu.Icon) {
	k := iconKey{i.Name, i.Side}
	e := l.entries[k]
	switch {
	case e == nil:
	case i.File == "":
		e.img, e.pending, e.file = nil, false, ""
	case i.File != e.file:
		e.file = i.File
		l.send(job{iconKey: k, file: i.File})
	}
}

// isWaiting reports whether a requested icon is missing.
func (l *loader) isWaiting() bool {
	for _, e := range l.entries {
		if e.pending {
			return true
		}
	}
	return false
}
