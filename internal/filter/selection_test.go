package filter

import (
	"context"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/clipboard"
	"vix/internal/display"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// A program is one connection of a VM with everything that selections need, between
// hand-driven peers.
type program struct {
	*rig
	ids map[uint32]uint32 // the compositor's ids of the objects
}

// Objects of a program in these tests, after those of setUp.
const (
	keyboard = surfaceObj + iota
	device
	primaryManager
	primaryDevice
	surf
	clicks
	source
)

// newPrograms returns n connections of one VM.
func newPrograms(t *testing.T, n int, l display.Limits) (*Filter, []*program) {
	t.Helper()
	dial := make(chan wayland.Transport, n)
	f := New(Config{
		VM: "work", Tag: "w", Limits: l, Log: slog.New(slog.DiscardHandler),
		Dial: func() (wayland.Transport, error) { return <-dial, nil },
	})
	ps := make([]*program, n)
	for k := range ps {
		gn, gf := waylandtest.Pair(t)
		hn, hf := waylandtest.Pair(t)
		p := &program{rig: &rig{
			guest: &waylandtest.Peer{T: t, Tr: gn}, host: &waylandtest.Peer{T: t, Tr: hn},
			filter: f, done: make(chan struct{}),
		}}
		dial <- hf
		go func() {
			defer close(p.done)
			_ = f.Serve(context.Background(), gf)
		}()
		t.Cleanup(func() {
			_ = gn.Close()
			_ = hn.Close()
			wayland.CloseAll(p.guest.Descs)
			wayland.CloseAll(p.host.Descs)
			<-p.done
		})
		p.ids = p.setUp(t)
		p.start()
		ps[k] = p
	}
	return f, ps
}

func (p *program) start() {
	p.guest.Send(seat, wayland.WlSeatReqGetKeyboard, keyboard)
	p.ids[keyboard] = p.host.Want(p.ids[seat], wayland.WlSeatReqGetKeyboard).Word(0)
	p.guest.Send(manager, wayland.WlDataDeviceManagerReqGetDataDevice, device, seat)
	p.ids[device] = p.host.Want(p.ids[manager], wayland.WlDataDeviceManagerReqGetDataDevice).Word(0)
	name := wayland.ZwpPrimarySelectionDeviceManagerV1.Name
	p.write(p.host, 2, wayland.WlRegistryEvtGlobal, 90, name, 1)
	p.guest.Want(registry, wayland.WlRegistryEvtGlobal)
	p.write(p.guest, registry, wayland.WlRegistryReqBind, 90, name, 1, primaryManager)
	p.host.Want(2, wayland.WlRegistryReqBind)
	p.guest.Send(primaryManager, wayland.ZwpPrimarySelectionDeviceManagerV1ReqGetDevice, primaryDevice, seat)
	p.guest.Send(compositor, wayland.WlCompositorReqCreateSurface, surf)
	p.ids[surf] = p.host.Want(p.ids[compositor], wayland.WlCompositorReqCreateSurface).Word(0)
	p.guest.Send(seat, wayland.WlSeatReqGetPointer, clicks)
	p.ids[clicks] = p.host.Want(p.ids[seat], wayland.WlSeatReqGetPointer).Word(0)
}

// press presses a button of the pointer on the program's surface.
func (p *program) press(serial uint32) {
	p.guest.T.Helper()
	p.host.Send(p.ids[clicks], wayland.WlPointerEvtEnter, serial-1, p.ids[surf], 0, 0)
	p.host.Send(p.ids[clicks], wayland.WlPointerEvtButton, serial, 0, buttonLeft, 1)
	p.guest.Want(clicks, wayland.WlPointerEvtEnter)
	p.guest.Want(clicks, wayland.WlPointerEvtButton)
}

// enter gives the program the keyboard, and returns what it is offered: the ids of
// the offers, by device, and their kinds.
func (p *program) enter(serial uint32) (offers map[uint32]uint32, kinds map[uint32][]string) {
	p.guest.T.Helper()
	p.host.Send(p.ids[keyboard], wayland.WlKeyboardEvtEnter, serial, p.ids[surf], 0)
	return p.offered(keyboard, wayland.WlKeyboardEvtEnter)
}

func (p *program) leave(serial uint32) {
	p.guest.T.Helper()
	p.host.Send(p.ids[keyboard], wayland.WlKeyboardEvtLeave, serial, p.ids[surf])
	p.guest.Want(keyboard, wayland.WlKeyboardEvtLeave)
}

// offered receives up to a message.
func (p *program) offered(until uint32, op uint16) (offers map[uint32]uint32, kinds map[uint32][]string) {
	p.guest.T.Helper()
	offers, kinds = map[uint32]uint32{}, map[uint32][]string{}
	for {
		m, err := p.guest.Next()
		switch {
		case err != nil:
			p.guest.T.Fatal(err)
		case m.ID >= wayland.ServerIDs && m.Op == wayland.WlDataOfferEvtOffer:
			d := wayland.NewDecoder(m.Body)
			kinds[m.ID] = append(kinds[m.ID], string(d.String()))
		case m.ID == device && m.Op == wayland.WlDataDeviceEvtSelection, m.ID == primaryDevice && m.Op == wayland.ZwpPrimarySelectionDeviceV1EvtSelection:
			offers[m.ID] = m.Word(0)
		}
		if m.ID == until && m.Op == op {
			return offers, kinds
		}
	}
}

// selection sets a selection with kinds from source id.
func (p *program) copyTo(dev, id, serial uint32, kinds ...string) {
	p.guest.T.Helper()
	m := uint32(manager)
	set := uint16(wayland.WlDataDeviceReqSetSelection)
	if dev == primaryDevice {
		m, set = primaryManager, wayland.ZwpPrimarySelectionDeviceV1ReqSetSelection
	}
	p.guest.Send(m, wayland.WlDataDeviceManagerReqCreateDataSource, id)
	for _, k := range kinds {
		p.write(p.guest, id, wayland.WlDataSourceReqOffer, k)
	}
	p.guest.Send(dev, set, id, serial)
}

// receive asks an offer for a kind and returns where it arrives.
func (p *program) receive(dev, offer uint32, kind string) *os.File {
	p.guest.T.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		p.guest.T.Fatal(err)
	}
	fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = w.Close()
	if err != nil {
		p.guest.T.Fatal(err)
	}
	var e wayland.Encoder
	op := uint16(wayland.WlDataOfferReqReceive)
	if dev == primaryDevice {
		op = wayland.ZwpPrimarySelectionOfferV1ReqReceive
	}
	e.Begin(offer, op)
	e.String(kind)
	if err := e.End(); err != nil {
		p.guest.T.Fatal(err)
	}
	p.guest.Write(e.B, wayland.FileDesc(wayland.KindWritePipe, fd))
	return r
}

// answer writes text to whoever asks the program's source next, and returns the kind.
func (p *program) answer(id uint32, op uint16, text string) (kind string) {
	p.guest.T.Helper()
	m := p.guest.Want(id, op)
	d := wayland.NewDecoder(m.Body)
	f := os.NewFile(uintptr(p.guest.Descs[0].FD), "send")
	p.guest.Descs = p.guest.Descs[1:]
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		p.guest.T.Fatal(err)
	}
	return string(d.String())
}

func wantText(t *testing.T, r *os.File, want string) {
	t.Helper()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil || string(b) != want {
		t.Errorf("pasted %q, %v, not %q", b, err, want)
	}
}

// TestSelections holds that each protocol's selection goes from one connection of a
// VM to another, and that the compositor hears of nothing.
func TestSelections(t *testing.T) {
	for dev, ops := range map[uint32]struct{ selection, send, cancelled uint16 }{
		device:        {wayland.WlDataDeviceEvtSelection, wayland.WlDataSourceEvtSend, wayland.WlDataSourceEvtCancelled},
		primaryDevice: {wayland.ZwpPrimarySelectionDeviceV1EvtSelection, wayland.ZwpPrimarySelectionSourceV1EvtSend, wayland.ZwpPrimarySelectionSourceV1EvtCancelled},
	} {
		waylandtest.LeakCheck(t)
		_, ps := newPrograms(t, 2, display.Limits{})
		a, b := ps[0], ps[1]
		if offers, _ := a.enter(10); len(offers) != 2 || offers[dev] != 0 {
			t.Errorf("offered at the start: %v", offers)
		}
		a.copyTo(dev, source, 10, "text/plain", "text/html")
		a.offered(dev, ops.selection) // it has the keyboard, and is offered its own
		a.leave(11)
		offers, kinds := b.enter(12)
		id := offers[dev]
		if id == 0 || !slices.Equal(kinds[id], []string{"text/plain", "text/html"}) || len(kinds) != 1 {
			t.Fatalf("offered %v %v", offers, kinds)
		}
		r := b.receive(dev, id, "text/html")
		if kind := a.answer(source, ops.send, "hello"); kind != "text/html" {
			t.Errorf("asked for %q", kind)
		}
		wantText(t, r, "hello")
		wantText(t, b.receive(dev, id, "no such kind"), "")

		// Another program's takes its place; then it goes with its program.
		b.copyTo(dev, source, 12, "x/y")
		a.guest.Want(source, ops.cancelled)
		wantText(t, b.receive(dev, id, "nothing"), "")
		_ = b.guest.Tr.Close()
		<-b.done
		if offers, _ := a.enter(13); offers[dev] != 0 {
			t.Error("a dead program's selection is offered")
		}
		a.host.Send(a.ids[device], wayland.WlDataDeviceEvtDataOffer, wayland.ServerIDs)
		a.write(a.host, wayland.ServerIDs, wayland.WlDataOfferEvtOffer, "text/plain")
		a.host.Want(wayland.ServerIDs, wayland.WlDataOfferReqDestroy) // and nothing before it
		a.host.Send(a.ids[device], wayland.WlDataDeviceEvtSelection, wayland.ServerIDs)
		a.host.Send(a.ids[seat], wayland.WlSeatEvtCapabilities, 3)
		a.guest.Want(seat, wayland.WlSeatEvtCapabilities) // and nothing before it
	}
}

// TestSelectionSerials holds that a selection is set only with a serial that the
// program was given, and none older than the last one's.
func TestSelectionSerials(t *testing.T) {
	waylandtest.LeakCheck(t)
	f, ps := newPrograms(t, 2, display.Limits{})
	a, b := ps[0], ps[1]
	b.copyTo(device, source, 10, "text/plain") // never had the keyboard
	b.guest.Want(source, wayland.WlDataSourceEvtCancelled)
	a.enter(10)
	a.copyTo(device, source, 0xfffffff0, "text/plain") // forged
	a.guest.Want(source, wayland.WlDataSourceEvtCancelled)
	b.enter(20)
	b.copyTo(device, source+1, 20, "new")
	b.offered(device, wayland.WlDataDeviceEvtSelection)
	a.copyTo(device, source+1, 10, "old") // its own, but from before b's
	a.offered(source+1, wayland.WlDataSourceEvtCancelled)
	if k := f.Selections().Kinds(clipboard.Clipboard); !slices.Equal(k, []string{"new"}) {
		t.Errorf("selected: %v", k)
	}
}

// TestSelectionOfTheHost holds that what the host gives is offered in front of a
// program's selection, that it is back afterwards, and that the program that pastes
// has none of its own meanwhile: it would paste that.
func TestSelectionOfTheHost(t *testing.T) {
	waylandtest.LeakCheck(t)
	f, ps := newPrograms(t, 2, display.Limits{})
	a, b, w := ps[0], ps[1], f.Selections()
	a.enter(5)
	a.copyTo(device, source, 5, "own")
	a.offered(device, wayland.WlDataDeviceEvtSelection)
	a.leave(6)
	b.enter(7)
	given := &clipboard.HostSource{Kinds: []string{"text/plain"}, Write: func(kind string, f *os.File) {
		_, _ = f.WriteString("from the host")
		_ = f.Close()
	}}
	takeBack := w.Give(clipboard.Clipboard, given)
	offers, kinds := b.offered(device, wayland.WlDataDeviceEvtSelection)
	if id := offers[device]; !slices.Equal(kinds[id], []string{"text/plain"}) {
		t.Fatalf("offered %v", kinds)
	}
	wantText(t, b.receive(device, offers[device], "text/plain"), "from the host")
	takeBack()
	again, kinds := b.offered(device, wayland.WlDataDeviceEvtSelection)
	if !slices.Equal(kinds[again[device]], []string{"own"}) {
		t.Errorf("offered %v", kinds)
	}
	wantText(t, b.receive(device, offers[device], "text/plain"), "") // taken back

	r, err := w.Take(clipboard.Clipboard, "own")
	if err != nil {
		t.Fatal(err)
	}
	a.answer(source, wayland.WlDataSourceEvtSend, "to the host")
	wantText(t, r, "to the host")

	takeBack = w.Give(clipboard.Clipboard, given)
	b.offered(device, wayland.WlDataDeviceEvtSelection)
	b.leave(8)
	a.host.Send(a.ids[keyboard], wayland.WlKeyboardEvtEnter, 9, a.ids[surf], 0)
	a.guest.Want(source, wayland.WlDataSourceEvtCancelled) // before the offer
	if offers, kinds = a.offered(keyboard, wayland.WlKeyboardEvtEnter); !slices.Equal(kinds[offers[device]], []string{"text/plain"}) {
		t.Errorf("offered %v", kinds)
	}
	takeBack()
	a.offered(device, wayland.WlDataDeviceEvtSelection)
	a.copyTo(device, source+1, 9, "own again")
	a.offered(device, wayland.WlDataDeviceEvtSelection)
	w.Give(clipboard.Clipboard, given)
	a.guest.Want(source+1, wayland.WlDataSourceEvtCancelled)
	if _, err := w.Take(clipboard.Clipboard, "other"); err == nil {
		t.Error("a kind that is not there was taken")
	}
}

// TestSelectionKinds holds that a source has so many kinds and no more.
func TestSelectionKinds(t *testing.T) {
	for name, do := range map[string]func(p *program){
		"may have 4 kinds": func(p *program) {
			for k := range 5 {
				p.write(p.guest, source, wayland.WlDataSourceReqOffer, strings.Repeat("x", k+1))
			}
		},
		"has 513 bytes": func(p *program) {
			p.write(p.guest, source, wayland.WlDataSourceReqOffer, strings.Repeat("x", 513))
		},
	} {
		waylandtest.LeakCheck(t)
		_, ps := newPrograms(t, 1, display.Limits{display.Kinds: 4})
		p := ps[0]
		p.guest.Send(manager, wayland.WlDataDeviceManagerReqCreateDataSource, source)
		do(p)
		if id, _, text := p.guest.WantError(); id != source || !strings.Contains(text, name) {
			t.Errorf("object %d: %s", id, text)
		}
	}
}

// TestDrag holds that a drag goes from one connection of the VM to another, that
// the compositor sees nothing of what is dragged, and that others' drags are not seen.
func TestDrag(t *testing.T) {
	waylandtest.LeakCheck(t)
	_, ps := newPrograms(t, 2, display.Limits{})
	a, b := ps[0], ps[1]
	a.guest.Send(manager, wayland.WlDataDeviceManagerReqCreateDataSource, source)
	a.write(a.guest, source, wayland.WlDataSourceReqOffer, "text/plain")
	a.guest.Send(source, wayland.WlDataSourceReqSetActions, 3)
	a.press(7)
	a.guest.Send(device, wayland.WlDataDeviceReqStartDrag, source, surf, 0, 7)
	place := a.host.Want(a.ids[manager], wayland.WlDataDeviceManagerReqCreateDataSource).Word(0)
	private := a.hear(place, wayland.WlDataSourceReqOffer)
	if !strings.HasPrefix(private, "application/x-vix-") {
		t.Errorf("the compositor is told of %q", private)
	}
	if m := a.host.Want(place, wayland.WlDataSourceReqSetActions); m.Word(0) != 3 {
		t.Error(m)
	}
	if m := a.host.Want(a.ids[device], wayland.WlDataDeviceReqStartDrag); m.Word(0) != place || m.Word(1) != a.ids[surf] || m.Word(3) != 7 {
		t.Errorf("% x", m.Body)
	}

	// Another's, then ours.
	enter := func(id uint32, kind string) {
		b.host.Send(b.ids[device], wayland.WlDataDeviceEvtDataOffer, id)
		b.write(b.host, id, wayland.WlDataOfferEvtOffer, kind)
		b.host.Send(id, wayland.WlDataOfferEvtSourceActions, 3)
		b.host.Send(b.ids[device], wayland.WlDataDeviceEvtEnter, 8, b.ids[surf], 256, 512, id)
		b.host.Send(b.ids[device], wayland.WlDataDeviceEvtMotion, 1, 256, 512)
	}
	enter(wayland.ServerIDs, "application/x-vix-OTHER")
	b.host.Send(b.ids[device], wayland.WlDataDeviceEvtLeave)
	b.host.Want(wayland.ServerIDs, wayland.WlDataOfferReqDestroy)
	enter(wayland.ServerIDs+1, private)
	id := b.guest.Want(device, wayland.WlDataDeviceEvtDataOffer).Word(0)
	m := b.guest.Want(id, wayland.WlDataOfferEvtOffer)
	d := wayland.NewDecoder(m.Body)
	if k := string(d.String()); k != "text/plain" {
		t.Errorf("offered %q", k)
	}
	b.guest.Want(id, wayland.WlDataOfferEvtSourceActions)
	if m := b.guest.Want(device, wayland.WlDataDeviceEvtEnter); m.Word(1) != surf || m.Word(4) != id {
		t.Errorf("% x", m.Body)
	}
	b.guest.Want(device, wayland.WlDataDeviceEvtMotion)
	b.write(b.guest, id, wayland.WlDataOfferReqAccept, 9, "text/plain") // a serial of no enter event
	b.write(b.guest, id, wayland.WlDataOfferReqAccept, 8, "text/plain")
	am := b.host.Want(wayland.ServerIDs+1, wayland.WlDataOfferReqAccept)
	ad := wayland.NewDecoder(am.Body)
	if _, kind := ad.Uint(), string(ad.String()); kind != private {
		t.Errorf("accepted %q", kind)
	}
	a.write(a.host, place, wayland.WlDataSourceEvtTarget, private)
	tm := a.guest.Want(source, wayland.WlDataSourceEvtTarget)
	td := wayland.NewDecoder(tm.Body)
	if k := string(td.String()); k != "text/plain" {
		t.Errorf("the target is %q", k)
	}
	a.host.Send(place, wayland.WlDataSourceEvtDndDropPerformed)
	b.host.Send(b.ids[device], wayland.WlDataDeviceEvtDrop)
	b.guest.Want(device, wayland.WlDataDeviceEvtDrop)
	r := b.receive(device, id, "text/plain")
	a.guest.Want(source, wayland.WlDataSourceEvtDndDropPerformed)
	a.answer(source, wayland.WlDataSourceEvtSend, "dropped")
	wantText(t, r, "dropped")
	b.guest.Send(id, wayland.WlDataOfferReqFinish)
	b.host.Want(wayland.ServerIDs+1, wayland.WlDataOfferReqFinish)
	a.host.Send(place, wayland.WlDataSourceEvtDndFinished)
	a.guest.Want(source, wayland.WlDataSourceEvtDndFinished)
	a.guest.Send(source, wayland.WlDataSourceReqDestroy)
	a.host.Want(place, wayland.WlDataSourceReqDestroy)
	wantText(t, b.receive(device, id, "text/plain"), "")
}
