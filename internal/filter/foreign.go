package filter

import (
	"sync"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// xdg-foreign lets a program make its dialog the child of another program's window:
// one exports a surface, gets a handle from the compositor and hands it over, the
// other imports it. A handle works for whoever knows it, so the filter keeps the handles
// of all of this VM's connections, and lets no other be imported:
//
//	exporter.export       → passed;  exported.handle is stored and passed
//	importer.import(ours) → passed
//	importer.import(else) → an object unknown to the compositor, which gets the event
//	                        that its surface is destroyed at once
type handles struct {
	mu      sync.Mutex
	counts  map[string]int // how many exported objects have it
	windows map[string]*window
}

func (h *handles) add(s string, w *window) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts == nil {
		h.counts, h.windows = map[string]int{}, map[string]*window{}
	}
	h.counts[s]++
	h.windows[s] = w
}

// window returns the window with a handle, or nil.
func (h *handles) window(s string) *window {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.windows[s]
}

func (h *handles) remove(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts[s]--; h.counts[s] <= 0 {
		delete(h.counts, s)
		delete(h.windows, s)
	}
}

func (h *handles) has(s string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[s] > 0
}

func foreignHooks(h relay.Layer) {
	for _, v := range []struct {
		exported, importer      *wayland.Interface
		handle, imports, isLost int
		exporter, imported      *wayland.Interface
		exports, adopts         int
	}{
		{
			wayland.ZxdgExportedV1, wayland.ZxdgImporterV1, wayland.ZxdgExportedV1EvtHandle, wayland.ZxdgImporterV1ReqImport, wayland.ZxdgImportedV1EvtDestroyed,
			wayland.ZxdgExporterV1, wayland.ZxdgImportedV1, wayland.ZxdgExporterV1ReqExport, wayland.ZxdgImportedV1ReqSetParentOf,
		},
		{
			wayland.ZxdgExportedV2, wayland.ZxdgImporterV2, wayland.ZxdgExportedV2EvtHandle, wayland.ZxdgImporterV2ReqImportToplevel, wayland.ZxdgImportedV2EvtDestroyed,
			wayland.ZxdgExporterV2, wayland.ZxdgImportedV2, wayland.ZxdgExporterV2ReqExportToplevel, wayland.ZxdgImportedV2ReqSetParentOf,
		},
	} {
		h.Request(v.exporter, v.exports, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			m.New.More = viewArg(c, m.Word(1)).window()
			return true, nil
		})
		h.Request(v.imported, v.adopts, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			handle, _ := m.Obj.Data.(string)
			child, parent := viewArg(c, m.Word(0)).window(), filterOf(c).foreign.window(handle)
			return child != nil && parent != nil && parent.alive() && filterOf(c).family.adopt(child, parent), nil
		})
		h.Event(v.exported, v.handle, onHandle)
		h.Gone(v.exported, func(c *relay.Conn, o *relay.Object) {
			if s, ok := o.Data.(string); ok {
				filterOf(c).foreign.remove(s)
			}
		})
		h.Request(v.importer, v.imports, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			d := wayland.NewDecoder(m.Body)
			_ = d.Uint() // the new id
			if handle := string(d.String()); filterOf(c).foreign.has(handle) {
				m.New.Data = handle
				return true, nil
			}
			c.ToClient().Msg(m.New.ID, uint16(v.isLost))
			return false, nil
		})
	}
}

// onHandle stores the handle of an exported surface. Each object has one, and the
// objects are bounded.
func onHandle(c *relay.Conn, m *relay.Msg) (bool, error) {
	if _, twice := m.Obj.Data.(string); twice || m.Obj.Dead {
		return false, nil
	}
	d := wayland.NewDecoder(m.Body)
	s := string(d.String())
	m.Obj.Data = s
	w, _ := m.Obj.More.(*window)
	filterOf(c).foreign.add(s, w)
	return true, nil
}
