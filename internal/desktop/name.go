package desktop

import (
	"fmt"
	"strings"

	"vix/config"
	"vix/internal/plain"
)

// A desktop entry has one name, which is its file's, its icon's, its service file's and
// the bus's; the path of its object is made of the name as the Desktop Entry
// Specification has it, and callers make it themselves ('.' becomes '/', '-' becomes
// '_'). So that two programs have never one name, nor one path, no '-' is in a name, and
// every byte that is neither a letter nor a digit is escaped:
//
//	VM my-vm, program org.gnome.Maps ─► dev.vix.my_2dvm.org.gnome.Maps ─► /dev/vix/my_2dvm/org/gnome/Maps
//
// as systemd's bus_label_escape does, element by element.
const namePrefix = "dev.vix."

// maxEncoded bounds what an id becomes, in bytes: with a VM's name, the prefix and what
// a file's name needs besides, it fits into 255.
const maxEncoded = 128

// EntryName makes the name of a VM's and a desktop file's id.
func EntryName(vm, id string) string { return namePrefix + escapeLabel(vm) + "." + encodeID(id) }

// encodeID escapes an id, element by element.
func encodeID(id string) string {
	elements := strings.Split(id, ".")
	for i, e := range elements {
		elements[i] = escapeLabel(e)
	}
	return strings.Join(elements, ".")
}

// ParseEntryName is the inverse of EntryName. It refuses a name that EntryName does not
// make.
func ParseEntryName(name string) (vm, id string, err error) {
	bad := fmt.Errorf("%q: not the name of an entry", plain.Text(name, maxLabel, plain.OneLine))
	label, rest, ok := strings.Cut(strings.TrimPrefix(name, namePrefix), ".")
	if !ok || !strings.HasPrefix(name, namePrefix) {
		return "", "", bad
	}
	elements := strings.Split(rest, ".")
	for i, e := range append([]string{label}, elements...) {
		text, ok := unescapeLabel(e)
		switch {
		case !ok:
			return "", "", bad
		case i == 0:
			vm = text
		default:
			elements[i-1] = text
		}
	}
	id = strings.Join(elements, ".")
	if config.CheckName(vm) != nil || EntryName(vm, id) != name {
		return "", "", bad
	}
	return vm, id, nil
}

// escapeLabel makes an element of a bus's name, and of a path, of any text: letters stay,
// digits too but for the first byte, all else is "_" and two hexadecimal digits; nothing
// at all is "_".
func escapeLabel(s string) string {
	if s == "" {
		return "_"
	}
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', i > 0 && c >= '0' && c <= '9':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

func unescapeLabel(s string) (string, bool) {
	if s == "_" {
		return "", true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '_' {
			b.WriteByte(s[i])
			continue
		}
		var c byte
		if i+2 >= len(s) {
			return "", false
		}
		if _, err := fmt.Sscanf(s[i+1:i+3], "%02x", &c); err != nil {
			return "", false
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), s != "" && escapeLabel(b.String()) == s
}
