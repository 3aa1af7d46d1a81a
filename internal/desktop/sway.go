package desktop

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"vix/config"
	"vix/internal/plain"
)

// Messages of sway-ipc(7): "i3-ipc", u32 length, u32 type, in the byte order of
// the machine, then JSON or text.
const (
	swayMagic = "i3-ipc"

	swayRunCommand    = 0
	swayGetWorkspaces = 1
	swaySubscribe     = 2
	swayGetTree       = 4
	swayEvent         = 1 << 31 // or'ed to the type of an event
)

const (
	// maxSway bounds a reply: a tree of some thousand windows.
	maxSway = 16 << 20
	// swayLimit bounds one question and its answer.
	swayLimit = 5 * time.Second
)

// A Sway asks the sway with this IPC socket (SWAYSOCK). Each question has a connection of
// its own, so that several goroutines may use a Sway.
type Sway struct{ Socket string }

// A Window is one of sway's. Title and app id are those of the window's client: for a VM's
// window, Vix has rewritten them.
type Window struct {
	ID        int64 // con_id
	AppID     string
	Title     string
	PID       int
	Focused   bool
	Workspace string // the name of the one that it is on
}

// VM returns the window's VM, and the guest's own app id.
func (w Window) VM() (vm, app string, ok bool) { return SplitAppID(w.AppID) }

// SplitAppID splits an app id that Vix has made of a guest's: vix.VM.APP.
func SplitAppID(id string) (vm, app string, ok bool) {
	rest, ok := strings.CutPrefix(id, "vix.")
	if !ok {
		return "", "", false
	}
	vm, app, ok = strings.Cut(rest, ".")
	if !ok || config.CheckName(vm) != nil {
		return "", "", false
	}
	return vm, app, true
}

// A Workspace of sway's.
type Workspace struct {
	Name    string `json:"name"`
	Num     int    `json:"num"` // -1 for one without a number
	Output  string `json:"output"`
	Focused bool   `json:"focused"`
	Visible bool   `json:"visible"`
	Urgent  bool   `json:"urgent"`
}

// ErrNoFocus: no window has the keyboard.
var ErrNoFocus = errors.New("no window has the focus")

// swayNode has the useful members of a node of the tree.
type swayNode struct {
	ID       int64       `json:"id"`
	Type     string      `json:"type"`
	Name     string      `json:"name"`
	AppID    string      `json:"app_id"`
	PID      int         `json:"pid"`
	Focused  bool        `json:"focused"`
	Nodes    []*swayNode `json:"nodes"`
	Floating []*swayNode `json:"floating_nodes"`
}

func (n *swayNode) window(workspace string) Window {
	return Window{ID: n.ID, AppID: n.AppID, Title: n.Name, PID: n.PID, Focused: n.Focused, Workspace: workspace}
}

// windows appends the windows below n.
func (n *swayNode) windows(list []Window, workspace string) []Window {
	if n.Type == "workspace" {
		workspace = n.Name
	}
	// A window has a process; nothing else in the tree does.
	if n.PID != 0 {
		list = append(list, n.window(workspace))
	}
	for _, c := range n.Nodes {
		list = c.windows(list, workspace)
	}
	for _, c := range n.Floating {
		list = c.windows(list, workspace)
	}
	return list
}

// Windows returns all windows.
func (s Sway) Windows(ctx context.Context) ([]Window, error) {
	var root swayNode
	if err := s.ask(ctx, swayGetTree, "", &root); err != nil {
		return nil, err
	}
	return root.windows(nil, ""), nil
}

// Focused returns the window that has the keyboard, or ErrNoFocus.
func (s Sway) Focused(ctx context.Context) (Window, error) {
	all, err := s.Windows(ctx)
	if err != nil {
		return Window{}, err
	}
	for _, w := range all {
		if w.Focused {
			return w, nil
		}
	}
	return Window{}, ErrNoFocus
}

// Workspaces returns the workspaces, in sway's order.
func (s Sway) Workspaces(ctx context.Context) ([]Workspace, error) {
	var list []Workspace
	return list, s.ask(ctx, swayGetWorkspaces, "", &list)
}

// Run runs commands of sway(5), separated by ';'. The error is the first one that
// failed. Nothing of a guest's may stand in commands unchecked.
func (s Sway) Run(ctx context.Context, commands string) error {
	var results []struct {
		Success bool   `json:"success"`
		Error   string `json:"error"`
	}
	if err := s.ask(ctx, swayRunCommand, commands, &results); err != nil {
		return err
	}
	for _, r := range results {
		if !r.Success {
			return fmt.Errorf("sway: %s: %s", commands, plain.Text(r.Error, maxBody, plain.OneLine))
		}
	}
	return nil
}

// ask sends one message and reads the answer into v.
func (s Sway) ask(ctx context.Context, kind uint32, payload string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, swayLimit)
	defer cancel()
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	b, err := c.ask(kind, payload)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	return swayError(ctx, err)
}

// A swayConn is a connection that ends with its context.
type swayConn struct {
	net.Conn
	unhook func() bool
}

func (s Sway) dial(ctx context.Context) (*swayConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", s.Socket)
	if err != nil {
		return nil, fmt.Errorf("sway: %w", err)
	}
	return &swayConn{c, context.AfterFunc(ctx, func() { c.Close() })}, nil
}

func (c *swayConn) close() {
	c.unhook()
	c.Close()
}

func (c *swayConn) ask(kind uint32, payload string) ([]byte, error) {
	b := binary.NativeEndian.AppendUint32([]byte(swayMagic), uint32(len(payload)))
	b = binary.NativeEndian.AppendUint32(b, kind)
	if _, err := c.Write(append(b, payload...)); err != nil {
		return nil, err
	}
	got, reply, err := readSway(c)
	if err == nil && got != kind {
		err = fmt.Errorf("a reply of type %d to a message of type %d", got, kind)
	}
	return reply, err
}

// readSway reads one message.
func readSway(r io.Reader) (kind uint32, payload []byte, err error) {
	var head [len(swayMagic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	if string(head[:len(swayMagic)]) != swayMagic {
		return 0, nil, fmt.Errorf("not an IPC message: %q", head)
	}
	n := binary.NativeEndian.Uint32(head[len(swayMagic):])
	if n > maxSway {
		return 0, nil, fmt.Errorf("an IPC message of %d bytes: at most %d", n, maxSway)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return binary.NativeEndian.Uint32(head[len(swayMagic)+4:]), payload, err
}

func swayError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("sway has ended")
	}
	return fmt.Errorf("sway: %w", err)
}

// A SwayEvent is a change: of a window ("new", "close", "focus", "title", "move", …),
// of a workspace ("init", "focus", "reload", …), or "exit" of "shutdown".
type SwayEvent struct {
	Kind   string // "window", "workspace", "shutdown", …: sway-ipc(7)
	Change string
	// Window is of a window's event; its Workspace is not known.
	Window Window
}

var swayKinds = map[uint32]string{0: "workspace", 1: "output", 2: "mode", 3: "window", 6: "shutdown"}

// SwayEvents is a subscription; see Subscribe.
type SwayEvents struct {
	ctx  context.Context
	conn *swayConn
}

// Subscribe asks for events of those kinds. When it returns, no later event is
// missed. The events are the caller's to close, and end with ctx.
func (s Sway) Subscribe(ctx context.Context, kinds ...string) (*SwayEvents, error) {
	list, err := json.Marshal(kinds)
	if err != nil {
		return nil, err
	}
	c, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	var result struct {
		Success bool `json:"success"`
	}
	_ = c.SetDeadline(time.Now().Add(swayLimit))
	b, err := c.ask(swaySubscribe, string(list))
	if err == nil {
		err = json.Unmarshal(b, &result)
	}
	if err == nil && !result.Success {
		err = fmt.Errorf("no such events: %v", kinds)
	}
	if err != nil {
		c.close()
		return nil, swayError(ctx, err)
	}
	_ = c.SetDeadline(time.Time{})
	return &SwayEvents{ctx, c}, nil
}

// Next waits for the next event.
func (e *SwayEvents) Next() (SwayEvent, error) {
	for {
		kind, b, err := readSway(e.conn)
		if err != nil {
			return SwayEvent{}, swayError(e.ctx, err)
		}
		name, ok := swayKinds[kind&^swayEvent]
		if kind&swayEvent == 0 || !ok {
			continue
		}
		var body struct {
			Change    string   `json:"change"`
			Container swayNode `json:"container"`
		}
		if err := json.Unmarshal(b, &body); err != nil {
			return SwayEvent{}, swayError(e.ctx, err)
		}
		return SwayEvent{Kind: name, Change: body.Change, Window: body.Container.window("")}, nil
	}
}

// Close ends the subscription.
func (e *SwayEvents) Close() { e.conn.close() }
