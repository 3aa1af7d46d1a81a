package frame

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// A desk is a headless compositor of any kind.
type desk struct {
	t      *testing.T
	name   string
	socket string
	dir    string // its XDG_RUNTIME_DIR
	scale  float64
	w, h   int // of the output, in logical pixels
	proc   *desktoptest.Proc
	seat   seat // nil where there is none to be had
	shoot  func(dir string) (*image.RGBA, error)
	// change gives the output d.w×d.h logical pixels at d.scale; nil where a headless
	// output cannot change.
	change func(t *testing.T)
	again  func(t *testing.T) *desk // starts another like it
}

// anew starts another compositor like it.
func (d *desk) anew(t *testing.T) *desk {
	t.Helper()
	n := d.again(t)
	n.again = d.again
	return n
}

// ended tells whether the compositor has.
func (d *desk) ended() bool {
	select {
	case <-d.proc.Done():
		return true
	default:
		return false
	}
}

// A seat is a pointer that a test moves.
type seat interface {
	move(x, y int) // to a place, in logical pixels
	button(down uint32)
}

// click moves the pointer and presses.
func (d *desk) click(x, y int) {
	d.seat.move(x, y)
	d.seat.button(1)
	d.seat.button(0)
}

// resize changes the output.
func (d *desk) resize(t *testing.T, w, h int, scale float64) {
	t.Helper()
	d.w, d.h, d.scale = w, h, scale
	d.change(t)
	if d.seat != nil {
		d.seat.move(w/2, h/2) // inside a window that fills the output
	}
}

// mode is the output's size in its own pixels.
func (d *desk) mode() (w, h int) {
	return int(math.Round(float64(d.w) * d.scale)), int(math.Round(float64(d.h) * d.scale))
}

// sized is an option of the start functions: the output's logical size.
func sized(w, h int) func(*desk) { return func(d *desk) { d.w, d.h = w, h } }

// Of the output, in logical pixels, in all pictures.
const deskW, deskH = 1400, 760

// patience is how long a compositor or a program may take. Machines without KVM,
// under load, are slow; whoever looks at a test that fails has less.
var patience = flag.Duration("patience", 60*time.Second, "how long a compositor or a program may take")

// wait looks again and again at what has no event.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(*patience); !ok(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s", what)
		}
	}
}

func (d *desk) env() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "SWAYSOCK", "DISPLAY", "XDG_CONFIG_HOME":
		default:
			env = append(env, v)
		}
	}
	return append(env, "XDG_RUNTIME_DIR="+d.dir, "XDG_CONFIG_HOME="+d.dir, "WAYLAND_DISPLAY="+d.socket)
}

func (d *desk) start(t *testing.T, argv ...string) *desktoptest.Proc {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = d.env()
	p, err := desktoptest.Command(t, cmd, nil)
	if err != nil {
		t.Fatalf("starting %s: %v", argv[0], err)
	}
	return p
}

// newDesk prepares a compositor's directory.
func newDesk(t *testing.T, name string, scale float64, options ...func(*desk)) *desk {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("lacks: %s", name)
	}
	dir, err := os.MkdirTemp("", "vix-desk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t: t, name: name, dir: dir, scale: scale, w: deskW, h: deskH}
	for _, o := range options {
		o(d)
	}
	return d
}

// begin starts the compositor and waits for its socket.
func (d *desk) begin(t *testing.T, env []string, argv ...string) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(d.env(), env...)
	var err error
	if d.proc, err = desktoptest.Command(t, cmd, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if d.ended() {
				t.Logf("%s ended with %d", d.name, d.proc.Wait())
			}
			t.Logf("%s: %s", d.name, d.proc.Output())
		}
	})
	wait(t, d.name+"'s socket", func() bool {
		select {
		case <-d.proc.Done():
			t.Fatalf("%s ended: %s", d.name, d.proc.Output())
		default:
		}
		all, _ := filepath.Glob(filepath.Join(d.dir, "wayland-*"))
		for _, s := range all {
			if tr, err := wayland.Dial(s); err == nil && !strings.HasSuffix(s, ".lock") {
				_ = tr.Close()
				d.socket = s
				return true
			}
		}
		return false
	})
}

var wlroots = []string{"WLR_BACKENDS=headless", "WLR_RENDERER=pixman", "WLR_LIBINPUT_NO_DEVICES=1"}

// startSway floats windows where the tests expect them; see places.
func startSway(t *testing.T, scale float64, config string, options ...func(*desk)) *desk {
	d := newDesk(t, "sway", scale, options...)
	conf := filepath.Join(d.dir, "sway.conf")
	w, h := d.mode()
	text := fmt.Sprintf("output HEADLESS-1 mode %dx%d position 0 0 scale %v bg #404040 solid_color\nxwayland disable\ndefault_border none\n%s\n",
		w, h, scale, config)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ipc := filepath.Join(d.dir, "sway.sock")
	d.begin(t, append(slices.Clip(wlroots), "SWAYSOCK="+ipc), "sway", "-c", conf)
	d.shoot = d.grim
	d.seat = newPointer(t, d)
	d.change = func(t *testing.T) {
		t.Helper()
		w, h := d.mode()
		d.sway(t, fmt.Sprintf("output HEADLESS-1 mode %dx%d scale %v", w, h, d.scale))
	}
	return d
}

// sway runs commands of sway(5).
func (d *desk) sway(t *testing.T, commands string) {
	t.Helper()
	cmd := exec.Command("swaymsg", "-s", filepath.Join(d.dir, "sway.sock"), commands)
	cmd.Env = d.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("swaymsg %q: %v: %s", commands, err, out)
	}
}

// swayFloats places the windows of the pictures.
var swayFloats = fmt.Sprintf("for_window [app_id=\"^vix.work\"] floating enable, border none, move absolute position %d %d\n"+
	"for_window [app_id=\"^vix.vault\"] floating enable, border none, move absolute position %d %d\n",
	workAt.X, workAt.Y, vaultAt.X, vaultAt.Y)

// Where the windows of the two VMs are, where the compositor can be told.
var (
	workAt  = image.Pt(20, 40)
	vaultAt = image.Pt(560, 60)
)

func startLabwc(t *testing.T, scale float64, rules string, options ...func(*desk)) *desk {
	d := newDesk(t, "labwc", scale, options...)
	conf := filepath.Join(d.dir, "labwc")
	if err := errors.Join(os.Mkdir(conf, 0o755), os.WriteFile(filepath.Join(conf, "rc.xml"), []byte("<?xml version=\"1.0\"?><labwc_config><windowRules>"+rules+"</windowRules></labwc_config>"), 0o644)); err != nil {
		t.Fatal(err)
	}
	d.begin(t, wlroots, "labwc", "-C", conf)
	d.change = func(t *testing.T) { t.Helper(); setOutput(t, d) }
	d.change(t)
	d.shoot = d.grim
	d.seat = newPointer(t, d)
	return d
}

var labwcPlaces = fmt.Sprintf("<windowRule identifier=\"vix.work.*\"><action name=\"MoveTo\" x=\"%d\" y=\"%d\"/></windowRule>"+
	"<windowRule identifier=\"vix.vault.*\"><action name=\"MoveTo\" x=\"%d\" y=\"%d\"/></windowRule>", workAt.X, workAt.Y, vaultAt.X, vaultAt.Y)

func startWeston(t *testing.T, scale int, options ...func(*desk)) *desk {
	d := newDesk(t, "weston", float64(scale), options...)
	d.begin(t, nil, "weston", "--backend=headless", "--renderer=pixman", fmt.Sprintf("--width=%d", d.w), fmt.Sprintf("--height=%d", d.h),
		fmt.Sprintf("--scale=%d", scale), "--idle-time=0", "--config="+d.westonConf(t), "--debug", "--socket=wayland-9")
	d.shoot = d.westonShot
	return d
}

// startWestonInside starts Weston as a window that fills a headless sway: so it has a
// seat.
func startWestonInside(t *testing.T) *desk {
	d := newDesk(t, "weston", 1)
	// It takes mode and rate of the output over, and has no use for the rate 0.
	outer := startSway(t, 1, fmt.Sprintf("output HEADLESS-1 mode --custom %dx%d@60Hz", d.w, d.h))
	d.begin(t, nil, "weston", "--backend=wayland", "--renderer=pixman", "--display="+outer.socket, "--sprawl",
		"--idle-time=0", "--config="+d.westonConf(t), "--socket=wayland-9")
	d.shoot, d.seat = outer.grim, outer.seat
	return d
}

// westonConf writes a configuration without a panel.
func (d *desk) westonConf(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(d.dir, "weston.ini")
	if err := os.WriteFile(path, []byte("[shell]\npanel-position=none\nlocking=false\nanimation=none\nstartup-animation=none\nbackground-color=0xff404040\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// grim takes a picture through wlr-screencopy.
func (d *desk) grim(string) (*image.RGBA, error) {
	cmd := exec.Command("grim", "-t", "ppm", "-")
	cmd.Env = d.env()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("grim: %w: %s", err, stderr.String())
	}
	return desktoptest.DecodePPM(out)
}

func (d *desk) westonShot(dir string) (*image.RGBA, error) {
	old, _ := filepath.Glob(filepath.Join(dir, "wayland-screenshot*"))
	for _, f := range old {
		_ = os.Remove(f)
	}
	cmd := exec.Command("weston-screenshooter")
	cmd.Env, cmd.Dir = append(d.env(), "XDG_PICTURES_DIR="+dir), dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("weston-screenshooter: %w: %s", err, out)
	}
	made, _ := filepath.Glob(filepath.Join(dir, "wayland-screenshot*"))
	if len(made) == 0 {
		return nil, errors.New("weston-screenshooter left no picture")
	}
	return readPNG(made[0])
}

func readPNG(path string) (*image.RGBA, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		return nil, err
	}
	out := image.NewRGBA(img.Bounds())
	draw.Draw(out, out.Rect, img, img.Bounds().Min, draw.Src)
	return out, nil
}

// waitScreen takes pictures until ok likes one, and returns it. more, if any, say what
// ok misses.
func (d *desk) waitScreen(t *testing.T, what string, ok func(*image.RGBA) bool, more ...*string) *image.RGBA {
	t.Helper()
	dir := t.TempDir()
	var img *image.RGBA
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(*patience); ; <-again.C {
		var err error
		if img, err = d.shoot(dir); err != nil {
			t.Fatal(err)
		}
		if ok(img) {
			return img
		}
		if time.Now().After(deadline) {
			path := filepath.Join(os.TempDir(), fmt.Sprintf("vix-frame-%d.png", time.Now().UnixNano()))
			_ = desktoptest.SavePNG(path, img)
			for _, m := range more {
				what += ", " + *m
			}
			t.Fatalf("waiting for %s on %s; last seen: %s", what, d.name, path)
		}
	}
}

// steady takes pictures until three are the same, which is the end of what was asked of
// the compositor before, and returns the last. What it is still doing has no event.
func (d *desk) steady(t *testing.T) *image.RGBA {
	t.Helper()
	same := 0
	var last *image.RGBA
	return d.waitScreen(t, "a picture that stays", func(img *image.RGBA) bool {
		if last != nil && bytes.Equal(last.Pix, img.Pix) {
			same++
		} else {
			same = 0
		}
		last = img
		return same == 2
	})
}

// globals connects to the compositor and lists its globals; the registry is
// object 2, and the next free id is 4.
func globals(t *testing.T, d *desk) (*waylandtest.Peer, map[string]uint32) {
	t.Helper()
	tr, err := wayland.Dial(d.socket)
	if err != nil {
		t.Fatal(err)
	}
	p := &waylandtest.Peer{T: t, Tr: tr}
	late := time.AfterFunc(5**patience, func() { _ = tr.Close() }) // waits for events end with it
	t.Cleanup(func() {
		late.Stop()
		_ = tr.Close()
	})
	return p, p.Globals()
}

func bind(t *testing.T, p *waylandtest.Peer, all map[string]uint32, iface string, version, id uint32) {
	t.Helper()
	if _, ok := all[iface]; !ok {
		t.Fatalf("the compositor has no %s", iface)
	}
	p.Put(2, wayland.WlRegistryReqBind, all[iface], iface, version, id)
}

// A pointer is a virtual one (zwlr_virtual_pointer_v1).
type pointer struct {
	p    *waylandtest.Peer
	time uint32
	sync uint32
	d    *desk
}

func newPointer(t *testing.T, d *desk) *pointer {
	t.Helper()
	p, all := globals(t, d)
	bind(t, p, all, "zwlr_virtual_pointer_manager_v1", 1, 4)
	p.Send(4, 0, 0, 5) // create_virtual_pointer of any seat
	v := &pointer{p: p, sync: 6, d: d}
	v.move(d.w-1, d.h-1) // out of the pictures
	return v
}

func (v *pointer) move(x, y int) {
	v.time += 50                                                               // milliseconds: labwc resizes no more often than it draws
	v.p.Send(5, 1, v.time, uint32(x), uint32(y), uint32(v.d.w), uint32(v.d.h)) // motion_absolute
	v.p.Send(5, 4)                                                             // frame
	v.roundTrip()
}

func (v *pointer) button(down uint32) {
	v.time++
	v.p.Send(5, 2, v.time, 0x110, down)
	v.p.Send(5, 4)
	v.roundTrip()
}

func (v *pointer) roundTrip() {
	v.p.T.Helper()
	v.p.Send(1, wayland.WlDisplayReqSync, v.sync)
	for {
		m, err := v.p.Next()
		if err != nil {
			v.p.T.Fatalf("virtual pointer: %v", err)
		}
		if m.ID == v.sync {
			v.sync++
			return
		}
	}
}

// setOutput gives labwc's output its mode and scale (wlr-output-management).
func setOutput(t *testing.T, d *desk) {
	t.Helper()
	p, all := globals(t, d)
	bind(t, p, all, "zwlr_output_manager_v1", 1, 4)
	var head uint32
	for {
		m, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == 4 && m.Op == 0 { // head
			head = m.Word(0)
		}
		if m.ID == 4 && m.Op == 1 { // done: the serial
			p.Send(4, 0, 5, m.Word(0)) // create_configuration
			p.Send(5, 0, 6, head)      // enable_head
			w, h := d.mode()
			p.Send(6, 1, uint32(w), uint32(h), 60000) // set_custom_mode
			p.Send(6, 4, uint32(d.scale*256))         // set_scale
			p.Send(5, 2)                              // apply
			break
		}
	}
	for {
		m, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == 5 {
			if m.Op != 0 {
				t.Fatalf("labwc refuses the output's mode: event %d", m.Op)
			}
			return
		}
	}
}
