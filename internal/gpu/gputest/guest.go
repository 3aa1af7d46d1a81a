// Package gputest is a guest of package gpu without a VM: it speaks virtio-gpu and
// raw cross-domain over vhosttest's rings, honestly or not.
package gputest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"vix/internal/vhost"
	"vix/internal/vhost/vhosttest"
	"vix/internal/virtwl"
)

var le = binary.LittleEndian

// Commands and answers of virtio_gpu.h.
const (
	GetDisplayInfo = 0x100
	ResourceUnref  = 0x102
	GetCapsetInfo  = 0x108
	GetCapset      = 0x109
	CreateBlob     = 0x10c
	CtxCreate      = 0x200
	CtxDestroy     = 0x201
	CtxAttach      = 0x202
	CtxDetach      = 0x203
	Submit3D       = 0x207
	MapBlob        = 0x208
	UnmapBlob      = 0x209

	OK           = 0x1100
	OKDisplay    = 0x1101
	OKCapsetInfo = 0x1102
	OKCapset     = 0x1103
	OKMapInfo    = 0x1106
	ErrUnspec    = 0x1200
	ErrMemory    = 0x1201
	ErrResource  = 0x1203
	ErrContext   = 0x1204
	ErrParameter = 0x1205

	HeaderSize = 24
	// AnswerSize is enough for any answer.
	AnswerSize = 1024
)

// Guest is a driver of a GPU.
type Guest struct {
	FE      *vhosttest.FrontEnd
	Control *vhosttest.Ring
	Cursor  *vhosttest.Ring

	res, ctx atomic.Uint32
	window   atomic.Uint64
}

// NewGuest starts a guest on a started front end.
func NewGuest(fe *vhosttest.FrontEnd) *Guest {
	return &Guest{FE: fe, Control: fe.Rings[0], Cursor: fe.Rings[1]}
}

// Features are what a Linux guest acknowledges.
const Features = 1<<0 | 1<<3 | 1<<4 | vhost.FeatureIndirectDesc

// Header builds a command's header; ring < 0 means no ring, fence 0 no fence.
func Header(cmd, ctx uint32, fence uint64, ring int) []byte {
	b := le.AppendUint32(nil, cmd)
	flags := uint32(0)
	if fence != 0 {
		flags |= 1
	}
	if ring >= 0 {
		flags |= 2
	}
	b = le.AppendUint32(b, flags)
	b = le.AppendUint64(b, fence)
	b = le.AppendUint32(b, ctx)
	return append(b, byte(max(ring, 0)), 0, 0, 0)
}

// U32s concatenates numbers.
func U32s(vs ...uint32) []byte {
	var b []byte
	for _, v := range vs {
		b = le.AppendUint32(b, v)
	}
	return b
}

// Do submits a command and returns the answer's type and body.
func (g *Guest) Do(cmd, ctx uint32, body []byte) (typ uint32, answer []byte, err error) {
	p, err := g.Control.Do(append(Header(cmd, ctx, 0, -1), body...), AnswerSize)
	if err != nil {
		return 0, nil, err
	}
	if len(p) < HeaderSize {
		return 0, nil, fmt.Errorf("answer of %d bytes", len(p))
	}
	return le.Uint32(p), p[HeaderSize:], nil
}

// Expect is Do with a check of the answer's type.
func (g *Guest) Expect(want, cmd, ctx uint32, body []byte) ([]byte, error) {
	typ, p, err := g.Do(cmd, ctx, body)
	if err == nil && typ != want {
		err = fmt.Errorf("command %#x: answer %#x, want %#x", cmd, typ, want)
	}
	return p, err
}

// NewRes returns an unused resource id.
func (g *Guest) NewRes() uint32 { return g.res.Add(1) }

// BlobBody is the body of RESOURCE_CREATE_BLOB.
func BlobBody(res, mem uint32, blobID, size uint64, entries ...vhost.Segment) []byte {
	b := U32s(res, mem, 1, uint32(len(entries)))
	b = le.AppendUint64(le.AppendUint64(b, blobID), size)
	for _, e := range entries {
		b = append(le.AppendUint64(b, e.Addr), U32s(e.Len, 0)...)
	}
	return b
}

// Page makes a page of guest memory and a resource of it, attached to ctx.
func (g *Guest) Page(ctx uint32) (res uint32, page []byte, err error) {
	addr, mem := g.FE.Alloc(virtwl.PageSize)
	return g.PageAt(ctx, addr, mem)
}

// PageAt makes a resource of a given page.
func (g *Guest) PageAt(ctx uint32, addr uint64, mem []byte) (res uint32, page []byte, err error) {
	res = g.NewRes()
	_, err = g.Expect(OK, CreateBlob, ctx, BlobBody(res, 1, 0, virtwl.PageSize, vhost.Segment{Addr: addr, Len: virtwl.PageSize}))
	if err == nil {
		_, err = g.Expect(OK, CtxAttach, ctx, U32s(res, 0))
	}
	return res, mem, err
}

// Conn is one context with its rings: a Wayland connection.
type Conn struct {
	G              *Guest
	Ctx            uint32
	Query, Channel []byte // pages
	QueryRes       uint32
	ChannelRes     uint32
	fence          atomic.Uint64
	cmd            []byte // of the last Send
	addrs          [2]uint64
}

// Context makes a context with rings, without INIT. It may reuse the pages of a closed
// connection.
func (g *Guest) Context(again *Conn) (*Conn, error) {
	c := &Conn{G: g, Ctx: g.ctx.Add(1)}
	var err error
	if _, err = g.Expect(OK, CtxCreate, c.Ctx, append(U32s(3, virtwl.CapsetID), make([]byte, 64)...)); err != nil {
		return nil, err
	}
	var mem [2][]byte
	if again != nil {
		c.addrs, mem[0], mem[1] = again.addrs, again.Query, again.Channel
	} else {
		c.addrs[0], mem[0] = g.FE.Alloc(virtwl.PageSize)
		c.addrs[1], mem[1] = g.FE.Alloc(virtwl.PageSize)
	}
	if c.QueryRes, c.Query, err = g.PageAt(c.Ctx, c.addrs[0], mem[0]); err != nil {
		return nil, err
	}
	c.ChannelRes, c.Channel, err = g.PageAt(c.Ctx, c.addrs[1], mem[1])
	return c, err
}

// Connect makes a context and opens its connection.
func (g *Guest) Connect(again *Conn) (*Conn, error) {
	c, err := g.Context(again)
	if err != nil {
		return nil, err
	}
	return c, c.Init()
}

// Init submits INIT.
func (c *Conn) Init() error {
	return c.Submit(virtwl.AppendInit(nil, virtwl.Init{QueryRing: c.QueryRes, ChannelRing: c.ChannelRes, Channel: virtwl.ChannelWayland}))
}

// Command is SUBMIT_3D with a cross-domain command.
func (c *Conn) Command(cmd []byte, ring int) []byte {
	fence := uint64(0)
	if ring >= 0 {
		fence = c.fence.Add(1)
	}
	b := append(Header(Submit3D, c.Ctx, fence, ring), U32s(uint32(len(cmd)), 0)...)
	return append(b, cmd...)
}

// Submit submits a cross-domain command without a fence and checks that it succeeded.
func (c *Conn) Submit(cmd []byte) error {
	p, err := c.G.Control.Do(c.Command(cmd, -1), HeaderSize)
	if err == nil && (len(p) < 4 || le.Uint32(p) != OK) {
		err = fmt.Errorf("cross-domain command %d: answer %x", cmd[0], p)
	}
	return err
}

// Start submits a cross-domain command with a fence on ring, or without a fence for -1.
func (c *Conn) Start(cmd []byte, ring int) *vhosttest.Request {
	return c.G.Control.Submit(c.Command(cmd, ring), HeaderSize)
}

// SendCmd builds SEND.
func SendCmd(data []byte, ids ...virtwl.Identifier) []byte {
	m := virtwl.SendReceive{DataSize: uint32(len(data)), Count: len(ids)}
	copy(m.IDs[:], ids)
	b := make([]byte, virtwl.SendReceiveSize, virtwl.SendReceiveSize+len(data))
	virtwl.PutSendReceive(b, virtwl.CmdSend, &m)
	return append(b, data...)
}

// WriteCmd builds WRITE.
func WriteCmd(id uint32, data []byte, hangUp bool) []byte {
	b := make([]byte, virtwl.ReadWriteSize, virtwl.ReadWriteSize+len(data))
	virtwl.PutReadWrite(b, virtwl.CmdWrite, virtwl.ReadWrite{ID: id, HangUp: hangUp, DataSize: uint32(len(data))})
	return append(b, data...)
}

// Poll submits POLL.
func (c *Conn) Poll() *vhosttest.Request {
	return c.Start(virtwl.AppendHeader(nil, virtwl.Header{Cmd: virtwl.CmdPoll, Size: virtwl.HeaderSize}), virtwl.RingChannel)
}

// An Event is the content of the channel ring's page.
type Event struct {
	Cmd  uint8
	Msg  virtwl.SendReceive // of RECEIVE
	Read virtwl.ReadWrite   // of READ
	Data []byte
}

// Next polls and waits for an event. Its Data is a copy.
func (c *Conn) Next() (Event, error) {
	q := c.Poll()
	p, err := q.Wait()
	if err != nil {
		return Event{}, err
	}
	typ := le.Uint32(p)
	q.Free()
	if typ != OK {
		return Event{}, fmt.Errorf("POLL: answer %#x", typ)
	}
	return ParseEvent(c.Channel)
}

// ParseEvent reads a channel ring's page.
func ParseEvent(page []byte) (e Event, err error) {
	e.Cmd = page[0]
	at, n := virtwl.SendReceiveSize, uint32(0)
	switch e.Cmd {
	case virtwl.CmdReceive:
		err = virtwl.ParseSendReceive(page, &e.Msg)
		n = e.Msg.DataSize
	case virtwl.CmdRead:
		e.Read, err = virtwl.ParseReadWrite(page)
		at, n = virtwl.ReadWriteSize, e.Read.DataSize
	default:
		err = fmt.Errorf("command %d in the channel ring", e.Cmd)
	}
	if err == nil && int(n) > len(page)-at {
		err = errors.New("data beyond the page")
	}
	if err != nil {
		return e, err
	}
	e.Data = append([]byte(nil), page[at:at+int(n)]...)
	return e, nil
}

// Blob makes a host blob of whole pages by GET_IMAGE_REQUIREMENTS and maps it.
func (c *Conn) Blob(size uint32) (res uint32, mem []byte, err error) {
	q := c.Start(virtwl.AppendImageQuery(nil, virtwl.ImageQuery{Width: size, Height: 1, Fourcc: R8, Flags: 0x11}), virtwl.RingQuery)
	p, err := q.Wait()
	if err != nil {
		return 0, nil, err
	}
	typ := le.Uint32(p)
	q.Free()
	if typ != OK {
		return 0, nil, fmt.Errorf("image requirements: answer %#x", typ)
	}
	r, err := virtwl.ParseImageReply(c.Query)
	if err != nil {
		return 0, nil, err
	}
	return c.Take(uint64(r.BlobID), r.Size)
}

// R8 is the fourcc in proxies' requests for pools.
const R8 = 'R' | '8'<<8 | ' '<<16 | ' '<<24

// Take makes a resource of a blob id, attaches and maps it.
func (c *Conn) Take(id, size uint64) (res uint32, mem []byte, err error) {
	res = c.G.NewRes()
	if _, err := c.G.Expect(OK, CreateBlob, c.Ctx, BlobBody(res, 2, id, size)); err != nil {
		return 0, nil, err
	}
	if _, err := c.G.Expect(OK, CtxAttach, c.Ctx, U32s(res, 0)); err != nil {
		return 0, nil, err
	}
	off := c.G.window.Add(size) - size
	if _, err := c.G.Expect(OKMapInfo, MapBlob, 0, le.AppendUint64(U32s(res, 0), off)); err != nil {
		return res, nil, err
	}
	return res, c.G.FE.Window(off), nil
}

// Drop unmaps and frees a host blob.
func (g *Guest) Drop(res uint32) error {
	_, err := g.Expect(OK, UnmapBlob, 0, U32s(res, 0))
	if err == nil {
		_, err = g.Expect(OK, ResourceUnref, 0, U32s(res, 0))
	}
	return err
}

// Close destroys the context and its rings.
func (c *Conn) Close() error {
	_, err := c.G.Expect(OK, CtxDestroy, c.Ctx, nil)
	for _, r := range []uint32{c.QueryRes, c.ChannelRes} {
		_, uerr := c.G.Expect(OK, ResourceUnref, 0, U32s(r, 0))
		err = errors.Join(err, uerr)
	}
	return err
}

// CtxGone destroys the context of that number, if it exists.
func (g *Guest) CtxGone(ctx uint32) error {
	_, _, err := g.Do(CtxDestroy, ctx, nil)
	return err
}
