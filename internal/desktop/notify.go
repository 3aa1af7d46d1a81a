package desktop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/internal/plain"
	"vix/internal/vm"
)

// The Desktop Notifications Specification, 1.3.
const (
	notifyName = "org.freedesktop.Notifications"
	notifyPath = dbus.ObjectPath("/org/freedesktop/Notifications")
)

// Limits of a notification's texts, in bytes, and of the wait for a server.
const (
	maxSummary  = 256
	maxBody     = 2048
	maxLabel    = 64
	notifyLimit = 10 * time.Second // a server may have to be activated first
)

// An Urgency of a notification.
type Urgency int

const (
	Low      Urgency = -1
	Normal   Urgency = 0
	Critical Urgency = 1 // stays until it is closed, with most servers
)

// A Note is the content of a notification. Summary, body and labels are plain text: they
// may hold a guest's words.
type Note struct {
	Summary string
	Body    string // may have several lines
	Icon    string // a name of the icon theme, or a path
	Urgency Urgency
	// Replaces is the id of the notification that this one replaces; 0 for none.
	Replaces uint32
	// Progress is how much is done, 0 … 100; nil is none.
	Progress *int
	// Expire is how long it is shown; 0 leaves that to the server, less than 0 is
	// until it is closed.
	Expire time.Duration
	// Category is one of the specification's, such as "transfer.complete".
	Category string
	Actions  []Action
}

// An Action is a button. The key "default" is a click on the notification itself.
type Action struct{ Key, Label string }

// Ask's errors when the user chose nothing.
var (
	ErrDismissed = errors.New("the question was closed without an answer")
	ErrNoActions = errors.New("the notification server shows no actions")
)

// A Notifier shows notifications through one connection to the session bus, which
// stays the caller's. It may be used by several goroutines.
type Notifier struct {
	conn *dbus.Conn
	obj  dbus.BusObject
}

// NewNotifier returns a Notifier on conn.
func NewNotifier(conn *dbus.Conn) *Notifier {
	return &Notifier{conn: conn, obj: conn.Object(notifyName, notifyPath)}
}

// Show shows n and returns its id, for Replaces and Close.
func (n *Notifier) Show(ctx context.Context, note Note) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, notifyLimit)
	defer cancel()
	caps, err := n.capabilities(ctx)
	if err != nil {
		return 0, err
	}
	body := plain.Text(note.Body, maxBody, plain.Lines)
	if slices.Contains(caps, "body-markup") {
		body = EscapeMarkup(body)
	}
	hints := map[string]dbus.Variant{"urgency": dbus.MakeVariant(byte(min(max(note.Urgency, Low), Critical) + 1))}
	if note.Progress != nil {
		hints["value"] = dbus.MakeVariant(int32(min(max(*note.Progress, 0), 100)))
	}
	if note.Category != "" {
		hints["category"] = dbus.MakeVariant(note.Category)
	}
	actions := []string{}
	for _, a := range note.Actions {
		actions = append(actions, a.Key, plain.Text(a.Label, maxLabel, plain.OneLine))
	}
	var id uint32
	err = n.obj.CallWithContext(ctx, notifyName+".Notify", 0, "Vix", note.Replaces, note.Icon,
		plain.Text(note.Summary, maxSummary, plain.OneLine), body, actions, hints, expiry(note.Expire)).Store(&id)
	return id, notifyError(err)
}

// expiry is a duration as the protocol's milliseconds.
func expiry(d time.Duration) int32 {
	switch {
	case d < 0:
		return 0 // never
	case d == 0:
		return -1 // the server's choice
	}
	return int32(min(max(d.Milliseconds(), 1), 1<<31-1))
}

// Close takes a notification away. It is no error if it is gone already.
func (n *Notifier) Close(ctx context.Context, id uint32) error {
	ctx, cancel := context.WithTimeout(ctx, notifyLimit)
	defer cancel()
	err := n.obj.CallWithContext(ctx, notifyName+".CloseNotification", 0, id).Err
	var reply dbus.Error
	if errors.As(err, &reply) && reply.Name != "org.freedesktop.DBus.Error.ServiceUnknown" {
		return nil
	}
	return notifyError(err)
}

// Ask shows note and waits until one of its actions is chosen, whose key it
// returns. The error is ErrDismissed if the user closes it or the server does,
// ErrNoActions if the server cannot ask, or ctx's: then Ask takes the question back. The
// caller sets the limit with ctx.
func (n *Notifier) Ask(ctx context.Context, note Note) (string, error) {
	caps, err := n.capabilities(ctx)
	if err != nil {
		return "", err
	}
	if !slices.Contains(caps, "actions") {
		return "", ErrNoActions
	}
	// Before the question is shown: an answer may come at once.
	signals := make(chan *dbus.Signal, 64)
	n.conn.Signal(signals)
	defer n.conn.RemoveSignal(signals)
	match := []dbus.MatchOption{dbus.WithMatchSender(notifyName), dbus.WithMatchInterface(notifyName)}
	if err := n.conn.AddMatchSignalContext(ctx, match...); err != nil {
		return "", notifyError(err)
	}
	defer func() { _ = n.conn.RemoveMatchSignal(match...) }()

	// A call that is given up halfway would leave a question that nobody takes back.
	own := context.WithoutCancel(ctx)
	id, err := n.Show(own, note)
	if err != nil {
		return "", err
	}
	defer func() { _ = n.Close(own, id) }() // not every server does it after an answer
	var server string
	if err := n.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, notifyName).Store(&server); err != nil {
		return "", notifyError(err)
	}
	for {
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case s, ok := <-signals:
			if !ok {
				return "", errors.New("the session bus is gone")
			}
			if s.Sender != server {
				continue // whoever else has something to say on this connection
			}
			if key, done, err := answer(s, id); done {
				return key, err
			}
		}
	}
}

// answer reads a signal's news about notification id.
func answer(s *dbus.Signal, id uint32) (key string, done bool, err error) {
	var of uint32
	switch s.Name {
	case notifyName + ".ActionInvoked":
		if dbus.Store(s.Body, &of, &key) == nil && of == id {
			return key, true, nil
		}
	case notifyName + ".NotificationClosed":
		var reason uint32
		if dbus.Store(s.Body, &of, &reason) == nil && of == id {
			return "", true, ErrDismissed
		}
	}
	return "", false, nil
}

func (n *Notifier) capabilities(ctx context.Context) ([]string, error) {
	var caps []string
	err := n.obj.CallWithContext(ctx, notifyName+".GetCapabilities", 0).Store(&caps)
	return caps, notifyError(err)
}

func notifyError(err error) error {
	var reply dbus.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &reply) && reply.Name == "org.freedesktop.DBus.Error.ServiceUnknown":
		return errors.New("no notification server on the session bus; start one, such as mako")
	}
	return fmt.Errorf("notification: %w", err)
}

// Tell is supervise.Desktop's: it shows a VM's trouble on the bus that the VM was started on.
func Tell(ctx context.Context, l vm.Launch, summary, text string) error {
	if l.Bus == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, notifyLimit)
	defer cancel()
	conn, err := DialBus(ctx, l.Bus)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = NewNotifier(conn).Show(ctx, Note{
		Summary: summary, Body: text, Icon: "dialog-warning", Category: "device.error",
	})
	return err
}
