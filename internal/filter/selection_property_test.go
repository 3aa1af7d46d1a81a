package filter

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"vix/internal/clipboard"
	"vix/internal/display"
	"vix/internal/wayland"
)

// A modelVM is what is to be expected of one VM's clipboard.
type modelVM struct {
	programs []*program
	last     []uint32 // the serial that each was given last, 0 for none
	made     []uint32 // sources so far
	alive    []bool
	owner    int      // of own
	own      []string // what a program selected
	serial   uint32
	given    []string // what the host put in front of it
	takeBack func()
}

func (m *modelVM) expects() []string {
	if m.given != nil {
		return m.given
	}
	return m.own
}

// yield is what a program with the keyboard loses by what is given.
func (m *modelVM) yield(k int) {
	if m.given != nil && m.owner == k {
		m.own = nil
	}
}

// A modelDesk is two VMs of two programs each, one of which may have the keyboard.
type modelDesk struct {
	vms     []*modelVM
	vm, p   int // who has the keyboard; -1 for nobody
	serial  uint32
	counter int
}

func (d *modelDesk) kind(prefix string) string {
	d.counter++
	return fmt.Sprintf("%s/%d", prefix, d.counter)
}

func (d *modelDesk) blur() {
	if d.vm >= 0 && d.vms[d.vm].alive[d.p] {
		d.serial++
		p := d.vms[d.vm].programs[d.p]
		p.host.Send(p.ids[keyboard], wayland.WlKeyboardEvtLeave, d.serial, p.ids[surf])
		p.offered(keyboard, wayland.WlKeyboardEvtLeave)
		d.vms[d.vm].last[d.p] = d.serial
	}
	d.vm = -1
}

// focus checks what the program is offered when it gets the keyboard.
func (d *modelDesk) focus(t *rapid.T, vm, k int) {
	m := d.vms[vm]
	if d.vm == vm && d.p == k || !m.alive[k] {
		return
	}
	d.blur()
	d.serial++
	offers, kinds := m.programs[k].enter(d.serial)
	d.vm, d.p, m.last[k] = vm, k, d.serial
	m.yield(k)
	if got := kinds[offers[device]]; !slices.Equal(got, m.expects()) {
		t.Fatalf("VM %d's program %d is offered %v, not %v", vm, k, got, m.expects())
	}
}

// selects lets a program select something, with the serial it has, or a forged one.
func (d *modelDesk) selects(vm, k int, forged bool) {
	m := d.vms[vm]
	if !m.alive[k] {
		return
	}
	p, kind, serial := m.programs[k], d.kind("own"), m.last[k]
	if forged {
		serial = d.serial + 1000
	}
	p.copyTo(device, source+m.made[k], serial, kind)
	m.made[k]++
	p.guest.Send(surf, wayland.WlSurfaceReqSetInputRegion, 0) // when it has passed, so has the rest
	p.host.Want(p.ids[surf], wayland.WlSurfaceReqSetInputRegion)
	if serial != 0 && !forged && (m.serial == 0 || serial >= m.serial) {
		m.own, m.owner, m.serial, m.given = []string{kind}, k, serial, nil
	}
}

func (d *modelDesk) stop(vm, k int) {
	m := d.vms[vm]
	if !m.alive[k] {
		return
	}
	m.alive[k] = false
	_ = m.programs[k].guest.Tr.Close()
	<-m.programs[k].done
	if m.own != nil && m.owner == k {
		m.own = nil
	}
	if d.vm == vm && d.p == k {
		d.vm = -1
	}
}

func (d *modelDesk) give(w *clipboard.World, vm int) {
	m := d.vms[vm]
	m.given = []string{d.kind("given")}
	if d.vm == vm {
		m.yield(d.p)
	}
	m.takeBack = w.Give(clipboard.Clipboard, &clipboard.HostSource{Kinds: m.given, Write: func(_ string, f *os.File) { _ = f.Close() }})
}

// TestSelectionPolicy: whatever programs and the host do in any order, a program is
// offered what the model says: its own VM's selection, or what was given to that VM
// and not taken back; never another VM's.
func TestSelectionPolicy(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := &modelDesk{vm: -1, serial: 1}
		var worlds []*clipboard.World
		for range 2 {
			f, ps := newPrograms(t, 2, display.Limits{})
			worlds = append(worlds, f.Selections())
			d.vms = append(d.vms, &modelVM{programs: ps, last: make([]uint32, 2), made: make([]uint32, 2), alive: []bool{true, true}})
		}
		pick := func(t *rapid.T) (vm, k int) {
			return rapid.IntRange(0, 1).Draw(t, "vm"), rapid.IntRange(0, 1).Draw(t, "program")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"focus": func(t *rapid.T) {
				vm, k := pick(t)
				d.focus(t, vm, k)
			},
			"select": func(t *rapid.T) {
				vm, k := pick(t)
				d.selects(vm, k, false)
			},
			"forge": func(t *rapid.T) {
				vm, k := pick(t)
				d.selects(vm, k, true)
			},
			"stop": func(t *rapid.T) {
				vm, k := pick(t)
				if rapid.IntRange(0, 3).Draw(t, "seldom") == 0 {
					d.stop(vm, k)
				}
			},
			"give": func(t *rapid.T) {
				vm, _ := pick(t)
				d.give(worlds[vm], vm)
			},
			"expire": func(t *rapid.T) {
				vm, _ := pick(t)
				if m := d.vms[vm]; m.takeBack != nil {
					m.takeBack()
					m.takeBack, m.given = nil, nil
				}
			},
			"": func(t *rapid.T) {
				for k, w := range worlds {
					if got := w.Kinds(clipboard.Clipboard); !slices.Equal(got, d.vms[k].own) {
						t.Fatalf("VM %d has selected %v, not %v", k, got, d.vms[k].own)
					}
				}
			},
		})
		for _, m := range d.vms {
			for _, p := range m.programs {
				_ = p.guest.Tr.Close()
				<-p.done
			}
		}
	})
}
