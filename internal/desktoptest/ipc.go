package desktoptest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"net"
	"strings"
	"time"
)

// Message types of sway-ipc(7). A message is "i3-ipc", u32 length, u32 type (in
// the byte order of the machine), payload.
const (
	ipcRunCommand = 0
	ipcSubscribe  = 2
	ipcGetOutputs = 3
	ipcGetTree    = 4
	ipcGetVersion = 7

	ipcMagic   = "i3-ipc"
	ipcMaximum = 64 << 20
)

// A Rect of the layout, in output pixels.
type Rect struct{ X, Y, Width, Height int }

// Image returns r as the rectangle of a screenshot.
func (r Rect) Image() image.Rectangle { return image.Rect(r.X, r.Y, r.X+r.Width, r.Y+r.Height) }

// A Node of sway's tree; a window is a leaf with a PID.
type Node struct {
	ID             int64   `json:"id"`
	Type           string  `json:"type"`
	Name           string  `json:"name"`   // a window's title
	AppID          string  `json:"app_id"` // "" for none
	PID            int     `json:"pid"`
	Shell          string  `json:"shell"`
	Visible        bool    `json:"visible"`
	Focused        bool    `json:"focused"`
	FullscreenMode int     `json:"fullscreen_mode"`
	Rect           Rect    `json:"rect"`        // with the borders and without the title bar
	WindowRect     Rect    `json:"window_rect"` // the content, relative to Rect
	DecoRect       Rect    `json:"deco_rect"`
	Geometry       Rect    `json:"geometry"`
	Nodes          []*Node `json:"nodes"`
	FloatingNodes  []*Node `json:"floating_nodes"`
}

// Content is where the window's own pixels are on the screen.
func (n *Node) Content() Rect {
	return Rect{n.Rect.X + n.WindowRect.X, n.Rect.Y + n.WindowRect.Y, n.WindowRect.Width, n.WindowRect.Height}
}

// Windows returns the windows below n, in the tree's order.
func (n *Node) Windows() []*Node {
	if n.Shell != "" && n.Type != "workspace" {
		return []*Node{n}
	}
	var all []*Node
	for _, list := range [][]*Node{n.Nodes, n.FloatingNodes} {
		for _, c := range list {
			all = append(all, c.Windows()...)
		}
	}
	return all
}

func (n *Node) String() string {
	return fmt.Sprintf("title %q, app id %q, %dx%d at %d,%d", n.Name, n.AppID, n.Rect.Width, n.Rect.Height, n.Rect.X, n.Rect.Y)
}

// ByAppID matches windows of that app id.
func ByAppID(id string) func(*Node) bool { return func(n *Node) bool { return n.AppID == id } }

// ByAppIDPrefix matches windows whose app id begins so.
func ByAppIDPrefix(prefix string) func(*Node) bool {
	return func(n *Node) bool { return strings.HasPrefix(n.AppID, prefix) }
}

// ByTitle matches windows whose title contains text.
func ByTitle(text string) func(*Node) bool {
	return func(n *Node) bool { return strings.Contains(n.Name, text) }
}

// Tree returns the root of sway's tree.
func (d *Desktop) Tree(t T) *Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	root, err := d.tree(ctx)
	if err != nil {
		t.Fatalf("asking sway for its tree: %v", err)
	}
	return root
}

// Windows returns the windows that match; nil matches all.
func (d *Desktop) Windows(t T, match func(*Node) bool) []*Node {
	t.Helper()
	var found []*Node
	for _, w := range d.Tree(t).Windows() {
		if match == nil || match(w) {
			found = append(found, w)
		}
	}
	return found
}

// WaitWindow waits until a window matches and returns it.
func (d *Desktop) WaitWindow(t T, match func(*Node) bool) *Node {
	t.Helper()
	return d.WaitWindows(t, 1, match)[0]
}

// WaitSettled waits for a window that also has drawn at the size that sway gave
// it. Before that, a click beside what it has drawn is not the window's. A program
// that keeps a size of its own, or is black, is settled after a second.
func (d *Desktop) WaitSettled(t T, match func(*Node) bool) *Node {
	t.Helper()
	id := d.WaitWindow(t, match).ID
	return d.looked(t, id, time.Second, func(n *Node) bool {
		r := n.Content()
		return d.Screenshot(t).RGBAAt(r.X+r.Width-2, r.Y+r.Height-2) != color.RGBA{A: 255}
	})
}

// looked looks at a window until it is as ok wants it, but not longer than limit.
func (d *Desktop) looked(t T, id int64, limit time.Duration, ok func(*Node) bool) *Node {
	t.Helper()
	deadline := time.After(limit)
	again := time.NewTicker(20 * time.Millisecond) // a commit makes no IPC event
	defer again.Stop()
	for {
		w := d.WaitWindow(t, func(n *Node) bool { return n.ID == id })
		if ok(w) {
			return w
		}
		select {
		case <-again.C:
		case <-deadline:
			return w
		}
	}
}

// WaitWindows waits until at least n windows match and returns them.
func (d *Desktop) WaitWindows(t T, n int, match func(*Node) bool) []*Node {
	t.Helper()
	var found []*Node
	d.WaitTree(t, fmt.Sprintf("%d such windows", n), func(root *Node) bool {
		found = nil
		for _, w := range root.Windows() {
			if match == nil || match(w) {
				found = append(found, w)
			}
		}
		return len(found) >= n
	})
	return found
}

// WaitNoWindow waits until no window matches.
func (d *Desktop) WaitNoWindow(t T, match func(*Node) bool) {
	t.Helper()
	d.WaitTree(t, "no such window", func(root *Node) bool {
		for _, w := range root.Windows() {
			if match == nil || match(w) {
				return false
			}
		}
		return true
	})
}

// WaitTree waits until the tree is as ok wants it; it looks again whenever a
// window, a workspace or an output changes.
func (d *Desktop) WaitTree(t T, what string, ok func(root *Node) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	last, err := d.waitTree(ctx, ok)
	if err == nil {
		return
	}
	var have strings.Builder
	if last != nil {
		for _, w := range last.Windows() {
			fmt.Fprintf(&have, "\n  %v", w)
		}
	}
	t.Fatalf("waiting for %s: %v; windows:%s", what, err, have.String())
}

func (d *Desktop) waitTree(ctx context.Context, ok func(*Node) bool) (last *Node, err error) {
	c, err := d.dialIPC(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	// Subscribed first, then asked: no change can be missed.
	if err := ipcWrite(c, ipcSubscribe, `["window","workspace","output"]`); err != nil {
		return nil, err
	}
	if _, err := ipcRead(c); err != nil {
		return nil, ipcError(ctx, err)
	}
	for {
		root, err := d.tree(ctx)
		if err != nil {
			return last, err
		}
		if last = root; ok(root) {
			return root, nil
		}
		if _, err := ipcRead(c); err != nil {
			return last, ipcError(ctx, err)
		}
	}
}

func (d *Desktop) tree(ctx context.Context) (*Node, error) {
	b, err := d.ipc(ctx, ipcGetTree, "")
	if err != nil {
		return nil, err
	}
	root := new(Node)
	return root, json.Unmarshal(b, root)
}

// Command runs commands of sway(5); each must succeed.
func (d *Desktop) Command(t T, commands string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	b, err := d.ipc(ctx, ipcRunCommand, commands)
	var results []struct {
		Success bool
		Error   string
	}
	if err == nil {
		err = json.Unmarshal(b, &results)
	}
	if err != nil {
		t.Fatalf("swaymsg %q: %v", commands, err)
	}
	for _, r := range results {
		if !r.Success {
			t.Fatalf("swaymsg %q: %s", commands, r.Error)
		}
	}
}

// CloseWindow asks the window to close, as a click on its close button does.
func (d *Desktop) CloseWindow(t T, w *Node) {
	t.Helper()
	d.Command(t, fmt.Sprintf("[con_id=%d] kill", w.ID))
}

// Focus gives a window the keyboard.
func (d *Desktop) Focus(t T, w *Node) {
	t.Helper()
	d.Command(t, fmt.Sprintf("[con_id=%d] focus", w.ID))
}

// Float makes a window float with that content size, its corner at x, y.
//
// Sway first gives it the size that it had at its start. A slow program's late
// answer to an older size counts as its own wish, and undoes the new one: so a
// size is set again until it stays. When sway believes in a size that the program
// has not taken, another call gives it a different one between.
func (d *Desktop) Float(t T, w *Node, x, y, width, height int) {
	t.Helper()
	at := fmt.Sprintf("[con_id=%d] ", w.ID)
	stays := 300 * time.Millisecond
	is := func(n *Node) bool { return n.Rect.Width == width && n.Rect.Height == height }
	now := d.WaitWindow(t, func(n *Node) bool { return n.ID == w.ID })
	switch {
	case now.Type != "floating_con":
		d.Command(t, at+"floating enable")
		stays = time.Second
	case is(now):
		d.Command(t, at+fmt.Sprintf("resize set width %d px height %d px", width-40, height-40))
		d.looked(t, w.ID, 2*time.Second, func(*Node) bool { return false })
	}
	for range 10 {
		d.Command(t, at+fmt.Sprintf("resize set width %d px height %d px", width, height))
		if !is(d.looked(t, w.ID, 3*time.Second, is)) {
			continue // a wish came first
		}
		if is(d.looked(t, w.ID, stays, func(n *Node) bool { return !is(n) })) {
			break
		}
	}
	d.Command(t, at+fmt.Sprintf("move absolute position %d %d", x, y))
}

// SetSize changes the output's size and waits until it has it.
func (d *Desktop) SetSize(t T, width, height int) {
	t.Helper()
	d.Command(t, fmt.Sprintf("output HEADLESS-1 mode %dx%d", width, height))
	d.WaitTree(t, "the output's new size", func(root *Node) bool {
		for _, n := range root.Nodes {
			if n.Name == "HEADLESS-1" {
				return n.Rect.Width == width && n.Rect.Height == height
			}
		}
		return false
	})
}

// ipc sends one message on a connection of its own and returns the reply.
func (d *Desktop) ipc(ctx context.Context, kind uint32, payload string) ([]byte, error) {
	c, err := d.dialIPC(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := ipcWrite(c, kind, payload); err != nil {
		return nil, ipcError(ctx, err)
	}
	b, err := ipcRead(c)
	return b, ipcError(ctx, err)
}

func (d *Desktop) dialIPC(ctx context.Context) (net.Conn, error) {
	if d.IPC == "" {
		return nil, errors.New("the compositor is not sway: no IPC socket")
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", d.IPC)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = c.SetDeadline(deadline)
	}
	return c, err
}

// ipcError says that sway has gone, rather than EOF.
func ipcError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("sway has ended")
	}
	return err
}

func ipcWrite(w io.Writer, kind uint32, payload string) error {
	b := append([]byte(nil), ipcMagic...)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.NativeEndian.AppendUint32(b, kind)
	_, err := w.Write(append(b, payload...))
	return err
}

func ipcRead(r io.Reader) ([]byte, error) {
	var head [len(ipcMagic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(head[:], []byte(ipcMagic)) {
		return nil, fmt.Errorf("not an IPC message: %q", head)
	}
	n := binary.NativeEndian.Uint32(head[len(ipcMagic):])
	if n > ipcMaximum {
		return nil, fmt.Errorf("an IPC message of %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
