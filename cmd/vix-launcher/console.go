package main

import (
	"io"
	"os"
	"slices"

	"vix/internal/termsafe"
)

// A console is a terminal that shows Vix's own output. A terminal obeys control sequences, so
// guest text reaches it only through package termsafe. This includes Vix's own lines, since
// they quote titles, programs and files.
type console struct {
	io.Writer
	file   *os.File
	screen *termsafe.Terminal // shared by both outputs
}

// onConsole returns f for Vix's own output. A file that is not a terminal is unchanged.
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

// A guestOutput is the destination of a guest program's output.
type guestOutput struct {
	stdout, stderr io.Writer
	streams        []*termsafe.Stream // those shown on a terminal
}

// guestOutput returns our outputs for a guest's program. A terminal shows only safe sequences,
// unless raw is set; pipes and files get every byte. A program with its own terminal (tty) has
// one output; leftOn receives the sequences that restore ours.
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

// end restores the terminal. Later guest output is not shown.
func (g *guestOutput) end() {
	for _, s := range g.streams {
		_ = s.Close() // the terminal may have gone
	}
}

// reports reports whether a terminal may send input that nobody typed.
func (g *guestOutput) reports() bool {
	return slices.ContainsFunc(g.streams, (*termsafe.Stream).Reports)
}

// suspend and resume give the terminal back temporarily. A nil g has none.
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
