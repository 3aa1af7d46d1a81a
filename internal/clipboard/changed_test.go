package clipboard

import (
	"errors"
	"testing"

	"vix/internal/wayland"
)

// What was decided about one selection of the host's is not done with the next, though
// the compositor gives it the same number.
func TestHostSelectionChanged(t *testing.T) {
	h := &Host{c: wayland.NewClient(nil), offers: map[uint32][]string{7: {"text/plain"}}, changed: make(chan struct{}, 1)}
	h.selected[Clipboard] = 7
	sel := h.Selection(Clipboard)
	if len(sel.Types) != 1 || !sel.Same(h.Selection(Clipboard)) || sel.Same(h.Selection(Primary)) {
		t.Fatalf("%+v", sel)
	}
	if err := h.deviceEvent(1, 7); err != nil {
		t.Fatal(err)
	}
	if sel.Same(h.Selection(Clipboard)) {
		t.Error("another selection is the same")
	}
	if items, err := h.Take(sel, map[string]int64{Text: 100}); !errors.Is(err, ErrChanged) {
		t.Errorf("%v, %v", items, err)
	}
}

// Nor with the next of a VM's: its kinds were looked at, one by one.
func TestWorldSelectionChanged(t *testing.T) {
	w := NewWorld(Config{VM: "t"})
	first, second := &Source{world: w, kinds: []string{"text/plain"}}, &Source{world: w, kinds: []string{"text/plain"}}
	w.slots[Clipboard].own = first
	src, kinds := w.selection(Clipboard)
	if src != first || len(kinds) != 1 {
		t.Fatal(src, kinds)
	}
	w.slots[Clipboard].own = second
	if _, err := w.takeFrom(Clipboard, src, "text/plain"); !errors.Is(err, ErrChanged) {
		t.Error(err)
	}
	w.slots[Clipboard].own = nil
	if _, err := w.takeFrom(Clipboard, src, "text/plain"); !errors.Is(err, ErrChanged) {
		t.Error(err)
	}
	if _, err := w.Take(Clipboard, "text/plain"); !errors.Is(err, ErrNothing) {
		t.Error(err)
	}
}
