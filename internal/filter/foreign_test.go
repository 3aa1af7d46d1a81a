package filter

import (
	"context"
	"log/slog"
	"testing"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// foreignPair is two connections of one VM and one of another.
func foreignPair(t *testing.T) (a, b, stranger *rig) {
	t.Helper()
	connect := func(f *Filter, dial chan *wayland.UnixConn) *rig {
		gn, gf := waylandtest.Pair(t)
		hn, hf := waylandtest.Pair(t)
		r := &rig{guest: &waylandtest.Peer{T: t, Tr: gn}, host: &waylandtest.Peer{T: t, Tr: hn}, filter: f, done: make(chan struct{})}
		dial <- hf
		go func() {
			defer close(r.done)
			_ = f.Serve(context.Background(), gf)
		}()
		t.Cleanup(func() {
			_ = gn.Close()
			_ = hn.Close()
			<-r.done
		})
		return r
	}
	vm := func(name string) (*Filter, chan *wayland.UnixConn) {
		dial := make(chan *wayland.UnixConn, 1)
		return New(Config{
			VM: name, Tag: name, Log: slog.New(slog.DiscardHandler),
			Dial: func() (wayland.Transport, error) { return <-dial, nil },
		}), dial
	}
	f, dial := vm("work")
	g, other := vm("play")
	return connect(f, dial), connect(f, dial), connect(g, other)
}

// foreign binds the first as #3, the second as #4 and wl_compositor as #5; it returns
// the host's ids.
func (r *rig) foreign(first, second *wayland.Interface) (host [6]uint32) {
	r.guest.T.Helper()
	r.guest.Send(1, wayland.WlDisplayReqGetRegistry, registry)
	reg := r.host.Want(1, wayland.WlDisplayReqGetRegistry).Word(0)
	for k, i := range []*wayland.Interface{first, second, wayland.WlCompositor} {
		r.write(r.host, reg, wayland.WlRegistryEvtGlobal, k, i.Name, 1)
		r.guest.Want(registry, wayland.WlRegistryEvtGlobal)
		id := uint32(3 + k)
		r.write(r.guest, registry, wayland.WlRegistryReqBind, k, i.Name, 1, id)
		m := r.host.Want(reg, wayland.WlRegistryReqBind)
		host[id] = m.Word(len(m.Body)/4 - 1)
	}
	return host
}

// TestForeign holds that a window's handle works for its own VM, from another
// connection, while the window is exported, and for nobody else.
func TestForeign(t *testing.T) {
	for name, v := range map[string]struct{ exporter, importer *wayland.Interface }{
		"v1": {wayland.ZxdgExporterV1, wayland.ZxdgImporterV1},
		"v2": {wayland.ZxdgExporterV2, wayland.ZxdgImporterV2},
	} {
		t.Run(name, func(t *testing.T) {
			waylandtest.LeakCheck(t)
			a, b, stranger := foreignPair(t)
			host := a.foreign(v.exporter, v.importer)
			a.guest.Send(5, wayland.WlCompositorReqCreateSurface, 6)
			surface := a.host.Want(host[5], wayland.WlCompositorReqCreateSurface).Word(0)
			a.guest.Send(3, wayland.ZxdgExporterV2ReqExportToplevel, 7, 6)
			m := a.host.Want(host[3], wayland.ZxdgExporterV2ReqExportToplevel)
			if m.Word(1) != surface {
				t.Errorf("surface %d was exported, not %d", m.Word(1), surface)
			}
			exported := m.Word(0)
			a.write(a.host, exported, wayland.ZxdgExportedV2EvtHandle, "secret")
			a.guest.Want(7, wayland.ZxdgExportedV2EvtHandle)

			hostB := b.foreign(v.importer, v.exporter) // #3 is the importer there
			b.write(b.guest, 3, wayland.ZxdgImporterV2ReqImportToplevel, 6, "guessed")
			b.guest.Want(6, wayland.ZxdgImportedV2EvtDestroyed)
			b.guest.Send(6, wayland.ZxdgImportedV2ReqDestroy)
			b.guest.Want(1, wayland.WlDisplayEvtDeleteId)
			b.write(b.guest, 3, wayland.ZxdgImporterV2ReqImportToplevel, 6, "secret")
			if s := wayland.NewDecoder(b.host.Want(hostB[3], wayland.ZxdgImporterV2ReqImportToplevel).Body[4:]); string(s.String()) != "secret" {
				t.Error("another handle was imported")
			}

			stranger.foreign(v.importer, v.exporter)
			stranger.write(stranger.guest, 3, wayland.ZxdgImporterV2ReqImportToplevel, 6, "secret")
			stranger.guest.Want(6, wayland.ZxdgImportedV2EvtDestroyed)

			a.guest.Send(7, wayland.ZxdgExportedV2ReqDestroy)
			a.host.Want(exported, wayland.ZxdgExportedV2ReqDestroy)
			a.host.Send(1, wayland.WlDisplayEvtDeleteId, exported)
			a.guest.Want(1, wayland.WlDisplayEvtDeleteId)
			b.write(b.guest, 3, wayland.ZxdgImporterV2ReqImportToplevel, 7, "secret")
			b.guest.Want(7, wayland.ZxdgImportedV2EvtDestroyed)
			if a.filter.foreign.has("secret") {
				t.Error("the handle is kept")
			}
		})
	}
}
