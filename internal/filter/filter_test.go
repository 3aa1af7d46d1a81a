package filter

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/bidi"
	"pgregory.net/rapid"

	"vix/internal/display"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// A rig is a filter between a hand-driven guest and a hand-driven compositor.
type rig struct {
	guest, host *waylandtest.Peer
	filter      *Filter
	done        chan struct{}
	mu          sync.Mutex
	events      []Event
}

func newRig(t testing.TB) *rig {
	t.Helper()
	return newLimitedRig(t, display.Limits{}, slog.New(slog.DiscardHandler))
}

func newLimitedRig(t testing.TB, l display.Limits, log *slog.Logger) *rig {
	t.Helper()
	gn, gf := waylandtest.Pair(t)
	hn, hf := waylandtest.Pair(t)
	r := &rig{
		guest: &waylandtest.Peer{T: t, Tr: gn},
		host:  &waylandtest.Peer{T: t, Tr: hn},
		done:  make(chan struct{}),
	}
	f := New(Config{
		VM: "work", Tag: "w",
		Dial: func() (wayland.Transport, error) { return hf, nil },
		Event: func(e Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
		Limits: l,
		Log:    log,
	})
	r.filter = f
	go func() {
		defer close(r.done)
		_ = f.Serve(context.Background(), gf) // the guest has been told why
	}()
	t.Cleanup(func() {
		_ = gn.Close()
		_ = hn.Close()
		wayland.CloseAll(r.guest.Descs)
		wayland.CloseAll(r.host.Descs)
		<-r.done
	})
	return r
}

// Objects of the guest in these tests.
const (
	registry = 2 + iota
	compositor
	wmBase
	seat
	output
	manager
	shm
	surfaceObj
	xdgSurface
	toplevel
	next
)

func (r *rig) setUp(t testing.TB) (host map[uint32]uint32) {
	t.Helper()
	host = map[uint32]uint32{}
	r.guest.Send(1, wayland.WlDisplayReqGetRegistry, registry)
	reg := r.host.Want(1, wayland.WlDisplayReqGetRegistry).Word(0)
	for k, g := range []struct {
		id    uint32
		iface *wayland.Interface
	}{
		{compositor, wayland.WlCompositor}, {wmBase, wayland.XdgWmBase}, {seat, wayland.WlSeat},
		{output, wayland.WlOutput}, {manager, wayland.WlDataDeviceManager}, {shm, wayland.WlShm},
	} {
		v := Allowed(g.iface, g.iface.Version)
		r.write(r.host, reg, wayland.WlRegistryEvtGlobal, uint32(k), g.iface.Name, v)
		r.guest.Want(registry, wayland.WlRegistryEvtGlobal)
		r.write(r.guest, registry, wayland.WlRegistryReqBind, uint32(k), g.iface.Name, v, g.id)
		m := r.host.Want(reg, wayland.WlRegistryReqBind)
		host[g.id] = m.Word(len(m.Body)/4 - 1)
	}
	return host
}

// write sends a message of words and strings.
func (r *rig) write(p *waylandtest.Peer, id uint32, op uint16, args ...any) {
	p.T.Helper()
	p.Put(id, op, args...)
}

// hear receives one string request of the host's object.
func (r *rig) hear(id uint32, op uint16) string {
	r.host.T.Helper()
	d := wayland.NewDecoder(r.host.Want(id, op).Body)
	return string(d.String())
}

// skip receives from the filter up to a message.
func (r *rig) skip(id uint32, op uint16) waylandtest.Msg {
	r.host.T.Helper()
	for {
		m, err := r.host.Next()
		if err != nil {
			r.host.T.Fatalf("want %d.%d: %v", id, op, err)
		}
		if m.ID == id && m.Op == op {
			return m
		}
	}
}

// xdgSurface makes the first xdg_surface of the guest, and tells the filter what the
// compositor has. It returns the compositor's ids.
func (r *rig) firstXdgSurface(host map[uint32]uint32) (surf, xdg uint32) {
	r.host.T.Helper()
	r.guest.Send(compositor, wayland.WlCompositorReqCreateSurface, surfaceObj)
	surf = r.skip(host[compositor], wayland.WlCompositorReqCreateSurface).Word(0)
	r.guest.Send(wmBase, wayland.XdgWmBaseReqGetXdgSurface, xdgSurface, surfaceObj)
	reg := r.skip(1, wayland.WlDisplayReqGetRegistry).Word(0)
	xdg = r.skip(host[wmBase], wayland.XdgWmBaseReqGetXdgSurface).Word(0)
	for k, i := range []*wayland.Interface{wayland.WlCompositor, wayland.WpViewporter} {
		r.write(r.host, reg, wayland.WlRegistryEvtGlobal, k, i.Name, 1)
		r.skip(reg, wayland.WlRegistryReqBind)
	}
	return surf, xdg
}

// configure tells a window that it may show content.
func (r *rig) configure(xdg, hostXdg, top, hostTop uint32) {
	r.host.T.Helper()
	r.host.Send(hostTop, wayland.XdgToplevelEvtConfigure, 0, 0, 0)
	r.host.Send(hostXdg, wayland.XdgSurfaceEvtConfigure, 1)
	r.guest.Want(top, wayland.XdgToplevelEvtConfigure)
	r.guest.Want(xdg, wayland.XdgSurfaceEvtConfigure)
	r.guest.Send(xdg, wayland.XdgSurfaceReqAckConfigure, 1)
}

// newToplevel makes a window, and returns the compositor's ids of its surface and
// its toplevel.
func (r *rig) newToplevel(host map[uint32]uint32) (surf, top uint32) {
	r.host.T.Helper()
	surf, xdg := r.firstXdgSurface(host)
	r.guest.Send(xdgSurface, wayland.XdgSurfaceReqGetToplevel, toplevel)
	top = r.host.Want(xdg, wayland.XdgSurfaceReqGetToplevel).Word(0)
	r.configure(xdgSurface, xdg, toplevel, top)
	return surf, top
}

// TestNewerVersions holds what a guest sees of a compositor that is newer than the tables: no
// interface in a version whose requests have no rule, and the states of xdg_wm_base 7.
func TestNewerVersions(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t)
	host := r.setUp(t)
	for k, g := range []struct {
		iface *wayland.Interface
		want  uint32
	}{{wayland.WpCursorShapeManagerV1, 2}, {wayland.XdgWmBase, 7}, {wayland.WlSeat, 9}} {
		r.write(r.host, registry, wayland.WlRegistryEvtGlobal, uint32(70+k), g.iface.Name, uint32(99))
		m := r.guest.Want(registry, wayland.WlRegistryEvtGlobal)
		if got := m.Word(len(m.Body)/4 - 1); got != g.want {
			t.Errorf("%s 99 is told as version %d, not %d", g.iface.Name, got, g.want)
		}
	}
	_, xdg := r.firstXdgSurface(host)
	r.guest.Send(xdgSurface, wayland.XdgSurfaceReqGetToplevel, toplevel)
	top := r.host.Want(xdg, wayland.XdgSurfaceReqGetToplevel).Word(0)
	const constrainedLeft, constrainedBottom = 10, 13
	r.host.Send(top, wayland.XdgToplevelEvtConfigure, 0, 0, 8, constrainedLeft, constrainedBottom)
	m := r.guest.Want(toplevel, wayland.XdgToplevelEvtConfigure)
	d := wayland.NewDecoder(m.Body)
	d.Int()
	d.Int()
	states := d.Array()
	for _, want := range []uint32{constrainedLeft, constrainedBottom} {
		found := false
		for b := states; len(b) >= 4; b = b[4:] {
			found = found || wayland.Word(b, 0) == want
		}
		if !found {
			t.Errorf("state %d is lost: %v", want, states)
		}
	}
}

// TestIdentity holds that a window has its tag from its first moment, and keeps
// it.
func TestIdentity(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t)
	surf, top := r.newToplevel(r.setUp(t))
	if s := r.hear(top, wayland.XdgToplevelReqSetTitle); s != "[w] " {
		t.Errorf("the first title is %q", s)
	}
	if s := r.hear(top, wayland.XdgToplevelReqSetAppId); s != "vix.work.unknown" {
		t.Errorf("the first app id is %q", s)
	}
	r.write(r.guest, toplevel, wayland.XdgToplevelReqSetTitle, "[vault] bank\n\u202eknab")
	if s := r.hear(top, wayland.XdgToplevelReqSetTitle); s != "[w] [vault] bank knab" {
		t.Errorf("the title is %q", s)
	}
	r.write(r.guest, toplevel, wayland.XdgToplevelReqSetAppId, "../org.foot client")
	if s := r.hear(top, wayland.XdgToplevelReqSetAppId); s != "vix.work..._org.foot_client" {
		t.Errorf("the app id is %q", s)
	}
	r.guest.Send(surfaceObj, wayland.WlSurfaceReqAttach, 0, 0, 0)
	r.guest.Send(surfaceObj, wayland.WlSurfaceReqCommit)
	r.skip(surf, wayland.WlSurfaceReqCommit)
	if len(r.events) != 0 {
		t.Errorf("a window without content: %v", r.events)
	}
}

// TestWindowEvents holds that a window is told of when it has content, and when
// it goes.
func TestWindowEvents(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t)
	host := r.setUp(t)
	surf, top := r.newToplevel(host)
	r.hear(top, wayland.XdgToplevelReqSetTitle)
	r.hear(top, wayland.XdgToplevelReqSetAppId)
	var e wayland.Encoder
	e.Msg(shm, wayland.WlShmReqCreatePool, next, 4096)
	r.guest.Write(e.B, waylandtest.Memfd(t, 4096))
	pool := r.host.Want(host[shm], wayland.WlShmReqCreatePool).Word(0)
	r.guest.Send(next, wayland.WlShmPoolReqCreateBuffer, next+1, 0, 32, 32, 128, 0)
	r.host.Want(pool, wayland.WlShmPoolReqCreateBuffer)
	r.guest.Send(surfaceObj, wayland.WlSurfaceReqAttach, next+1, 0, 0)
	r.guest.Send(surfaceObj, wayland.WlSurfaceReqCommit)
	r.skip(surf, wayland.WlSurfaceReqAttach)
	r.skip(surf, wayland.WlSurfaceReqCommit)
	r.guest.Send(toplevel, wayland.XdgToplevelReqDestroy)
	r.skip(top, wayland.XdgToplevelReqDestroy)
	r.host.Send(1, wayland.WlDisplayEvtDeleteId, top)
	r.guest.Want(1, wayland.WlDisplayEvtDeleteId)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) != 2 || r.events[0] != (Event{"window", 1, "[w] ", "vix.work.unknown"}) || r.events[1] != (Event{Event: "window-closed", ID: 1}) {
		t.Errorf("events: %v", r.events)
	}
}

// TestPoolSize holds that no pool reaches beyond its file.
func TestPoolSize(t *testing.T) {
	for name, do := range map[string]func(r *rig){
		"create": func(r *rig) {
			var e wayland.Encoder
			e.Msg(shm, wayland.WlShmReqCreatePool, surfaceObj, 4097)
			r.guest.Write(e.B, waylandtest.Memfd(t, 4096))
		},
		"resize": func(r *rig) {
			var e wayland.Encoder
			e.Msg(shm, wayland.WlShmReqCreatePool, surfaceObj, 4096)
			e.Msg(surfaceObj, wayland.WlShmPoolReqResize, 8192)
			r.guest.Write(e.B, waylandtest.Memfd(t, 4096))
		},
	} {
		t.Run(name, func(t *testing.T) {
			waylandtest.LeakCheck(t)
			r := newRig(t)
			r.setUp(t)
			do(r)
			if _, code, text := r.guest.WantError(); code != 2 || !strings.Contains(text, "does not fit a file of 4096") {
				t.Error(code, text)
			}
			r.guest.WantEnd()
		})
	}
}

// TestOutputs holds that a guest does not learn what monitor the user has.
func TestOutputs(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t)
	host := r.setUp(t)
	r.write(r.host, host[output], wayland.WlOutputEvtGeometry, 1, 2, 3, 4, 5, "ACME", "XY 3000 serial 77", 6)
	m := r.guest.Want(output, wayland.WlOutputEvtGeometry)
	if bytes.Contains(m.Body, []byte("ACME")) || bytes.Contains(m.Body, []byte("77")) || m.Word(2) != 0 || m.Word(3) != 0 || m.Word(4) != 5 || m.Word(len(m.Body)/4-1) != 6 {
		t.Errorf("% x", m.Body)
	}
	r.write(r.host, host[output], wayland.WlOutputEvtName, "eDP-1")
	name := r.guest.Want(output, wayland.WlOutputEvtName)
	d := wayland.NewDecoder(name.Body)
	if s := string(d.String()); s != "VIX-3" { // the global's number in setUp
		t.Errorf("the output is called %q", s)
	}
	r.write(r.host, host[seat], wayland.WlSeatEvtName, "kiosk-left")
	if m := r.guest.Want(seat, wayland.WlSeatEvtName); bytes.Contains(m.Body, []byte("kiosk")) {
		t.Errorf("% x", m.Body)
	}
	r.write(r.host, host[output], wayland.WlOutputEvtDescription, "ACME XY 3000 77")
	if m := r.guest.Want(output, wayland.WlOutputEvtDescription); bytes.Contains(m.Body, []byte("ACME")) {
		t.Errorf("% x", m.Body)
	}
}

// TestAllowList holds that every global of the tables has been decided on, and
// that what is allowed can pass a VM.
func TestAllowList(t *testing.T) {
	made := map[*wayland.Interface]bool{wayland.WlDisplay: true, wayland.WlRegistry: true}
	for _, i := range wayland.Interfaces() {
		for _, ms := range [][]wayland.Message{i.Requests, i.Events} {
			for _, m := range ms {
				if m.New != nil && m.New.Iface != nil {
					made[m.New.Iface] = true
				}
			}
		}
	}
	for _, i := range wayland.Interfaces() {
		r, decided := display.Rules[i]
		switch {
		case made[i] && decided:
			t.Errorf("%s is not a global", i.Name)
		case !made[i] && (!decided || r.Why == ""):
			t.Errorf("%s: no rule, or no reason", i.Name)
		case r.Max > i.Version:
			t.Errorf("%s: version %d is not in the tables", i.Name, r.Max)
		}
	}
}

var update = flag.Bool("update", false, "write the tables of docs/ anew")

// TestDocument holds that docs/ says what the rules and the limits are.
func TestDocument(t *testing.T) {
	for file, want := range map[string]string{
		"../../docs/protocols.md": display.RulesMarkdown(),
		"../../docs/limits.md":    display.LimitsMarkdown(),
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(string(b), want) {
			continue
		}
		if !*update {
			t.Errorf("%s is not up to date: run this test with -update", file)
			continue
		}
		text, _, _ := strings.Cut(string(b), "\n| ")
		if err := os.WriteFile(file, []byte(text+"\n"+want), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// TestUnknown holds that what is said not to exist is in no table, and has a
// reason.
func TestUnknown(t *testing.T) {
	for name, why := range display.Unknown {
		if wayland.Lookup(name) != nil {
			t.Errorf("%s is in the tables: it needs a rule instead", name)
		}
		if why == "" {
			t.Errorf("%s: no reason", name)
		}
	}
}

// TestConfiguredGlobals holds what a configuration can change of the rules, and
// what it cannot.
func TestConfiguredGlobals(t *testing.T) {
	cfg := Config{
		Allow: []string{"xdg_activation_v1", "zwp_pointer_constraints_v1", "wp_security_context_manager_v1", "wl_shell"},
		Deny:  []string{"zwp_text_input_manager_v3", "zwp_pointer_constraints_v1"},
	}
	got := cfg.globals()
	for i, want := range map[*wayland.Interface]uint32{
		wayland.XdgActivationV1:            wayland.XdgActivationV1.Version,
		wayland.ZwpPointerConstraintsV1:    0, // denied as well
		wayland.WpSecurityContextManagerV1: 0,
		wayland.WlShell:                    0,
		wayland.ZwpTextInputManagerV3:      0,
		wayland.WlCompositor:               display.Rules[wayland.WlCompositor].Max,
	} {
		if got[i.Index] != want {
			t.Errorf("%s: version %d, not %d", i.Name, got[i.Index], want)
		}
	}
	for name, want := range map[string]string{
		"xdg_activation_v1":              "",
		"zwlr_screencopy_manager_v1":     "takes pictures",
		"wp_security_context_manager_v1": "cannot be allowed",
		"xdg_surface":                    "unknown interface",
		"nonsense\n":                     "unknown interface",
	} {
		if err := display.CheckAllow(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if display.Risk("xdg_activation_v1") == "" || display.Risk("wl_compositor") != "" {
		t.Error("risks are mixed up")
	}
}

func TestTitle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.String().Draw(t, "title")
		s := Title("mail", in)
		if !strings.HasPrefix(s, "[mail] ") || len(s) > maxTitle+len("[mail] ") || !utf8.ValidString(s) {
			t.Fatalf("%q became %q", in, s)
		}
		if left := leftmost(t, s); !strings.HasPrefix(left, "[mail] ") {
			t.Fatalf("%q is shown as %q…", s, left)
		}
		for _, r := range s {
			if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
				t.Fatalf("%q became %q", in, s)
			}
		}
	})
	for in, want := range map[string]string{
		strings.Repeat("é", 500):    "[m] " + strings.Repeat("é", maxTitle/2),
		"a\u200bb\u2028c\u00a0d\te": "[m] ab c d e",
		"\xff\xfe":                  "[m] ",
		"\u0336\u0336ab\u0301\u0301\u0301\u0301\u0301c\u0301": "[m] ab\u0301\u0301\u0301\u0301c\u0301",
	} {
		if got := Title("m", in); got != want {
			t.Errorf("%q became %q, not %q", in, got, want)
		}
	}
	const hebrew = "\u05e9\u05dc\u05d5\u05dd [vault]"
	for _, tag := range []string{"mail", "7", "!"} {
		if s := Title(tag, hebrew); !strings.HasPrefix(strings.TrimPrefix(leftmost(t, s), "\u200e"), "["+tag+"] ") {
			t.Errorf("%q is shown as %q…", s, leftmost(t, s))
		}
	}
}

// leftmost returns the run of text that a line of s shows at the left.
func leftmost(t interface{ Fatal(...any) }, s string) string {
	var p bidi.Paragraph
	if _, err := p.SetString(s); err != nil {
		t.Fatal(err)
	}
	o, err := p.Order()
	if err != nil {
		t.Fatal(err)
	}
	run := o.Run(0)
	if run.Direction() != bidi.LeftToRight {
		return ""
	}
	return run.String()
}

// FuzzGuest lets a guest say anything: the filter neither panics nor hangs nor
// leaks, and the compositor only ever hears well-formed messages of objects that
// exist. The first bytes set up a registry, so that the rest can reach something.
func FuzzGuest(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newRig(t)
		r.guest.Send(1, wayland.WlDisplayReqGetRegistry, registry)
		r.host.Want(1, wayland.WlDisplayReqGetRegistry)
		heard := make(chan struct{})
		go func() {
			defer close(heard)
			for {
				m, err := r.host.Next()
				if err != nil {
					return
				}
				if m.ID == 0 || m.ID > 1<<20 {
					t.Errorf("the compositor hears of object %d", m.ID)
				}
			}
		}()
		for k, i := range []*wayland.Interface{wayland.WlCompositor, wayland.XdgWmBase, wayland.WlSeat, wayland.WlOutput, wayland.WlDataDeviceManager, wayland.WlShm} {
			v := Allowed(i, i.Version)
			r.write(r.host, 2, wayland.WlRegistryEvtGlobal, uint32(k), i.Name, v)
			r.guest.Want(registry, wayland.WlRegistryEvtGlobal)
			r.write(r.guest, registry, wayland.WlRegistryReqBind, uint32(k), i.Name, v, registry+1+uint32(k))
		}
		if len(data) > 0 {
			_ = r.guest.Tr.Send(data, nil)
		}
		_ = r.guest.Tr.Close()
		<-heard
	})
}

func TestCorpus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "fuzz", "FuzzGuest", "*"))
	if err != nil || len(files) == 0 {
		t.Errorf("FuzzGuest has no corpus (%v)", err)
	}
}
