package clipboard

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/display"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// Limits of a VM's selections.
const (
	// maxKind is the longest name of a kind, in bytes.
	maxKind = 512
	// maxKindBytes bounds the names of all kinds of all sources of a VM.
	maxKindBytes = 4 << 20
	// asksAtOnce is how many descriptors go to a program at once.
	asksAtOnce = wayland.MaxDescs / 2
)

// Config configures a World.
type Config struct {
	VM string
	// Kinds and Transfers are limits; 0 means the default.
	Kinds, Transfers int
	// Drags holds the user's rules for drags to and from other VMs and the host; the first
	// that fits decides, and without one nothing passes.
	Drags []DragRule
	Log   *slog.Logger
}

// A World holds the selections of one VM. Its lock comes after those of
// connections.
type World struct {
	cfg Config

	mu        sync.Mutex
	slots     [numSlots]slotState
	members   map[*Member]struct{}
	drags     map[string]*Source // the dragged sources by their private kind
	bytes     int                // the sum of the lengths of the kinds' names
	devices   int                // the number of all programs' devices
	focus     *Member            // the member with the keyboard, or nil
	focusTime time.Time          // when the keyboard last came to a surface of the VM

	transfers           atomic.Int32               // the number of running transfers of drags to and from outside
	seq, copies, enters uint64                     // the counters of Status
	bells               map[chan struct{}]struct{} // a bell for each follower
}

// slotState is the content of a slot.
type slotState struct {
	own       *Source // a program's
	host      *Source // the host's, which hides own
	serial    uint32  // the serial of the request that set own
	hasSerial bool    // serial is valid
	gen       uint64  // the number of changes
}

func (h *slotState) current() *Source {
	if h.host != nil {
		return h.host
	}
	return h.own
}

// A Source is content that programs can paste: a program's source or the host's.
// World.mu guards it.
type Source struct {
	world   *World
	member  *Member       // its program's connection; nil for the host's
	obj     *relay.Object // in member's connection, whose lock guards it
	proto   *protocol
	kinds   []string
	manager uint32 // the compositor's id of its manager, for drags

	outside    *outsideDrag // set for a drag from outside
	out        map[string]export
	dropped    bool   // the drag has ended with a drop
	actions    uint32 // wl_data_source.set_actions, for a drag
	hasActions bool
	place      *relay.Object // its placeholder on the compositor during a drag
	token      string
	target     string // the kind that the surface below the drag would take

	cancelled bool
	gone      bool
	host      *HostSource
}

// HostSource is a selection from the host.
type HostSource struct {
	Kinds []string
	// Write answers a program that asks for a kind: it owns f, must not block, and
	// closes f after writing everything.
	Write func(kind string, f *os.File)
	// Cancelled, when set, is called when a program's selection replaces it.
	Cancelled func()
}

// A Member is one connection of the VM.
type Member struct {
	world *World
	conn  *relay.Conn

	// Guarded by the connection's lock.
	keyboards map[*relay.Object]struct{} // the keyboards on a surface of the program
	devices   []*device

	// Guarded by World.mu.
	focused bool
	asks    []ask
	cancels []*Source // the sources whose program must get a cancelled event
}

// An ask is a transfer whose request the source's program has not got yet.
type ask struct {
	src  *Source
	kind string
	to   wayland.Desc
}

// NewWorld returns a World without programs.
func NewWorld(cfg Config) *World {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Kinds == 0 {
		cfg.Kinds = display.DefaultKinds
	}
	if cfg.Transfers == 0 {
		cfg.Transfers = display.DefaultTransfers
	}
	return &World{cfg: cfg, members: map[*Member]struct{}{}, drags: map[string]*Source{}, seq: 1, bells: map[chan struct{}]struct{}{}}
}

// Join adds a connection, which Attach sets. The caller must call Leave at its end.
func (w *World) Join() *Member {
	m := &Member{world: w, keyboards: map[*relay.Object]struct{}{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[m] = struct{}{}
	return m
}

// Attach sets the member's connection, before that runs.
func (m *Member) Attach(c *relay.Conn) { m.conn = c }

// Leave removes an ended connection, whose sources are already gone.
func (m *Member) Leave() {
	w := m.world
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.members, m)
	if len(w.members) == 0 {
		// The compositor may have ended, and the next one counts serials from its own start.
		for s := range w.slots {
			w.slots[s].hasSerial = false
		}
	}
	m.blurLocked()
	for _, a := range m.asks {
		a.to.Close()
	}
	m.asks = nil
}

func (m *Member) blurLocked() {
	m.focused = false
	if m.world.focus == m {
		m.world.focus = nil
		m.world.ring()
	}
}

// Focus tells whether a window of the VM's has the keyboard, and since when.
func (w *World) Focus() (since time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.focusTime, w.focus != nil
}

// Kinds returns the kinds of a program's selection, nil when there is none. The host's
// own selection does not count.
func (w *World) Kinds(s Slot) []string {
	_, kinds := w.selection(s)
	return kinds
}

// selection returns a program's selection, or nil, and its kinds.
func (w *World) selection(s Slot) (*Source, []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	src := w.slots[s].own
	if src == nil {
		return nil, nil
	}
	return src, slices.Clone(src.kinds)
}

// ErrNothing is returned where there is no selection, or not of that kind.
var ErrNothing = errors.New("nothing is selected")

// Take asks the owner of a program's selection for a kind. The caller reads the data
// from the pipe; the guest decides everything about it.
func (w *World) Take(s Slot, kind string) (*os.File, error) {
	src, _ := w.selection(s)
	return w.takeFrom(s, src, kind)
}

// takeFrom is Take for the source src. It returns ErrChanged for another selection.
func (w *World) takeFrom(s Slot, src *Source, kind string) (*os.File, error) {
	r, far, err := askingPipe()
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.slots[s].own != src:
		err = ErrChanged
	case src == nil || !slices.Contains(src.kinds, kind):
		err = ErrNothing
	}
	if err != nil {
		_ = unix.Close(far)
		return nil, errors.Join(err, r.Close())
	}
	w.askLocked(src, kind, wayland.FileDesc(wayland.KindWritePipe, far))
	return r, nil
}

// askingPipe makes the pipe for a request to a program: our end, and the program's.
func askingPipe() (near *os.File, far int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, -1, fmt.Errorf("pipe: %w", err)
	}
	_ = unix.SetNonblock(p[1], false) // programs expect a blocking pipe
	return os.NewFile(uintptr(p[0]), "selection"), p[1], nil
}

// Give puts g in front of the VM's own selection. takeBack removes it again, and may be
// called more than once. A program with the keyboard loses its own selection
// (yieldLocked).
func (w *World) Give(s Slot, g *HostSource) (takeBack func()) {
	src := &Source{world: w, kinds: g.Kinds, host: g}
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.slots[s].host
	w.slots[s].host = src
	w.newLocked(s)
	for m := range w.members {
		if m.focused {
			w.yieldLocked(m)
		}
	}
	if old != nil {
		old.endHostLocked()
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		src.gone = true
		if w.slots[s].host == src {
			w.slots[s].host = nil
			w.newLocked(s)
		}
	}
}

func (src *Source) endHostLocked() {
	src.gone = true
	if src.host.Cancelled != nil {
		go src.host.Cancelled() // it may want the World's lock
	}
}

// yieldLocked ends a program's own selection behind the host's, if that program has the
// keyboard: toolkits paste their own selection first (GTK 4 ignores the offer: "for
// self").
func (w *World) yieldLocked(m *Member) {
	for s := range w.slots {
		if h := &w.slots[s]; h.host != nil && h.own != nil && h.own.member == m {
			w.cancelLocked(h.own)
			h.own = nil
			w.ring()
		}
	}
}

// newLocked tells the programs with the keyboard of a slot's new content.
func (w *World) newLocked(s Slot) {
	w.slots[s].gen++
	for m := range w.members {
		if m.focused {
			m.conn.Wake()
		}
	}
}

// set makes src, or nothing, the selection of a slot.
func (w *World) set(m *Member, s Slot, src *Source, serial uint32, given bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := &w.slots[s]
	// As a compositor does: the client must have got the serial, and it must not be older
	// than that of the present selection (wlr_seat_request_set_selection).
	if !given || h.hasSerial && int32(serial-h.serial) < 0 {
		w.cfg.Log.Debug("selection refused: not from a program with the keyboard", "vm", w.cfg.VM, "slot", s.String())
		w.cancelLocked(src)
		return
	}
	h.serial, h.hasSerial = serial, true
	if old := h.host; old != nil {
		h.host = nil
		old.endHostLocked()
	}
	if h.own != src {
		w.cancelLocked(h.own)
		h.own = src
	}
	if s == Clipboard && src != nil && w.focus != nil {
		w.copies++
	}
	w.newLocked(s)
	w.ring()
}

// cancelLocked tells a source's program that it is no longer the selection.
func (w *World) cancelLocked(src *Source) {
	if src != nil && !src.cancelled && !src.gone {
		src.cancelled = true
		src.member.cancels = append(src.member.cancels, src)
		src.member.conn.Wake()
	}
}

// addKind adds a kind to a source, or returns why not.
func (w *World) addKind(src *Source, kind string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case len(kind) > maxKind:
		return fmt.Errorf("the name of a kind of data has %d bytes; at most %d", len(kind), maxKind)
	case len(src.kinds) >= w.cfg.Kinds:
		return fmt.Errorf("limit reached: VM %s may have %d kinds of data in a selection", w.cfg.VM, w.cfg.Kinds)
	case w.bytes+len(kind) > maxKindBytes:
		return fmt.Errorf("limit reached: VM %s may have %d bytes of names of kinds of data", w.cfg.VM, maxKindBytes)
	case slices.Contains(src.kinds, kind):
		return nil
	}
	w.bytes += len(kind)
	src.kinds = append(src.kinds, kind)
	return nil
}

// drop removes a source whose object is gone.
func (w *World) drop(src *Source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	src.gone = true
	for _, k := range src.kinds {
		w.bytes -= len(k)
	}
	src.kinds = nil // offers may be left
	delete(w.drags, src.token)
	for s := range w.slots {
		if w.slots[s].own == src {
			w.slots[s].own = nil
			w.newLocked(Slot(s))
			w.ring()
		}
	}
}

// askLocked hands the write end of a pipe to the owner of the data. Without an owner it
// closes the pipe, and the reader finds nothing.
func (w *World) askLocked(src *Source, kind string, to wayland.Desc) {
	switch {
	case src.gone || !slices.Contains(src.kinds, kind):
	case src.host != nil:
		_ = unix.SetNonblock(to.FD, true)
		src.host.Write(kind, os.NewFile(uintptr(to.FD), "paste"))
		// Write bounds its pipes itself.
		if to.Held != nil {
			to.Held.Release()
		}
		return
	case len(src.member.asks) >= w.cfg.Transfers:
		w.cfg.Log.Warn("limit reached: a selection's program does not take what it is asked for", "vm", w.cfg.VM, "limit", "transfers", "value", w.cfg.Transfers)
	default:
		src.member.asks = append(src.member.asks, ask{src, kind, to})
		src.member.conn.Wake()
		return
	}
	to.Close()
}

func (w *World) ask(src *Source, kind string, to wayland.Desc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.askLocked(src, kind, to)
}

// kindsOf returns a source's present kinds; later changes do not touch the result.
func (w *World) kindsOf(src *Source) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(src.kinds)
}

func (w *World) countDevices(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devices += n
}
