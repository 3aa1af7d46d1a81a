package frame

import (
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/internal/desktoptest"
)

// Mutter's private interfaces (data/dbus-interfaces of its sources).
const (
	mutterScreenCast    = "org.gnome.Mutter.ScreenCast"
	mutterRemoteDesktop = "org.gnome.Mutter.RemoteDesktop"
	mutterDisplay       = "org.gnome.Mutter.DisplayConfig"
)

// startMutter starts a headless Mutter. It has no screenshots: what its output shows is
// a stream of PipeWire's, of which the last frame is the picture. It draws by OpenGL on
// the processor.
func startMutter(t *testing.T, scale float64, options ...func(*desk)) *desk {
	d := newDesk(t, "mutter", scale, options...)
	if scale != 1 && d.w*d.h < 800*480 {
		d.w, d.h = 960, 600 // it has no scales for a smaller output
	}
	w, h := d.mode()
	settings := filepath.Join(d.dir, "glib-2.0", "settings")
	if err := errors.Join(os.MkdirAll(settings, 0o755), os.WriteFile(filepath.Join(settings, "keyfile"),
		[]byte("[org/gnome/mutter]\nexperimental-features=['scale-monitor-framebuffer']\n"+
			"[org/gnome/desktop/interface]\nenable-animations=false\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	address := d.bus(t)
	env := []string{"DBUS_SESSION_BUS_ADDRESS=" + address, "GSETTINGS_BACKEND=keyfile", "HOME=" + d.dir, "LIBGL_ALWAYS_SOFTWARE=1"}
	for _, name := range []string{"pipewire", "wireplumber"} {
		d.start(t, append(append([]string{"env"}, env...), name)...)
	}
	d.begin(t, env, "mutter", "--headless", "--wayland", "--no-x11", fmt.Sprintf("--virtual-monitor=%dx%d", w, h), "--wayland-display", "wayland-9")
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m := &mutter{d: d, conn: conn}
	if scale != 1 {
		m.setScale(t)
	}
	d.change = func(t *testing.T) { // ends the stream
		t.Helper()
		m.setScale(t)
		_ = m.remote.Call(mutterRemoteDesktop+".Session.Stop", 0)
		m.record(t, env)
	}
	m.record(t, env)
	d.shoot = m.shoot
	d.seat = m
	d.seat.move(d.w-1, d.h-1)
	return d
}

// A mutter is Mutter's picture and seat.
type mutter struct {
	d      *desk
	conn   *dbus.Conn
	remote dbus.BusObject // the session of org.gnome.Mutter.RemoteDesktop
	stream dbus.ObjectPath

	mu    sync.Mutex
	more  sync.Cond // of mu
	frame *image.RGBA
	n     int   // frames so far
	run   int   // of streams
	err   error // of the stream
}

func (m *mutter) call(t *testing.T, o dbus.BusObject, method string, args []any, results ...any) {
	t.Helper()
	c := o.Call(method, 0, args...)
	if c.Err == nil && len(results) > 0 {
		c.Err = c.Store(results...)
	}
	if c.Err != nil {
		t.Fatalf("mutter: %s: %v", method, c.Err)
	}
}

// object waits until Mutter has a name on the bus, and returns the service's object.
func (m *mutter) object(t *testing.T, name string) dbus.BusObject {
	t.Helper()
	wait(t, name, func() bool {
		var has bool
		m.call(t, m.conn.BusObject(), "org.freedesktop.DBus.NameHasOwner", []any{name}, &has)
		return has
	})
	path := "/"
	for _, c := range name {
		if c == '.' {
			c = '/'
		}
		path += string(c)
	}
	return m.conn.Object(name, dbus.ObjectPath(path))
}

// record starts a session of input, with a stream of the output.
func (m *mutter) record(t *testing.T, env []string) {
	t.Helper()
	var session, cast dbus.ObjectPath
	m.call(t, m.object(t, mutterRemoteDesktop), mutterRemoteDesktop+".CreateSession", nil, &session)
	m.remote = m.conn.Object(mutterRemoteDesktop, session)
	id, err := m.remote.GetProperty(mutterRemoteDesktop + ".Session.SessionId")
	if err != nil {
		t.Fatal(err)
	}
	m.call(t, m.object(t, mutterScreenCast), mutterScreenCast+".CreateSession", []any{map[string]dbus.Variant{"remote-desktop-session-id": id}}, &cast)
	m.call(t, m.conn.Object(mutterScreenCast, cast), mutterScreenCast+".Session.RecordMonitor",
		[]any{"Meta-0", map[string]dbus.Variant{"cursor-mode": dbus.MakeVariant(uint32(1))}}, &m.stream)
	if err := m.conn.AddMatchSignal(dbus.WithMatchObjectPath(m.stream)); err != nil {
		t.Fatal(err)
	}
	signals := make(chan *dbus.Signal, 16)
	m.conn.Signal(signals)
	m.call(t, m.remote, mutterRemoteDesktop+".Session.Start", nil)
	for {
		select {
		case s := <-signals:
			if s.Name == mutterScreenCast+".Stream.PipeWireStreamAdded" {
				m.conn.RemoveSignal(signals)
				m.read(t, env, s.Body[0].(uint32))
				return
			}
		case <-time.After(*patience):
			t.Fatal("mutter: no stream of the output")
		}
	}
}

// read takes the frames of a node of PipeWire's. Mutter makes one when the output
// changes; in between the last is repeated.
func (m *mutter) read(t *testing.T, env []string, node uint32) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("gst-launch-1.0", "-v", "pipewiresrc", fmt.Sprintf("path=%d", node), "keepalive-time=100", "always-copy=true",
		"!", "videoconvert", "!", "video/x-raw,format=RGBA", "!", "fdsink", "fd=3", "sync=false")
	cmd.Env, cmd.ExtraFiles = append(m.d.env(), env...), []*os.File{w}
	p, err := desktoptest.Command(t, cmd, nil)
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.more.L = &m.mu
	m.run++
	run := m.run
	m.err = nil
	m.mu.Unlock()
	go func() { // ends with gst-launch, which ends with the test
		defer r.Close()
		width, height := m.d.mode()
		for err := error(nil); err == nil; {
			img := image.NewRGBA(image.Rect(0, 0, width, height))
			_, err = io.ReadFull(r, img.Pix)
			m.mu.Lock()
			if run != m.run {
				err = io.EOF // another stream took over
			} else if err != nil {
				m.err = fmt.Errorf("the stream of mutter's output ended: %w: %s", err, p.Output())
			} else {
				m.frame = img
				m.n++
			}
			m.more.Broadcast()
			m.mu.Unlock()
		}
	}()
}

// shoot returns a frame that was made after the call: of those to come the second.
func (m *mutter) shoot(string) (*image.RGBA, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for from := m.n; m.n < from+2 && m.err == nil; {
		m.more.Wait()
	}
	return m.frame, m.err
}

func (m *mutter) move(x, y int) {
	m.notify("NotifyPointerMotionAbsolute", string(m.stream), float64(x)*m.d.scale, float64(y)*m.d.scale)
}

func (m *mutter) button(down uint32) { m.notify("NotifyPointerButton", int32(0x110), down == 1) }

// notify sends input. That Mutter has ended is told by the next picture.
func (m *mutter) notify(method string, args ...any) {
	if err := m.remote.Call(mutterRemoteDesktop+".Session."+method, 0, args...).Err; err != nil {
		m.d.t.Logf("mutter: %s: %v", method, err)
	}
}

// setScale gives the output d.scale; a virtual monitor has one mode. Mutter has no
// scale that leaves fewer than 800×480 logical pixels.
func (m *mutter) setScale(t *testing.T) {
	t.Helper()
	type mode struct {
		ID        string
		W, H      int32
		Refresh   float64
		Preferred float64
		Scales    []float64
		Props     map[string]dbus.Variant
	}
	type spec struct{ Connector, Vendor, Product, Serial string }
	var (
		serial   uint32
		monitors []struct {
			Spec  spec
			Modes []mode
			Props map[string]dbus.Variant
		}
		logical []struct {
			X, Y      int32
			Scale     float64
			Transform uint32
			Primary   bool
			Monitors  []spec
			Props     map[string]dbus.Variant
		}
		props map[string]dbus.Variant
	)
	display := m.object(t, mutterDisplay)
	m.call(t, display, mutterDisplay+".GetCurrentState", nil, &serial, &monitors, &logical, &props)
	best := 0.0
	for _, s := range monitors[0].Modes[0].Scales {
		if diff(s, m.d.scale) < diff(best, m.d.scale) {
			best = s
		}
	}
	if diff(best, m.d.scale) > 0.02 {
		t.Fatalf("mutter has the scales %v for this output, and not %v", monitors[0].Modes[0].Scales, m.d.scale)
	}
	type monitor struct {
		Connector, Mode string
		Props           map[string]dbus.Variant
	}
	type output struct {
		X, Y      int32
		Scale     float64
		Transform uint32
		Primary   bool
		Monitors  []monitor
	}
	none := map[string]dbus.Variant{}
	m.call(t, display, mutterDisplay+".ApplyMonitorsConfig", []any{serial, uint32(1), // until it ends
		[]output{{0, 0, best, 0, true, []monitor{{monitors[0].Spec.Connector, monitors[0].Modes[0].ID, none}}}}, none})
}

func diff(a, b float64) float64 { return max(a-b, b-a) }
