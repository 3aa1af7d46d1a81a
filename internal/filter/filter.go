// Package filter is the host's policy between a guest's connections and the
// compositor. It runs the engine of package relay with hooks, and opens one connection
// to the compositor for each of the guest's:
//
//		guest ⇄ virtwl context ⇄ [ filter ] ⇄ compositor
//
//	  - globals: the guest sees only those on the allow-list (allow.go), up to the
//	    version there
//	  - identity: titles become "[tag] title", app ids "vix.vm.app" (identity.go)
//	  - selections and drags stay in the VM (selection.go, package clipboard)
//	  - outputs do not identify their monitors (identity.go)
//
// Everything from the guest is hostile. The engine has checked each message
// against the table before a hook sees it.
package filter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"vix/config"
	"vix/internal/clipboard"
	"vix/internal/display"
	"vix/internal/ledger"
	"vix/internal/relay"
	"vix/internal/surface"
	"vix/internal/wayland"
)

// Config is one VM's policy.
type Config struct {
	VM  string // the VM's name, part of app ids
	Tag string // the text in front of titles, without the brackets
	// Color is the frame's colour, "#rrggbb". Frame is the kind of frame: "full",
	// "border" or "none"; "" means "none".
	Color, Frame string
	// Font holds the bytes of the label's font file; nil means the built-in one.
	Font []byte
	// Allow and Deny hold names of globals that change the allow-list.
	Allow, Deny []string
	Limits      display.Limits
	// Ledger is the VM's ledger, shared with its device. With nil the filter makes its
	// own, with the limit Memory.
	Ledger *ledger.Ledger
	// Drags holds the user's rules for drags between this VM and others.
	Drags []config.DragRule
	// Dial connects to the compositor.
	Dial func() (wayland.Transport, error)
	// Event, when set, receives the events of windows. It must not block.
	Event func(Event)
	// Tap, when set, is the switch of a tap on all connections.
	Tap *relay.TapSwitch
	Log *slog.Logger
}

// An Event is something that happened to a window.
type Event struct {
	Event string `json:"event"`            // "window" or "window-closed"
	ID    uint64 `json:"id"`               // the window's number, unique in the process
	Title string `json:"title,omitempty"`  // the title sent to the compositor
	AppID string `json:"app_id,omitempty"` // the app id sent to the compositor
}

// A Filter serves the connections of one VM.
type Filter struct {
	cfg     Config
	hooks   *relay.Hooks
	globals []uint32      // the highest version of each global, by Interface.Index
	conns   atomic.Uint64 // the number of connections so far, for the log
	windows atomic.Uint64 // the number of windows so far
	used    [display.NumLimits]atomic.Int64
	rates   [display.NumLimits]bucket
	frame   *style
	popups  crowd
	family  family

	foreign    handles
	activation activation
	world      *clipboard.World

	ledger *ledger.Ledger
	ending sync.WaitGroup // ended connections that the compositor has not read to the end
}

// New returns a filter. It starts nothing.
func New(cfg Config) *Filter {
	f := &Filter{cfg: cfg, hooks: relay.NewHooks(), globals: cfg.globals(), ledger: cfg.Ledger}
	if f.ledger == nil {
		f.ledger = ledger.New(ledger.Limits{Shown: cfg.Limits.Of(display.Memory)})
	}
	f.frame = newStyle(&f.cfg)
	f.world = f.cfg.newWorld()
	quotaHooks(f.hooks.At(layerCount), &f.cfg.Limits)
	selectionHooks(f.hooks.At(layerSelections))
	l := f.hooks.At(layerSurfaces)
	identityHooks(l)
	viewHooks(l)
	windowHooks(l)
	popupHooks(l)
	shmHooks(l)
	bufferHooks(l)
	foreignHooks(l)
	inputHooks(f.hooks.At(layerFrame))
	focusHooks(f.hooks.At(layerFocus))
	return f
}

// Serve relays one connection of the guest until it ends, and closes t. It returns an
// error when the compositor does not answer, and when the guest breaks the protocol.
func (f *Filter) Serve(ctx context.Context, t wayland.Transport) error {
	n := f.conns.Add(1)
	log := f.cfg.Log.With("conn", n)
	if !f.reserve(display.Connections, 1) {
		return errors.Join(errors.New(f.refusal(display.Connections)), f.refuse(t, display.Connections), t.Close())
	}
	st := &state{
		filter: f, frames: f.frame.conn(), member: f.world.Join(),
		bases: map[uint32]int{}, keyboards: map[*relay.Object]*keyFocus{}, pointers: map[*relay.Object]*pointer{}, touches: map[*relay.Object]*touch{}, images: map[*view]struct{}{},
	}
	defer st.member.Leave()
	if err := st.pauseConnect(ctx); err != nil {
		f.give(display.Connections, 1)
		return errors.Join(err, t.Close())
	}
	up, err := f.cfg.Dial()
	if err != nil {
		f.give(display.Connections, 1)
		return errors.Join(fmt.Errorf("compositor: %w", err), t.Close())
	}
	if l, ok := up.(wayland.Lingerer); ok {
		l.Linger()
	}
	log.Debug("connected")
	conn := relay.New(t, up, relay.Config{
		Hooks:   f.hooks,
		Globals: func(i *wayland.Interface, v uint32) uint32 { return min(v, f.globals[i.Index]) },
		Room:    func(n int) bool { return f.reserve(display.Objects, int64(n)) },
		MaxOf:   maxOf(),
		Pace:    f.pace(st),
		State:   st,
		Woken: func(c *relay.Conn) {
			st.member.Woken(c)
			st.frames.lateLabels(c)
		},
		ID:  n,
		Tap: f.cfg.Tap,
		Log: log,
	})
	st.member.Attach(conn)
	err = conn.Run(ctx)
	f.settle(ctx, up, st)
	if err != nil && ctx.Err() == nil {
		log.Warn("connection ended", "vm", f.cfg.VM, "err", err)
		return err
	}
	log.Debug("closed")
	return nil
}

// state holds what the filter knows of one connection.
type state struct {
	filter      *Filter
	commits     uint64                  // the number of commits so far
	slowLogged  [display.NumLimits]bool // the limits that slowed it down, which the log says once
	frames      *frames
	member      *clipboard.Member
	onFree      func(*surface.Buffer)
	deadBuffers []*relay.Object    // wl_buffers to destroy after the next commit
	bases       map[uint32]int     // the number of xdg_surfaces of each xdg_wm_base, by its id on the compositor
	images      map[*view]struct{} // the images of pointers and tools
	grabs       []*popup           // the popups with a requested grab, oldest first

	grants    []grant                     // serials, the newest last
	keyboards map[*relay.Object]*keyFocus // the client's keyboards that are on a surface
	pointers  map[*relay.Object]*pointer
	touches   map[*relay.Object]*touch
	boards    int // the number of the client's keyboards
	loan      loans
}

func stateOf(c *relay.Conn) *state { return c.State.(*state) }

func filterOf(c *relay.Conn) *Filter { return stateOf(c).filter }
