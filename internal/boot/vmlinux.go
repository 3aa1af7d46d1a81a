package boot

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxVmlinux bounds what a payload may unpack to; distributions' are 40 to 80 MiB.
const maxVmlinux = 512 << 20

// errNoPVH: the kernel is fine but must boot from its bzImage, which is slower
// (its own decompressor runs in the guest).
var errNoPVH = errors.New("no PVH entry")

// extractVmlinux returns the ELF image inside a bzImage, which QEMU starts directly at its
// PVH entry. errNoPVH, also for an unknown compression, means that the guest has to boot the
// bzImage itself.
func extractVmlinux(image []byte) ([]byte, error) {
	if err := setupHeader(image); err != nil {
		return nil, err
	}
	sects := int64(image[setupSectsAt])
	if sects == 0 {
		sects = 4 // as the boot protocol says
	}
	off := (sects+1)*512 + int64(binary.LittleEndian.Uint32(image[payloadOffAt:]))
	n := int64(binary.LittleEndian.Uint32(image[payloadLenAt:]))
	if n < 8 || off+n > int64(len(image)) {
		return nil, fmt.Errorf("%w: payload of %d bytes at %d in %d", errNotBzImage, n, off, len(image))
	}
	vmlinux, err := unpack(image[off : off+n])
	if err != nil {
		return nil, err
	}
	return vmlinux, checkPVH(vmlinux)
}

// unpack decompresses a payload. The kernel's build appends the unpacked size
// to it (gzip has it in its own trailer, at the same place).
func unpack(payload []byte) ([]byte, error) {
	size := int64(binary.LittleEndian.Uint32(payload[len(payload)-4:]))
	if size > maxVmlinux {
		return nil, fmt.Errorf("kernel of %d bytes: at most %d", size, maxVmlinux)
	}
	r, err := decompressor(payload)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out := make([]byte, size)
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, fmt.Errorf("kernel payload: %w", err)
	}
	return out, nil
}

// decompressor chooses by the magic number, as the kernel's lib/decompress.c.
func decompressor(b []byte) (io.ReadCloser, error) {
	r := bytes.NewReader(b)
	switch {
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// The kernel is packed with a window of up to 128 MiB.
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	case bytes.HasPrefix(b, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		z, err := xz.NewReader(r)
		return io.NopCloser(z), err
	case bytes.HasPrefix(b, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(r)), nil
	case bytes.HasPrefix(b, []byte{0x5d, 0, 0}):
		z, err := lzma.NewReader(r)
		return io.NopCloser(z), err
	}
	return nil, fmt.Errorf("%w: unknown compression % x", errNoPVH, b[:4])
}

// noteXenPhys32Entry is XEN_ELFNOTE_PHYS32_ENTRY (include/xen/interface/elfnote.h).
const noteXenPhys32Entry = 18

// checkPVH: QEMU starts an ELF kernel at the address in this note.
func checkPVH(vmlinux []byte) error {
	f, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		return fmt.Errorf("kernel payload: %w", err)
	}
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("kernel payload: made for %s", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<20 {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err != nil {
			return fmt.Errorf("kernel payload: notes: %w", err)
		}
		if hasNote(notes, "Xen\x00", noteXenPhys32Entry) {
			return nil
		}
	}
	return fmt.Errorf("%w: the kernel was built without CONFIG_PVH", errNoPVH)
}

// hasNote walks ELF notes: u32 name size, u32 description size, u32 type, and
// both, each padded to 4 bytes.
func hasNote(b []byte, name string, typ uint32) bool {
	for len(b) >= 12 {
		nameSize := int64(binary.LittleEndian.Uint32(b))
		descSize := int64(binary.LittleEndian.Uint32(b[4:]))
		end := 12 + (nameSize+3)&^3 + (descSize+3)&^3
		if end > int64(len(b)) {
			return false
		}
		if binary.LittleEndian.Uint32(b[8:]) == typ && string(b[12:12+nameSize]) == name {
			return true
		}
		b = b[end:]
	}
	return false
}
