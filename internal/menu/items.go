package menu

import (
	"encoding/binary"
	"errors"
	"math"
)

// There are many items, and the menu reads them before it shows: JSON takes a hundred times
// as long for them as this format.
//
//	packed: count, then each item: id name generic icon vm tag color, keywords, flags, use
//	string: length, bytes    keywords: count, strings    flags: 1 for a VM    use: float64, 8 bytes
//
// A count, a length and flags are unsigned varints of encoding/binary.

// PackItems returns the items as bytes, at least one.
func PackItems(items []Item) []byte {
	b := make([]byte, 0, 64+128*len(items))
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(len(items)))
	for _, it := range items {
		for _, s := range []string{it.ID, it.Name, it.Generic, it.Icon, it.VM, it.Tag, it.Color} {
			text(s)
		}
		b = binary.AppendUvarint(b, uint64(len(it.Keywords)))
		for _, s := range it.Keywords {
			text(s)
		}
		flags := uint64(0)
		if it.Machine {
			flags = 1
		}
		b = binary.AppendUvarint(b, flags)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(it.Use))
	}
	return b
}

var errPacked = errors.New("menu: the packed items are damaged")

// UnpackItems is the inverse of PackItems. The items' strings are parts of packed.
func UnpackItems(packed string) ([]Item, error) {
	u := unpacker{rest: packed, ok: true}
	n := u.number()
	const least = 7 + 1 + 1 + 8 // bytes of an item
	if n > uint64(len(packed))/least {
		return nil, errPacked
	}
	items := make([]Item, n)
	for i := range items {
		it := &items[i]
		for _, s := range []*string{&it.ID, &it.Name, &it.Generic, &it.Icon, &it.VM, &it.Tag, &it.Color} {
			*s = u.text()
		}
		k := u.number()
		if k > uint64(len(u.rest)) {
			return nil, errPacked
		}
		for range k {
			it.Keywords = append(it.Keywords, u.text())
		}
		it.Machine = u.number()&1 != 0
		it.Use = math.Float64frombits(u.fixed64())
	}
	if !u.ok || u.rest != "" {
		return nil, errPacked
	}
	return items, nil
}

// An unpacker takes values from the front of rest; ok is false once there was too little.
type unpacker struct {
	rest string
	ok   bool
}

func (u *unpacker) take(n uint64) string {
	if n > uint64(len(u.rest)) {
		u.rest, u.ok = "", false
		return ""
	}
	s := u.rest[:n]
	u.rest = u.rest[n:]
	return s
}

func (u *unpacker) number() uint64 {
	n, used := binary.Uvarint([]byte(u.rest[:min(len(u.rest), binary.MaxVarintLen64)]))
	if used <= 0 {
		u.rest, u.ok = "", false
		return 0
	}
	u.rest = u.rest[used:]
	return n
}

func (u *unpacker) text() string { return u.take(u.number()) }

func (u *unpacker) fixed64() uint64 {
	s := u.take(8)
	if s == "" {
		return 0
	}
	return binary.LittleEndian.Uint64([]byte(s))
}
