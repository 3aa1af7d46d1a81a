package hostile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// A picker is a client with a data device.
type picker struct {
	*Client
	seat, manager, device uint32
	serial                uint32 // of the keyboard's last entry; 0 before
	can                   uint32 // the seat's capabilities
	offer                 uint32
	offered               func(offer uint32, kind string)
}

func (r *Run) picker() (*picker, error) {
	c, err := r.client()
	if err != nil {
		return nil, err
	}
	p := &picker{Client: c}
	p.seat = c.Bind("wl_seat", 5, func(op uint16, d *wayland.Decoder) {
		if op == wayland.WlSeatEvtCapabilities {
			p.can = d.Uint()
		}
	})
	p.manager = c.Bind("wl_data_device_manager", 3, nil)
	if p.seat == 0 || p.manager == 0 {
		return nil, errors.New("no seat or data device manager")
	}
	p.device = c.ID(func(op uint16, d *wayland.Decoder) {
		if op == wayland.WlDataDeviceEvtDataOffer {
			offer := d.Uint()
			if old := p.offer; old != 0 && p.offered == nil { // or it ends at the limit of offers
				c.Req(old, wayland.WlDataOfferReqDestroy)
				delete(c.handlers, old)
			}
			p.offer = offer
			c.handlers[offer] = func(op uint16, d *wayland.Decoder) {
				if op == wayland.WlDataOfferEvtOffer && p.offered != nil {
					p.offered(offer, string(d.String()))
				}
			}
		}
	})
	c.Req(p.manager, wayland.WlDataDeviceManagerReqGetDataDevice, p.device, p.seat)
	keyboard := c.ID(func(op uint16, d *wayland.Decoder) {
		if op == wayland.WlKeyboardEvtEnter {
			p.serial = d.Uint()
		}
	})
	c.Req(p.seat, wayland.WlSeatReqGetKeyboard, keyboard)
	return p, c.Sync()
}

// window shows a window and waits until it has the keyboard.
func (p *picker) window(title string) error {
	w, err := p.NewWindow(title, "hostile")
	if err == nil {
		err = w.Show(300, 200, 0x40ff40)
	}
	if err != nil {
		return err
	}
	return p.Until(func() bool { return p.serial != 0 })
}

// source makes a source of some kinds.
func (p *picker) source(f func(op uint16, d *wayland.Decoder), kinds ...string) uint32 {
	id := p.ID(f)
	p.Req(p.manager, wayland.WlDataDeviceManagerReqCreateDataSource, id)
	for _, k := range kinds {
		p.Req(id, wayland.WlDataSourceReqOffer, k)
	}
	return id
}

const plain = "text/plain;charset=utf-8"

// selectFlood sets the selection COUNT times, one a millisecond.
//
//	select-flood COUNT
func selectFlood(r *Run) error {
	n, err := strconv.Atoi(r.Args[0])
	if err != nil {
		return err
	}
	p, err := r.picker()
	if err != nil {
		return err
	}
	if err := p.window("floods selections"); err != nil {
		return err
	}
	r.say("focused")
	begin, last := time.Now(), uint32(0)
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	k := 0
	for ; k < n && err == nil; k++ {
		<-pace.C
		id := p.source(nil, plain, fmt.Sprintf("text/x-flood-%d", k))
		p.Req(p.device, wayland.WlDataDeviceReqSetSelection, id, p.serial)
		if last != 0 {
			p.Req(last, wayland.WlDataSourceReqDestroy)
			delete(p.handlers, last)
		}
		last = id
		if err = p.Flush(); err == nil && k%64 == 63 {
			err = p.Sync()
		}
	}
	r.say("set %d selections in %d ms: %v", k, time.Since(begin).Milliseconds(), err)
	if err == nil {
		go func() {
			for p.Read() == nil {
			}
		}()
	}
	r.Hold()
	return nil
}

// selectForged sets the selection with COUNT serials that nobody gave it, without a
// window.
//
//	select-forged COUNT
func selectForged(r *Run) error {
	n, err := strconv.Atoi(r.Args[0])
	if err != nil {
		return err
	}
	p, err := r.picker()
	if err != nil {
		return err
	}
	for k := range n {
		serial := uint32(k)
		if k%2 == 1 {
			serial = rand.Uint32()
		}
		id := p.source(nil, plain)
		p.Req(p.device, wayland.WlDataDeviceReqSetSelection, id, serial)
		p.Req(p.device, wayland.WlDataDeviceReqSetSelection, uint32(0), serial)
		if err := p.Sync(); err != nil {
			return err
		}
		p.Req(id, wayland.WlDataSourceReqDestroy)
	}
	r.say("forged %d serials", n)
	return nil
}

// selectPipe has the selection, and treats whoever asks for it badly: "endless" gives
// for ever, "silent" nothing, "drip" a byte now and then, "half" ends its connection
// in the middle.
//
//	select-pipe endless|silent|drip|half
func selectPipe(r *Run) error {
	p, err := r.picker()
	if err != nil {
		return err
	}
	if err := p.window("bad pipes"); err != nil {
		return err
	}
	p.Take = func(ds []wayland.Desc) {
		for _, d := range ds {
			f := os.NewFile(uintptr(d.FD), "pipe")
			r.say("asked")
			switch r.Args[0] {
			case "endless":
				go func() {
					b := make([]byte, 1<<20)
					sum := 0
					for {
						n, err := f.Write(b)
						sum += n
						if err != nil {
							r.say("gave %d bytes: %v", sum, err)
							_ = f.Close()
							return
						}
					}
				}()
			case "drip":
				go func() {
					for range time.Tick(time.Second) { // that is the attack
						if _, err := f.Write([]byte("x")); err != nil {
							return
						}
					}
				}()
			case "half":
				_, _ = f.Write([]byte("half"))
				_ = p.Close()
				_ = f.Close()
			default: // silent: it stays open
				unclosed = append(unclosed, f)
			}
		}
	}
	id := p.source(nil, plain)
	p.Req(p.device, wayland.WlDataDeviceReqSetSelection, id, p.serial)
	r.say("selected: %v", p.Sync())
	for p.Read() == nil {
	}
	r.Hold()
	return nil
}

var unclosed []*os.File // or the collector would close them

// selectSniff asks for everything that it is offered, and for what it is not, for as
// long as it lives.
func selectSniff(r *Run) error {
	p, err := r.picker()
	if err != nil {
		return err
	}
	p.offered = func(offer uint32, kind string) {
		r.say("offered %q", kind)
		var fds [2]int
		if unix.Pipe2(fds[:], unix.O_CLOEXEC) != nil {
			return
		}
		if p.Flush() != nil {
			return
		}
		p.Req(offer, wayland.WlDataOfferReqReceive, kind)
		if p.Flush(wayland.FileDesc(wayland.KindWritePipe, fds[1])) != nil {
			return
		}
		go func() {
			f := os.NewFile(uintptr(fds[0]), "pipe")
			defer f.Close()
			b := make([]byte, 4096)
			for {
				n, err := f.Read(b)
				if n > 0 {
					r.say("read %q", b[:n])
				}
				if err != nil {
					return
				}
			}
		}()
	}
	if err := p.window("sniffs"); err != nil {
		return err
	}
	r.say("focused")
	for p.Read() == nil {
	}
	r.Hold()
	return nil
}
