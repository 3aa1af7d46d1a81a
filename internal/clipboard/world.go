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

// Limits of what a VM's programs may say of selections.
const (
	// maxKind is the longest name of a kind, in bytes.
	maxKind = 512
	// maxKindBytes bounds the names of all kinds of all sources of a VM.
	maxKindBytes = 4 << 20
	// asksAtOnce is how many descriptors go to a program in one go.
	asksAtOnce = wayland.MaxDescs / 2
)

// Config is one World's.
type Config struct {
	VM string
	// Kinds and Transfers are limits; 0 means the default.
	Kinds, Transfers int
	// Drags are the user's rules of drags to and from other VMs and the host; the first
	// that fits holds, and where none does, nothing passes.
	Drags []DragRule
	Log   *slog.Logger
}

// A World holds the selections of one VM. Its lock comes after those of
// connections.
type World struct {
	cfg Config

	mu      sync.Mutex
	held    [numSlots]held
	members map[*Member]struct{}
	drags   map[string]*Source // by their private kind
	bytes   int                // of the kinds' names
	devices int                // of all programs
	focus   *Member            // got the keyboard last, and has it; nil
	entered time.Time          // when the keyboard came to a surface of the VM's last

	carried             atomic.Int32               // transfers of drags to and from outside
	seq, copies, enters uint64                     // of Status
	bells               map[chan struct{}]struct{} // of who follows
}

// held is what a slot holds.
type held struct {
	own    *Source // a program's
	given  *Source // the host's, in front of it
	serial uint32  // of the request that set own
	set    bool    // serial means something
	gen    uint64  // counts changes
}

func (h *held) current() *Source {
	if h.given != nil {
		return h.given
	}
	return h.own
}

// A Source is something that can be pasted: a program's source or what the host
// gives. World.mu guards it.
type Source struct {
	world   *World
	member  *Member       // whose it is; nil for the host's
	obj     *relay.Object // in member's connection, whose lock guards it
	proto   *protocol
	kinds   []string
	manager uint32 // the compositor's id of what made it, for drags

	foreign    *foreign // what is dragged in from elsewhere; nil for all else
	out        map[string]outward
	dropped    bool   // the drag has ended with a drop
	actions    uint32 // wl_data_source.set_actions, for a drag
	hasActions bool
	place      *relay.Object // what stands for it on the compositor while it is dragged
	token      string
	target     string // the kind that the surface below it would take

	cancelled bool
	gone      bool
	given     *Given
}

// Given is a selection of the host's making.
type Given struct {
	Kinds []string
	// Write is told of a program that asks for a kind: it owns f, must not block,
	// and closes f when all is written.
	Write func(kind string, f *os.File)
	// Cancelled, when set, is told that a program's selection took its place.
	Cancelled func()
}

// A Member is one connection of the VM.
type Member struct {
	world *World
	conn  *relay.Conn

	// Guarded by the connection's lock.
	keyboards map[*relay.Object]struct{} // that are on a surface
	devices   []*device

	// Guarded by World.mu.
	focused bool
	asks    []ask
	ended   []*Source // to be told that they are cancelled
}

// An ask is a transfer that its source's program has not been told of yet.
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

// Join adds a connection, which Attach names. Leave must be called when it has
// ended.
func (w *World) Join() *Member {
	m := &Member{world: w, keyboards: map[*relay.Object]struct{}{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[m] = struct{}{}
	return m
}

// Attach says which connection it is, before that runs.
func (m *Member) Attach(c *relay.Conn) { m.conn = c }

// Leave removes a connection that has ended: its sources are gone already.
func (m *Member) Leave() {
	w := m.world
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.members, m)
	if len(w.members) == 0 {
		// The compositor may have ended, and the next one counts serials from its own start.
		for s := range w.held {
			w.held[s].set = false
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
		m.world.changed()
	}
}

// Focus tells whether a window of the VM's has the keyboard, and since when.
func (w *World) Focus() (since time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.entered, w.focus != nil
}

// Kinds returns what there is to be had of a program's selection, nil when there is
// none. A selection that the host gave does not count.
func (w *World) Kinds(s Slot) []string {
	_, kinds := w.selection(s)
	return kinds
}

// selection returns a program's selection, nil when there is none, and its kinds.
func (w *World) selection(s Slot) (*Source, []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	src := w.held[s].own
	if src == nil {
		return nil, nil
	}
	return src, slices.Clone(src.kinds)
}

// ErrNothing is returned where there is no selection, or not of that kind.
var ErrNothing = errors.New("nothing is selected")

// Take asks the owner of a program's selection for it. The caller reads what it
// writes from the pipe; everything about it is up to the guest.
func (w *World) Take(s Slot, kind string) (*os.File, error) {
	src, _ := w.selection(s)
	return w.takeFrom(s, src, kind)
}

// takeFrom does it as long as the selection is src: ErrChanged when it is another.
func (w *World) takeFrom(s Slot, src *Source, kind string) (*os.File, error) {
	r, far, err := askingPipe()
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.held[s].own != src:
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

// askingPipe makes the pipe that a program is asked with: our end, and its.
func askingPipe() (near *os.File, far int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, -1, fmt.Errorf("pipe: %w", err)
	}
	_ = unix.SetNonblock(p[1], false) // a program's own, who expects it so
	return os.NewFile(uintptr(p[0]), "selection"), p[1], nil
}

// Give puts g in front of the VM's own selection. It returns what takes it away
// again, which may be called more than once. A program with the keyboard loses its own
// selection by it (yieldLocked).
func (w *World) Give(s Slot, g *Given) (takeBack func()) {
	src := &Source{world: w, kinds: g.Kinds, given: g}
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.held[s].given
	w.held[s].given = src
	w.newLocked(s)
	for m := range w.members {
		if m.focused {
			w.yieldLocked(m)
		}
	}
	if old != nil {
		old.endGivenLocked()
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		src.gone = true
		if w.held[s].given == src {
			w.held[s].given = nil
			w.newLocked(s)
		}
	}
}

func (src *Source) endGivenLocked() {
	src.gone = true
	if src.given.Cancelled != nil {
		go src.given.Cancelled() // it may want the World's lock
	}
}

// yieldLocked ends a program's own selection that something given is in front of, when
// that program is the one that pastes: toolkits take what they have themselves (GTK 4
// ignores the offer: "for self").
func (w *World) yieldLocked(m *Member) {
	for s := range w.held {
		if h := &w.held[s]; h.given != nil && h.own != nil && h.own.member == m {
			w.cancelLocked(h.own)
			h.own = nil
			w.changed()
		}
	}
}

// newLocked tells whoever has the keyboard that a slot's content is another.
func (w *World) newLocked(s Slot) {
	w.held[s].gen++
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
	h := &w.held[s]
	// As the compositor would: with a serial that the client was given, and none that
	// is older than the one of the selection there is (wlr_seat_request_set_selection).
	if !given || h.set && int32(serial-h.serial) < 0 {
		w.cfg.Log.Debug("selection refused: not from a program with the keyboard", "vm", w.cfg.VM, "slot", s.String())
		w.cancelLocked(src)
		return
	}
	h.serial, h.set = serial, true
	if old := h.given; old != nil {
		h.given = nil
		old.endGivenLocked()
	}
	if h.own != src {
		w.cancelLocked(h.own)
		h.own = src
	}
	if s == Clipboard && src != nil && w.focus != nil {
		w.copies++
	}
	w.newLocked(s)
	w.changed()
}

// cancelLocked lets a source's program know that it is not the selection.
func (w *World) cancelLocked(src *Source) {
	if src != nil && !src.cancelled && !src.gone {
		src.cancelled = true
		src.member.ended = append(src.member.ended, src)
		src.member.conn.Wake()
	}
}

// addKind adds to a source's kinds, or says why not.
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

// drop forgets a source whose object is gone.
func (w *World) drop(src *Source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	src.gone = true
	for _, k := range src.kinds {
		w.bytes -= len(k)
	}
	src.kinds = nil // offers may be left
	delete(w.drags, src.token)
	for s := range w.held {
		if w.held[s].own == src {
			w.held[s].own = nil
			w.newLocked(Slot(s))
			w.changed()
		}
	}
}

// askLocked hands the write end of a pipe to whoever has the data; where nobody
// does it is closed, and its reader finds nothing.
func (w *World) askLocked(src *Source, kind string, to wayland.Desc) {
	switch {
	case src.gone || !slices.Contains(src.kinds, kind):
	case src.given != nil:
		_ = unix.SetNonblock(to.FD, true)
		src.given.Write(kind, os.NewFile(uintptr(to.FD), "paste"))
		// Who gives bounds the pipes that it writes to itself.
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

// kindsOf returns a source's kinds now; nothing changes what was returned.
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
