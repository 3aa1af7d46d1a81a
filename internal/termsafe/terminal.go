package termsafe

import (
	"bytes"
	"io"
	"sync"
)

// A Terminal is shared by a guest's streams and Vix's own lines. One at a time may
// write whole sequences, so that pieces of two streams never combine. Each line of
// Vix's own begins on a fresh line, in plain letters.
type Terminal struct {
	mu      sync.Mutex
	streams []*Stream
	cursor  cursor
	screen  bool // a Screen stream left the cursor's column
}

// A Stream is an io.WriteCloser for one of a guest's streams.
type Stream struct {
	t      *Terminal
	w      io.Writer
	f      Filter
	leftOn func([]byte)
	buf    []byte
	was    []byte // the last argument of leftOn
	now    []byte // its next argument
	closed bool
}

// Stream returns a guest's stream that writes to w. leftOn, if not nil, is called with
// the sequences that would reset the terminal, before w gets output that needs them. It
// must not keep the bytes.
func (t *Terminal) Stream(w io.Writer, kind Kind, leftOn func([]byte)) *Stream {
	s := &Stream{t: t, w: w, f: Filter{Kind: kind}, leftOn: leftOn}
	t.mu.Lock()
	t.streams = append(t.streams, s)
	t.mu.Unlock()
	return s
}

// piece bounds the input that is filtered between two writes.
const piece = 32 << 10

// Write writes the filtered p. It fails after Close.
func (s *Stream) Write(p []byte) (int, error) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	for n := 0; n < len(p); {
		part := p[n:min(len(p), n+piece)]
		if s.closed {
			return n, io.ErrClosedPipe
		}
		s.f.cursor = s.t.cursor
		s.buf = s.f.Append(s.buf[:0], part)
		s.t.cursor = s.f.cursor
		if err := s.flush(); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), nil
}

func (s *Stream) flush() error {
	if s.leftOn != nil {
		s.now = s.f.modes.restoreCopy(s.now[:0])
		s.tell(s.now)
	}
	if len(s.buf) == 0 {
		return nil
	}
	s.t.screen = s.t.screen || s.f.Kind == Screen
	_, err := s.w.Write(s.buf)
	if cap(s.buf) > 4*piece {
		s.buf = nil
	}
	return err
}

// Close resets the terminal. Later output is not written.
func (s *Stream) Close() error {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.buf = s.f.Restore(s.buf[:0])
	return s.flush()
}

// Suspend resets the terminal for a while; Resume sets the DECSET modes
// again that were on. Programs redraw when they get a new size.
func (s *Stream) Suspend() error {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.closed {
		return nil
	}
	_, err := s.w.Write(s.f.modes.restoreCopy(nil))
	s.f.modes.keys = [2]int{} // the entries are gone: their values were not kept
	s.tell(nil)
	return err
}

// Resume ends what Suspend began.
func (s *Stream) Resume() error {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.closed {
		return nil
	}
	s.tell(s.f.modes.restoreCopy(nil))
	_, err := s.w.Write(s.f.modes.resume(nil))
	return err
}

// tell calls leftOn after a change.
func (s *Stream) tell(now []byte) {
	if s.leftOn != nil && !bytes.Equal(now, s.was) {
		s.leftOn(now)
		s.was = append(s.was[:0], now...)
	}
}

// Reports reports whether the terminal may have sent more than typed keys: the
// mouse's moves, a change of focus.
func (s *Stream) Reports() bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.f.modes.reports()
}

// Own returns a writer to w for Vix's own lines. It filters them as a Line, because
// they may quote a guest.
func (t *Terminal) Own(w io.Writer) io.Writer { return &own{t: t, w: w} }

type own struct {
	t   *Terminal
	w   io.Writer
	f   Filter
	buf []byte
}

func (o *own) Write(p []byte) (int, error) {
	o.t.mu.Lock()
	defer o.t.mu.Unlock()
	for n := 0; n < len(p); {
		part := p[n:min(len(p), n+piece)]
		o.buf = o.t.freshLine(o.buf[:0])
		o.buf = o.f.Append(o.buf, part)
		if _, err := o.w.Write(o.buf); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), nil
}

// freshLine appends the sequences that move a terminal's cursor from where a guest left it
// to a fresh line.
func (t *Terminal) freshLine(dst []byte) []byte {
	for _, s := range t.streams {
		if s.f.Kind == Line && s.f.modes.touched&touchedColor != 0 {
			dst = append(dst, "\x1b[m"...)
			s.f.modes.touched &^= touchedColor
		}
	}
	switch {
	case t.cursor.moved:
		dst = append(dst, "\x1b[9999;1H\r\n"...)
	case t.cursor.used:
		dst = append(dst, "\r\n"...)
	case t.screen:
		dst = append(dst, '\r')
	}
	t.cursor, t.screen = cursor{}, false
	return dst
}
