package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The null compositor: it checks what it is sent (ids, opcodes, lengths,
// descriptors), answers at once, and shows nothing. On a commit with a new
// buffer it releases the buffer and fires the frame callbacks immediately.
//
// Three things make it a measuring instrument:
//   - the callback_data of a frame callback is the "stamp" that the client
//     painted into the damaged rectangle, so the client knows that the pixels of
//     that very frame came through;
//   - wl_region.subtract at x = N makes it send N wl_pointer.motion events, to load
//     the other direction: a request that a proxy has no reason to look at;
//   - for a window whose title ends in countTitle, callback_data is how many
//     pixels of the buffer changed since its last commit, wherever they are: what
//     was copied, whatever was damaged.

type object struct {
	ifc  *iface
	ver  uint32
	data any
}

type session struct {
	c    *wireConn
	objs []object
	last uint32 // newest id made by the generic code
	seq  uint32
	t0   time.Time

	pointer uint32 // made last
	noted   map[string]bool
}

type errProtocol struct {
	id   uint32
	code uint32
	text string
}

func (e *errProtocol) Error() string {
	return fmt.Sprintf("object %d: %s", e.id, e.text)
}

func serve(ctx context.Context, path string, quiet bool) error {
	return accepting(ctx, path, func(fd int) {
		if err := serveConn(fd); err != nil && !quiet {
			fmt.Fprintf(os.Stderr, "wlbench: client: %v\n", err)
		}
	})
}

func serveConn(fd int) error {
	s := &session{c: newWireConn(fd), objs: make([]object, 2, 256), t0: time.Now()}
	s.objs[1] = object{ifc: ifaces["wl_display"], ver: 1}
	defer s.c.close()
	defer s.unmapAll()
	for {
		if err := s.handleAll(); err != nil {
			return err
		}
		if err := s.c.flush(); err != nil {
			return err
		}
		if err := s.c.fill(); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return err
		}
	}
}

// handleAll answers every message that is there.
func (s *session) handleAll() error {
	for {
		id, op, body, ok, err := s.c.next()
		if err != nil || !ok {
			return err
		}
		if err := s.dispatch(id, op, body); err != nil {
			var pe *errProtocol
			if errors.As(err, &pe) {
				at := s.c.begin(1, 0)
				s.c.u(pe.id)
				s.c.u(pe.code)
				s.c.s(pe.text)
				s.c.end(at)
				err = errors.Join(err, s.c.flush())
			}
			return err
		}
		if len(s.c.out) >= flushAt {
			if err := s.c.flush(); err != nil {
				return err
			}
		}
	}
}

func (s *session) unmapAll() {
	for i := range s.objs {
		switch d := s.objs[i].data.(type) {
		case *buffer:
			d.p.unref()
		case *pool:
			d.unref()
		}
	}
}

func (s *session) dispatch(id uint32, op uint16, body []byte) error {
	if int(id) >= len(s.objs) || s.objs[id].ifc == nil {
		return &errProtocol{1, 0, fmt.Sprintf("invalid object %d", id)}
	}
	o := &s.objs[id]
	if int(op) >= len(o.ifc.reqs) {
		return &errProtocol{id, 1, fmt.Sprintf("invalid method %d of %s@%d", op, o.ifc.name, id)}
	}
	r := &o.ifc.reqs[op]
	if r.fixed >= 0 && len(body) != r.fixed {
		if len(body) < r.fixed {
			return &errProtocol{id, 1, fmt.Sprintf("length %d of %s.%s is short of %d", len(body), o.ifc.name, r.name, r.fixed)}
		}
		s.tooLong(o.ifc.name+"."+r.name, len(body)-r.fixed)
	}
	if r.plain && r.h == nil {
		return nil
	}
	if r.newArg >= 0 && r.make != "" {
		nid := ne.Uint32(body[4*r.newArg:])
		if err := s.newObject(nid, ifaces[r.make], o.ver); err != nil {
			return err
		}
		s.last = nid
	}
	if r.h != nil {
		a := args{b: body}
		if err := r.h(s, id, &a); err != nil {
			return err
		}
		if a.bad {
			return &errProtocol{id, 1, "malformed " + s.objs[id].ifc.name + "." + r.name}
		}
	}
	if r.dtor {
		s.remove(id)
	}
	return nil
}

// tooLong notes a message with bytes after its arguments. libwayland lets
// them pass, so this does too, but says so once.
func (s *session) tooLong(name string, n int) {
	if s.noted == nil {
		s.noted = map[string]bool{}
	}
	if !s.noted[name] {
		s.noted[name] = true
		fmt.Fprintf(os.Stderr, "wlbench: note: %s has %d bytes more than its arguments need\n", name, n)
	}
}

func (s *session) newObject(id uint32, ifc *iface, ver uint32) error {
	switch {
	case id == 0 || id >= 0xff000000 || int(id) > len(s.objs):
		return &errProtocol{1, 0, fmt.Sprintf("new id %d out of order", id)}
	case int(id) == len(s.objs):
		s.objs = append(s.objs, object{ifc: ifc, ver: ver})
	case s.objs[id].ifc != nil:
		return &errProtocol{1, 0, fmt.Sprintf("new id %d is in use", id)}
	default:
		s.objs[id] = object{ifc: ifc, ver: ver}
	}
	return nil
}

func (s *session) remove(id uint32) {
	s.objs[id] = object{}
	s.c.msg(1, 1, id) // delete_id
}

func (s *session) done(cb, data uint32) {
	s.c.msg(cb, 0, data)
	s.remove(cb)
}
