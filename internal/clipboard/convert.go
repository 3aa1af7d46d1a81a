package clipboard

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // decoders of what a guest may offer
	_ "image/jpeg"
	"image/png"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/webp"
)

// Kinds of data that may cross, by their names in rules. Nothing else crosses.
const (
	Text  = "text"
	HTML  = "html"
	Image = "image"
)

// Kinds lists all kinds.
func Kinds() []string { return []string{Text, HTML, Image} }

// An Item is data of one kind on its way out of a VM or into one: text and HTML as
// UTF-8, an image as PNG.
type Item struct {
	Kind string
	Data []byte
}

// guestTypes holds the MIME types of each kind, the best first; X11's names of text are
// in use on Wayland too.
var guestTypes = map[string][]string{
	Text:  {"text/plain;charset=utf-8", "UTF8_STRING", "text/plain", "STRING", "TEXT"},
	HTML:  {"text/html;charset=utf-8", "text/html"},
	Image: {"image/png", "image/webp", "image/jpeg", "image/bmp", "image/gif"},
}

// hostTypes holds the MIME types under which the host offers a kind.
var hostTypes = map[string][]string{
	Text:  {"text/plain;charset=utf-8", "text/plain", "UTF8_STRING", "STRING", "TEXT"},
	HTML:  {"text/html"},
	Image: {"image/png"},
}

// files are MIME types that name files: a path means something else on the other
// side.
var files = []string{"text/uri-list", "x-special/gnome-copied-files", "application/x-kde4-urilist"}

// Best returns the best type of a source with those types, "" for none.
func Best(types []string, kind string) string {
	for _, t := range guestTypes[kind] {
		if slices.Contains(types, t) {
			return t
		}
	}
	return ""
}

// Refusal returns why nothing of a source with those types can cross.
func Refusal(types []string) error {
	switch {
	case len(types) == 0:
		return ErrNothing
	case namesFiles(types):
		return errors.New("files are selected: their paths mean nothing elsewhere; use vix cp")
	}
	return errors.New("what is selected is neither text nor a picture")
}

func namesFiles(types []string) bool {
	return slices.ContainsFunc(files, func(f string) bool { return slices.Contains(types, f) })
}

// Types returns the types under which items are offered.
func Types(items []Item) (types []string) {
	for _, it := range items {
		types = append(types, hostTypes[it.Kind]...)
	}
	return types
}

// Find returns the item offered under a type.
func Find(items []Item, typ string) (Item, bool) {
	for _, it := range items {
		if slices.Contains(hostTypes[it.Kind], typ) {
			return it, true
		}
	}
	return Item{}, false
}

// Limits of pictures: a decoded one has four bytes for each pixel.
const (
	maxPixels = 16 << 20
	maxSide   = 16384
)

// Convert makes an Item of a guest's data of a kind. It decodes hostile bytes, so only
// the display process may call it.
func Convert(kind string, data []byte) (Item, error) {
	switch kind {
	case Text, HTML:
		s := strings.ToValidUTF8(string(data), "\ufffd")
		return Item{kind, []byte(strings.ReplaceAll(s, "\x00", ""))}, nil
	case Image:
		return convertImage(data)
	}
	return Item{}, fmt.Errorf("no such kind of data: %s", kind)
}

// convertImage decodes a picture and encodes it anew, so that nothing but its
// pixels is left.
func convertImage(data []byte) (Item, error) {
	c, format, err := image.DecodeConfig(bytes.NewReader(data))
	switch {
	case err != nil:
		return Item{}, errors.New("not a picture of a known format")
	case c.Width < 1 || c.Height < 1 || c.Width > maxSide || c.Height > maxSide || c.Width*c.Height > maxPixels:
		return Item{}, fmt.Errorf("a picture of %d×%d pixels: at most %d, and %d in all", c.Width, c.Height, maxSide, maxPixels)
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return Item{}, fmt.Errorf("a damaged picture (%s)", format)
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, img); err != nil {
		return Item{}, fmt.Errorf("a picture that cannot be written: %w", err)
	}
	return Item{Image, b.Bytes()}, nil
}

// Strip takes out of text what a terminal or a program could take for more than
// text: escape sequences, control characters but tab and newline, and what changes
// the direction of writing. A carriage return with a newline goes, alone it becomes
// one.
func Strip(text []byte) []byte {
	s := strings.ReplaceAll(string(text), "\r\n", "\n")
	s = strings.ReplaceAll(s, "\r", "\n")
	out := make([]byte, 0, len(s))
	for len(s) > 0 {
		if n := escape(s); n > 0 {
			s = s[n:]
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		if r == '\n' || r == '\t' || !unicode.IsControl(r) && !bidi(r) {
			out = append(out, s[:n]...)
		}
		s = s[n:]
	}
	return out
}

// bidi: U+202A–202E and U+2066–2069, embeddings, overrides and isolates.
func bidi(r rune) bool { return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 }

// escape returns the length of the escape sequence (ECMA-48) that s begins with, 0
// when it begins with none. One that does not end is as long as s, or as a line.
func escape(s string) int {
	var kind byte
	var at int
	switch {
	case strings.HasPrefix(s, "\x1b") && len(s) > 1:
		kind, at = s[1], 2
	case strings.HasPrefix(s, "\u009b"):
		kind, at = '[', 2
	case strings.HasPrefix(s, "\u009d"):
		kind, at = ']', 2
	case strings.HasPrefix(s, "\u0090"):
		kind, at = 'P', 2
	default:
		return 0
	}
	switch kind {
	case '[': // CSI: parameters and intermediates, then one final byte
		for at < len(s) && s[at] >= 0x20 && s[at] <= 0x3f {
			at++
		}
		if at < len(s) && s[at] >= 0x40 && s[at] <= 0x7e {
			at++
		}
		return at
	case ']', 'P', 'X', '^', '_': // strings, up to BEL or ST
		for ; at < len(s) && s[at] != '\n'; at++ {
			switch {
			case s[at] == '\a':
				return at + 1
			case strings.HasPrefix(s[at:], "\x1b\\") || strings.HasPrefix(s[at:], "\u009c"):
				return at + 2
			}
		}
		return at
	}
	for at = 1; at < len(s) && s[at] >= 0x20 && s[at] <= 0x2f; at++ {
	}
	if at < len(s) && s[at] >= 0x30 && s[at] <= 0x7e {
		at++
	}
	return at
}
