package clipboard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// Host is the compositor's own selection, by ext-data-control-v1 or
// wlr-data-control-unstable-v1, which are alike but for their names. It is a small
// client of its own (wayland.Client): the library that we have for clients loses
// descriptors that come together, and descriptors are all that this one is about.
//
//	manager  create_data_source 0 (new)   get_data_device 1 (new, seat)
//	device   set_selection 0 (source)     ◄ data_offer 0 (new), selection 1 (offer), finished 2,
//	         set_primary_selection 2        primary_selection 3 (offer)
//	source   offer 0 (type), destroy 1    ◄ send 0 (type, fd), cancelled 1
//	offer    receive 0 (type, fd), destroy 1  ◄ offer 0 (type)
type Host struct {
	c               *wayland.Client // its requests under mu, its events in listen
	manager, device uint32

	mu     sync.Mutex
	offers map[uint32][]string // the types of each offer
	own    *Offer              // our offer

	selected [numSlots]uint32
	changes  [numSlots]uint64 // the number of changes of each slot
	changed  chan struct{}    // holds one
	done     chan struct{}
}

// managers are the names of the interface, the better first, and its versions.
var managers = []struct {
	name    string
	version uint32
}{{"ext_data_control_manager_v1", 1}, {"zwlr_data_control_manager_v1", 2}}

// ErrNoDataControl says that the compositor has no data control.
var ErrNoDataControl = errors.New("the compositor has neither ext-data-control nor wlr-data-control: the host's clipboard cannot be reached")

// maxTypes bounds the types read of a host's selection.
const maxTypes = 4096

// DialHost finds the selection of the compositor behind t, which it owns.
func DialHost(t wayland.Transport) (*Host, error) {
	h := &Host{c: wayland.NewClient(t), offers: map[uint32][]string{}, changed: make(chan struct{}, 1), done: make(chan struct{})}
	if err := h.bind(); err != nil {
		return nil, errors.Join(err, h.c.Close())
	}
	go h.listen()
	return h, nil
}

// Close ends the connection, and its offers.
func (h *Host) Close() error {
	err := h.c.Close()
	<-h.done
	return err
}

// bind binds the seat and the manager, and reads the present selections.
func (h *Host) bind() error {
	if err := h.c.Registry(); err != nil {
		return err
	}
	seat := h.c.Bind(wayland.WlSeat.Name, 1)
	for _, m := range managers {
		if h.manager = h.c.Bind(m.name, m.version); h.manager != 0 {
			break
		}
	}
	if h.manager == 0 || seat == 0 {
		return ErrNoDataControl
	}
	h.device = h.c.NewID()
	h.c.Msg(h.manager, 1, h.device, seat)
	if err := h.c.Roundtrip(h.event); err != nil {
		return err
	}
	select {
	case <-h.changed: // what there is
	default:
	}
	return nil
}

// listen handles events until the connection ends.
func (h *Host) listen() {
	defer close(h.done)
	for {
		m, err := h.c.Next()
		if err == nil {
			err = h.event(m)
		}
		if err != nil {
			wayland.CloseAll(h.c.Descs)
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.own != nil {
				h.own.Replaced()
			}
			return
		}
	}
}

func (h *Host) event(m wayland.Msg) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := m.Args()
	_, offer := h.offers[m.ID]
	source := m.ID > h.device && m.ID < wayland.ServerIDs
	switch {
	case m.ID == h.device:
		return h.deviceEvent(m.Op, d.Uint())
	case offer && len(h.offers[m.ID]) < maxTypes:
		h.offers[m.ID] = append(h.offers[m.ID], string(d.String()))
	case source && m.Op == 0: // send
		if len(h.c.Descs) == 0 {
			return wayland.ErrMissing
		}
		fd := h.c.Descs[0].FD
		h.c.Descs = h.c.Descs[1:]
		if h.own == nil {
			_ = unix.Close(fd)
			return nil
		}
		_ = unix.SetNonblock(fd, true)
		h.own.Write(string(d.String()), os.NewFile(uintptr(fd), "paste"))
	case source && m.Op == 1: // cancelled
		if h.own != nil {
			h.own.Replaced()
		}
	}
	return nil
}

// deviceEvent follows the selections.
func (h *Host) deviceEvent(op uint16, id uint32) error {
	slot := Clipboard
	switch op {
	case 0: // data_offer
		h.offers[id] = []string{}
		return nil
	case 1: // selection
	case 3: // primary_selection
		slot = Primary
	default: // finished
		return errors.New("the compositor has ended the data device")
	}
	if old := h.selected[slot]; old != 0 && old != id {
		delete(h.offers, old)
		h.c.Msg(old, 1)
	}
	h.selected[slot] = id
	h.changes[slot]++
	if slot == Clipboard {
		select {
		case h.changed <- struct{}{}:
		default:
		}
	}
	if len(h.c.B) == 0 {
		return nil
	}
	return h.c.Flush()
}

// Changed returns a channel that gets a value at each change of the clipboard after the
// Host was made.
func (h *Host) Changed() <-chan struct{} { return h.changed }

// Done returns a channel that is closed at the end of the compositor's connection.
func (h *Host) Done() <-chan struct{} { return h.done }

// A Selection is the host's selection at one moment. A decision about its types holds for
// it alone, not for a later selection.
type Selection struct {
	Types  []string // its MIME types; nil for none
	slot   Slot
	change uint64
}

// Same tells whether two Selections of one Host are one.
func (s Selection) Same(t Selection) bool { return s.slot == t.slot && s.change == t.change }

// ErrChanged says that the selection has changed meanwhile.
var ErrChanged = errors.New("something else was selected meanwhile; do it again")

// Selection returns the present selection of a slot.
func (h *Host) Selection(s Slot) Selection {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Selection{slices.Clone(h.offers[h.selected[s]]), s, h.changes[s]}
}

// Types that say something about the others.
const (
	// hint tells clipboard managers of a password (KDE's convention, which others
	// follow): they keep no history of it.
	hint      = "x-kde-passwordManagerHint"
	hintValue = "secret"
	// origin is followed by the name of the VM that the data came from.
	origin = "application/x-vix.from."
)

// Secret tells whether a selection of the host's with those types is a password, or
// the like.
func Secret(types []string) bool { return slices.Contains(types, hint) }

// Origin returns the VM that a selection of the host's with those types came from, ""
// for none. The host's programs alone can say so: guests' types do not get there.
func Origin(types []string) string {
	for _, t := range types {
		if vm, ok := strings.CutPrefix(t, origin); ok {
			return vm
		}
	}
	return ""
}

// Take returns what sel is, as far as limits, by kind, let it pass; ErrChanged when it is
// selected no more.
func (h *Host) Take(sel Selection, limits map[string]int64) ([]Item, error) {
	if namesFiles(sel.Types) {
		return nil, Refusal(sel.Types)
	}
	var items []Item
	for _, kind := range Kinds() {
		typ := Best(sel.Types, kind)
		if typ == "" || limits[kind] <= 0 {
			continue
		}
		f, err := h.receive(sel, typ)
		if err != nil {
			return nil, err
		}
		it, err := read(f, kind, limits[kind])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		items = append(items, it)
	}
	if len(items) == 0 {
		return nil, Refusal(sel.Types)
	}
	return items, nil
}

func (h *Host) receive(sel Selection, typ string) (*os.File, error) {
	f, far, err := askingPipe()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changes[sel.slot] != sel.change {
		_ = unix.Close(far)
		return nil, errors.Join(ErrChanged, f.Close())
	}
	putString(&h.c.Encoder, h.selected[sel.slot], 0, typ)
	if err := h.c.Flush(wayland.FileDesc(wayland.KindWritePipe, far)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Give offers items to the host until ctx is done or something else is selected. It
// returns once the compositor has them; done is closed at the end. from is the VM that
// they came from, or ""; secret asks the host's clipboard managers to keep no history.
// One offer a Host is all that it keeps apart.
func (h *Host) Give(ctx context.Context, s Slot, items []Item, from string, secret bool) (done <-chan struct{}, err error) {
	o := NewOffer(items)
	o.words = map[string]string{}
	if from != "" {
		o.words[origin+from] = from
	}
	if secret {
		o.words[hint] = hintValue
	}
	h.mu.Lock()
	source := h.c.NewID()
	h.own = o
	h.c.Msg(h.manager, 0, source)
	for _, typ := range o.types() {
		putString(&h.c.Encoder, source, 0, typ)
	}
	set := uint16(0)
	if s == Primary {
		set = 2
	}
	h.c.Msg(h.device, set, source)
	err = h.c.Flush()
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-ctx.Done():
			h.mu.Lock()
			h.own = nil
			h.c.Msg(source, 1)
			err = h.c.Flush()
			h.mu.Unlock()
		case <-o.other:
		case <-h.done:
		}
		o.Wipe()
	}()
	return over, nil
}
