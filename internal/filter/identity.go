package filter

import (
	"fmt"
	"strings"
	"unicode"

	"vix/config"
	"vix/internal/plain"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// maxTitle bounds the text that reaches the compositor, in bytes: titles are shown
// in one line.
const maxTitle = 256

func identityHooks(h relay.Layer) {
	h.Request(wayland.XdgSurface, wayland.XdgSurfaceReqGetToplevel, onGetToplevel)
	h.Request(wayland.XdgToplevel, wayland.XdgToplevelReqSetTitle, onSetTitle)
	h.Request(wayland.XdgToplevel, wayland.XdgToplevelReqSetAppId, onSetAppID)
	h.Event(wayland.WlOutput, wayland.WlOutputEvtGeometry, onGeometry)
	h.Event(wayland.WlOutput, wayland.WlOutputEvtDescription, onDescription)
	h.Event(wayland.ZxdgOutputV1, wayland.ZxdgOutputV1EvtDescription, onDescription)
	hardwareHooks(h)
}

// Title returns what the compositor shows for a guest's title: the tag, then
// the guest's text in one line without control, format and separator
// characters, so that it can neither hide, reverse nor imitate the tag. A line's
// direction is that of its first letter (UAX #9, rules P2 and P3), which must not be
// the guest's: a tag without letters gets a mark in front.
func Title(tag, title string) string {
	tag = plain.Text(tag, maxTitle, plain.OneLine)
	mark := ""
	if !strings.ContainsFunc(tag, unicode.IsLetter) {
		mark = "\u200e" // LEFT-TO-RIGHT MARK
	}
	return mark + "[" + tag + "] " + plain.Text(title, maxTitle, plain.OneLine)
}

// onGetToplevel gives the new window its identity before the guest can.
func onGetToplevel(c *relay.Conn, m *relay.Msg) (bool, error) {
	return false, newWindow(c, m)
}

func onSetTitle(c *relay.Conn, m *relay.Msg) (bool, error) {
	d := wayland.NewDecoder(m.Body)
	stateOf(c).countCommit(c)
	f, w := filterOf(c), m.Obj.Data.(*window)
	text := string(d.String())
	w.title = Title(f.cfg.Tag, text)
	if err := w.say(c, wayland.XdgToplevelReqSetTitle, w.title); err != nil {
		return false, err
	}
	name := plain.Text(text, maxTitle, plain.OneLine)
	if name == w.name {
		return false, nil
	}
	w.name = name
	if f := framesOf(c); f.full && w.shell != nil && w.shell.mapped {
		f.labelLater(c, w.shell.v)
	}
	return false, nil
}

func onSetAppID(c *relay.Conn, m *relay.Msg) (bool, error) {
	d := wayland.NewDecoder(m.Body)
	stateOf(c).countCommit(c)
	f, w := filterOf(c), m.Obj.Data.(*window)
	w.appID = config.AppID(f.cfg.VM, string(d.String()))
	return false, w.say(c, wayland.XdgToplevelReqSetAppId, w.appID)
}

// say writes a request of one string, unless the window has ended on the compositor.
func (w *window) say(c *relay.Conn, op uint16, s string) error {
	if w.shell == nil {
		return nil
	}
	return setString(c, w.obj, op, s)
}

// setString writes a request whose only argument is s.
func setString(c *relay.Conn, o *relay.Object, op uint16, s string) error {
	e := c.ToServer()
	e.Begin(o.Server, op)
	e.String(s)
	return e.End()
}

// hardwareHooks keep from a guest what tells this machine from others: connectors,
// makers, sizes, serial numbers and device nodes of monitors, tablets and pens.
func hardwareHooks(l relay.Layer) {
	l.Request(wayland.WlRegistry, wayland.WlRegistryReqBind, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		if m.New.Iface == wayland.WlOutput {
			m.New.More = m.Word(0) // by which the two kinds of output have one name
		}
		return true, nil
	})
	l.Request(wayland.ZxdgOutputManagerV1, wayland.ZxdgOutputManagerV1ReqGetXdgOutput, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if o := c.Client(m.Word(1)); o != nil {
			m.New.More = o.More
		}
		return true, nil
	})
	names := func(i *wayland.Interface, op int, name func(o *relay.Object) string) {
		l.Event(i, op, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			e := c.ToClient()
			e.Begin(m.Obj.ID, uint16(op))
			e.String(name(m.Obj))
			return false, e.End()
		})
	}
	output := func(o *relay.Object) string {
		n, _ := o.More.(uint32)
		return fmt.Sprintf("VIX-%d", n)
	}
	names(wayland.WlOutput, wayland.WlOutputEvtName, output)
	names(wayland.ZxdgOutputV1, wayland.ZxdgOutputV1EvtName, output)
	names(wayland.ZwpTabletV2, wayland.ZwpTabletV2EvtName, func(*relay.Object) string { return "Vix tablet" })
	names(wayland.WlSeat, wayland.WlSeatEvtName, func(*relay.Object) string { return "seat0" })
	for _, e := range []struct {
		i  *wayland.Interface
		op int
	}{
		{wayland.ZwpTabletV2, wayland.ZwpTabletV2EvtId}, {wayland.ZwpTabletV2, wayland.ZwpTabletV2EvtPath},
		{wayland.ZwpTabletV2, wayland.ZwpTabletV2EvtBustype},
		{wayland.ZwpTabletToolV2, wayland.ZwpTabletToolV2EvtHardwareSerial}, {wayland.ZwpTabletToolV2, wayland.ZwpTabletToolV2EvtHardwareIdWacom},
		{wayland.ZwpTabletPadV2, wayland.ZwpTabletPadV2EvtPath},
	} {
		l.Event(e.i, e.op, func(*relay.Conn, *relay.Msg) (bool, error) { return false, nil })
	}
}

// onGeometry hides who made the monitor, and how large it is.
func onGeometry(c *relay.Conn, m *relay.Msg) (bool, error) {
	d := wayland.NewDecoder(m.Body)
	e := c.ToClient()
	e.Begin(m.Obj.ID, wayland.WlOutputEvtGeometry)
	e.Uint(d.Uint()) // x
	e.Uint(d.Uint()) // y
	d.Uint()
	d.Uint()
	e.Uint(0) // the physical width and height: unknown
	e.Uint(0)
	e.Uint(d.Uint()) // subpixel
	d.String()
	d.String()
	e.String("Vix")
	e.String("Vix")
	e.Uint(d.Uint()) // transform
	return false, e.End()
}

// onDescription replaces the text of wl_output.description and its older twin,
// which holds make, model and serial number.
func onDescription(c *relay.Conn, m *relay.Msg) (bool, error) {
	op := uint16(wayland.WlOutputEvtDescription)
	if m.Obj.Iface == wayland.ZxdgOutputV1 {
		op = wayland.ZxdgOutputV1EvtDescription
	}
	e := c.ToClient()
	e.Begin(m.Obj.ID, op)
	e.String("Vix output")
	return false, e.End()
}
