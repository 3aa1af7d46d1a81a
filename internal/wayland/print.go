package wayland

import (
	"fmt"
	"strconv"

	"vix/internal/plain"
)

// maxText bounds a peer's text in a log or a trace, in bytes.
const maxText = 200

// Printable returns a peer's text as plain text of one line, for a log or a trace.
func Printable(s string) string { return plain.Text(s, maxText, plain.OneLine) }

// Append appends the message in the style of WAYLAND_DEBUG:
//
//	wl_surface#3.damage(0, 0, 640, 480)
//
// body must have passed Check.
func (m *Message) Append(dst []byte, iface string, id uint32, body []byte) []byte {
	dst = fmt.Appendf(dst, "%s#%d.%s(", iface, id, m.Name)
	d := NewDecoder(body)
	for k := range m.Args {
		if k > 0 {
			dst = append(dst, ", "...)
		}
		a := &m.Args[k]
		switch a.Type {
		case 'i':
			dst = strconv.AppendInt(dst, int64(d.Int()), 10)
		case 'u':
			dst = strconv.AppendUint(dst, uint64(d.Uint()), 10)
		case 'f':
			dst = strconv.AppendFloat(dst, float64(d.Int())/256, 'f', -1, 64)
		case 's':
			dst = fmt.Appendf(dst, "%q", Printable(string(d.String())))
		case 'a':
			dst = fmt.Appendf(dst, "array[%d]", len(d.Array()))
		case 'h':
			dst = append(dst, "fd"...)
		case 'n':
			dst = append(dst, "new id "...)
			dst = appendObject(dst, a, d.Uint())
		case 'o':
			dst = appendObject(dst, a, d.Uint())
		}
	}
	return append(dst, ')')
}

func appendObject(dst []byte, a *Arg, id uint32) []byte {
	if id == 0 {
		return append(dst, "nil"...)
	}
	name := "[unknown]"
	if a.Iface != nil {
		name = a.Iface.Name
	}
	return fmt.Appendf(dst, "%s#%d", name, id)
}
