package relay

import (
	"fmt"

	"vix/internal/wayland"
)

// A global is one that the client knows.
type global struct {
	iface   *wayland.Interface
	version uint32
}

// onGlobal offers a global in the version that is allowed, or hides it.
func onGlobal(c *Conn, m *Msg) (bool, error) {
	d := wayland.NewDecoder(m.Body)
	name, iface, version := d.Uint(), wayland.Lookup(string(d.String())), d.Uint()
	if iface == nil {
		return false, nil
	}
	offered := min(version, iface.Version)
	if c.cfg.Globals != nil {
		offered = min(offered, c.cfg.Globals(iface, offered))
	}
	if offered == 0 {
		return false, nil
	}
	if len(c.globals) >= MaxGlobals {
		return false, fmt.Errorf("server: more than %d globals", MaxGlobals)
	}
	c.globals[name] = global{iface, offered}
	wayland.PutWord(m.Body, len(m.Body)-4, offered)
	return true, nil
}

// onGlobalRemove passes the removal of a global that the client knows. It stays
// bindable, because a bind may be on its way; the server answers that.
func onGlobalRemove(c *Conn, m *Msg) (bool, error) {
	_, known := c.globals[m.Word(0)]
	return known, nil
}

// bind checks a wl_registry.bind against what was offered.
func (c *Conn) bind(o *Object, body []byte) (*wayland.Interface, uint32, error) {
	d := wayland.NewDecoder(body)
	name, iface, version := d.Uint(), string(d.String()), d.Uint()
	g, ok := c.globals[name]
	if !ok || g.iface.Name != iface {
		return nil, 0, Fail(o, ErrInvalidObject, "invalid global %s (%d)", wayland.Printable(iface), name)
	}
	if version == 0 || version > g.version {
		return nil, 0, Fail(o, ErrInvalidObject, "invalid version for global %s (%d): have %d, wanted %d", iface, name, g.version, version)
	}
	return g.iface, version, nil
}
