package rootfs

import (
	"bytes"
	"fmt"
	"io"

	"github.com/u-root/u-root/pkg/cpio"
)

// initramfsFormat is part of the cache's key: change it with the layout.
const initramfsFormat = "1"

// A packed module is one with its bytes as they are on disk.
type packedModule struct {
	module
	data []byte
}

// writeInitramfs writes the archive: uncompressed, because an emulated
// processor unpacks far more slowly than QEMU copies. Records carry no times
// or owners, so that equal input gives equal bytes.
func writeInitramfs(w io.Writer, guest []byte, mods []packedModule) error {
	var records []cpio.Record
	for _, dir := range []string{"dev", "proc", "sys", "run", "lower", "rw", "root", "modules"} {
		records = append(records, cpio.Directory(dir, 0o755))
	}
	records = append(records,
		// The kernel opens it as init's stdin, stdout and stderr.
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("init", string(guest), 0o755))
	var list bytes.Buffer
	for _, m := range mods {
		data, err := unpackModule(m.data)
		if err != nil {
			return fmt.Errorf("module %s: %w", m.name, err)
		}
		fmt.Fprintf(&list, "%s %s.ko\n", m.group, m.name)
		records = append(records, cpio.StaticFile("modules/"+m.name+".ko", string(data), 0o644))
	}
	records = append(records, cpio.StaticFile(ListFile, list.String(), 0o644))
	cpio.MakeAllReproducible(records)
	out := cpio.Newc.Writer(w)
	if err := cpio.WriteRecords(out, records); err != nil {
		return err
	}
	return cpio.WriteTrailer(out)
}
