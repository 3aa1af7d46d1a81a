package clipflow

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/accept"
	"vix/internal/clipboard"
	"vix/internal/vm"
)

// A Holder has the data of "clipboard copy". holding.go shows its protocol.
type Holder struct {
	sides *Sides
	id    string
	from  string
	items []clipboard.Item
	over  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup

	pasteMu   sync.Mutex // one offer is made at a time; taken before mu
	mu        sync.Mutex
	timer     *time.Timer
	ends      time.Time
	offeredTo string             // the side; "" for none
	cancel    context.CancelFunc // of the offer
}

// ReadHolder returns the holder of the data that Hold writes to in. It closes the calling
// process to debuggers and core files.
func ReadHolder(sides *Sides, in io.Reader) (*Holder, error) {
	h := &Holder{sides: sides, over: make(chan struct{})}
	return h, h.read(in)
}

func (h *Holder) read(in io.Reader) error {
	r := bufio.NewReaderSize(in, maxHoldLine)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	var w heldData
	if err := json.Unmarshal(line, &w); err != nil {
		return err
	}
	h.id, h.from, h.ends = rand.Text(), w.From, time.Now().Add(w.TTL)
	for _, it := range w.Items {
		b := lockedMemory(it.Size)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		h.items = append(h.items, clipboard.Item{Kind: it.Kind, Data: b})
	}
	return nil
}

// lockedMemory returns memory that is not swapped, if the user may lock so much.
func lockedMemory(n int64) []byte {
	if n <= 0 || n > clipboard.MaxData {
		return nil
	}
	b, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, n)
	}
	_ = unix.Mlock(b) // over the user's limit, the memory may be swapped
	_ = unix.Madvise(b, unix.MADV_DONTDUMP)
	return b
}

// Run holds the data until ctx ends, its time is up, or it was used or cleared. It
// calls ready when it can be asked.
func (h *Holder) Run(ctx context.Context, ready func()) error {
	dir, err := h.sides.dir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, holderName)
	_ = os.Remove(path) // left from a killed holder
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	h.mu.Lock()
	h.timer = time.AfterFunc(time.Until(h.ends), h.end)
	h.mu.Unlock()
	h.wg.Go(func() { h.accept(ctx, l) })
	ready()
	select {
	case <-ctx.Done():
	case <-h.over:
	}
	h.timer.Stop()
	err = l.Close() // this removes the socket, before a client of clear learns that the data is gone
	cancel()
	h.wg.Wait()
	for _, it := range h.items {
		clear(it.Data)
	}
	return err
}

// end lets Run return.
func (h *Holder) end() { h.once.Do(func() { close(h.over) }) }

func (h *Holder) accept(ctx context.Context, l *net.UnixListener) {
	// A client for whom there is no descriptor sees the connection end, and may ask again.
	_ = accept.Serve(l, func(conn *net.UnixConn) { h.wg.Go(func() { h.answer(ctx, conn) }) }, func(*net.UnixConn, error) {})
}

func (h *Holder) answer(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer unhook()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	var req request
	if json.NewDecoder(io.LimitReader(conn, maxHoldLine)).Decode(&req) != nil {
		return
	}
	var rep Holding
	switch req.Op {
	case "status":
		h.mu.Lock()
		rep = Holding{ID: h.id, From: h.from, Items: ItemsOf(h.items), Seconds: int(time.Until(h.ends).Seconds() + 0.5), Recipient: h.offeredTo}
		h.mu.Unlock()
	case "paste":
		if err := h.paste(ctx, req); err != nil {
			rep.Error = err.Error()
		}
	case "clear":
		h.end()
		<-ctx.Done() // the answer is the end of the connection
		return
	default:
		rep.Error = "unknown request"
	}
	_ = json.NewEncoder(conn).Encode(rep)
}

// itemsFor returns copies of the items that a paste lets pass: the offer wipes its copies.
func (h *Holder) itemsFor(req request) (items []clipboard.Item) {
	for _, it := range h.items {
		if limit, ok := req.Limits[it.Kind]; !ok || int64(len(it.Data)) > limit {
			continue
		}
		data := bytes.Clone(it.Data)
		if req.Strip && it.Kind == clipboard.Text {
			data = clipboard.Strip(it.Data)
		}
		items = append(items, clipboard.Item{Kind: it.Kind, Data: data})
	}
	return items
}

// paste makes the offer. It takes a standing offer back first: of two offers at once, as by
// a key that is pressed twice, each would take the other's place, and end it.
func (h *Holder) paste(ctx context.Context, req request) error {
	if req.ID != h.id {
		return errors.New("something else was copied meanwhile; look at clipboard status, and paste again")
	}
	h.pasteMu.Lock()
	defer h.pasteMu.Unlock()
	items := h.itemsFor(req)
	h.mu.Lock()
	if h.cancel != nil {
		h.cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	h.cancel, h.offeredTo = cancel, ""
	h.mu.Unlock()
	over, err := h.give(ctx, req, items)
	if err != nil {
		cancel()
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.offeredTo = req.To
	h.ends = time.Now().Add(req.TTL)
	h.timer.Reset(req.TTL)
	h.wg.Go(func() {
		used := <-over
		if ctx.Err() == nil && used {
			h.end()
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if ctx.Err() == nil {
			h.offeredTo = "" // its VM has gone: the data is still here
		}
	})
	return nil
}

// fromVM returns the name of a side's VM, "" for the host.
func fromVM(side string) string {
	if side == config.ClipHost {
		return ""
	}
	return side
}

// give offers items until ctx is done. At the end, over says whether somebody used them, or
// something else took their place.
func (h *Holder) give(ctx context.Context, req request, items []clipboard.Item) (over <-chan bool, err error) {
	end := make(chan bool, 1)
	if req.To == config.ClipHost {
		host, err := h.sides.host()
		if err != nil {
			return nil, err
		}
		done, err := host.Give(ctx, req.Slot, items, fromVM(h.from), req.Secret)
		if err != nil {
			return nil, errors.Join(err, host.Close())
		}
		h.wg.Go(func() {
			<-done
			_ = host.Close()
			end <- true
		})
		return end, nil
	}
	conn, err := h.sides.exchange(ctx, req.To, vm.GiveSelection)
	if err != nil {
		return nil, err
	}
	if err := clipboard.Give(conn, clipboard.GiveRequest{Slot: req.Slot, Moment: req.Moment}, items); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	for _, it := range items {
		clear(it.Data)
	}
	h.wg.Go(func() {
		unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer unhook()
		end <- clipboard.AwaitEnd(conn) != ""
		_ = conn.Close()
	})
	return end, nil
}
