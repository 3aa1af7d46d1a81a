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
//	                └─► what was found: out ─► vix-launcher ─► of an SVG, rasterised ─► in
//
// Of an icon that the last menu found, the file is read at once (lastIcons), and it
// is looked for when the first frame is on the screen (verify).
type loader struct {
	themes    *icon.Themes
	lastIcons map[iconKey]menu.Icon
	in        chan job
	out       chan picture
	done      sync.WaitGroup
	quit      chan struct{}

	entries map[iconKey]*entry // the loop's alone
}

type iconKey struct {
	name string
	side int
}

type entry struct {
	img     *image.RGBA
	pending bool
	file    string // that was read, or is being read
	guess   bool   // it is the one of the last menu
}

type job struct {
	iconKey
	file string // a PNG that is known; "" for a search
	have string // what a search need not read again
}

type picture struct {
	iconKey
	img   *image.RGBA
	found bool   // by a search, as is path
	path  string // absolute; "" if there is no such icon
	same  bool   // as job.have
}

// maxIcons bounds the pictures in memory: 27 MiB at scale 2 if all were there.
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

// get returns what is known, and asks for what is not.
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

// send never waits: the worker may wait for the loop.
func (l *loader) send(j job) {
	select {
	case l.in <- j:
	default:
		delete(l.entries, j.iconKey) // asked for again when it is painted again
	}
}

func (l *loader) forget() {
	for k, e := range l.entries {
		if !e.pending {
			delete(l.entries, k)
		}
	}
}

// verify looks for all icons that the last menu had found, if they are what they were.
func (l *loader) verify() {
	for k := range l.lastIcons {
		if e := l.entries[k]; e != nil && e.guess {
			e.guess = false
			l.send(job{iconKey: k, have: l.lastIcons[k].Path})
		}
	}
	clear(l.lastIcons)
}

// keep takes what the worker has made.
func (l *loader) keep(p picture) {
	e := l.entries[p.iconKey]
	switch {
	case e == nil:
	case !p.found && p.img == nil && e.guess:
		e.guess, e.file = false, "" // the file has gone
		l.send(job{iconKey: p.iconKey})
	case p.found && (p.same || isSVG(p.path)):
		// What is shown stays, until the picture of an SVG is there.
	default:
		e.img, e.pending = p.img, false
	}
}

// onRasterised takes vix-launcher's answer about an SVG.
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

// isWaiting says whether an icon that was asked for is not there.
func (l *loader) isWaiting() bool {
	for _, e := range l.entries {
		if e.pending {
			return true
		}
	}
	return false
}
