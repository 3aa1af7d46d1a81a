package filter

import (
	"math"
	"slices"
	"sync"

	"vix/internal/display"
	"vix/internal/relay"
	"vix/internal/surface"
	"vix/internal/wayland"
)

// Popups. A client places its popups by the window geometries that it declares; the
// compositor's geometries are larger by the frames. So a client's xdg_positioner stays
// local: the filter stores its settings and, when the client uses it, sends them
// corrected to a positioner of its own:
//
//	                    the client's            the compositor's
//	parent's geometry   declared                declared + frame
//	anchor rectangle    ──────────────────────► shifted by the parent's frame
//	popup's size        ──────────────────────► at most maxPopups, + its own frame
//	place               ──────────────────────► touches the parent; slides onto the screen
//	place and size      ◄────────────────────── xdg_popup.configure
//
// A popup shows no more than its configured size. It has the label if it is large or
// lies over another label. The filter never requests a grab: grab.go replaces it.
type popup struct {
	shell  *shell        // nil after it has ended on the compositor
	parent *shell        // nil after it has ended
	obj    *relay.Object // the client's xdg_popup
	top    int32         // the shown height of the frame above the content
	place  surface.Point // its place in the parent's geometry, both with their frames

	// A change of the frame takes effect with a configure event. next is the top of the
	// next one; requests holds the unanswered requests of reposition.
	next     int32
	requests []placeRequest
	// wish is the positioner in use, with the size requested last; see grow.
	wish positioner
	// labelled says that the popup lies over a label, and so has its own. fresh says that
	// the place of the popup with its label was not requested yet.
	labelled, fresh bool
	blank           bool // it is shown, with a label that is too narrow for letters
	ours            bool // the next configure event answers grow; the client does not get it

	grabs     bool // the client requested a grab
	dismissed bool // it shows nothing any more
}

// A placeRequest is an xdg_popup.reposition, with the top of the frame at the new place.
type placeRequest struct {
	token uint32
	top   int32
	ours  bool // grow sent it, not the client
}

// maxPlaceRequests bounds the reposition requests that a compositor has not answered.
const maxPlaceRequests = 64

// A positioner holds the settings of a client's xdg_positioner.
type positioner struct {
	version      uint32
	w, h         int32
	anchorRect   box
	hasRect      bool
	anchor       uint32
	gravity      uint32
	adjustment   uint32
	dx, dy       int32
	reactive     bool
	parentW      int32
	parentH      int32
	hasParent    bool
	parentSerial uint32
	hasSerial    bool
}

const (
	// maxPlace keeps sums of places far from overflow; no screen is that large.
	maxPlace = surface.MaxPlace
	// maxPopups is how much of any screen, in percent, the popups of a VM may hide
	// beyond its own windows. The longest menus of browsers and word processors take
	// a quarter of a small screen, with sub-menus a half.
	maxPopups = 60
	// labelShare is how much of a screen, in percent, popups may take without a label.
	labelShare = 25
	// maxNested bounds popups of popups.
	maxNested = 16
)

func popupHooks(l relay.Layer) {
	l.Request(wayland.XdgWmBase, wayland.XdgWmBaseReqCreatePositioner, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		m.New.Data = &positioner{version: m.Obj.Version}
		return false, nil
	})
	positionerHooks(l)
	l.Request(wayland.XdgSurface, wayland.XdgSurfaceReqGetPopup, onGetPopup)
	l.Request(wayland.XdgPopup, wayland.XdgPopupReqReposition, onReposition)
	l.Request(wayland.XdgPopup, wayland.XdgPopupReqGrab, onGrab)
	l.Event(wayland.XdgPopup, wayland.XdgPopupEvtConfigure, onPopupConfigure)
	l.Event(wayland.XdgPopup, wayland.XdgPopupEvtRepositioned, onRepositioned)
	l.Event(wayland.XdgPopup, wayland.XdgPopupEvtPopupDone, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		framesOf(c).dismiss(c, m.Obj.Data.(*popup))
		return false, nil
	})
	l.Request(wayland.XdgPopup, wayland.XdgPopupReqDestroy, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if p := m.Obj.Data.(*popup); p.shell != nil {
			framesOf(c).endRole(c, p.shell)
		}
		return false, nil
	})
	l.Gone(wayland.XdgPopup, func(c *relay.Conn, o *relay.Object) {
		if p, counted := o.Data.(*popup); counted {
			filterOf(c).give(display.Popups, 1)
			filterOf(c).popups.leave(p)
		}
	})
}

func positionerHooks(l relay.Layer) {
	on := func(op int, do func(p *positioner, m *relay.Msg)) {
		l.Request(wayland.XdgPositioner, op, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
			do(m.Obj.Data.(*positioner), m)
			return false, nil
		})
	}
	at := func(m *relay.Msg, k int) int32 { return clamp(m.Int(k), -maxPlace, maxPlace) }
	on(wayland.XdgPositionerReqSetSize, func(p *positioner, m *relay.Msg) { p.w, p.h = at(m, 0), at(m, 1) })
	on(wayland.XdgPositionerReqSetAnchorRect, func(p *positioner, m *relay.Msg) {
		p.anchorRect, p.hasRect = rect(at(m, 0), at(m, 1), at(m, 2), at(m, 3)), true
	})
	on(wayland.XdgPositionerReqSetAnchor, func(p *positioner, m *relay.Msg) { p.anchor = m.Word(0) })
	on(wayland.XdgPositionerReqSetGravity, func(p *positioner, m *relay.Msg) { p.gravity = m.Word(0) })
	on(wayland.XdgPositionerReqSetConstraintAdjustment, func(p *positioner, m *relay.Msg) { p.adjustment = m.Word(0) })
	on(wayland.XdgPositionerReqSetOffset, func(p *positioner, m *relay.Msg) { p.dx, p.dy = at(m, 0), at(m, 1) })
	on(wayland.XdgPositionerReqSetReactive, func(p *positioner, _ *relay.Msg) { p.reactive = true })
	on(wayland.XdgPositionerReqSetParentSize, func(p *positioner, m *relay.Msg) {
		p.parentW, p.parentH, p.hasParent = at(m, 0), at(m, 1), true
	})
	on(wayland.XdgPositionerReqSetParentConfigure, func(p *positioner, m *relay.Msg) {
		p.parentSerial, p.hasSerial = m.Word(0), true
	})
}

// check reports what is wrong with a positioner that a request uses.
func (p *positioner) check(o *relay.Object) error {
	if p.w <= 0 || p.h <= 0 || !p.hasRect || p.anchorRect.W < 0 || p.anchorRect.H < 0 || p.anchor > 8 || p.gravity > 8 {
		return relay.Fail(o, errWmInvalidPositioner, "an xdg_positioner without a valid size, anchor and anchor rectangle")
	}
	return nil
}

// edges returns the frame above and beside a window or popup.
func (f *frames) edges(s *shell) (top, side int32) {
	if s.popup != nil {
		return s.popup.top, f.thin
	}
	return f.top, f.side
}

// positionerArg returns what a request's argument says, checked.
func positionerArg(c *relay.Conn, m *relay.Msg, word int) (*positioner, error) {
	o := c.Client(m.Word(word))
	if o == nil || o.Iface != wayland.XdgPositioner {
		return nil, relay.Fail(m.Obj, relay.ErrInvalidObject, "%s.%s: invalid positioner", m.Obj.Iface.Name, m.Def.Name)
	}
	p := o.Data.(*positioner)
	return p, p.check(o)
}

// onGetPopup makes a popup with a positioner of our own.
func onGetPopup(c *relay.Conn, m *relay.Msg) (bool, error) {
	f, s := framesOf(c), shellOf(m.Obj)
	pos, err := positionerArg(c, m, 2)
	if err != nil {
		return false, err
	}
	var parent *shell
	if o := c.Client(m.Word(1)); o != nil && o.Iface == wayland.XdgSurface {
		parent = shellOf(o)
	}
	if parent == nil || parent == s || parent.v == nil {
		return false, relay.Fail(m.Obj, errWmInvalidPopupParent, "a popup without a parent")
	}
	depth := 0
	for q := parent; q != nil && q.popup != nil; q = q.popup.parent {
		if depth++; depth >= maxNested {
			return false, relay.Fail(m.Obj, errWmInvalidPopupParent, "more than %d popups of popups", maxNested)
		}
	}
	if err := s.canHaveRole(m.Obj, surface.Popup); err != nil {
		return false, err
	}
	if err := filterOf(c).take(m.Obj, display.Popups, 1); err != nil {
		return false, err
	}
	stateOf(c).countOpen(c)
	p := &popup{shell: s, obj: m.New}
	m.New.Data, s.popup = p, p
	if parent.window == nil && (parent.popup == nil || parent.popup.dismissed) {
		// The parent went while this one was on its way. The compositor never hears of this
		// one, so it is part of no window: no press on one speaks for it.
		p.dismissed = true
		c.ToClient().Msg(m.New.ID, wayland.XdgPopupEvtPopupDone)
		return false, nil
	}
	p.parent = parent
	parent.popups = append(parent.popups, p)
	p.wish = *pos
	own, top := f.positioner(c, pos, p)
	p.top, p.next = top, top
	c.GiveServerID(m.New)
	c.ToServer().Msg(m.Obj.Server, wayland.XdgSurfaceReqGetPopup, m.New.Server, parent.obj.Server, own.Server)
	c.Discard(own, wayland.XdgPositionerReqDestroy)
	return false, nil
}

func onReposition(c *relay.Conn, m *relay.Msg) (bool, error) {
	p := m.Obj.Data.(*popup)
	pos, err := positionerArg(c, m, 0)
	if err != nil || p.shell == nil || p.dismissed || p.parent == nil {
		return false, err
	}
	if len(p.requests) == maxPlaceRequests {
		return false, relay.Fail(m.Obj, relay.ErrNoMemory, "xdg_popup.reposition: %d are not answered yet", maxPlaceRequests)
	}
	p.wish = *pos
	framesOf(c).reposition(c, p, placeRequest{token: m.Word(1)})
	return false, nil
}

// reposition requests the place of p.wish.
func (f *frames) reposition(c *relay.Conn, p *popup, r placeRequest) {
	own, top := f.positioner(c, &p.wish, p)
	r.top = top
	p.requests = append(p.requests, r)
	c.ToServer().Msg(p.obj.Server, wayland.XdgPopupReqReposition, own.Server, r.token)
	c.Discard(own, wayland.XdgPositionerReqDestroy)
}

// grow requests a place for a popup that the client has drawn larger than its configured
// size. Some clients know the size only then (Firefox's context menus), and compositors
// show such popups whole. Here the popup is cut until the compositor has a place for it,
// as if the client had requested one; the client hears nothing of it.
func (f *frames) grow(c *relay.Conn, p *popup, w, h int32) {
	const (
		since = 3              // reposition
		token = math.MaxUint32 // a client that uses it too gets no answer
	)
	now := &p.shell.now
	fits := w <= less(now.w, 2*f.thin) && h <= less(now.h, p.top+f.thin)
	if fits || w == p.wish.w && h == p.wish.h && !p.fresh || p.obj.Version < since || len(p.requests) > 0 || p.parent == nil {
		return
	}
	p.wish.w, p.wish.h, p.wish.hasSerial = w, h, false
	f.reposition(c, p, placeRequest{token: token, ours: true})
}

// finishGrow handles the answer to grow in the client's place.
func (f *frames) finishGrow(c *relay.Conn, s *shell) error {
	s.popup.ours = false
	if !s.mapped {
		return nil // it left the screen meanwhile; the compositor has forgotten it
	}
	for k := range s.queue {
		s.queue[k].past = true
	}
	s.now = s.next
	s.popup.top = s.now.top
	c.ToServer().Msg(s.obj.Server, wayland.XdgSurfaceReqAckConfigure, s.now.serial)
	s.v.Applied = true // the acknowledgement needs a commit
	return f.show(c, s.v)
}

// onRepositioned handles the event before the configure event of the new place.
func onRepositioned(_ *relay.Conn, m *relay.Msg) (bool, error) {
	p := m.Obj.Data.(*popup)
	k := slices.IndexFunc(p.requests, func(r placeRequest) bool { return r.token == m.Word(0) })
	if k < 0 {
		return p.shell != nil, nil
	}
	p.next, p.ours = p.requests[k].top, p.requests[k].ours
	p.requests = slices.Delete(p.requests, 0, k+1)
	return p.shell != nil && !p.ours, nil
}

// positioner makes a positioner of our own with the client's settings, as far as they are
// allowed. It also returns the top of the popup's frame.
func (f *frames) positioner(c *relay.Conn, p *positioner, to *popup) (own *relay.Object, popupTop int32) {
	parent := to.parent
	w, h := f.clipPopup(p.w, p.h)
	top, side := f.edges(parent)
	ax, ay := direction(p.anchor)
	gx, gy := direction(p.gravity)
	dx, dy := p.near(w, h, parent.visible)
	popupTop = f.thin
	offset := func() (x, y int32) { return dx - gx*f.thin, dy + frameOffset(gy, popupTop, f.thin) }
	if f.full {
		x, y := offset()
		at := rect(p.anchorRect.X+side+x, p.anchorRect.Y+top+y, w+2*f.thin, h+popupTop+f.thin)
		at = at.Moved(p.anchorRect.W*(ax+1)/2-at.W*(1-gx)/2, p.anchorRect.H*(ay+1)/2-at.H*(1-gy)/2)
		to.labelled = to.labelled || f.overLabel(to, at)
		if to.labelled || f.isLarge(filterOf(c), to, w, h) {
			popupTop, to.fresh = labelHeight, false
		}
	}
	own = c.Own(wayland.XdgPositioner, p.version, nil)
	e := c.ToServer()
	e.Msg(to.shell.base, wayland.XdgWmBaseReqCreatePositioner, own.Server)
	say := func(op uint16, words ...int32) {
		var w [4]uint32
		for k, v := range words {
			w[k] = uint32(v)
		}
		e.Msg(own.Server, op, w[:len(words)]...)
	}
	say(wayland.XdgPositionerReqSetSize, w+2*f.thin, h+popupTop+f.thin)
	say(wayland.XdgPositionerReqSetAnchorRect, p.anchorRect.X+side, p.anchorRect.Y+top, p.anchorRect.W, p.anchorRect.H)
	e.Msg(own.Server, wayland.XdgPositionerReqSetAnchor, p.anchor)
	e.Msg(own.Server, wayland.XdgPositionerReqSetGravity, p.gravity)
	const slide = 1 | 2 // xdg_positioner.constraint_adjustment: slide_x, slide_y
	e.Msg(own.Server, wayland.XdgPositionerReqSetConstraintAdjustment, p.adjustment&0x3f|slide)
	x, y := offset()
	say(wayland.XdgPositionerReqSetOffset, x, y)
	if p.reactive {
		say(wayland.XdgPositionerReqSetReactive)
	}
	if p.hasParent && p.parentW > 0 && p.parentH > 0 {
		say(wayland.XdgPositionerReqSetParentSize, p.parentW+2*side, p.parentH+top+side)
	}
	if p.hasSerial {
		e.Msg(own.Server, wayland.XdgPositionerReqSetParentConfigure, p.parentSerial)
	}
	return own, popupTop
}

// frameOffset returns by how much a frame moves a popup that grows in a direction, so
// that its content is where the client wants it.
func frameOffset(direction, top, bottom int32) int32 {
	switch direction {
	case -1:
		return bottom
	case 1:
		return -top
	}
	return -(top - bottom) / 2
}

// near returns the offset of a popup of w×h, changed so that the popup touches its
// parent, whose visible part has the size of v.
func (p *positioner) near(w, h int32, v box) (dx, dy int32) {
	along := func(at, length int32, anchor, gravity, size, offset, parent int32) int32 {
		at += length * (anchor + 1) / 2
		at -= size * (1 - gravity) / 2
		return clamp(at+offset, -size, max(parent, 1)) - at
	}
	ax, ay := direction(p.anchor)
	gx, gy := direction(p.gravity)
	r := p.anchorRect
	return along(r.X, r.W, ax, gx, w, p.dx, v.W), along(r.Y, r.H, ay, gy, h, p.dy, v.H)
}

// direction returns the direction of a gravity or an anchor, -1, 0 or 1 on each axis
// (xdg_positioner.gravity, anchor).
func direction(gravity uint32) (x, y int32) {
	switch gravity {
	case 1, 5, 7: // top, top_left, top_right
		y = -1
	case 2, 6, 8: // bottom, bottom_left, bottom_right
		y = 1
	}
	switch gravity {
	case 3, 5, 6: // left, top_left, bottom_left
		x = -1
	case 4, 7, 8: // right, top_right, bottom_right
		x = 1
	}
	return x, y
}

// onPopupConfigure sends the client the place and size without frames.
func onPopupConfigure(c *relay.Conn, m *relay.Msg) (bool, error) {
	p := m.Obj.Data.(*popup)
	if p.shell == nil || p.parent == nil {
		return false, nil
	}
	f := framesOf(c)
	p.place = surface.Point{X: m.Int(0), Y: m.Int(1)}
	if f.full && p.next < labelHeight && f.overLabel(p, rect(p.place.X, p.place.Y, m.Int(2), m.Int(3))) {
		// It slid there. The label takes some of its height; grow requests more.
		p.next, p.labelled, p.fresh = labelHeight, true, !p.labelled
		if m.Int(3) <= labelHeight+f.thin {
			filterOf(c).cfg.Log.Debug("popup dismissed: it is over its window's label, and too low for one", "vm", filterOf(c).cfg.VM)
			f.dismiss(c, p)
			return false, nil
		}
	}
	p.shell.next = configuration{w: m.Int(2), h: m.Int(3), top: p.next}
	if p.shell.mapped && f.count(c, p, p.shell.geometry.W, p.shell.geometry.H) {
		f.recount(c, p.shell)
	}
	if p.ours {
		return false, nil
	}
	top, side := f.edges(p.parent)
	wayland.PutWord(m.Body, 0, uint32(sum(m.Int(0), f.thin-side)))
	wayland.PutWord(m.Body, 4, uint32(sum(m.Int(1), p.next-top)))
	wayland.PutWord(m.Body, 8, uint32(less(m.Int(2), 2*f.thin)))
	wayland.PutWord(m.Body, 12, uint32(less(m.Int(3), p.next+f.thin)))
	return true, nil
}

// showPopup shows a popup in its frame, cut to its configured size.
func (f *frames) showPopup(c *relay.Conn, v *view) error {
	p := v.popup()
	if p == nil || p.dismissed {
		v.Applied = false
		return nil
	}
	s := v.shell
	w, h := v.Current.Size()
	if w == 0 || !s.acked && !v.Current.Acked {
		return f.commitEmpty(c, s)
	}
	if err := f.canShow(c, v); err != nil {
		return err
	}
	wrote := s.acknowledge(c)
	if !s.acked {
		return relay.Fail(c.Server(v.id), errXdgUnconfigured, "content before the first configure event")
	}
	if p.parent == nil || !p.parent.mapped || !s.mapped && stateOf(c).absent() {
		f.dismiss(c, p)
		return nil
	}
	vis := v.align(v.windowPart(w, h, 0), w, h)
	whole := vis
	vis.W, vis.H = min(vis.W, less(s.now.w, 2*f.thin)), min(vis.H, less(s.now.h, p.top+f.thin))
	all := withFrame(rect(0, 0, vis.W, vis.H), p.top, f.thin)
	if !f.count(c, p, all.W, all.H) {
		return nil
	}
	if err := f.noteBlank(c, p, f.full && p.top >= labelHeight && vis.W < minTagged); err != nil {
		return err
	}
	if err := f.showShell(c, s, vis, p.top, f.thin, wrote); err != nil {
		return err
	}
	f.grow(c, p, whole.W, whole.H)
	return nil
}

// noteBlank notes that a popup is about to be shown with a strip for a label, and without
// letters: lying over the tag of its window's label, it would leave the title alone there. So
// the window has no title meanwhile.
func (f *frames) noteBlank(c *relay.Conn, p *popup, blank bool) error {
	if p.blank == blank {
		return nil
	}
	p.blank = blank
	s := p.parent
	for s != nil && s.popup != nil {
		s = s.popup.parent
	}
	switch {
	case s == nil || s.window == nil || !s.mapped:
		return nil
	case blank:
		return f.show(c, s.v) // before the popup is
	}
	f.labelLater(c, s.v)
	return nil
}

// hasBlank tells whether a popup of s is shown with a strip without letters.
func (s *shell) hasBlank() bool {
	return slices.ContainsFunc(s.popups, func(p *popup) bool { return p.blank || p.shell != nil && p.shell.hasBlank() })
}

// count counts a popup with its new size, and dismisses it if that hides too much.
func (f *frames) count(c *relay.Conn, p *popup, w, h int32) bool {
	flt := filterOf(c)
	if flt.popups.enter(p, w, h, p.overlap(w, h), f.outputSizes()) {
		return true
	}
	flt.cfg.Log.Warn("popup dismissed: the VM's popups would hide more of a screen than they may", "vm", flt.cfg.VM, "percent", maxPopups)
	f.dismiss(c, p)
	return false
}

// recount counts the popups of a window again after its size has changed: the part of a
// popup outside the window hides something else.
func (f *frames) recount(c *relay.Conn, s *shell) {
	for _, p := range slices.Clone(s.popups) {
		if p.shell != nil && p.shell.mapped && f.count(c, p, p.shell.geometry.W, p.shell.geometry.H) {
			f.recount(c, p.shell)
		}
	}
}

// align returns b, part of a surface of w×h, with its edges moved outwards to whole
// pixels of the buffer where some are near. A cut through a buffer's pixels, as at a
// scale of 1.5 and an odd place, would blur text.
func (v *view) align(b box, w, h int32) box {
	px, py := v.Current.Pixels()
	edge := func(at, step, end int32, ratio float64) int32 {
		for e := at; e != at+4*step && e >= 0 && e <= end; e += step {
			if px := float64(e) * ratio; math.Abs(px-math.Round(px)) < 0.1 {
				return e
			}
		}
		return at
	}
	x, y := edge(b.X, -1, w, px), edge(b.Y, -1, h, py)
	return rect(x, y, edge(b.X+b.W, 1, w, px)-x, edge(b.Y+b.H, 1, h, py)-y)
}

// overlap returns how many pixels of a popup of w×h are over its own window.
func (p *popup) overlap(w, h int32) int64 {
	b := rect(p.place.X, p.place.Y, w, h)
	s := p.parent
	for s != nil && s.popup != nil {
		b = b.Moved(s.popup.place.X, s.popup.place.Y)
		s = s.popup.parent
	}
	if s == nil {
		return 0
	}
	in := b.Intersect(rect(0, 0, s.geometry.W, s.geometry.H))
	return int64(in.W) * int64(in.H)
}

// overLabel tells whether a popup at a place, in its parent's geometry, is over the label of
// its window, or of another popup of that window.
func (f *frames) overLabel(p *popup, at box) bool {
	s := p.parent
	for s != nil && s.popup != nil {
		at = at.Moved(s.popup.place.X, s.popup.place.Y)
		s = s.popup.parent
	}
	return s != nil && f.labelBelow(s, p, at)
}

// labelBelow tells whether a box, in the geometry of s with its frame, is over the label
// of s or of one of its popups other than p.
func (f *frames) labelBelow(s *shell, p *popup, at box) bool {
	if top, _ := f.edges(s); top >= labelHeight && !at.Intersect(rect(0, 0, s.geometry.W, top)).Empty() {
		return true
	}
	return slices.ContainsFunc(s.popups, func(q *popup) bool {
		return q != p && q.shell != nil && q.shell.mapped && f.labelBelow(q.shell, p, at.Moved(-q.place.X, -q.place.Y))
	})
}

// dismiss takes a popup and its child popups off the screen and tells the client, as a
// compositor does after a click elsewhere.
func (f *frames) dismiss(c *relay.Conn, p *popup) {
	if p.dismissed {
		return
	}
	p.dismissed = true
	if p.shell != nil {
		f.unmap(c, p.shell)
	}
	if !p.obj.Dead && p.obj.ID != 0 {
		c.ToClient().Msg(p.obj.ID, wayland.XdgPopupEvtPopupDone)
	}
}

// endPopups ends the child popups of a window or popup, the newest first.
func (f *frames) endPopups(c *relay.Conn, s *shell) {
	for _, p := range slices.Backward(slices.Clone(s.popups)) {
		f.dismiss(c, p)
		if p.shell != nil {
			f.endRole(c, p.shell)
		}
	}
}

// end removes a popup from its parent, the crowd and the grabs.
func (p *popup) end(c *relay.Conn) {
	if p.parent != nil {
		p.parent.popups = slices.DeleteFunc(p.parent.popups, func(q *popup) bool { return q == p })
	}
	p.shell, p.parent, p.dismissed = nil, nil, true
	filterOf(c).popups.leave(p)
	st := stateOf(c)
	st.grabs = slices.DeleteFunc(st.grabs, func(q *popup) bool { return q == p })
}

// A crowd holds the shown popups of all connections of a VM. Together they may hide at
// most maxPopups percent of any screen.
type crowd struct {
	mu    sync.Mutex
	shown map[*popup]shownPopup
}

type shownPopup struct {
	w, h int32
	own  int64 // the number of pixels over its own window
}

// hides returns how many pixels of a screen a popup can hide, beyond its own window.
func (p shownPopup) hides(s screen) int64 {
	return max(int64(min(p.w, s.w))*int64(min(p.h, s.h))-p.own, 0)
}

// enter adds a popup with its size, unless that hides too much.
func (k *crowd) enter(p *popup, w, h int32, own int64, screens []screen) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := shownPopup{w, h, own}
	for _, s := range screens {
		hidden := now.hides(s)
		for q, o := range k.shown {
			if q != p {
				hidden += o.hides(s)
			}
		}
		if hidden*100 > int64(s.w)*int64(s.h)*maxPopups {
			return false
		}
	}
	if k.shown == nil {
		k.shown = map[*popup]shownPopup{}
	}
	k.shown[p] = now
	return true
}

// others returns how many pixels of a screen all popups except p take.
func (k *crowd) others(p *popup, s screen) (n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for q, o := range k.shown {
		if q != p {
			n += int64(min(o.w, s.w)) * int64(min(o.h, s.h))
		}
	}
	return n
}

func (k *crowd) leave(p *popup) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.shown, p)
}

// outputSizes returns the sizes of the known screens.
func (f *frames) outputSizes() []screen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.screens
}

// clipPopup returns the size of a popup, cut so that alone it hides no more than popups
// may, and fits on the screen with its frame.
func (f *frames) clipPopup(w, h int32) (int32, int32) {
	w, h = min(w, surface.MaxSide), min(h, surface.MaxSide)
	for _, s := range f.outputSizes() {
		w, h = min(w, max(s.w-2*f.thin, 1)), min(h, max(s.h-f.top-f.thin, 1))
		pw, ph := int64(w+2*f.thin), int64(h+f.top+f.thin)
		if most := int64(s.w) * int64(s.h) * maxPopups / 100; pw*ph > most {
			h = max(int32(most/pw)-f.top-f.thin, 1)
		}
	}
	return w, h
}

// isLarge tells whether a popup, together with the VM's other shown popups, takes so much
// of a screen that it needs a label.
func (f *frames) isLarge(flt *Filter, p *popup, w, h int32) bool {
	return slices.ContainsFunc(f.outputSizes(), func(s screen) bool {
		all := int64(min(w, s.w))*int64(min(h, s.h)) + flt.popups.others(p, s)
		return all*100 > int64(s.w)*int64(s.h)*labelShare
	})
}
