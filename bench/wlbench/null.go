package main

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What the null compositor does for each request that needs more than a check.

type pool struct {
	data []byte
	fd   int
	refs int
}

type buffer struct {
	p                          *pool
	off, width, height, stride int32
	seen                       []byte // the pixels at the last counted commit
}

type surface struct {
	attached bool
	buf      uint32
	dmg      [4]int32
	frames   []uint32
	xdg      uint32
	toplevel uint32
	conf     bool
	count    bool // answer frames with the number of changed pixels
}

func hSync(s *session, id uint32, a *args) error {
	s.seq++
	s.done(a.u(), s.seq)
	return nil
}

func hGetRegistry(s *session, id uint32, a *args) error {
	reg := a.u()
	for i, g := range nullGlobals {
		at := s.c.begin(reg, 0)
		s.c.u(uint32(i + 1))
		s.c.s(g.iface)
		s.c.u(g.version)
		s.c.end(at)
	}
	return nil
}

func hBind(s *session, id uint32, a *args) error {
	name, ifn, ver, nid := a.u(), a.s(), a.u(), a.u()
	if a.bad || name == 0 || int(name) > len(nullGlobals) {
		return &errProtocol{id, 0, fmt.Sprintf("bind of unknown global %d", name)}
	}
	g := nullGlobals[name-1]
	if g.iface != ifn || ver == 0 || ver > g.version {
		return &errProtocol{id, 0, fmt.Sprintf("bind of %s v%d as %s v%d", g.iface, g.version, ifn, ver)}
	}
	if err := s.newObject(nid, ifaces[ifn], ver); err != nil {
		return err
	}
	s.greet(ifn, nid, ver)
	return nil
}

// greet sends what an object tells of itself when it is bound.
func (s *session) greet(ifn string, id, ver uint32) {
	switch ifn {
	case "wl_shm":
		s.c.msg(id, 0, 0)
		s.c.msg(id, 0, 1)
	case "wl_seat":
		s.c.msg(id, 0, 1) // a pointer only: a keyboard would need a keymap
		if ver >= 2 {
			s.text(id, 1, "seat0")
		}
	case "wl_output":
		s.greetOutput(id, ver)
	}
}

func (s *session) greetOutput(id, ver uint32) {
	c := s.c
	at := c.begin(id, 0)
	for _, v := range []int32{0, 0, 600, 340, 0} {
		c.i(v)
	}
	c.s("wlbench")
	c.s("null")
	c.i(0)
	c.end(at)
	c.msg(id, 1, 3, 1920, 1080, 60000)
	if ver >= 2 {
		c.msg(id, 3, 1)
	}
	if ver >= 4 {
		s.text(id, 4, "NULL-1")
	}
	if ver >= 2 {
		c.msg(id, 2)
	}
}

// text sends an event with one string.
func (s *session) text(id uint32, op uint16, v string) {
	at := s.c.begin(id, op)
	s.c.s(v)
	s.c.end(at)
}

func hCreateSurface(s *session, id uint32, a *args) error {
	s.objs[a.u()].data = &surface{}
	return nil
}

func hCreatePool(s *session, id uint32, a *args) error {
	nid, size := a.u(), a.i()
	fd, err := s.c.takeFd()
	if err != nil {
		return &errProtocol{id, 1, err.Error()}
	}
	p := &pool{fd: fd, refs: 1}
	if err := p.remap(size); err != nil {
		p.unref()
		return &errProtocol{id, 2, err.Error()}
	}
	s.objs[nid].data = p
	return nil
}

func (p *pool) remap(size int32) error {
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return err
	}
	if size <= 0 || st.Size < int64(size) {
		return fmt.Errorf("pool size %d but file size %d", size, st.Size)
	}
	data, err := unix.Mmap(p.fd, 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if p.data != nil {
		_ = unix.Munmap(p.data) // ours, so it cannot fail
	}
	p.data = data
	return nil
}

func (p *pool) unref() {
	if p.refs--; p.refs > 0 {
		return
	}
	if p.data != nil {
		_ = unix.Munmap(p.data)
	}
	unix.Close(p.fd)
}

func hPoolResize(s *session, id uint32, a *args) error {
	p := s.objs[id].data.(*pool)
	if err := p.remap(a.i()); err != nil {
		return &errProtocol{id, 2, err.Error()}
	}
	return nil
}

func hPoolDestroy(s *session, id uint32, a *args) error {
	s.objs[id].data.(*pool).unref()
	return nil
}

func hCreateBuffer(s *session, id uint32, a *args) error {
	nid := a.u()
	b := &buffer{p: s.objs[id].data.(*pool), off: a.i(), width: a.i(), height: a.i(), stride: a.i()}
	if b.off < 0 || b.width <= 0 || b.height <= 0 || int64(b.stride) < 4*int64(b.width) ||
		int64(b.off)+int64(b.stride)*int64(b.height) > int64(len(b.p.data)) {
		return &errProtocol{id, 1, "buffer does not fit its pool"}
	}
	b.p.refs++
	s.objs[nid].data = b
	return nil
}

func hBufferDestroy(s *session, id uint32, a *args) error {
	s.objs[id].data.(*buffer).p.unref()
	return nil
}

func hAttach(s *session, id uint32, a *args) error {
	f := s.objs[id].data.(*surface)
	f.attached, f.buf = true, a.u()
	return nil
}

func hDamage(s *session, id uint32, a *args) error {
	s.objs[id].data.(*surface).dmg = [4]int32{a.i(), a.i(), a.i(), a.i()}
	return nil
}

func hFrame(s *session, id uint32, a *args) error {
	f := s.objs[id].data.(*surface)
	f.frames = append(f.frames, a.u())
	return nil
}

func hCommit(s *session, id uint32, a *args) error {
	f := s.objs[id].data.(*surface)
	data := uint32(time.Since(s.t0).Milliseconds())
	if f.attached && f.buf != 0 {
		if int(f.buf) >= len(s.objs) {
			return &errProtocol{id, 0, "commit of an unknown buffer"}
		}
		b, ok := s.objs[f.buf].data.(*buffer)
		if !ok {
			return &errProtocol{id, 0, "commit of a destroyed buffer"}
		}
		if f.count {
			data = b.changed()
		} else {
			data = b.stamp(f.dmg)
		}
		s.c.msg(f.buf, 0) // release
	}
	f.attached = false
	for _, cb := range f.frames {
		s.done(cb, data)
	}
	f.frames = f.frames[:0]
	if f.toplevel != 0 && !f.conf {
		f.conf = true
		at := s.c.begin(f.toplevel, 0)
		s.c.i(0)
		s.c.i(0)
		s.c.array(nil)
		s.c.end(at)
		s.seq++
		s.c.msg(f.xdg, 0, s.seq)
	}
	return nil
}

const badStamp = 0xffffffff

// stampPoints are where a frame's number is painted: three points on the
// diagonal of the damage. The client paints a small block around each, for a
// proxy may hand on somewhat more damage than it got.
func stampPoints(x, y, w, h int32) (p [3][2]int64) {
	for i := range p {
		k := int64(i + 1)
		p[i] = [2]int64{int64(x) + int64(w)*k/4, int64(y) + int64(h)*k/4}
	}
	return p
}

// stamp is the word that all the stamp points of the damage hold.
func (b *buffer) stamp(d [4]int32) uint32 {
	var v [3]uint32
	for i, p := range stampPoints(d[0], d[1], d[2], d[3]) {
		if p[0] < 0 || p[1] < 0 || p[0] >= int64(b.width) || p[1] >= int64(b.height) {
			return badStamp
		}
		v[i] = ne.Uint32(b.p.data[int64(b.off)+p[1]*int64(b.stride)+4*p[0]:])
	}
	if v[0] != v[1] || v[1] != v[2] {
		return badStamp
	}
	return v[0]
}

func hGetXdgSurface(s *session, id uint32, a *args) error {
	nid, sf := a.u(), a.u()
	if int(sf) >= len(s.objs) {
		return &errProtocol{id, 4, "no such surface"}
	}
	f, ok := s.objs[sf].data.(*surface)
	if !ok {
		return &errProtocol{id, 4, "not a surface"}
	}
	f.xdg = nid
	s.objs[nid].data = f
	return nil
}

func hGetToplevel(s *session, id uint32, a *args) error {
	f, ok := s.objs[id].data.(*surface)
	if !ok {
		return &errProtocol{id, 4, "not an xdg_surface"}
	}
	f.toplevel = a.u()
	s.objs[f.toplevel].data = f
	return nil
}

// countTitle is the end of a title that asks for counting. A proxy may put a tag
// in front of it.
const countTitle = "wlbench count"

func hSetTitle(s *session, id uint32, a *args) error {
	if f, ok := s.objs[id].data.(*surface); ok {
		f.count = strings.HasSuffix(a.s(), countTitle)
	}
	return nil
}

// changed counts the pixels that differ from those of the last commit.
func (b *buffer) changed() uint32 {
	now := b.p.data[b.off : int64(b.off)+int64(b.stride)*int64(b.height)]
	var n uint32
	if b.seen == nil {
		b.seen = make([]byte, len(now))
	}
	for i := 0; i+4 <= len(now); i += 4 {
		if ne.Uint32(now[i:]) != ne.Uint32(b.seen[i:]) {
			n++
		}
	}
	copy(b.seen, now)
	return n
}

func hGetXdgOutput(s *session, id uint32, a *args) error {
	nid := a.u()
	s.c.msg(nid, 0, 0, 0)
	s.c.msg(nid, 1, 1920, 1080)
	return nil
}

func hGetPointer(s *session, id uint32, a *args) error {
	s.pointer = a.u()
	return nil
}

// hSubtract: the flood of events that the client asks for, once it has a pointer.
func hSubtract(s *session, id uint32, a *args) error {
	n := a.u()
	for i := uint32(1); i <= n && s.pointer != 0; i++ {
		s.c.msg(s.pointer, 2, i, (i&1023)<<8, (i&511)<<8)
		if len(s.c.out) >= flushAt-20 {
			if err := s.c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}
