// Package transfer carries files and trees between a host and its guests, as one
// stream of bytes over any channel.
//
// # The stream
//
//	"vixfiles" 1 u8    entries    'E'
//
//	0      1              5
//	+------+--------------+-----------------------+
//	| kind | length (LE)  | payload, ≤ 128 KiB    |
//	+------+--------------+-----------------------+
//
//	'D' [mode u32][mtime i64][name]              a directory begins
//	'U'                                          the directory ends
//	'F' [mode u32][mtime i64][size u64][name]    a file begins; size is a hint
//	'B' bytes                                    bytes of the file, at its current offset
//	'H' [n u64]                                  a hole: n bytes that are zero
//	'Z'                                          the file ends
//	'L' [mtime i64][n u16][name of n][target]    a symbolic link
//	'E'                                          the end; a stream without it was cut off
//
// Numbers are little endian, times nanoseconds since 1970, modes the nine
// permission bits of stat(2). A name is one component: a stream has no paths,
// so none can lead anywhere. The names of a directory ascend, byte by byte:
// so no name comes twice, and the receiver need not remember names to know it.
//
// # Trust
//
// The receiver treats every byte as hostile. It creates each entry anew: it never opens
// an existing file and never follows a link, so no entry can write through an earlier
// one. Everything goes through an os.Root, or by one component from an open directory.
// A new entry has no name, or a temporary one, until it is complete and on disk. A failed
// or cut stream leaves nothing; a killed receiver leaves only what a later copy into the
// same directory removes. A directory receives only requested names, so a sender cannot
// choose which other files to replace. Devices, sockets, owners, setuid bits and hard
// links are not in the format. Entries, depth, bytes and the sizes of files are bounded.
//
// The package reads and writes only below the directories that it is given.
package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

const (
	magic      = "vixfiles\x01"
	headerSize = 5
	// maxRecord bounds a payload: a few frames of the agent's channel.
	maxRecord = 128 << 10
	// maxName is Linux's NAME_MAX, maxTarget its PATH_MAX less the NUL.
	maxName   = 255
	maxTarget = 4095
	// maxFile bounds a file's size with its holes, which cost the sender nothing. It is half
	// of ext4's largest file.
	maxFile = 8 << 40
	// MaxDepth bounds the depth of directories: each level holds a descriptor.
	MaxDepth = 200
)

type kind byte

const (
	kindDir    kind = 'D'
	kindUp     kind = 'U'
	kindFile   kind = 'F'
	kindBytes  kind = 'B'
	kindHole   kind = 'H'
	kindFileIn kind = 'Z'
	kindLink   kind = 'L'
	kindEnd    kind = 'E'
)

// A record is one record of the stream; its kind decides which fields it has.
type record struct {
	kind   kind
	mode   fs.FileMode
	mtime  int64
	size   uint64 // of a file (a hint) or of a hole
	name   string
	target string
	data   []byte
}

// Every violation of the format wraps ErrMalformed.
var ErrMalformed = errors.New("malformed stream of files")

// ErrCut means that the stream ended without its end record.
var ErrCut = errors.New("the stream of files was cut off")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// appendRecord appends r. The sender has checked its names.
func appendRecord(dst []byte, r record) []byte {
	at := len(dst)
	dst = append(dst, byte(r.kind), 0, 0, 0, 0)
	switch r.kind {
	case kindDir:
		dst = binary.LittleEndian.AppendUint32(dst, uint32(r.mode))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(r.mtime))
		dst = append(dst, r.name...)
	case kindFile:
		dst = binary.LittleEndian.AppendUint32(dst, uint32(r.mode))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(r.mtime))
		dst = binary.LittleEndian.AppendUint64(dst, r.size)
		dst = append(dst, r.name...)
	case kindBytes:
		dst = append(dst, r.data...)
	case kindHole:
		dst = binary.LittleEndian.AppendUint64(dst, r.size)
	case kindLink:
		dst = binary.LittleEndian.AppendUint64(dst, uint64(r.mtime))
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(r.name)))
		dst = append(append(dst, r.name...), r.target...)
	}
	setLength(dst[at:])
	return dst
}

// setLength puts the length of a whole record into its head.
func setLength(r []byte) {
	binary.LittleEndian.PutUint32(r[1:], uint32(len(r)-headerSize))
}

// A decoder reads records, and checks each on its own.
type decoder struct {
	r    io.Reader
	buf  []byte
	have []byte // bytes of buf that were read and not taken
	rest int    // bytes of the current 'B' record that have not arrived
}

// newDecoder reads the stream's head.
func newDecoder(r io.Reader) (*decoder, error) {
	d := &decoder{r: r, buf: make([]byte, 2*maxRecord)}
	head, err := d.take(len(magic))
	if err != nil {
		return nil, err
	}
	if string(head) != magic {
		return nil, malformed("it begins with %q", head)
	}
	return d, nil
}

// fill reads until n bytes are there; n is at most half of buf.
func (d *decoder) fill(n int) error {
	if len(d.have) >= n {
		return nil
	}
	d.have = d.buf[:copy(d.buf, d.have)]
	for len(d.have) < n {
		k, err := d.r.Read(d.buf[len(d.have):])
		d.have = d.buf[:len(d.have)+k]
		if err != nil && len(d.have) < n {
			return cut(err)
		}
	}
	return nil
}

// take returns the next n bytes, which are valid until the next fill.
func (d *decoder) take(n int) ([]byte, error) {
	if err := d.fill(n); err != nil {
		return nil, err
	}
	p := d.have[:n]
	d.have = d.have[n:]
	return p, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrCut
	}
	return err
}

// next reads a record. It returns content piece by piece, as it arrives, each piece as a
// record of its own. Its data is valid until the next call.
func (d *decoder) next() (record, error) {
	if d.rest > 0 {
		return d.bytes()
	}
	head, err := d.take(headerSize)
	if err != nil {
		return record{}, err
	}
	k, n := kind(head[0]), binary.LittleEndian.Uint32(head[1:])
	if n > maxRecord {
		return record{}, malformed("a record of %d bytes, at most %d", n, maxRecord)
	}
	if k == kindBytes && n > 0 {
		d.rest = int(n)
		return d.bytes()
	}
	p, err := d.take(int(n))
	if err != nil {
		return record{}, err
	}
	return parseRecord(k, p)
}

func (d *decoder) bytes() (record, error) {
	if err := d.fill(1); err != nil {
		return record{}, err
	}
	p, err := d.take(min(d.rest, len(d.have)))
	d.rest -= len(p)
	return record{kind: kindBytes, data: p}, err
}

// fixedSizes holds the length of the numbers in each kind's payload.
var fixedSizes = map[kind]int{kindDir: 12, kindUp: 0, kindFile: 20, kindBytes: 0, kindHole: 8, kindFileIn: 0, kindLink: 10, kindEnd: 0}

func parseRecord(k kind, p []byte) (record, error) {
	r := record{kind: k}
	n, known := fixedSizes[k]
	if !known {
		return r, malformed("a record of kind %#x", byte(k))
	}
	if len(p) < n {
		return r, malformed("a record %c of %d bytes, at least %d", k, len(p), n)
	}
	rest := p[n:]
	switch k {
	case kindDir, kindFile:
		mode := binary.LittleEndian.Uint32(p)
		if mode&^0o777 != 0 {
			return r, malformed("mode %#o", mode)
		}
		r.mode, r.mtime = fs.FileMode(mode), int64(binary.LittleEndian.Uint64(p[4:]))
		if k == kindFile {
			r.size = binary.LittleEndian.Uint64(p[12:])
		}
		r.name = string(rest)
		return r, checkName(r.name)
	case kindBytes:
		r.data = rest
		if len(rest) == 0 {
			return r, malformed("no bytes")
		}
		return r, nil
	case kindHole:
		r.size = binary.LittleEndian.Uint64(p)
		if r.size == 0 || r.size > maxFile {
			return r, malformed("a hole of %d bytes", r.size)
		}
	case kindLink:
		return parseLink(r, p, rest)
	}
	if len(rest) != 0 {
		return r, malformed("a record %c with %d bytes more", k, len(rest))
	}
	return r, nil
}

func parseLink(r record, p, rest []byte) (record, error) {
	r.mtime = int64(binary.LittleEndian.Uint64(p))
	n := int(binary.LittleEndian.Uint16(p[8:]))
	if n > len(rest) {
		return r, malformed("a name of %d bytes in %d", n, len(rest))
	}
	r.name, r.target = string(rest[:n]), string(rest[n:])
	if r.target == "" || len(r.target) > maxTarget || strings.IndexByte(r.target, 0) >= 0 {
		return r, malformed("link %q to %.64q", r.name, r.target)
	}
	return r, checkName(r.name)
}

// checkName checks that a name is one component and names an entry.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return malformed("name %.64q", name)
	}
	return nil
}
