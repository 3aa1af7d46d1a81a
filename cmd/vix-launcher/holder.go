package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/accept"
	"vix/internal/clipboard"
	"vix/internal/vm"
)

// The holder is the process that has what "clipboard copy" took, in memory that is
// not swapped where that can be had, until it is used, replaced, cleared or too old.
// It is asked over $XDG_RUNTIME_DIR/vix/.clipboard, a line of JSON each way:
//
//	copy  ── stdin: {"from":…,"ttl":…,"items":[…]} and the data ──► holder
//	      ◄─ stdout: "ok", once it listens ──
//	paste ── {"op":"status"} ──► holder
//	      ◄─ {"id":…,"from":…,"items":…} ─ on which paste decides, by rules or by asking
//	paste ── {"op":"paste","id":…,"to":…,…} ──► holder ── give ──► the VM's display, or the host
//	      ◄─ {} or {"error":…} ──────────
type holdRequest struct {
	Op     string           `json:"op"`
	ID     string           `json:"id,omitempty"` // of what is pasted, as "status" told
	To     string           `json:"to,omitempty"`
	Slot   clipboard.Slot   `json:"slot,omitempty"`
	Limits map[string]int64 `json:"limits,omitempty"`
	Strip  bool             `json:"strip,omitempty"`
	Secret bool             `json:"secret,omitempty"`
	Moment time.Duration    `json:"moment,omitempty"`
	TTL    time.Duration    `json:"ttl,omitempty"`
}

type holdItem struct {
	Kind string `json:"kind"`
	Size int64  `json:"size"`
}

// A holdReply says what is held; From is empty when nothing is.
type holdReply struct {
	From    string     `json:"from,omitempty"`
	Items   []holdItem `json:"items,omitempty"`
	Seconds int        `json:"seconds,omitempty"` // left
	Offered string     `json:"offered,omitempty"` // to whom
	ID      string     `json:"id,omitempty"`      // of what is held: another for each copy
	Error   string     `json:"error,omitempty"`
}

func (r holdReply) String() string {
	if r.From == "" {
		return "nothing is held"
	}
	s := fmt.Sprintf("%s from %s, for %d s more", describe(r.Items), sideName(r.From), r.Seconds)
	if r.Offered != "" {
		s += ", offered to " + sideName(r.Offered)
	}
	return s
}

var errNothingHeld = errors.New("clipboard: nothing was copied; select something and use clipboard copy first")

const (
	maxHoldLine  = 4096
	holdPatience = 90 * time.Second // of a question to the holder
)

// askHolder asks the holder, if there is one.
func (e *env) askHolder(req holdRequest) (holdReply, error) {
	var rep holdReply
	dir, err := e.runtimeDir()
	if err != nil {
		return rep, err
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "vix", holderName), Net: "unix"})
	if err != nil {
		return rep, errNothingHeld
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(holdPatience))
	err = json.NewEncoder(conn).Encode(req)
	if err == nil {
		err = json.NewDecoder(conn).Decode(&rep)
	}
	if err != nil {
		if req.Op == "clear" {
			return rep, nil
		}
		return rep, errNothingHeld // its time was over just now
	}
	if rep.Error != "" {
		return rep, fmt.Errorf("clipboard: %s", rep.Error)
	}
	return rep, nil
}

// hold starts a holder, in the place of the one there may be. Whoever else copies now
// waits: of two holders, one could not be reached, and would take the other's socket away.
func (e *env) hold(from string, ttl time.Duration, items []clipboard.Item) error {
	path, err := e.vixDir()
	if err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := e.askHolder(holdRequest{Op: "clear"}); err != nil && !errors.Is(err, errNothingHeld) {
		return err
	}
	cmd, err := e.again(context.Background(), "clipboard-hold")
	if err != nil {
		return err
	}
	cmd.Env = e.environ()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the process that holds it: %w", err)
	}
	err = json.NewEncoder(in).Encode(heldData{From: from, TTL: ttl, Items: headers(items)})
	for _, it := range items {
		if err == nil {
			_, err = in.Write(it.Data)
		}
		clear(it.Data)
	}
	_ = in.Close()
	said, _ := io.ReadAll(io.LimitReader(out, maxHoldLine)) // to its end: the holder closes it
	if err != nil || string(said) != "ok\n" {
		return errors.Join(err, fmt.Errorf("the process that holds it does not start: %s", said), cmd.Wait())
	}
	return cmd.Process.Release()
}

// heldData is what the holder is started with.
type heldData struct {
	From  string        `json:"from"`
	TTL   time.Duration `json:"ttl"`
	Items []holdItem    `json:"items"`
}

func holdCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    "clipboard-hold",
		Short:  "the process that has what was copied",
		Hidden: true,
		Args:   args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			h := &clipHolder{env: e, over: make(chan struct{})}
			if err := h.read(e.stdin); err != nil {
				return err
			}
			return h.run(ctx)
		},
	}
}

type clipHolder struct {
	env   *env
	id    string
	from  string
	items []clipboard.Item
	over  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup

	pasting sync.Mutex // one offer is made at a time; taken before mu
	mu      sync.Mutex
	timer   *time.Timer
	ends    time.Time
	offered string
	cancel  context.CancelFunc // of the offer
}

// read takes over the data. Nobody else may look at it, or have it in a core file.
func (h *clipHolder) read(in io.Reader) error {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
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
	_ = unix.Mlock(b) // a limit of the user's: then it may be swapped
	_ = unix.Madvise(b, unix.MADV_DONTDUMP)
	return b
}

func (h *clipHolder) run(ctx context.Context) error {
	dir, err := h.env.vixDir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, holderName)
	_ = os.Remove(path) // of one that was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	h.mu.Lock()
	h.timer = time.AfterFunc(time.Until(h.ends), h.end)
	h.mu.Unlock()
	h.wg.Go(func() { h.accept(ctx, l) })
	fmt.Fprintln(h.env.stdout, "ok")
	if f, ok := h.env.stdout.(*os.File); ok {
		_ = f.Close()
	}
	select {
	case <-ctx.Done():
	case <-h.over:
	}
	h.timer.Stop()
	err = l.Close() // which removes the socket, before whoever wants to clear hears that it is gone
	cancel()
	h.wg.Wait()
	for _, it := range h.items {
		clear(it.Data)
	}
	return err
}

// end lets run return.
func (h *clipHolder) end() { h.once.Do(func() { close(h.over) }) }

func (h *clipHolder) accept(ctx context.Context, l *net.UnixListener) {
	// Whom there is no descriptor for sees his connection end, and may ask again.
	_ = accept.Serve(l, func(conn *net.UnixConn) { h.wg.Go(func() { h.answer(ctx, conn) }) }, func(*net.UnixConn, error) {})
}

func (h *clipHolder) answer(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer unhook()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	var req holdRequest
	if json.NewDecoder(io.LimitReader(conn, maxHoldLine)).Decode(&req) != nil {
		return
	}
	var rep holdReply
	switch req.Op {
	case "status":
		h.mu.Lock()
		rep = holdReply{ID: h.id, From: h.from, Items: headers(h.items), Seconds: int(time.Until(h.ends).Seconds() + 0.5), Offered: h.offered}
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

// passing are copies of the items that a paste lets pass: the offer wipes its own.
func (h *clipHolder) passing(req holdRequest) (items []clipboard.Item) {
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

// paste makes the offer. An offer that stands is taken back first: were two made at
// once, as by a key that is pressed twice, each would take the other's place, and end it.
func (h *clipHolder) paste(ctx context.Context, req holdRequest) error {
	if req.ID != h.id {
		return errors.New("something else was copied meanwhile; look at clipboard status, and paste again")
	}
	h.pasting.Lock()
	defer h.pasting.Unlock()
	items := h.passing(req)
	h.mu.Lock()
	if h.cancel != nil {
		h.cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	h.cancel, h.offered = cancel, ""
	h.mu.Unlock()
	over, err := h.give(ctx, req, items)
	if err != nil {
		cancel()
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.offered = req.To
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
			h.offered = "" // its VM has gone: what was copied is still there
		}
	})
	return nil
}

// fromVM is the VM that a side is, "" for the host.
func fromVM(side string) string {
	if side == config.ClipHost {
		return ""
	}
	return side
}

// give offers items until ctx is done. over tells at the end whether they were used,
// or something else took their place.
func (h *clipHolder) give(ctx context.Context, req holdRequest, items []clipboard.Item) (over <-chan bool, err error) {
	end := make(chan bool, 1)
	if req.To == config.ClipHost {
		host, err := h.env.hostClipboard()
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
	conn, err := h.env.exchange(ctx, req.To, vm.GiveSelection)
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
