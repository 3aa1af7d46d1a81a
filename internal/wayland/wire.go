package wayland

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// HeaderSize is the size of a message's header in bytes.
const HeaderSize = 8

// MaxString is the longest string or array that fits a message, in bytes.
const MaxString = MaxMessage - HeaderSize - 4

// ServerIDs is the first id that the server allocates; below it ids are the
// client's (wayland-server-core: WL_SERVER_ID_START).
const ServerIDs = 0xff000000

// Word reads the word at byte offset off of b.
func Word(b []byte, off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }

// PutWord writes the word at byte offset off of b.
func PutWord(b []byte, off int, v uint32) { binary.NativeEndian.PutUint32(b[off:], v) }

// Errors of a malformed stream. They are the sender's fault.
var (
	ErrSize    = errors.New("message size out of range")
	ErrArgs    = errors.New("arguments do not fit the signature")
	ErrMissing = errors.New("a descriptor is missing")
)

// Next parses the header of the message at the start of b. It returns the object,
// the opcode and the size in bytes with the header, or size 0 if the message is
// incomplete. An impossible size is ErrSize.
func Next(b []byte) (id uint32, op uint16, size int, err error) {
	if len(b) < HeaderSize {
		return 0, 0, 0, nil
	}
	id = binary.NativeEndian.Uint32(b)
	w := binary.NativeEndian.Uint32(b[4:])
	size = int(w >> 16)
	if size < HeaderSize || size&3 != 0 || size > MaxMessage {
		return id, uint16(w), 0, fmt.Errorf("%w: %d bytes for object %d", ErrSize, size, id)
	}
	if len(b) < size {
		return id, uint16(w), 0, nil
	}
	return id, uint16(w), size, nil
}

// Check reports whether body, without the header, matches the message's signature:
// the length, every string with its NUL, every array.
func (m *Message) Check(body []byte) error {
	if !m.Dynamic {
		if len(body) != m.Words*4 {
			return fmt.Errorf("%w: %d bytes instead of %d", ErrArgs, len(body), m.Words*4)
		}
		return nil
	}
	d := Decoder{b: body}
	for k := range m.Args {
		switch a := &m.Args[k]; a.Type {
		case 'h':
		case 's':
			if _, null := d.str(); null && !a.Nullable {
				return fmt.Errorf("%w: no string", ErrArgs)
			}
		case 'a':
			d.Array()
		default:
			d.Uint()
		}
	}
	return d.Done()
}

// A Decoder reads a message's arguments in order. After a malformed one it returns
// zeros, and Done an error.
type Decoder struct {
	b   []byte
	bad bool
}

// NewDecoder returns a decoder of body, which has no header.
func NewDecoder(body []byte) Decoder { return Decoder{b: body} }

// Uint reads one word.
func (d *Decoder) Uint() uint32 {
	if len(d.b) < 4 {
		d.bad = true
		return 0
	}
	v := binary.NativeEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}

// Int reads one signed word.
func (d *Decoder) Int() int32 { return int32(d.Uint()) }

// Array reads an array, which aliases the message: copy it to keep it.
func (d *Decoder) Array() []byte {
	n := d.Uint()
	padded := (uint64(n) + 3) &^ 3
	if padded > uint64(len(d.b)) {
		d.bad = true
		d.b = nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[padded:]
	return v
}

// String reads a string without its NUL; a null string is empty. It aliases
// the message.
func (d *Decoder) String() []byte {
	s, _ := d.str()
	return s
}

func (d *Decoder) str() (_ []byte, null bool) {
	v := d.Array()
	if len(v) == 0 {
		return nil, true
	}
	if v[len(v)-1] != 0 {
		d.bad = true
		return nil, false
	}
	return v[: len(v)-1 : len(v)-1], false
}

// Done returns ErrArgs unless all arguments were valid and nothing is left.
func (d *Decoder) Done() error {
	if d.bad || len(d.b) != 0 {
		return ErrArgs
	}
	return nil
}

// An Encoder appends messages to B: call Begin, add the arguments, call End.
type Encoder struct {
	B     []byte
	start int
}

// Begin starts a message for object id.
func (e *Encoder) Begin(id uint32, op uint16) {
	e.start = len(e.B)
	e.B = binary.NativeEndian.AppendUint32(e.B, id)
	e.B = binary.NativeEndian.AppendUint32(e.B, uint32(op))
}

// Uint appends one word.
func (e *Encoder) Uint(v uint32) { e.B = binary.NativeEndian.AppendUint32(e.B, v) }

// Int appends one signed word.
func (e *Encoder) Int(v int32) { e.Uint(uint32(v)) }

// String appends a string with its NUL. It must not contain a NUL.
func (e *Encoder) String(s string) {
	e.Uint(uint32(len(s) + 1))
	e.B = append(append(e.B, s...), 0)
	e.pad()
}

// Array appends an array.
func (e *Encoder) Array(a []byte) {
	e.Uint(uint32(len(a)))
	e.B = append(e.B, a...)
	e.pad()
}

func (e *Encoder) pad() {
	for (len(e.B)-e.start)&3 != 0 {
		e.B = append(e.B, 0)
	}
}

// End writes the message's size. If the message is larger than MaxMessage, End
// removes it and returns ErrSize.
func (e *Encoder) End() error {
	size := len(e.B) - e.start
	if size > MaxMessage {
		e.B = e.B[:e.start]
		return fmt.Errorf("%w: %d bytes", ErrSize, size)
	}
	PutWord(e.B, e.start+4, Word(e.B, e.start+4)|uint32(size)<<16)
	return nil
}

// Put appends a message of words (uint32, int) and strings. If the message is larger than
// MaxMessage, Put appends nothing and returns ErrSize.
func (e *Encoder) Put(id uint32, op uint16, args ...any) error {
	e.Begin(id, op)
	for _, a := range args {
		switch a := a.(type) {
		case uint32:
			e.Uint(a)
		case int:
			e.Int(int32(a))
		case string:
			e.String(a)
		default: // a mistake in the calling code; nothing that was received chooses a type
			panic(fmt.Sprintf("wayland: argument %T", a))
		}
	}
	return e.End()
}

// Msg appends a message of words only.
func (e *Encoder) Msg(id uint32, op uint16, words ...uint32) {
	e.B = binary.NativeEndian.AppendUint32(e.B, id)
	e.B = binary.NativeEndian.AppendUint32(e.B, uint32(HeaderSize+4*len(words))<<16|uint32(op))
	for _, w := range words {
		e.B = binary.NativeEndian.AppendUint32(e.B, w)
	}
}
