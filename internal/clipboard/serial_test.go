package clipboard

import "testing"

// A compositor that takes another's place gives out lower serials; by those, programs select
// again. While programs of the old one are there, lower means older.
func TestSerialsOfTheNextCompositor(t *testing.T) {
	w := NewWorld(Config{})
	a, b := w.Join(), w.Join()
	w.set(a, Clipboard, nil, 1000, true)
	a.Leave()
	w.set(b, Clipboard, nil, 5, true)
	if h := w.slots[Clipboard]; h.serial != 1000 {
		t.Errorf("an old serial was taken: %d", h.serial)
	}
	b.Leave()
	c := w.Join()
	src := &Source{member: c}
	w.set(c, Clipboard, src, 5, true)
	if h := w.slots[Clipboard]; h.own != src || h.serial != 5 {
		t.Errorf("a selection on the next compositor is refused: %+v", h)
	}
}
