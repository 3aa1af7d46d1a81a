package surface

// A Surface is one wl_surface of the client's.
type Surface struct {
	Role Role
	Data any // belongs to the layer above
	// Current is the state in effect, which the compositor has to show.
	Current State
	// Applied is set when a state took effect; the layer that writes it to the compositor
	// clears it.
	Applied bool

	pending, cached State
	hasCache        bool
	shown           bool // Current.Buffer was written, and the model does not hold it
	free            func(*Buffer)
	sub             place // the place in the parent, of a sub-surface
	children        []*Surface
	below           int // children[:below] are under the surface itself
	gone            bool
}

// New returns a surface. It calls free when the model no longer needs a buffer that it
// held.
func New(free func(*Buffer)) *Surface { return &Surface{free: free} }

// SetRole gives the surface a role, or returns why it cannot have it.
func (s *Surface) SetRole(r Role, code uint32) error {
	if s.Role != None && s.Role != r {
		return fail(code, "the surface is %s, and cannot become %s", s.Role, r)
	}
	s.Role = r
	return nil
}

func (s *Surface) hold(b *Buffer) {
	if b != nil {
		b.holds++
	}
}

func (s *Surface) release(b *Buffer) {
	if b == nil {
		return
	}
	if b.holds--; b.holds == 0 {
		s.free(b)
	}
}

// Attach is wl_surface.attach; b is nil for none.
func (s *Surface) Attach(b *Buffer) {
	s.hold(b)
	if s.pending.set&setBuffer != 0 {
		s.release(s.pending.Buffer)
	}
	s.pending.Buffer = b
	s.pending.set |= setBuffer
}

// Move is the offset of wl_surface.attach or wl_surface.offset.
func (s *Surface) Move(x, y int32) { s.pending.Moved = Point{limit(x), limit(y)} }

// SetScale is wl_surface.set_buffer_scale.
func (s *Surface) SetScale(v int32) error {
	if v < 1 {
		return fail(ErrInvalidScale, "invalid buffer scale %d", v)
	}
	s.pending.Scale = min(v, MaxSide)
	s.pending.set |= setScale
	return nil
}

// SetTransform is wl_surface.set_buffer_transform.
func (s *Surface) SetTransform(v int32) error {
	if v < 0 || v > 7 {
		return fail(ErrInvalidTransform, "invalid buffer transform %d", v)
	}
	s.pending.Transform = v
	s.pending.set |= setTransform
	return nil
}

// SetSource is wp_viewport.set_source, in 24.8 fixed point; four times -1 unset it.
func (s *Surface) SetSource(b Box) error {
	const unset = -1 << 8
	switch {
	case b == Box{unset, unset, unset, unset}:
		b = Box{}
	case b.X < 0 || b.Y < 0 || b.W <= 0 || b.H <= 0:
		return fail(ErrBadValue, "invalid source of a viewport")
	}
	s.pending.Source = b
	s.pending.set |= setSource
	return nil
}

// SetDestination is wp_viewport.set_destination; twice -1 unset it.
func (s *Surface) SetDestination(w, h int32) error {
	switch {
	case w == -1 && h == -1:
		w, h = 0, 0
	case w <= 0 || h <= 0 || w > MaxSide || h > MaxSide:
		return fail(ErrBadValue, "invalid destination of a viewport: %d×%d", w, h)
	}
	s.pending.Destination = Box{W: w, H: h}
	s.pending.set |= setDestination
	return nil
}

// DropViewport is wp_viewport.destroy.
func (s *Surface) DropViewport() {
	s.pending.Source, s.pending.Destination = Box{}, Box{}
	s.pending.set |= setSource | setDestination
}

// SetGeometry is xdg_surface.set_window_geometry; both sides are above 0.
func (s *Surface) SetGeometry(b Box) {
	s.pending.Geometry = b
	s.pending.set |= setGeometry
}

// Ack is xdg_surface.ack_configure.
func (s *Surface) Ack(serial uint32) {
	s.pending.Ack = serial
	s.pending.set |= setAck
}

// ResetXdg resets the state set by an xdg_surface, when that is destroyed.
func (s *Surface) ResetXdg() {
	for _, st := range []*State{&s.pending, &s.cached, &s.Current} {
		st.set &^= setGeometry | setAck
		st.Geometry, st.Ack, st.Acked = Box{}, 0, false
	}
}

// Damage is wl_surface.damage.
func (s *Surface) Damage(b Box) { s.pending.Damage.add(&s.pending.Damage.Surface, b) }

// DamageBuffer is wl_surface.damage_buffer.
func (s *Surface) DamageBuffer(b Box) { s.pending.Damage.add(&s.pending.Damage.Buffer, b) }

// HasContent tells whether there is content, committed or about to be.
func (s *Surface) HasContent() bool {
	return s.Current.Buffer != nil || s.cached.Buffer != nil || s.pending.Buffer != nil
}

// Attaches tells whether the next commit gives the surface content.
func (s *Surface) Attaches() bool { return s.pending.Buffer != nil }

// Acks tells whether the next commit acknowledges a configure event.
func (s *Surface) Acks() bool { return s.pending.set&setAck != 0 }

// Shown tells whether the content was written (MarkWritten).
func (s *Surface) Shown() bool { return s.shown }

// MarkWritten notes that the compositor has the current content. The compositor releases
// it later.
func (s *Surface) MarkWritten() {
	if !s.shown {
		s.shown = true
		s.release(s.Current.Buffer)
	}
}

// MarkHidden notes that the compositor no longer shows the current content. It may have
// to be shown again.
func (s *Surface) MarkHidden() {
	if s.shown {
		s.shown = false
		s.hold(s.Current.Buffer)
	}
}

// Unattach drops content that was attached and not committed. A pending removal of the
// content stays.
func (s *Surface) Unattach() {
	if s.pending.Buffer == nil {
		return
	}
	s.release(s.pending.Buffer)
	s.pending.Buffer = nil
	s.pending.set &^= setBuffer
}

// clear removes the current and the attached content.
func (s *Surface) clear() {
	s.Unattach()
	if !s.shown {
		s.release(s.Current.Buffer)
	}
	s.Current.Buffer, s.shown = nil, false
}

// Commit is wl_surface.commit. It tells whether the states of the surface and its
// sub-surfaces took effect; else they wait for the parent.
func (s *Surface) Commit() (effective bool, err error) {
	s.takePlaces()
	if !s.hasCache && !s.Synchronized() {
		if err := s.take(&s.pending); err != nil {
			return false, err
		}
		return true, s.applyChildren()
	}
	s.cached.merge(s, &s.pending)
	s.hasCache = true
	if s.Synchronized() {
		return false, nil
	}
	return true, s.apply()
}

// merge adds a newer state to s, and empties it.
func (s *State) merge(of *Surface, n *State) {
	if n.set&setBuffer != 0 {
		if s.set&setBuffer != 0 {
			of.release(s.Buffer)
		}
		s.Buffer = n.Buffer
	}
	s.rest(n)
	s.set |= n.set
	n.clear()
}

// rest takes over everything that n sets, except the buffer.
func (s *State) rest(n *State) {
	s.Moved = Point{limit(Sum(s.Moved.X, n.Moved.X)), limit(Sum(s.Moved.Y, n.Moved.Y))}
	if n.set&setScale != 0 {
		s.Scale = n.Scale
	}
	if n.set&setTransform != 0 {
		s.Transform = n.Transform
	}
	if n.set&setSource != 0 {
		s.Source = n.Source
	}
	if n.set&setDestination != 0 {
		s.Destination = n.Destination
	}
	if n.set&setGeometry != 0 {
		s.Geometry = n.Geometry
	}
	if n.set&setAck != 0 {
		s.Ack, s.Acked = n.Ack, true
	}
	s.Damage.move(&n.Damage)
}

// clear empties a state after another took over its buffer.
func (s *State) clear() {
	s.set, s.Buffer, s.Moved = 0, nil, Point{}
}

// take makes n current.
func (s *Surface) take(n *State) error {
	if n.set&setBuffer != 0 {
		if !s.shown {
			s.release(s.Current.Buffer)
		}
		s.Current.Buffer, s.shown = n.Buffer, false
	}
	s.Current.rest(n)
	n.clear()
	s.Applied = true
	return s.Current.check()
}

// apply makes the cached state current.
func (s *Surface) apply() error {
	s.hasCache = false
	if err := s.take(&s.cached); err != nil {
		return err
	}
	return s.applyChildren()
}

// applyChildren applies the sub-surfaces' places and states, which take effect with their
// parent's.
func (s *Surface) applyChildren() error {
	for _, k := range s.children {
		k.settle()
		if k.hasCache {
			if err := k.apply(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Destroy is wl_surface.destroy.
func (s *Surface) Destroy() {
	if s.gone {
		return
	}
	s.gone = true
	_ = s.Detach() // an error in its state has no effect any more
	for _, k := range s.children {
		k.sub.parent = nil
	}
	s.children, s.below = nil, 0
	s.clear()
	s.release(s.cached.Buffer)
	s.pending.clear()
	s.cached.clear()
}

// Gone tells that the client has destroyed the surface.
func (s *Surface) Gone() bool { return s.gone }

func limit(v int32) int32 { return min(max(v, -MaxPlace), MaxPlace) }
