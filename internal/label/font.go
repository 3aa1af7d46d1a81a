package label

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/go-text/typesetting/font"
	"github.com/go-text/typesetting/font/opentype"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
)

// Two libraries read a font. go-text, which shapes, would parse every outline,
// bitmap and name first: three quarters of its time and memory, for glyphs that
// are never seen. So those tables are hidden from it, and the outlines of the drawn
// glyphs come from x/image/font/sfnt, which reads each on demand.
// Fonts that sfnt cannot read, such as WOFF and CFF2, go-text reads whole.

// outlines reads glyphs' outlines, in font units.
type outlines struct {
	face *font.Face // whole, or without outlines if lazy is set
	lazy *sfnt.Font
	buf  sfnt.Buffer
	out  []opentype.Segment
}

// readFont reads a font, or the first of a collection.
func readFont(b []byte) (*font.Face, *outlines, error) {
	if face, o, err := readLean(b); err == nil {
		return face, o, nil
	}
	face, err := parse(bytes.NewReader(b))
	return face, &outlines{face: face}, err
}

func parse(r font.Resource) (*font.Face, error) {
	loaders, err := opentype.NewLoaders(r)
	if err != nil {
		return nil, err
	}
	if len(loaders) == 0 {
		return nil, errors.New("a collection without a font")
	}
	f, err := font.NewFont(loaders[0])
	if err != nil {
		return nil, err
	}
	return font.NewFace(f), nil
}

// skipTables are the tables that go-text does not need: outlines, bitmaps, colours, names.
var skipTables = []string{"glyf", "loca", "CFF ", "gvar", "post", "name", "sbix", "CBDT", "CBLC", "EBDT", "EBLC", "bdat", "bloc", "SVG ", "COLR", "CPAL", "STAT"}

var errWhole = errors.New("the font has to be read whole")

func readLean(b []byte) (*font.Face, *outlines, error) {
	if len(b) < 16 {
		return nil, nil, errWhole // sfnt reads the first bytes without a check
	}
	collection, err := sfnt.ParseCollection(b)
	if err != nil {
		return nil, nil, err
	}
	lazy, err := collection.Font(0)
	if err != nil {
		return nil, nil, err
	}
	at, directory, err := leanDirectory(b)
	if err != nil {
		return nil, nil, err
	}
	face, err := parse(io.NewSectionReader(overlay{b, at, directory}, 0, int64(len(b))))
	if err != nil {
		return nil, nil, err
	}
	// Without anchors in the font, the outlines' extents place the marks.
	mark := opentype.MustNewTag("mark")
	if !slices.ContainsFunc(face.GPOS.Features, func(f font.Feature) bool { return f.Tag == mark }) {
		return nil, nil, errWhole
	}
	return face, &outlines{face: face, lazy: lazy}, nil
}

// leanDirectory returns the offset of the first font's table directory, and a copy
// of the directory in which the hidden tables have no name
// (https://learn.microsoft.com/typography/opentype/spec/otff).
func leanDirectory(b []byte) (at int, directory []byte, err error) {
	const header, record = 12, 16
	if string(b[:4]) == "ttcf" {
		at = int(binary.BigEndian.Uint32(b[12:]))
	}
	if at < 0 || at > len(b)-header {
		return 0, nil, errWhole
	}
	size := header + record*int(binary.BigEndian.Uint16(b[at+4:]))
	if size > len(b)-at {
		return 0, nil, errWhole
	}
	directory = slices.Clone(b[at : at+size])
	for i := header; i < size; i += record {
		if tag := directory[i : i+4]; slices.Contains(skipTables, string(tag)) {
			clear(tag)
		}
	}
	return at, directory, nil
}

// An overlay is a byte slice of which a part is replaced.
type overlay struct {
	under []byte
	at    int
	over  []byte
}

// ReadAt implements io.ReaderAt.
func (o overlay) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(o.under).ReadAt(p, off)
	from, to := max(int(off), o.at), min(int(off)+n, o.at+len(o.over))
	if from < to {
		copy(p[from-int(off):to-int(off)], o.over[from-o.at:])
	}
	return n, err
}

// segments returns a glyph's outline, nil if it has none. It is valid until the next call.
func (o *outlines) segments(g font.GID) []opentype.Segment {
	if o.lazy == nil {
		out, _ := o.face.GlyphDataOutline(g)
		return out.Segments
	}
	// With as many pixels per em as units per em, the numbers are units.
	units := fixed.Int26_6(o.lazy.UnitsPerEm())
	segments, err := o.lazy.LoadGlyph(&o.buf, sfnt.GlyphIndex(g), units, nil)
	if err != nil {
		return nil
	}
	ops := [...]opentype.SegmentOp{
		sfnt.SegmentOpMoveTo: opentype.SegmentOpMoveTo, sfnt.SegmentOpLineTo: opentype.SegmentOpLineTo,
		sfnt.SegmentOpQuadTo: opentype.SegmentOpQuadTo, sfnt.SegmentOpCubeTo: opentype.SegmentOpCubeTo,
	}
	o.out = o.out[:0]
	for _, s := range segments {
		to := opentype.Segment{Op: ops[s.Op]}
		for k, p := range s.Args {
			to.Args[k] = opentype.SegmentPoint{X: float32(p.X), Y: -float32(p.Y)}
		}
		o.out = append(o.out, to)
	}
	return o.out
}

// top returns a glyph's height above the baseline, in font units.
func (o *outlines) top(g font.GID) float64 {
	top := float32(0)
	for _, s := range o.segments(g) {
		for _, p := range s.ArgsSlice() {
			top = max(top, p.Y)
		}
	}
	return float64(top)
}
