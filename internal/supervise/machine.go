package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"

	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

const qemuChild = "qemu"

// A machine is QEMU, and its monitor.
type machine struct {
	passive
	*host
	boot    *bootPart
	network *networkPart
	parts   []part // the parts with devices, in the order of the bus

	child      *proc.Child
	monitor    *qemu.Monitor
	stopReason string // from the monitor's events; their goroutine's alone

	// unplugs has a channel for each device that is being unplugged; QEMU's event closes it.
	// Under host.mu.
	unplugs map[string]chan struct{}
}

// start starts QEMU on the devices of the parts that have started, and connects to its
// monitor.
func (s *machine) start() error {
	v := s.launch.VM
	m := qemu.Machine{
		Name: v.Name, Accel: s.boot.accel, Memory: v.Memory, CPUs: v.CPUs,
		Kernel: s.boot.files.Kernel, Initrd: s.boot.files.Initrd,
	}
	for _, p := range s.parts {
		m.Devices = append(m.Devices, p.devices()...)
	}
	m.Devices = append(m.Devices, qemu.Entropy())
	ours, qmpEnd, err := proc.Socketpair("qmp")
	if err != nil {
		m.Close()
		return err
	}
	m.QMP = qmpEnd
	if err := s.startQEMU(m); err != nil {
		return errors.Join(err, ours.Close())
	}
	s.update(func(st *vm.State) { st.Accel = s.boot.accel })
	if err := s.connectQMP(ours); err != nil {
		return err
	}
	s.stage("qemu", 0)
	return nil
}

func (s *machine) startQEMU(m qemu.Machine) error {
	spec, own, err := s.confinement()
	if err != nil {
		m.Close()
		return err
	}
	args, files := m.Command()
	spec.Argv = append([]string{s.launch.Parts.QEMU}, args...)
	s.child, err = s.startConfined(proc.Command{
		Name: qemuChild, Own: own, Files: files,
		Stdout: func(line string) {
			s.console.Add(line)
			s.log.Add("console", line)
		},
	}, spec)
	if err != nil {
		return err
	}
	s.own(s.child, "QEMU ended", func(p *vm.PIDs) *int { return &p.QEMU })
	return nil
}

func (s *machine) stop(graceful bool) error {
	var err error
	if s.monitor != nil {
		err = s.monitor.Disconnect()
	}
	endChild(s.child, graceful)
	return err
}

// confinement returns what QEMU may keep, and which namespaces are its own.
func (s *machine) confinement() (spec sandbox.Spec, own *syscall.SysProcAttr, err error) {
	kvm := ""
	if s.boot.accel == "kvm" {
		kvm = s.launch.Parts.KVM
	}
	if spec.Files, err = qemuFiles(s.launch.Parts.QEMU, s.boot.files.Kernel, s.boot.files.Initrd, kvm); err != nil {
		return spec, nil, err
	}
	own = sandbox.Attr(s.uid, os.Getgid())
	if s.network.inQEMU() {
		spec.Network = true
		own.Cloneflags &^= unix.CLONE_NEWNET
	}
	return spec, own, nil
}

// connectQMP greets QEMU. An answer also means that QEMU accepted its command line; if
// not, QEMU's end follows as a trouble, and says why.
func (s *machine) connectQMP(conn *os.File) error {
	m := qemu.NewMonitor(conn)
	s.monitor = m
	done := make(chan error, 1)
	s.pumps.Go(func() { done <- m.Connect() })
	if err := s.wait(done); err != nil {
		return err
	}
	events, err := m.Events(s.ctx)
	if err != nil {
		return err
	}
	s.pumps.Go(func() {
		for e := range events {
			s.onQEMUEvent(e)
		}
	})
	return nil
}

// onQEMUEvent handles an event of QEMU's.
func (s *machine) onQEMUEvent(e qmp.Event) {
	s.log.Printf("qmp", "%s %v", e.Event, e.Data)
	switch e.Event {
	case "DEVICE_DELETED":
		s.onDeviceDeleted(e.Data["device"])
	case "BLOCK_IO_ERROR":
		reason, _ := e.Data["reason"].(string)
		s.stopReason = "I/O error: " + plain.Text(reason, vm.MaxTitle, plain.OneLine)
	case "STOP":
		if s.ctx.Err() == nil {
			s.report(trouble{rankStopped, s.stopped()})
		}
	}
}

// stopped says why QEMU has stopped the machine: its run state, and what it wrote about it.
func (s *machine) stopped() *vm.Failure {
	state, err := s.monitor.Status()
	if err != nil {
		state = "paused"
	}
	text := fmt.Sprintf("VM %s: QEMU has stopped it: %s", s.launch.VM.Name, plain.Text(state, vm.MaxTitle, plain.OneLine))
	for _, why := range []string{s.stopReason, s.child.Last.Trouble()} {
		if why != "" {
			text += ": " + why
			break
		}
	}
	return &vm.Failure{Code: vm.CodeVix, Text: text + `; run it again; if it fails again, see vix doctor`}
}

// deleteDevice unplugs a device, and returns when it is gone.
func (s *machine) deleteDevice(id string) error {
	gone := make(chan struct{})
	s.mu.Lock()
	s.unplugs[id] = gone
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.unplugs, id)
	}()
	if err := s.monitor.Execute("device_del", map[string]string{"id": id}, nil); err != nil {
		return err
	}
	t := time.NewTimer(unplugLimit)
	defer t.Stop()
	select {
	case <-gone:
		return nil
	case <-t.C:
		return errors.New("the guest does not release the device")
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// onDeviceDeleted handles QEMU's event.
func (s *machine) onDeviceDeleted(device any) {
	id, _ := device.(string)
	s.mu.Lock()
	defer s.mu.Unlock()
	if gone := s.unplugs[id]; gone != nil {
		close(gone)
		delete(s.unplugs, id)
	}
}

// qemuFiles returns the files that QEMU opens by name: itself, its libraries, its firmware,
// and what it boots.
func qemuFiles(qemu, kernel, initrd, kvm string) ([]sandbox.File, error) {
	real, err := filepath.EvalSymlinks(qemu)
	if err != nil {
		return nil, vm.Failf("%s: cannot be started: %v", qemuChild, err)
	}
	files := sandbox.ProgramFiles(real)
	// A QEMU that its user has built has its firmware beside it.
	if dir := filepath.Dir(real); filepath.Base(dir) == "bin" && !strings.HasPrefix(dir, "/usr/") && dir != "/bin" {
		files = append(files, sandbox.File{Path: filepath.Join(filepath.Dir(dir), "share")}, sandbox.File{Path: filepath.Join(filepath.Dir(dir), "lib")})
	}
	files = append(files, sandbox.File{Path: kernel}, sandbox.File{Path: initrd})
	if kvm != "" {
		files = append(files, sandbox.File{Path: kvm, Write: true})
	}
	return files, nil
}
