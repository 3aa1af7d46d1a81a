package clipboard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vix/internal/plain"
)

// An exchange is one conversation over a stream socket between a process of the
// user's and a VM's display process: lines of JSON, some followed by data.
//
//	take:  {"slot":0,"limits":{"text":65536}}          ─►
//	                                                   ◄─ {"kind":"text","size":5}hello
//	                                                   ◄─ {"end":"done"} | {"error":"…"}
//
//	give:  {"moment":500,"items":[{"kind":"text","size":5}]}hello ─►
//	                                                   ◄─ {"ok":true} | {"error":"…"}
//	       (the offer stands until the user's process closes its end)
//	                                                   ◄─ {"end":"used" | "replaced"}
//
// The user asked for what the display process reads; its answers may come from a guest,
// even one that has taken the display process over: so the user's side checks them again.

// Limits of an exchange.
const (
	// MaxData bounds the data of one exchange.
	MaxData = 64 << 20
	// maxLine bounds a line.
	maxLine = 4096
	// maxMessage bounds the shown part of an error that came over the line.
	maxMessage = 512
	// stall is how long a program may take for the next piece of data.
	stall = 5 * time.Second
	// maxTime is how long the data of one kind may take.
	maxTime = 60 * time.Second
	// maxReaders bounds the programs that read an offer at a time.
	maxReaders = 16
	// linger is how long an offer stays after a program has read it: some programs read
	// twice.
	linger = time.Second
)

// A TakeRequest asks for a VM's selection: the most bytes of each kind.
type TakeRequest struct {
	Slot   Slot             `json:"slot"`
	Limits map[string]int64 `json:"limits"`
}

// A giveRequest is the line that announces the items after it.
type giveRequest struct {
	Moment int64        `json:"moment"` // milliseconds that the target must have had the keyboard; -1: it need not
	Slot   Slot         `json:"slot"`
	Keep   bool         `json:"keep,omitempty"`
	Items  []itemHeader `json:"items"`
}

// A GiveRequest is an offer of items to a VM.
type GiveRequest struct {
	Slot Slot
	// Moment is how long the target must have had the keyboard; less than 0 is not to
	// be asked.
	Moment time.Duration
	// Keep keeps the offer after its use.
	Keep bool
}

type itemHeader struct {
	Kind string `json:"kind"`
	Size int64  `json:"size"`
}

// An answer has one field set.
type answer struct {
	itemHeader
	OK    bool   `json:"ok,omitempty"`
	End   string `json:"end,omitempty"`
	Error string `json:"error,omitempty"`
}

// The ends of an offer.
const (
	EndUsed     = "used"
	EndReplaced = "replaced"
	endDone     = "done"
)

// readLine reads one line of JSON.
func readLine(r *bufio.Reader, v any) error {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return errors.New("a line that is too long")
	case err != nil:
		return err
	}
	return json.Unmarshal(line, v)
}

func writeLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

// checkItem checks a header against the rest of MaxData.
func checkItem(h itemHeader, left int64) error {
	if !slices.Contains(Kinds(), h.Kind) || h.Size < 0 || h.Size > left {
		return fmt.Errorf("%d bytes of %q announced", h.Size, h.Kind)
	}
	return nil
}

// Take is the user's side: it returns what the VM has selected.
func Take(conn net.Conn, req TakeRequest) ([]Item, error) {
	if err := writeLine(conn, req); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, maxLine)
	var items []Item
	for {
		_ = conn.SetReadDeadline(time.Now().Add(2 * maxTime))
		var a answer
		err := readLine(r, &a)
		switch {
		case err != nil:
			return nil, errors.Join(errors.New("the VM's display has ended"), err)
		case a.Error != "":
			return nil, errors.New(plain.Text(a.Error, maxMessage, plain.OneLine))
		case a.End != "":
			return items, nil
		}
		if slices.ContainsFunc(items, func(it Item) bool { return it.Kind == a.Kind }) {
			return nil, errors.New("one kind twice")
		}
		if err := checkItem(a.itemHeader, req.Limits[a.Kind]); err != nil {
			return nil, err
		}
		it := Item{a.Kind, make([]byte, a.Size)}
		if _, err := io.ReadFull(r, it.Data); err != nil {
			return nil, err
		}
		items = append(items, it)
	}
}

// Give is the user's side: it offers items to the VM. The offer stands until conn is
// closed, or ended by what AwaitEnd returns.
func Give(conn net.Conn, how GiveRequest, items []Item) error {
	req := giveRequest{Moment: how.Moment.Milliseconds(), Slot: how.Slot, Keep: how.Keep}
	if how.Moment < 0 {
		req.Moment = -1
	}
	for _, it := range items {
		req.Items = append(req.Items, itemHeader{it.Kind, int64(len(it.Data))})
	}
	_ = conn.SetDeadline(time.Now().Add(maxTime))
	defer func() { _ = conn.SetDeadline(time.Time{}) }()
	if err := writeLine(conn, req); err != nil {
		return err
	}
	for _, it := range items {
		if _, err := conn.Write(it.Data); err != nil {
			return err
		}
	}
	var a answer
	switch err := readLine(bufio.NewReaderSize(conn, maxLine), &a); {
	case err != nil:
		return errors.Join(errors.New("the VM's display has ended"), err)
	case a.Error != "":
		return errors.New(plain.Text(a.Error, maxMessage, plain.OneLine))
	case !a.OK:
		return errors.New("the VM's display gives no answer")
	}
	return nil
}

// AwaitEnd waits until what was given is used or replaced, or the VM has gone, which
// is "".
func AwaitEnd(conn net.Conn) string {
	var a answer
	if readLine(bufio.NewReaderSize(conn, maxLine), &a) != nil {
		return ""
	}
	return a.End
}

// ServeTake is the display process's side.
func (w *World) ServeTake(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer unhook()
	_ = conn.SetDeadline(time.Now().Add(3 * maxTime))
	if err := w.take(conn); err != nil {
		_ = writeLine(conn, answer{Error: err.Error()}) // a peer that is gone needs no answer
		return
	}
	_ = writeLine(conn, answer{End: endDone})
}

func (w *World) take(conn net.Conn) error {
	var req TakeRequest
	if err := readLine(bufio.NewReaderSize(conn, maxLine), &req); err != nil {
		return err
	}
	if req.Slot < 0 || req.Slot >= numSlots {
		return errors.New("no such selection")
	}
	src, types := w.selection(req.Slot)
	if namesFiles(types) {
		return Refusal(types)
	}
	sent := false
	for _, kind := range Kinds() {
		typ, limit := Best(types, kind), min(req.Limits[kind], MaxData)
		if typ == "" || limit <= 0 {
			continue
		}
		f, err := w.takeFrom(req.Slot, src, typ)
		if err != nil {
			return err
		}
		it, err := read(f, kind, limit)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		if err := writeLine(conn, answer{itemHeader: itemHeader{kind, int64(len(it.Data))}}); err != nil {
			return err
		}
		if _, err := conn.Write(it.Data); err != nil {
			return err
		}
		sent = true
	}
	if !sent {
		return Refusal(types)
	}
	return nil
}

// read takes what a source writes to f, up to its end, and makes an Item of it. It
// closes f.
func read(f *os.File, kind string, limit int64) (Item, error) {
	defer f.Close()
	raw := limit
	if kind == Image {
		raw = MaxData // the limit is for the converted picture
	}
	data, err := readAll(f, raw)
	if err != nil {
		return Item{}, err
	}
	it, err := Convert(kind, data)
	if err == nil && int64(len(it.Data)) > limit {
		err = fmt.Errorf("%d bytes; at most %d may pass, see [[clipboard.rule]]", len(it.Data), limit)
	}
	return it, err
}

// readAll reads up to the end, unless there is more than limit, or nothing comes for
// a while.
func readAll(f *os.File, limit int64) ([]byte, error) {
	var data []byte
	buf := make([]byte, 64<<10)
	for end := time.Now().Add(maxTime); ; {
		next := time.Now().Add(stall)
		if next.After(end) {
			next = end
		}
		_ = f.SetReadDeadline(next)
		n, err := f.Read(buf)
		data = append(data, buf[:n]...)
		switch {
		case int64(len(data)) > limit:
			return nil, fmt.Errorf("more than %d bytes; a [[clipboard.rule]] with a larger limit lets it pass", limit)
		case errors.Is(err, io.EOF):
			return data, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errors.New("the program that has the selection stalls")
		case err != nil:
			return nil, err
		}
	}
}

// ServeGive is the display process's side: it returns when the offer is over.
func (w *World) ServeGive(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer unhook()
	req, items, err := w.giveItems(conn)
	if err != nil {
		_ = writeLine(conn, answer{Error: err.Error()})
		return
	}
	o := NewOffer(items)
	if req.Keep {
		o.used = nil
	}
	takeBack := w.Give(req.Slot, &HostSource{Kinds: Types(items), Write: o.Write, Cancelled: o.Replaced})
	if writeLine(conn, answer{OK: true}) == nil {
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = io.Copy(io.Discard, conn)
		}()
		if end := o.Wait(gone); end != "" {
			_ = writeLine(conn, answer{End: end})
		}
		_ = conn.Close()
		<-gone
	}
	takeBack()
	o.Wipe()
}

func (w *World) giveItems(conn net.Conn) (req giveRequest, items []Item, err error) {
	_ = conn.SetDeadline(time.Now().Add(maxTime))
	defer func() { _ = conn.SetDeadline(time.Time{}) }()
	r := bufio.NewReaderSize(conn, maxLine)
	if err := readLine(r, &req); err != nil {
		return req, nil, err
	}
	if req.Slot < 0 || req.Slot >= numSlots || len(req.Items) > len(Kinds()) {
		return req, nil, errors.New("a request that makes no sense")
	}
	left := int64(MaxData)
	for _, h := range req.Items {
		if err := checkItem(h, left); err != nil {
			return req, nil, err
		}
		left -= h.Size
		it := Item{h.Kind, make([]byte, h.Size)}
		if _, err := io.ReadFull(r, it.Data); err != nil {
			return req, nil, err
		}
		items = append(items, it)
	}
	return req, items, w.target(time.Duration(req.Moment) * time.Millisecond)
}

// target returns why nothing can be given now.
func (w *World) target(moment time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.devices == 0:
		return fmt.Errorf("VM %s has no window to paste into", w.cfg.VM)
	case moment < 0:
	case w.focus == nil:
		return fmt.Errorf("no window of VM %s has the keyboard", w.cfg.VM)
	case time.Since(w.focusTime) < moment:
		return fmt.Errorf("the window of VM %s has had the keyboard for less than %v: look where it goes, and paste again", w.cfg.VM, moment)
	}
	return nil
}

// An Offer is what programs may read for a while.
type Offer struct {
	items []Item
	words map[string]string // short data by its type, for the host's programs
	wg    sync.WaitGroup
	n     atomic.Int32
	used  chan struct{} // nil: nobody waits for it
	other chan struct{}
	once  [2]sync.Once
}

// NewOffer returns an Offer of items, which it owns.
func NewOffer(items []Item) *Offer {
	return &Offer{items: items, used: make(chan struct{}), other: make(chan struct{})}
}

// Write gives one program what it asks for, while others go on. It owns f, which
// does not block.
func (o *Offer) Write(typ string, f *os.File) {
	if word, ok := o.words[typ]; ok {
		_, _ = io.WriteString(f, word)
		_ = f.Close()
		return
	}
	it, ok := Find(o.items, typ)
	if !ok || o.n.Add(1) > maxReaders {
		if ok {
			o.n.Add(-1)
		}
		_ = f.Close()
		return
	}
	o.wg.Go(func() {
		defer o.n.Add(-1)
		defer f.Close()
		for data := it.Data; len(data) > 0; {
			_ = f.SetWriteDeadline(time.Now().Add(stall))
			n, err := f.Write(data[:min(len(data), 64<<10)])
			if err != nil {
				return // a reader that is gone wants no more
			}
			data = data[n:]
		}
		if o.used != nil {
			o.once[0].Do(func() { close(o.used) })
		}
	})
}

// types returns the types of the offer.
func (o *Offer) types() []string {
	return append(Types(o.items), slices.Sorted(maps.Keys(o.words))...)
}

// Replaced ends the Offer.
func (o *Offer) Replaced() { o.once[1].Do(func() { close(o.other) }) }

// Wait returns how the Offer ended: EndUsed, EndReplaced, or "" when gone was closed
// before.
func (o *Offer) Wait(gone <-chan struct{}) string {
	select {
	case <-gone:
		return ""
	case <-o.other:
		return EndReplaced
	case <-o.used:
	}
	t := time.NewTimer(linger)
	defer t.Stop()
	select {
	case <-gone:
	case <-o.other:
	case <-t.C:
	}
	return EndUsed
}

// Wipe waits for the last readers, and overwrites the data.
func (o *Offer) Wipe() {
	o.wg.Wait()
	for _, it := range o.items {
		clear(it.Data)
	}
}
