// Package filter is the host's policy between a guest's connections and the
// compositor. It is the engine of package relay with hooks, one connection of its
// own to the compositor for each of the guest's:
//
//		guest ⇄ virtwl context ⇄ [ filter ] ⇄ compositor
//
//	  - globals: only what the allow-list (allow.go) names, in a version that it
//	    names; everything else does not exist
//	  - identity: titles become "[tag] title", app ids "vix.vm.app" (identity.go)
//	  - selections and drags stay in the VM (selection.go, package clipboard)
//	  - outputs do not tell what monitor they are (identity.go)
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
	// Color is the frame's, "#rrggbb"; Frame is how much of it there is: "full",
	// "border" or "none", which is also what "" means.
	Color, Frame string
	// Font holds the bytes of the label's font file; nil means the built-in one.
	Font []byte
	// Allow and Deny change the allow-list by names of globals.
	Allow, Deny []string
	Limits      display.Limits
	// Ledger is the VM's, which its device has too; nil: one of the filter's own, with
	// the limit Memory.
	Ledger *ledger.Ledger
	// Drags are the user's rules of drags to and from others.
	Drags []config.DragRule
	// Dial connects to the compositor.
	Dial func() (wayland.Transport, error)
	// Event, when set, hears of windows. It must not block.
	Event func(Event)
	// Tap, when set, may be given a tap of all connections.
	Tap *relay.TapSwitch
	Log *slog.Logger
}

// An Event tells what happened to a window.
type Event struct {
	Event string `json:"event"`            // "window" or "window-closed"
	ID    uint64 `json:"id"`               // of the window, unique in the process
	Title string `json:"title,omitempty"`  // as the compositor knows it
	AppID string `json:"app_id,omitempty"` // as the compositor knows it
}

// A Filter serves the connections of one VM.
type Filter struct {
	cfg     Config
	hooks   *relay.Hooks
	globals []uint32      // the highest versions, by Interface.Index
	conns   atomic.Uint64 // connections so far, for the log
	windows atomic.Uint64 // windows so far
	used    [display.NumLimits]atomic.Int64
	rates   [display.NumLimits]bucket
	frame   *style
	popups  crowd
	family  family

	foreign    handles
	activation activation
	world      *clipboard.World

	ledger *ledger.Ledger
	ending sync.WaitGroup // of connections that the compositor still has something of
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

// Serve relays one connection of the guest until it ends, and closes t. A
// compositor that does not answer is an error, and so is a guest that breaks the
// protocol.
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
		Woken:   st.member.Woken,
		ID:      n,
		Tap:     f.cfg.Tap,
		Log:     log,
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

// state is one connection's.
type state struct {
	filter  *Filter
	commits uint64                  // so far
	slowed  [display.NumLimits]bool // and said so
	frames  *frames
	member  *clipboard.Member
	freed   func(*surface.Buffer)
	dying   []*relay.Object    // wl_buffers, until what they are attached to is committed
	bases   map[uint32]int     // xdg_surfaces by their xdg_wm_base on the compositor
	images  map[*view]struct{} // of pointers and tools
	grabs   []*popup           // that asked for a grab, in order

	given     []given                     // serials, the newest last
	keyboards map[*relay.Object]*keyFocus // the client's keyboards that are on a surface
	pointers  map[*relay.Object]*pointer
	touches   map[*relay.Object]*touch
	boards    int // keyboards of the client's
	loan      onLoan
}

func stateOf(c *relay.Conn) *state { return c.State.(*state) }

func filterOf(c *relay.Conn) *Filter { return stateOf(c).filter }
