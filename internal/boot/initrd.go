package boot

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// maxInitrd bounds the user's initrd, packed and unpacked.
const maxInitrd = 1 << 30

// modulesIn returns an initrd's files below lib/modules/RELEASE, by their paths from there.
// An initrd is one newc archive after another (Documentation/driver-api/early-
// userspace/buffer-format.rst), any of which may be compressed: the first is often
// microcode.
func modulesIn(initrd []byte, release string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for rest := initrd; ; {
		rest = bytes.TrimLeft(rest, "\x00")
		if len(rest) < 4 {
			break
		}
		packed := !bytes.HasPrefix(rest, []byte(newcMagic))
		if packed { // all that follows
			r, err := decompressor(rest)
			if err != nil {
				return nil, errors.New("neither a cpio archive (newc) nor one that is compressed by gzip, xz, zstd, bzip2 or lzma")
			}
			rest, err = readAllBounded(r, maxInitrd)
			r.Close()
			if err != nil {
				return nil, err
			}
		}
		err := eachNewc(&rest, func(name string, content []byte) {
			name = strings.TrimPrefix(path.Clean("/"+name), "/usr")
			if file, ok := strings.CutPrefix(name, "/lib/modules/"+release+"/"); ok {
				files[file] = content
			}
		})
		if err != nil {
			return nil, err
		}
		if packed {
			break
		}
	}
	if files["modules.dep"] == nil {
		return nil, fmt.Errorf("holds no modules of kernel %s (lib/modules/%s/modules.dep)", release, release)
	}
	return files, nil
}

// newc's header (cpio(5)): the magic, and 13 numbers of 8 hexadecimal digits. Then the
// name with a zero, and the content, each padded to 4 bytes.
const (
	newcMagic   = "070701"
	newcHead    = 110
	newcSizeAt  = 54
	newcNameAt  = 94
	newcTrailer = "TRAILER!!!"
)

var errInitrd = errors.New("a damaged cpio archive")

// eachNewc calls f with each file of the archive at the beginning of b, and consumes it.
func eachNewc(b *[]byte, f func(name string, content []byte)) error {
	take := func(n int) ([]byte, error) {
		if n > len(*b) {
			return nil, errInitrd
		}
		got := (*b)[:n]
		*b = (*b)[min((n+3)&^3, len(*b)):]
		return got, nil
	}
	for {
		if len(*b) < newcHead || string((*b)[:len(newcMagic)]) != newcMagic {
			return errInitrd
		}
		size, err1 := strconv.ParseUint(string((*b)[newcSizeAt:newcSizeAt+8]), 16, 31)
		length, err2 := strconv.ParseUint(string((*b)[newcNameAt:newcNameAt+8]), 16, 16)
		if err1 != nil || err2 != nil || length == 0 {
			return errInitrd
		}
		head, err := take(newcHead + int(length)) // are padded together
		if err != nil {
			return err
		}
		content, err := take(int(size))
		if err != nil {
			return err
		}
		name := string(head[newcHead : len(head)-1])
		if name == newcTrailer {
			return nil
		}
		f(name, content)
	}
}
