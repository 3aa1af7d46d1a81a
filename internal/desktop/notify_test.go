package desktop_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/internal/desktop"
	"vix/internal/desktoptest"
)

// limit is for what takes milliseconds on a quiet machine.
const limit = time.Minute

func start(t *testing.T) *desktoptest.Desktop {
	t.Helper()
	if lacks := desktoptest.Lacks(); lacks != "" {
		t.Skip("lacks: " + lacks)
	}
	return desktoptest.Start(t, desktoptest.Config{})
}

// busOf gives d a session bus with mako on it.
func busOf(t *testing.T, d *desktoptest.Desktop) *dbus.Conn {
	t.Helper()
	if lacks := desktoptest.LacksBus(); lacks != "" {
		t.Skip("lacks: " + lacks)
	}
	address := d.StartBus(t, "")
	d.Mako(t)
	conn, err := desktop.DialBus(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

type makoNote struct {
	ID            uint32
	Summary, Body string
}

// makoctl drives mako.
func makoctl(t *testing.T, d *desktoptest.Desktop, args ...string) {
	t.Helper()
	cmd := exec.Command("makoctl", args...)
	cmd.Env = d.Env()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("makoctl %v: %v: %s", args, err, out)
	}
}

// shownNotes asks mako what it shows.
func shownNotes(t *testing.T, conn *dbus.Conn) []makoNote {
	t.Helper()
	var raw []map[string]dbus.Variant
	err := conn.Object("org.freedesktop.Notifications", "/fr/emersion/Mako").Call("fr.emersion.Mako.ListNotifications", 0).Store(&raw)
	if err != nil {
		t.Fatalf("asking mako: %v", err)
	}
	var list []makoNote
	for _, r := range raw {
		var n makoNote
		if err := errors.Join(r["id"].Store(&n.ID), r["summary"].Store(&n.Summary), r["body"].Store(&n.Body)); err != nil {
			t.Fatalf("mako says %v: %v", r, err)
		}
		list = append(list, n)
	}
	return list
}

func TestNotifications(t *testing.T) {
	d := start(t)
	conn := busOf(t, d)
	n := desktop.NewNotifier(conn)
	t.Run("plain", func(t *testing.T) { testPlain(t, conn, n) })
	t.Run("progress", func(t *testing.T) { testProgress(t, conn, n) })
	t.Run("startup", func(t *testing.T) { testStartup(t, conn, n) })
	t.Run("ask", func(t *testing.T) { testAsk(t, d, conn, n) })
}

func testPlain(t *testing.T, conn *dbus.Conn, n *desktop.Notifier) {
	id, err := n.Show(within(t), desktop.Note{
		Summary: "<b>a</b>\u202e\x1b[31m" + strings.Repeat("x", 1000),
		Body:    "<i>line</i> & \"more\"\nsecond\x00\u2066",
		Expire:  -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	list := shownNotes(t, conn)
	if len(list) != 1 || list[0].ID != id {
		t.Fatalf("mako shows %+v, want one with id %d", list, id)
	}
	if s := list[0].Summary; !strings.HasPrefix(s, "<b>a</b>[31mxxx") || len(s) > 256 {
		t.Errorf("summary %q (%d bytes)", s, len(s))
	}
	if want := "&lt;i&gt;line&lt;/i&gt; &amp; &quot;more&quot;\nsecond"; list[0].Body != want {
		t.Errorf("body %q, want %q", list[0].Body, want)
	}
	if err := n.Close(within(t), id); err != nil {
		t.Error(err)
	}
	if list := shownNotes(t, conn); len(list) != 0 {
		t.Errorf("after Close mako shows %+v", list)
	}
	if err := n.Close(within(t), id); err != nil {
		t.Errorf("closing it again: %v", err)
	}
}

// testProgress: one notification that changes.
func testProgress(t *testing.T, conn *dbus.Conn, n *desktop.Notifier) {
	var id uint32
	for _, done := range []int{0, 50, 200} {
		next, err := n.Show(within(t), desktop.Note{Summary: "starting", Replaces: id, Progress: &done, Expire: -1})
		if err != nil {
			t.Fatal(err)
		}
		if id != 0 && next != id {
			t.Errorf("id %d became %d", id, next)
		}
		id = next
	}
	if list := shownNotes(t, conn); len(list) != 1 {
		t.Errorf("mako shows %+v, want one", list)
	}
	if err := n.Close(within(t), id); err != nil {
		t.Error(err)
	}
}

// testStartup: a start that takes a moment is told of, goes when it is done, and says
// why it failed.
func testStartup(t *testing.T, conn *dbus.Conn, n *desktop.Notifier) {
	wait := func(body string) {
		t.Helper()
		deadline := time.Now().Add(limit)
		for { // mako tells nobody
			list := shownNotes(t, conn)
			if len(list) == 1 && strings.HasPrefix(list[0].Body, body) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("mako shows %+v, want %q", list, body)
			}
		}
	}
	s := n.Startup(t.Context(), "web", "firefox")
	s.Stage("prepared")
	wait("starting QEMU")
	s.Stage("qemu")
	s.Stage("nonsense")
	wait("booting the kernel")
	s.End(nil)
	if list := shownNotes(t, conn); len(list) != 0 {
		t.Errorf("after the start mako shows %+v", list)
	}
	s = n.Startup(t.Context(), "web", "firefox")
	s.Stage("root")
	wait("starting the Wayland proxy")
	s.End(errors.New("no <b>kernel</b>"))
	wait("no &lt;b&gt;kernel&lt;/b&gt;\nSee vix logs web")
	for _, note := range shownNotes(t, conn) {
		if err := n.Close(within(t), note.ID); err != nil {
			t.Error(err)
		}
	}
}

func testAsk(t *testing.T, d *desktoptest.Desktop, conn *dbus.Conn, n *desktop.Notifier) {
	question := desktop.Note{Summary: "give it?", Expire: -1, Actions: []desktop.Action{{Key: "yes", Label: "Yes"}, {Key: "no", Label: "No"}}}
	type result struct {
		key string
		err error
	}
	ask := func(ctx context.Context) <-chan result {
		c := make(chan result, 1)
		go func() {
			key, err := n.Ask(ctx, question)
			c <- result{key, err}
		}()
		return c
	}
	waitShown := func() {
		t.Helper()
		deadline := time.Now().Add(limit)
		for len(shownNotes(t, conn)) == 0 { // mako tells nobody
			if time.Now().After(deadline) {
				t.Fatal("the question is not shown")
			}
		}
	}

	c := ask(within(t))
	waitShown()
	makoctl(t, d, "invoke", "yes")
	if r := <-c; r.key != "yes" || r.err != nil {
		t.Errorf("chosen: %q, %v", r.key, r.err)
	}

	c = ask(within(t))
	waitShown()
	makoctl(t, d, "dismiss")
	if r := <-c; !errors.Is(r.err, desktop.ErrDismissed) {
		t.Errorf("dismissed: %q, %v", r.key, r.err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	c = ask(ctx)
	waitShown()
	cancel()
	if r := <-c; !errors.Is(r.err, context.Canceled) {
		t.Errorf("given up: %q, %v", r.key, r.err)
	}
	if list := shownNotes(t, conn); len(list) != 0 {
		t.Errorf("a question that was given up is still shown: %+v", list)
	}
}

// TestNoNotificationServer: the error says what to do.
func TestNoNotificationServer(t *testing.T) {
	d := start(t)
	if lacks := desktoptest.LacksBus(); lacks != "" {
		t.Skip("lacks: " + lacks)
	}
	conn, err := desktop.DialBus(t.Context(), d.StartBus(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = desktop.NewNotifier(conn).Show(within(t), desktop.Note{Summary: "hello"})
	if err == nil || !strings.Contains(err.Error(), "start one, such as mako") {
		t.Errorf("err = %v", err)
	}
}
