package main

import (
	"io"
	"os"
	"slices"

	"vix/internal/termsafe"
)

// A console is an output that is a terminal, for Vix's own words. A person's
// terminal obeys what it is shown, so that no word of a guest's gets there but
// through package termsafe: not in Vix's own lines either, which name titles, programs
// and files.
type console struct {
	io.Writer
	file   *os.File
	screen *termsafe.Terminal // of both outputs
}

// onConsole returns f for Vix's own words. What is no terminal is left alone.
func onConsole(screen *termsafe.Terminal, f *os.File) io.Writer {
	if ttyOf(f) == nil {
		return f
	}
	return &console{screen.Own(f), f, screen}
}

// fileOf returns the file behind an input or output; nil if there is none.
func fileOf(f any) *os.File {
	switch f := f.(type) {
	case *os.File:
		return f
	case *console:
		return f.file
	}
	return nil
}

// A guestOutput is where what a program of a guest writes goes.
type guestOutput struct {
	stdout, stderr io.Writer
	streams        []*termsafe.Stream // those that are shown on a terminal
}

// guestOutput returns our outputs for a guest's program. A terminal shows what is
// good for it, unless raw is true; pipes and files get every byte. A program with a
// terminal of its own (tty) has one output; leftOn is told how it leaves ours.
func (e *env) guestOutput(tty, raw bool, leftOn func([]byte)) *guestOutput {
	out, errs := termsafe.Line, termsafe.Line
	if tty {
		out = termsafe.Screen
	}
	if raw {
		out, errs = termsafe.Raw, termsafe.Raw
	}
	g := &guestOutput{}
	g.stdout = g.stream(e.stdout, out, leftOn)
	g.stderr = g.stream(e.stderr, errs, nil)
	return g
}

func (g *guestOutput) stream(w io.Writer, kind termsafe.Kind, leftOn func([]byte)) io.Writer {
	c, ok := w.(*console)
	if !ok {
		return w
	}
	s := c.screen.Stream(c.file, kind, leftOn)
	g.streams = append(g.streams, s)
	return s
}

// end puts the terminal back. What the guest still writes is not shown.
func (g *guestOutput) end() {
	for _, s := range g.streams {
		_ = s.Close() // a terminal that is gone
	}
}

// reports tells whether a terminal may have sent more than what was typed.
func (g *guestOutput) reports() bool {
	return slices.ContainsFunc(g.streams, (*termsafe.Stream).Reports)
}

// suspend and resume give a terminal back for a while. A nil g has none.
func (g *guestOutput) suspend() {
	if g != nil {
		for _, s := range g.streams {
			_ = s.Suspend()
		}
	}
}

func (g *guestOutput) resume() {
	if g != nil {
		for _, s := range g.streams {
			_ = s.Resume()
		}
	}
}
