package hostile

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// What wl_pointer.button says, and wl_data_device_manager.dnd_action.
const (
	pressed    = 1
	actionCopy = 1
	actionMove = 2
	// seatPointer is wl_seat.capability.pointer: there is none before a device is.
	seatPointer = 1
)

// dragSource shows a window, and drags a text out of it whenever a button is pressed
// there.
//
//	drag-source TEXT
func dragSource(r *Run) error {
	p, err := r.picker()
	if err != nil {
		return err
	}
	var pipes []wayland.Desc
	p.Take = func(ds []wayland.Desc) { pipes = append(pipes, ds...) }
	w, err := p.NewWindow("drags", "drags")
	if err != nil {
		return err
	}
	pointer := p.ID(func(op uint16, d *wayland.Decoder) {
		if op != wayland.WlPointerEvtButton {
			return
		}
		serial, _, _ := d.Uint(), d.Uint(), d.Uint()
		if d.Uint() != pressed {
			return
		}
		source := p.source(func(op uint16, d *wayland.Decoder) {
			switch op {
			case wayland.WlDataSourceEvtSend:
				r.say("send %q", d.String())
				f := os.NewFile(uintptr(pipes[0].FD), "pipe")
				pipes = pipes[1:]
				_, _ = io.Copy(f, strings.NewReader(r.Args[0]))
				_ = f.Close()
			case wayland.WlDataSourceEvtTarget:
				r.say("target %q", d.String())
			case wayland.WlDataSourceEvtAction:
				r.say("action %d", d.Uint())
			case wayland.WlDataSourceEvtCancelled:
				r.say("cancelled")
			case wayland.WlDataSourceEvtDndFinished:
				r.say("finished")
			}
		}, plain, "text/plain")
		p.Req(source, wayland.WlDataSourceReqSetActions, uint32(actionCopy|actionMove))
		p.Req(p.device, wayland.WlDataDeviceReqStartDrag, source, w.Surface, uint32(0), serial)
		r.say("drags")
	})
	if err := p.Until(func() bool { return p.can&seatPointer != 0 }); err != nil {
		return err
	}
	p.Req(p.seat, wayland.WlSeatReqGetPointer, pointer)
	if err := w.Show(0, 0, 0x40ff40); err != nil {
		return err
	}
	r.say("shown")
	return p.live(w)
}

// dragTarget shows a window, and takes the text that is dropped there. It tries to have
// it before the drop, too.
func dragTarget(r *Run) error {
	p, err := r.picker()
	if err != nil {
		return err
	}
	var offer uint32
	var kinds []string
	receive := func(what string) {
		var fds [2]int
		if unix.Pipe2(fds[:], unix.O_CLOEXEC) != nil || p.Flush() != nil {
			return
		}
		p.Req(offer, wayland.WlDataOfferReqReceive, plain)
		if p.Flush(wayland.FileDesc(wayland.KindWritePipe, fds[1])) != nil {
			return
		}
		go func() {
			f := os.NewFile(uintptr(fds[0]), "pipe")
			defer f.Close()
			b, err := io.ReadAll(f)
			r.say("%s: %d bytes %.40q %v", what, len(b), b, err)
		}()
	}
	p.offered = func(_ uint32, kind string) { kinds = append(kinds, kind) }
	p.handlers[p.device] = func(op uint16, d *wayland.Decoder) {
		switch op {
		case wayland.WlDataDeviceEvtDataOffer:
			id := d.Uint()
			kinds = nil
			p.handlers[id] = func(op uint16, d *wayland.Decoder) {
				if op == wayland.WlDataOfferEvtOffer {
					p.offered(id, string(d.String()))
				}
			}
		case wayland.WlDataDeviceEvtEnter:
			serial, _, _, _ := d.Uint(), d.Uint(), d.Uint(), d.Uint()
			offer = d.Uint()
			r.say("entered with %q", kinds)
			if offer != 0 {
				p.Req(offer, wayland.WlDataOfferReqAccept, serial, plain)
				p.Req(offer, wayland.WlDataOfferReqSetActions, uint32(actionCopy|actionMove), uint32(actionMove))
				receive("early")
			}
		case wayland.WlDataDeviceEvtDrop:
			receive("dropped")
			p.Req(offer, wayland.WlDataOfferReqFinish)
		}
	}
	w, err := p.NewWindow("is dropped on", "target")
	if err == nil {
		err = w.Show(0, 0, 0x4040ff)
	}
	if err != nil {
		return err
	}
	r.say("shown")
	return p.live(w)
}

// live is a program that is drawn anew in the size that it gets.
func (p *picker) live(w *Window) error {
	for {
		known := w.Configured
		if err := p.Until(func() bool { return w.Configured != known }); err != nil {
			return err
		}
		if err := w.Show(0, 0, 0x808080); err != nil {
			return err
		}
	}
}
