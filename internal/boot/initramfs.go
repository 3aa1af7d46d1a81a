package boot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/u-root/u-root/pkg/cpio"
)

// initramfsFormat is part of the cache's key: change it with the layout.
const initramfsFormat = "3"

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
	for _, dir := range []string{"dev", "proc", "sys", "run", "lower", "scratch", "root", "modules"} {
		records = append(records, cpio.Directory(dir, 0o755))
	}
	records = append(records,
		// The kernel opens it as init's stdin, stdout and stderr.
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("init", string(guest), 0o755))
	var list bytes.Buffer
	packed := map[string]bool{}
	for _, m := range mods {
		data, err := unpackModule(m.data)
		if err != nil {
			return fmt.Errorf("module %s: %w", m.name, err)
		}
		fmt.Fprintf(&list, "%s %s.ko\n", m.group, m.name)
		if packed[m.name] {
			continue // of another group too
		}
		packed[m.name] = true
		data, signature := splitSignature(data)
		records = append(records, cpio.StaticFile("modules/"+m.name+".ko", string(data), 0o644))
		if len(signature) > 0 {
			records = append(records, cpio.StaticFile("modules/"+m.name+".ko.sig", string(signature), 0o644))
		}
	}
	records = append(records, cpio.StaticFile(ListFile, list.String(), 0o644))
	cpio.MakeAllReproducible(records)
	out := cpio.Newc.Writer(w)
	if err := cpio.WriteRecords(out, records); err != nil {
		return err
	}
	return cpio.WriteTrailer(out)
}

// signatureMagic ends a signed module. Before it: the signature, and a struct
// module_signature of 12 bytes whose last four are the signature's length, big
// endian (include/linux/module_signature.h).
const signatureMagic = "~Module signature appended~\n"

// splitSignature cuts the signature off a module.
func splitSignature(mod []byte) (bare, signature []byte) {
	rest, ok := bytes.CutSuffix(mod, []byte(signatureMagic))
	if !ok || len(rest) < 12 {
		return mod, nil
	}
	n := int64(binary.BigEndian.Uint32(rest[len(rest)-4:])) + 12
	if n > int64(len(rest)) {
		return mod, nil
	}
	return mod[:int64(len(rest))-n], mod[int64(len(rest))-n:]
}
