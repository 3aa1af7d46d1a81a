package rootfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ImageFormat returns the format of image f for QEMU, "raw" or "qcow2". It refuses an image
// that cannot be a guest's root, or that refers to other files: QEMU has only f.
func ImageFormat(f io.ReaderAt) (string, error) {
	head := make([]byte, imageHead)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if n < 512 {
		return "", errors.New("too small to be a disk")
	}
	head = head[:imageHead]
	if binary.BigEndian.Uint32(head) == qcow2Magic {
		return "qcow2", checkQcow2(head)
	}
	if !knownDisk(head) {
		return "", errors.New("holds neither a file system that a guest can mount (ext4, squashfs, erofs or xfs) nor partitions")
	}
	return "raw", nil
}

// imageHead is the size of an image's head, with all the marks below in it.
const imageHead = 4 << 10

// qcow2's header (QEMU docs/interop/qcow2.rst), big endian.
const (
	qcow2Magic        = 0x514649fb // "QFI\xfb"
	qcow2VersionAt    = 4          // u32: 2 or 3
	qcow2BackingAt    = 8          // u64: offset of the backing file's name; 0: none
	qcow2CryptAt      = 32         // u32: 0: none
	qcow2FeaturesAt   = 72         // u64, version 3: features that a reader must support
	qcow2ExternalData = 1 << 2     // a feature: the data is in another file
)

func checkQcow2(head []byte) error {
	be := binary.BigEndian
	version := be.Uint32(head[qcow2VersionAt:])
	switch {
	case version != 2 && version != 3:
		return fmt.Errorf("qcow2 of version %d, not 2 or 3", version)
	case be.Uint64(head[qcow2BackingAt:]) != 0:
		return errors.New("qcow2 with a backing file; make one file of it (qemu-img convert)")
	case be.Uint32(head[qcow2CryptAt:]) != 0:
		return errors.New("qcow2 with encryption; make one without (qemu-img convert)")
	case version == 3 && be.Uint64(head[qcow2FeaturesAt:])&qcow2ExternalData != 0:
		return errors.New("qcow2 with its data in another file; make one file of it (qemu-img convert)")
	}
	return nil
}

// knownDisk finds the mark of a file system or partition table that a guest can use.
func knownDisk(head []byte) bool {
	for _, m := range []struct {
		at   int
		mark string
	}{
		{0, "hsqs"},                // squashfs
		{1024, "\xe2\xe1\xf5\xe0"}, // erofs
		{0x438, "\x53\xef"},        // ext2, 3 and 4
		{0, "XFSB"},                // xfs
		{510, "\x55\xaa"},          // a partition table
	} {
		if bytes.HasPrefix(head[m.at:], []byte(m.mark)) {
			return true
		}
	}
	return false
}
