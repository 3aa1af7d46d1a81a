package gpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"vix/internal/ledger"
	"vix/internal/vhost"
	"vix/internal/virtwl"
)

// submission is the part of a chain that SUBMIT_3D's size covers.
type submission struct {
	chain *vhost.Chain
	rest  int
}

// Read implements virtwl.CommandReader.
func (s *submission) Read(p []byte) error {
	if len(p) > s.rest {
		return fmt.Errorf("%w: command cut short", errParameter)
	}
	s.rest -= len(p)
	return s.chain.Read(p)
}

// Remaining implements virtwl.CommandReader.
func (s *submission) Remaining() int { return s.rest }

// control carries out one request of the control queue, and answers it unless it
// is held.
func (d *Device) control(q *vhost.Queue, c *vhost.Chain) {
	if c.Remaining() < headerSize || c.Room() < headerSize || c.Read(d.in[:headerSize]) != nil {
		q.Push(c.Token()) // nothing to answer, or no room for it
		return
	}
	h := parseHeader(d.in[:])
	if h.typ == cmdSubmit3D {
		d.submit(q, c, h)
		return
	}
	size, known := bodySize(h.typ)
	if !known {
		d.answer(q, c, h, 0, errUnknown)
		return
	}
	b := d.in[headerSize : headerSize+size]
	if err := c.Read(b); err != nil {
		d.answer(q, c, h, 0, fmt.Errorf("%w: %w", errParameter, err))
		return
	}
	if h.typ == cmdResourceMapBlob || h.typ == cmdResourceUnmapBlob || h.typ == cmdResourceUnref {
		queued, err := d.enqueue(q, c, h, le.Uint32(b), le.Uint64(d.in[headerSize+8:]))
		if err != nil {
			d.answer(q, c, h, 0, err)
		}
		if err != nil || queued {
			return
		}
	}
	n, err := d.execute(h, b, c)
	d.answer(q, c, h, n, err)
}

// answer writes d.out[:n] with its header filled in, or an error's header.
func (d *Device) answer(q *vhost.Queue, c *vhost.Chain, h header, n int, err error) {
	typ := le.Uint32(d.out[:])
	if err != nil {
		typ, n = errorCode(err), headerSize
		d.refused(h, err)
	} else if n > c.Room() {
		typ, n = respErrUnspec, headerSize
	}
	h.respond(typ).put(d.out[:])
	_ = c.Write(d.out[:n]) // fails only for an invalid address of the answer: the guest's loss
	q.Push(c.Token())
}

func (d *Device) refused(h header, err error) {
	var l ledger.Full
	if errors.As(err, &l) && d.limited.tell(l.Name) {
		d.cfg.Log.Warn("limit reached", "limit", l.Name, "value", l.Value)
		return
	}
	if d.cfg.Log.Enabled(context.Background(), slog.LevelDebug) { // a guest may cause many
		d.cfg.Log.Debug("gpu command refused", "command", fmt.Sprintf("%#x", h.typ), "context", h.ctx, "err", err)
	}
}

// respond is the header of the answer to h.
func (h header) respond(typ uint32) header {
	if h.flags&flagFence == 0 {
		return header{typ: typ}
	}
	h.typ = typ
	return h
}

func errorCode(err error) uint32 {
	var l ledger.Full
	switch {
	case errors.Is(err, errNoResource):
		return respErrInvalidResource
	case errors.Is(err, errNoContext):
		return respErrInvalidContext
	case errors.As(err, &l):
		return respErrOutOfMemory
	case errors.Is(err, errParameter), errors.Is(err, virtwl.ErrProtocol):
		return respErrInvalidParameter
	}
	return respErrUnspec
}

// execute carries out an immediate request. It leaves the answer's type and body in
// d.out.
func (d *Device) execute(h header, b []byte, c *vhost.Chain) (n int, err error) {
	clear(d.out[:])
	le.PutUint32(d.out[:], respOKNoData)
	switch h.typ {
	case cmdGetDisplayInfo:
		le.PutUint32(d.out[:], respOKDisplayInfo)
		return displayInfoSize, nil // all 16 scanouts disabled
	case cmdGetCapsetInfo:
		return d.capsetInfo(le.Uint32(b))
	case cmdGetCapset:
		return d.capset(le.Uint32(b), le.Uint32(b[4:]))
	case cmdCtxCreate:
		return headerSize, d.createContext(h.ctx, le.Uint32(b[4:])&capsetMask)
	case cmdCtxDestroy:
		return headerSize, d.destroyContext(h.ctx)
	case cmdCtxAttachResource:
		return headerSize, d.attach(h.ctx, le.Uint32(b), true)
	case cmdCtxDetachResource:
		return headerSize, d.attach(h.ctx, le.Uint32(b), false)
	case cmdResourceCreateBlob:
		return headerSize, d.createBlob(h, parseCreateBlob(b), c)
	case cmdResourceUnref:
		return headerSize, d.unrefNow(le.Uint32(b))
	}
	return 0, errUnknown
}

func (d *Device) capsetInfo(index uint32) (int, error) {
	if index != 0 {
		return 0, fmt.Errorf("%w: capability set index %d", errParameter, index)
	}
	le.PutUint32(d.out[:], respOKCapsetInfo)
	le.PutUint32(d.out[headerSize:], virtwl.CapsetID)
	le.PutUint32(d.out[headerSize+4:], capsetVersion)
	le.PutUint32(d.out[headerSize+8:], virtwl.CapsetSize)
	return capsetInfoSize, nil
}

const capsetVersion = 1

func (d *Device) capset(id, version uint32) (int, error) {
	if id != virtwl.CapsetID || version > capsetVersion {
		return 0, fmt.Errorf("%w: capability set %d version %d", errParameter, id, version)
	}
	le.PutUint32(d.out[:], respOKCapset)
	virtwl.AppendCapabilities(d.out[:headerSize], virtwl.Capabilities{
		Version: capsetVersion, Channels: 1<<virtwl.ChannelWayland | virtwl.FlowControl,
	})
	return headerSize + virtwl.CapsetSize, nil
}

func (d *Device) context(id uint32) *wlContext {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.contexts[id]
}

func (d *Device) createContext(id, capset uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case id == 0 || d.contexts[id] != nil:
		return fmt.Errorf("%w: context %d", errNoContext, id)
	case capset != virtwl.CapsetID:
		return fmt.Errorf("%w: capability set %d", errParameter, capset)
	case len(d.contexts) >= d.cfg.Limits.Contexts:
		return ledger.Full{Name: "contexts", Value: int64(d.cfg.Limits.Contexts)}
	}
	c := &wlContext{id: id, d: d, res: make(map[uint32]struct{})}
	c.wl = d.host.NewContext(c)
	d.contexts[id] = c
	return nil
}

func (d *Device) destroyContext(id uint32) error {
	d.mu.Lock()
	c := d.contexts[id]
	delete(d.contexts, id)
	d.mu.Unlock()
	if c == nil {
		return errNoContext
	}
	c.wl.Destroy()
	return nil
}

func (d *Device) attach(ctx, res uint32, on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.contexts[ctx]
	switch {
	case c == nil:
		return errNoContext
	case d.resources[res] == nil:
		return errNoResource
	case on:
		c.res[res] = struct{}{}
	default:
		delete(c.res, res)
	}
	return nil
}

// maxSubmission bounds a SUBMIT_3D: a cross-domain command's size has 16 bits. More
// commands in one submission would delay the guest's other programs.
const maxSubmission = 1 << 16

// submit carries out SUBMIT_3D. It writes the answer before the command runs, because
// a held command is completed by its token only; it writes it again for an error.
func (d *Device) submit(q *vhost.Queue, c *vhost.Chain, h header) {
	b := d.in[headerSize : headerSize+8]
	if err := c.Read(b); err != nil {
		d.answer(q, c, h, 0, errParameter)
		return
	}
	size := le.Uint32(b)
	ctx := d.context(h.ctx)
	switch {
	case ctx == nil:
		d.answer(q, c, h, 0, errNoContext)
		return
	case size > maxSubmission, int64(size) > int64(c.Remaining()):
		d.answer(q, c, h, 0, errParameter)
		return
	}
	h.respond(respOKNoData).put(d.out[:])
	if c.Write(d.out[:headerSize]) != nil {
		q.Push(c.Token())
		return
	}
	t := c.Token()
	d.sub = submission{c, int(size)}
	held, err := ctx.wl.Submit(&d.sub, virtwl.Fence{
		Fenced: h.flags&(flagFence|flagRingIdx) == flagFence|flagRingIdx,
		Ring:   h.ring,
		Cookie: t.Pack(),
	})
	switch {
	case err != nil:
		c.Rewrite()
		d.answer(q, c, h, 0, err)
	case !held:
		q.Push(t)
	}
}
