package wayland

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Kind is what a message's descriptor refers to. It follows from
// the message in the protocol (see fdKinds), never from fstat.
type Kind uint8

const (
	// KindOther is a descriptor of unknown use: a Transport that cannot pass
	// descriptors unchanged (virtwl) must refuse it.
	KindOther Kind = iota
	// KindMemory is memory that the receiver maps: a wl_shm pool, a dmabuf
	// plane, a keymap, a format table.
	KindMemory
	// KindReadPipe is a stream that the message's receiver reads.
	KindReadPipe
	// KindWritePipe is a stream that the message's receiver writes, and closes
	// at the end (wl_data_source.send, wl_data_offer.receive).
	KindWritePipe
)

func (k Kind) String() string {
	return [...]string{"other", "memory", "read pipe", "write pipe"}[k&3]
}

// A Desc is one descriptor in transit: a file descriptor of this process, or,
// in a guest, a virtio-gpu resource. Whoever holds a Desc owns its FD and must
// send it or Close it; a resource is owned by its allocator.
type Desc struct {
	Kind Kind
	FD   int    // -1 if Res is used
	Res  uint32 // virtio-gpu resource handle, 0 if FD is used
	// Held counts the descriptor while it is in transit; it may be nil. It moves with
	// the Desc, and its Release is called when the Desc is closed.
	Held Holder
}

// A Holder counts a descriptor in transit.
type Holder interface {
	// Release is called when the descriptor is closed. It does not block.
	Release()
}

// FileDesc returns a Desc that owns fd.
func FileDesc(k Kind, fd int) Desc { return Desc{Kind: k, FD: fd} }

// ResDesc returns a Desc of a virtio-gpu resource.
func ResDesc(res uint32) Desc { return Desc{Kind: KindMemory, FD: -1, Res: res} }

// Close closes the descriptor if it is a file.
func (d Desc) Close() {
	if d.Res == 0 && d.FD >= 0 {
		_ = unix.Close(d.FD)
	}
	if d.Held != nil {
		d.Held.Release()
	}
}

// CloseAll closes every descriptor of ds.
func CloseAll(ds []Desc) {
	for _, d := range ds {
		d.Close()
	}
}

// Limits of one transfer, the same as libwayland's.
const (
	// MaxDescs is the most descriptors that travel with one Send or Recv
	// (libwayland's MAX_FDS_OUT; also the size of a cross-domain identifier array).
	MaxDescs = 28
	// MaxMessage is the largest Wayland message that passes, in bytes
	// (libwayland before 1.23 refuses more than 4096; the wire's limit is 65535).
	MaxMessage = 4096
)

// ErrClosed is returned by a Transport after Close.
var ErrClosed = errors.New("transport closed")

// A Transport carries one Wayland connection: a stream of bytes, with
// descriptors in order. A descriptor arrives with or before the last byte of
// its message. One goroutine may call Recv while another calls Send; Close may
// be called by any, at any time, more than once, and unblocks both.
type Transport interface {
	// Recv blocks until at least one byte has been received into p, and appends
	// the descriptors that came with the bytes to ds; the caller owns them, also
	// when err is not nil. The end of the stream is io.EOF. Kinds are not known
	// to a socket: they are KindOther until the reader has seen the message.
	Recv(p []byte, ds []Desc) (n int, _ []Desc, err error)
	// Send blocks until all of p is sent or queued within the transport's
	// bounded buffer. It takes ownership of ds' files, even if it fails.
	// len(ds) ≤ MaxDescs, and p is not empty.
	Send(p []byte, ds []Desc) error
	Close() error
}

// A Lingerer is a Transport that knows, after its end, whether the peer may still
// hold data or descriptors from it: a stopped compositor keeps descriptors in its
// socket, and the memory behind them.
type Lingerer interface {
	// Linger makes Close keep what Pending needs. It is called before Close.
	Linger()
	// Pending reports whether the peer has yet to read or drop some of the sent data.
	// No event announces the change: call it after Close, until it reports false.
	Pending() bool
	// Forget releases what Linger kept.
	Forget()
}
