package machine

import (
	"encoding/binary"
	"image/color"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// pixels are the files that all guests' buffers lie in: one of a colour that windows
// and all else are filled with, one for pointers' images.
type pixels struct {
	files  [2]wayland.Desc
	inodes [2]uint64
}

const (
	poolSize  = 8 << 20
	maxBuffer = 1200 // on each side; with their offsets, all fit the pool
)

// What nothing else has: the colours of two VMs' contents, and of their pointers' images.
var (
	lime    = color.RGBA{0, 0xff, 0, 0xff}
	yellow  = color.RGBA{0xff, 0xff, 0, 0xff}
	magenta = color.RGBA{0xff, 0, 0xff, 0xff}
	cyan    = color.RGBA{0, 0xff, 0xff, 0xff}
)

func newPixels(t *testing.T, content, pointer color.RGBA) *pixels {
	t.Helper()
	p := &pixels{}
	for k, c := range []color.RGBA{content, pointer} {
		p.files[k] = waylandtest.Memfd(t, poolSize)
		b := make([]byte, poolSize)
		for i := 0; i < len(b); i += 4 {
			binary.NativeEndian.PutUint32(b[i:], 0xff000000|uint32(c.R)<<16|uint32(c.G)<<8|uint32(c.B))
		}
		if _, err := unix.Pwrite(p.files[k].FD, b, 0); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(p.files[k].FD, &st); err != nil {
			t.Fatal(err)
		}
		p.inodes[k] = st.Ino
	}
	t.Cleanup(func() { wayland.CloseAll(p.files[:]) })
	return p
}

// desc returns a descriptor of file k, to send.
func (p *pixels) desc(k int) wayland.Desc {
	fd, err := unix.FcntlInt(uintptr(p.files[k].FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return wayland.FileDesc(wayland.KindMemory, -1)
	}
	return wayland.FileDesc(wayland.KindMemory, fd)
}

// own tells whether a descriptor is of one of the files.
func (p *pixels) own(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && (st.Ino == p.inodes[0] || st.Ino == p.inodes[1])
}
