// Package virtwl carries Wayland connections over virtio-gpu's cross-domain
// context type: host.go is the device's side, guest.go the guest's, over the
// /dev/dri ioctls of an unmodified kernel. One context is one connection, and both
// ends of it are a wayland.Transport.
//
//	guest                                                      host
//	GuestConn.Send ── SUBMIT_3D(SEND …) ───────────────────► HostContext.Recv
//	GuestConn.Recv ◄─ channel ring page, fence of a POLL ─── HostContext.Send
//	pipe writers   ◄─ channel ring page (READ …) ─────────── pipe readers
//	pipe readers   ── SUBMIT_3D(WRITE …) ──────────────────► pipe writers
//	NewBlob        ── GET_IMAGE_REQUIREMENTS ► query ring page, RESOURCE_CREATE_BLOB
//
// The host can only answer: the guest submits POLL with a fence on the channel ring's
// timeline; when the host has a message, it writes it to the start of the channel ring's
// page and signals that fence. «Rings» are no rings, and one page each; the channel ring
// of our guest has MaxRingSize bytes, and the host uses the whole length of a ring.
//
// Every command begins with a header; all is little-endian.
//
//	 0    1    2     4     8
//	+----+----+-----+-----+
//	| cmd|ring| size| 0   |   size counts the whole command
//	+----+----+-----+-----+
//
//	INIT (1)                    +8 query ring, +12 channel ring, +16 channel type      20 bytes
//	                            (20 + a uuid of 16 that we ignore: 36; an older form
//	                             without the channel ring: 16)
//	GET_IMAGE_REQUIREMENTS (2)  +8 width, +12 height, +16 DRM fourcc, +20 flags        24 bytes
//	  reply, on the query ring  +0 stride[4], +16 offset[4], +32 u64 modifier,
//	                            +40 u64 size, +48 blob id, +52 map info,
//	                            +56 memory index, +60 device index                     64 bytes
//	POLL (3)                    +8 nothing                                              8 bytes
//	SEND (4), RECEIVE (5)       +8 count, +12 data size, +16 id[28], +128 type[28],
//	                            +240 size[28], +352 data
//	READ (6), WRITE (7)         +8 id, +12 hang-up, +16 data size, +20 0, +24 data
//
// Identifiers in SEND and RECEIVE are the connection's descriptors:
//
//	type 1  memory      SEND: a resource of the context; RECEIVE: a blob id, once
//	type 3  read pipe   SEND only: the guest reads what the host's peer writes; the
//	                    ids count up from 0x80000001, and both sides know the next
//	type 4  write pipe  RECEIVE only: the guest writes what the host's peer reads
//
// A hang-up is READ or WRITE with no data and hang-up 1. The end of the host's
// connection is a RECEIVE with no identifiers and no data.
//
// Flow control. The host signals a fence on SEND or WRITE when it has room for more.
// Our only extension is the timeline of those fences: a device that sets FlowControl in
// its capabilities keeps one timeline per ring index up to 63, so that the guest can
// wait for each pipe separately (ring 2: SEND; 3…: pipes).
//
// Sources: rutabaga_gfx src/cross_domain/cross_domain_protocol.rs,
// wayland-proxy-virtwl virtio-spec.md, Linux include/uapi/drm/virtgpu_drm.h.
package virtwl

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Commands.
const (
	CmdInit                 = 1
	CmdGetImageRequirements = 2
	CmdPoll                 = 3
	CmdSend                 = 4
	CmdReceive              = 5
	CmdRead                 = 6
	CmdWrite                = 7
)

// Identifier types.
const (
	IDMemory    = 1
	IDSync      = 2
	IDReadPipe  = 3
	IDWritePipe = 4
)

// Ring indices: timelines of fences.
const (
	RingQuery     = 0
	RingChannel   = 1
	RingSend      = 2 // with FlowControl
	RingFirstPipe = 3 // with FlowControl
	MaxRings      = 64
)

const (
	// CapsetID is the cross-domain capability set's number.
	CapsetID = 5
	// CapsetSize is the length of its data (Capabilities).
	CapsetSize = 16
	// ChannelWayland is the channel type of INIT for Wayland.
	ChannelWayland = 1
	// PipeReadStart precedes the first read pipe's id.
	PipeReadStart = 0x80000000
	// MaxIdentifiers is the size of the arrays in SEND and RECEIVE.
	MaxIdentifiers = 28
	// PageSize is the length of a ring, at least.
	PageSize = 4096
	// MaxRingSize is the largest used length of a ring: eight pages hold a burst of
	// events, or a good part of a pipe, and cost a connection little memory.
	MaxRingSize = 32 << 10
	// FlowControl is a bit of Capabilities.Channels, no channel: see the package comment.
	FlowControl = 1 << 31

	HeaderSize             = 8
	InitSize               = 20
	initLegacySize         = 16
	initUUIDSize           = 36
	ImageQuerySize         = 24
	ImageReplySize         = 64
	SendReceiveSize        = 16 + 3*4*MaxIdentifiers
	ReadWriteSize          = 24
	MaxReceiveData         = MaxRingSize - SendReceiveSize // in the largest ring
	MaxReadData            = MaxRingSize - ReadWriteSize
	maxCommandSize         = 1<<16 - 1                        // the header's size has 16 bits
	MaxSendData            = maxCommandSize - SendReceiveSize // what one SEND can hold
	MaxWriteData           = maxCommandSize - ReadWriteSize
	fourccR8        uint32 = 'R' | '8'<<8 | ' '<<16 | ' '<<24
)

var le = binary.LittleEndian

// ErrProtocol is wrapped by every error about a peer that broke the protocol.
var ErrProtocol = errors.New("cross-domain protocol")

func protoErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// Header starts every command.
type Header struct {
	Cmd, Ring uint8
	Size      uint16
}

// ParseHeader reads the header of a command.
func ParseHeader(p []byte) (Header, error) {
	if len(p) < HeaderSize {
		return Header{}, protoErrorf("header of %d bytes", len(p))
	}
	return Header{p[0], p[1], le.Uint16(p[2:])}, nil
}

// AppendHeader appends h.
func AppendHeader(b []byte, h Header) []byte {
	return append(b, h.Cmd, h.Ring, byte(h.Size), byte(h.Size>>8), 0, 0, 0, 0)
}

// Init opens the connection of a context.
type Init struct {
	QueryRing, ChannelRing uint32 // resources
	Channel                uint32
}

// ParseInit reads INIT in any of its three lengths.
func ParseInit(p []byte) (Init, error) {
	h, err := ParseHeader(p)
	switch {
	case err != nil:
		return Init{}, err
	case int(h.Size) > len(p):
		return Init{}, protoErrorf("INIT of %d bytes, %d announced", len(p), h.Size)
	case h.Size == initLegacySize:
		q := le.Uint32(p[8:])
		return Init{q, q, le.Uint32(p[12:])}, nil
	case h.Size == InitSize, h.Size == initUUIDSize:
		return Init{le.Uint32(p[8:]), le.Uint32(p[12:]), le.Uint32(p[16:])}, nil
	}
	return Init{}, protoErrorf("INIT of %d bytes", h.Size)
}

// AppendInit appends INIT.
func AppendInit(b []byte, i Init) []byte {
	b = AppendHeader(b, Header{CmdInit, RingQuery, InitSize})
	b = le.AppendUint32(b, i.QueryRing)
	b = le.AppendUint32(b, i.ChannelRing)
	return le.AppendUint32(b, i.Channel)
}

// ImageQuery asks for the layout of an image.
type ImageQuery struct {
	Width, Height, Fourcc, Flags uint32
}

// ParseImageQuery reads GET_IMAGE_REQUIREMENTS.
func ParseImageQuery(p []byte) (ImageQuery, error) {
	if len(p) < ImageQuerySize {
		return ImageQuery{}, protoErrorf("image query of %d bytes", len(p))
	}
	return ImageQuery{le.Uint32(p[8:]), le.Uint32(p[12:]), le.Uint32(p[16:]), le.Uint32(p[20:])}, nil
}

// AppendImageQuery appends GET_IMAGE_REQUIREMENTS.
func AppendImageQuery(b []byte, q ImageQuery) []byte {
	b = AppendHeader(b, Header{CmdGetImageRequirements, RingQuery, ImageQuerySize})
	for _, v := range [...]uint32{q.Width, q.Height, q.Fourcc, q.Flags} {
		b = le.AppendUint32(b, v)
	}
	return b
}

// ImageReply is the answer to an ImageQuery: one plane, linear.
type ImageReply struct {
	Stride, Offset uint32
	Modifier, Size uint64
	BlobID         uint32
	MapInfo        uint32
}

// ParseImageReply reads the query ring's page.
func ParseImageReply(p []byte) (ImageReply, error) {
	if len(p) < ImageReplySize {
		return ImageReply{}, protoErrorf("image requirements of %d bytes", len(p))
	}
	return ImageReply{
		le.Uint32(p), le.Uint32(p[16:]), le.Uint64(p[32:]), le.Uint64(p[40:]), le.Uint32(p[48:]), le.Uint32(p[52:]),
	}, nil
}

// AppendImageReply appends r as the query ring's page has it.
func AppendImageReply(b []byte, r ImageReply) []byte {
	var p [ImageReplySize]byte
	le.PutUint32(p[0:], r.Stride)
	le.PutUint32(p[16:], r.Offset)
	le.PutUint64(p[32:], r.Modifier)
	le.PutUint64(p[40:], r.Size)
	le.PutUint32(p[48:], r.BlobID)
	le.PutUint32(p[52:], r.MapInfo)
	le.PutUint32(p[56:], ^uint32(0)) // memory index: no Vulkan memory
	le.PutUint32(p[60:], ^uint32(0)) // physical device: none
	return append(b, p[:]...)
}

// An Identifier is one descriptor in SEND or RECEIVE.
type Identifier struct {
	ID, Type, Size uint32
}

// SendReceive is the fixed part of SEND and RECEIVE.
type SendReceive struct {
	DataSize uint32
	Count    int
	IDs      [MaxIdentifiers]Identifier
}

// ParseSendReceive reads the fixed part (SendReceiveSize bytes) of SEND or RECEIVE
// into m. It does not read the data that follows.
func ParseSendReceive(p []byte, m *SendReceive) error {
	if len(p) < SendReceiveSize {
		return protoErrorf("SEND of %d bytes", len(p))
	}
	n := le.Uint32(p[8:])
	if n > MaxIdentifiers {
		return protoErrorf("SEND with %d identifiers, at most %d", n, MaxIdentifiers)
	}
	m.Count, m.DataSize = int(n), le.Uint32(p[12:])
	const types, sizes = 4 * MaxIdentifiers, 8 * MaxIdentifiers
	for i := range m.IDs[:n] {
		at := p[16+4*i:]
		m.IDs[i] = Identifier{le.Uint32(at), le.Uint32(at[types:]), le.Uint32(at[sizes:])}
	}
	return nil
}

// PutSendReceive writes the fixed part of cmd (CmdSend or CmdReceive) to p, which
// is at least SendReceiveSize bytes long. The header's size is cut to its 16 bits.
func PutSendReceive(p []byte, cmd uint8, m *SendReceive) {
	p = p[:SendReceiveSize]
	clear(p)
	size := SendReceiveSize + m.DataSize
	p[0] = cmd
	le.PutUint16(p[2:], uint16(min(size, maxCommandSize)))
	le.PutUint32(p[8:], uint32(m.Count))
	le.PutUint32(p[12:], m.DataSize)
	for i, id := range m.IDs[:m.Count] {
		at := p[16+4*i:]
		le.PutUint32(at, id.ID)
		le.PutUint32(at[4*MaxIdentifiers:], id.Type)
		le.PutUint32(at[8*MaxIdentifiers:], id.Size)
	}
}

// ReadWrite is the fixed part of READ and WRITE.
type ReadWrite struct {
	ID       uint32
	HangUp   bool
	DataSize uint32
}

// ParseReadWrite reads the fixed part (ReadWriteSize bytes) of READ or WRITE.
func ParseReadWrite(p []byte) (ReadWrite, error) {
	if len(p) < ReadWriteSize {
		return ReadWrite{}, protoErrorf("READ or WRITE of %d bytes", len(p))
	}
	return ReadWrite{le.Uint32(p[8:]), le.Uint32(p[12:]) != 0, le.Uint32(p[16:])}, nil
}

// PutReadWrite writes the fixed part of cmd (CmdRead or CmdWrite) to p.
func PutReadWrite(p []byte, cmd uint8, m ReadWrite) {
	p = p[:ReadWriteSize]
	clear(p)
	p[0] = cmd
	le.PutUint16(p[2:], uint16(min(ReadWriteSize+m.DataSize, maxCommandSize)))
	le.PutUint32(p[8:], m.ID)
	if m.HangUp {
		p[12] = 1
	}
	le.PutUint32(p[16:], m.DataSize)
}

// Capabilities is the data of the capability set.
type Capabilities struct {
	Version  uint32
	Channels uint32 // bit n: channel type n; and FlowControl
}

// ParseCapabilities reads the capability set.
func ParseCapabilities(p []byte) (Capabilities, error) {
	if len(p) < CapsetSize {
		return Capabilities{}, protoErrorf("capabilities of %d bytes", len(p))
	}
	return Capabilities{le.Uint32(p), le.Uint32(p[4:])}, nil
}

// AppendCapabilities appends the capability set: no dmabufs, no external memory.
func AppendCapabilities(b []byte, c Capabilities) []byte {
	b = le.AppendUint32(b, c.Version)
	b = le.AppendUint32(b, c.Channels)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// PageRound rounds a size up to whole pages.
func PageRound(n uint64) uint64 { return (n + PageSize - 1) &^ (PageSize - 1) }
