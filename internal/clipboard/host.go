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
// client of its own on package wayland: the library that we have for clients loses
// descriptors that come together, and descriptors are all that this one is about.
//
//	manager  create_data_source 0 (new)   get_data_device 1 (new, seat)
//	device   set_selection 0 (source)     ◄ data_offer 0 (new), selection 1 (offer), finished 2,
//	         set_primary_selection 2        primary_selection 3 (offer)
//	source   offer 0 (type), destroy 1    ◄ send 0 (type, fd), cancelled 1
//	offer    receive 0 (type, fd), destroy 1  ◄ offer 0 (type)
type Host struct {
	t *wayland.UnixConn

	mu     sync.Mutex
	out    wayland.Encoder
	next   uint32
	offers map[uint32][]string // types, by offer
	own    *Offer              // what is given
	ended  error

	selected [numSlots]uint32
	changes  [numSlots]uint64 // of selected
	changed  chan struct{}    // holds one
	synced   chan struct{}
	done     chan struct{}
}

// Ids of the Host's objects, in the order in which they are made.
const (
	hostRegistry = 2 + iota
	hostSync
	hostSeat
	hostManager
	hostDevice
	hostFirst
)

// managers are the names of the interface, the better first, and its versions.
var managers = []struct {
	name    string
	version uint32
}{{"ext_data_control_manager_v1", 1}, {"zwlr_data_control_manager_v1", 2}}

// ErrNoDataControl is returned where the compositor lets nobody do this.
var ErrNoDataControl = errors.New("the compositor has neither ext-data-control nor wlr-data-control: the host's clipboard cannot be reached")

// maxOffered bounds the types of a host's selection that are looked at.
const maxOffered = 4096

// DialHost finds the selection of the compositor behind t, which it owns.
func DialHost(t *wayland.UnixConn) (*Host, error) {
	h := &Host{t: t, next: hostFirst, offers: map[uint32][]string{}, changed: make(chan struct{}, 1), synced: make(chan struct{}), done: make(chan struct{})}
	r := &wireReader{t: t}
	if err := h.bind(r); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	go h.listen(r)
	select {
	case <-h.synced:
		select {
		case <-h.changed: // what there is
		default:
		}
		return h, nil
	case <-h.done:
		return nil, h.err()
	}
}

// Close ends the connection, and what was given with it.
func (h *Host) Close() error {
	err := h.t.Close()
	<-h.done
	return err
}

// A wireReader gives whole messages of a transport.
type wireReader struct {
	t     *wayland.UnixConn
	buf   []byte
	descs []wayland.Desc
}

func (r *wireReader) next() (id uint32, op uint16, body []byte, err error) {
	for {
		id, op, n, err := wayland.Next(r.buf)
		if err != nil {
			return 0, 0, nil, err
		}
		if n > 0 {
			body, r.buf = r.buf[wayland.HeaderSize:n:n], r.buf[n:]
			return id, op, body, nil
		}
		b := make([]byte, 16<<10)
		k, ds, err := r.t.Recv(b, r.descs)
		r.descs = ds
		if err != nil {
			return 0, 0, nil, err
		}
		r.buf = append(r.buf[:len(r.buf):len(r.buf)], b[:k]...)
	}
}

// bind looks for the seat and the manager.
func (h *Host) bind(r *wireReader) error {
	h.out.Msg(1, wayland.WlDisplayReqGetRegistry, hostRegistry)
	h.out.Msg(1, wayland.WlDisplayReqSync, hostSync)
	if err := h.flush(); err != nil {
		return err
	}
	seat, manager, best := uint32(0), uint32(0), len(managers)
	for {
		id, op, body, err := r.next()
		if err != nil {
			return err
		}
		d := wayland.NewDecoder(body)
		switch {
		case id == hostRegistry && op == wayland.WlRegistryEvtGlobal:
			name, iface := d.Uint(), string(d.String())
			if iface == wayland.WlSeat.Name && seat == 0 {
				seat = name
			}
			for k := range managers[:best] {
				if managers[k].name == iface {
					manager, best = name, k
				}
			}
		case id == 1 && op == wayland.WlDisplayEvtError:
			return displayError(&d)
		case id == hostSync:
			if manager == 0 || seat == 0 {
				return ErrNoDataControl
			}
			h.bindTo(seat, wayland.WlSeat.Name, 1, hostSeat)
			h.bindTo(manager, managers[best].name, managers[best].version, hostManager)
			h.out.Msg(hostManager, 1, hostDevice, hostSeat)
			h.out.Msg(1, wayland.WlDisplayReqSync, hostFirst)
			h.next++
			return h.flush()
		}
	}
}

func displayError(d *wayland.Decoder) error {
	_, _ = d.Uint(), d.Uint()
	return fmt.Errorf("compositor: %s", d.String())
}

func (h *Host) bindTo(name uint32, iface string, version, id uint32) {
	h.out.Begin(hostRegistry, wayland.WlRegistryReqBind)
	h.out.Uint(name)
	h.out.String(iface)
	h.out.Uint(version)
	h.out.Uint(id)
	_ = h.out.End() // short
}

// flush sends what was written.
func (h *Host) flush(ds ...wayland.Desc) error {
	b := h.out.B
	h.out.B = nil
	return h.t.Send(b, ds)
}

func (h *Host) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// listen handles events until the connection ends.
func (h *Host) listen(r *wireReader) {
	defer close(h.done)
	for {
		id, op, body, err := r.next()
		if err == nil {
			err = h.event(r, id, op, body)
		}
		if err != nil {
			wayland.CloseAll(r.descs)
			h.mu.Lock()
			defer h.mu.Unlock()
			h.ended = fmt.Errorf("the host's clipboard: %w", err)
			if h.own != nil {
				h.own.Replaced()
			}
			return
		}
	}
}

func (h *Host) event(r *wireReader, id uint32, op uint16, body []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := wayland.NewDecoder(body)
	_, offer := h.offers[id]
	switch {
	case id == 1 && op == wayland.WlDisplayEvtError:
		return displayError(&d)
	case id == hostFirst:
		close(h.synced)
	case id == hostDevice:
		return h.deviceEvent(op, d.Uint())
	case offer && len(h.offers[id]) < maxOffered:
		h.offers[id] = append(h.offers[id], string(d.String()))
	case id > hostFirst && id < wayland.ServerIDs && op == 0: // send
		if len(r.descs) == 0 {
			return wayland.ErrMissing
		}
		fd := r.descs[0].FD
		r.descs = r.descs[1:]
		if h.own == nil {
			_ = unix.Close(fd)
			return nil
		}
		_ = unix.SetNonblock(fd, true)
		h.own.Write(string(d.String()), os.NewFile(uintptr(fd), "paste"))
	case id > hostFirst && id < wayland.ServerIDs && op == 1: // cancelled
		if h.own != nil {
			h.own.Replaced()
		}
	}
	return nil
}

// deviceEvent follows what is selected.
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
		h.out.Msg(old, 1)
	}
	h.selected[slot] = id
	h.changes[slot]++
	if slot == Clipboard {
		select {
		case h.changed <- struct{}{}:
		default:
		}
	}
	if len(h.out.B) == 0 {
		return nil
	}
	return h.flush()
}

// Changed is sent to when the clipboard is another, from the one that there was when the
// Host was made.
func (h *Host) Changed() <-chan struct{} { return h.changed }

// Done is closed when the compositor's connection has ended.
func (h *Host) Done() <-chan struct{} { return h.done }

// A Selection is what was selected on the host at one moment: what is decided about its
// types holds for it alone, and not for what is selected after it.
type Selection struct {
	Types  []string // as which it is to be had; nil for none
	slot   Slot
	change uint64
}

// Same tells whether two Selections of one Host are one.
func (s Selection) Same(t Selection) bool { return s.slot == t.slot && s.change == t.change }

// ErrChanged is returned where something else was selected meanwhile.
var ErrChanged = errors.New("something else was selected meanwhile; do it again")

// Selection returns what is selected.
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
	putString(&h.out, h.selected[sel.slot], 0, typ)
	if err := h.flush(wayland.FileDesc(wayland.KindWritePipe, far)); err != nil {
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
	source := h.next
	h.next++
	h.own = o
	h.out.Msg(hostManager, 0, source)
	for _, typ := range o.types() {
		putString(&h.out, source, 0, typ)
	}
	set := uint16(0)
	if s == Primary {
		set = 2
	}
	h.out.Msg(hostDevice, set, source)
	err = h.flush()
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
			h.out.Msg(source, 1)
			err = h.flush()
			h.mu.Unlock()
		case <-o.other:
		case <-h.done:
		}
		o.Wipe()
	}()
	return over, nil
}
