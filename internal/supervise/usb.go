package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/boot"
	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/usb"
	"vix/internal/vm"
)

// A USB device of the host's goes to a VM that runs:
//
//	open its node, flock it ─ QMP: device_add qemu-xhci (once) ─ agent: drivers ─
//	QMP: add-fd, device_add usb-host,hostdevice=/dev/fdset/N
//
// QEMU is given the one descriptor and can open no other device. The lock belongs to the
// open node, which QEMU now holds: so a device is in one VM at a time, whoever asked for
// it, and is free again when QEMU has let go of it or has ended.
//
// A VM that never has a device has one empty port for it, and no controller, no driver.
type usbDevice struct {
	usb.Device
	id    string // of QEMU's device
	fdset int    // of its descriptor; 0: it is one that QEMU emulates
	rule  bool   // by the configuration
}

// A usbPart is the VM's USB devices. turn is held by whoever adds or takes away one.
type usbPart struct {
	passive
	*host
	machine    *machine
	guest      *guest
	turn       sync.Mutex
	list       []usbDevice
	lastID     int
	controller bool // it is plugged in
	watched    bool // the kernel's events are listened to
}

// emulatedUSB are devices that QEMU emulates, by the names that stand for them in the place of
// a port: "qemu:" and the driver. There are none but in a build for tests, which attach them
// by the way of the host's own on machines without USB (usb_emulated.go).
var emulatedUSB map[string]usb.Device

// EmulatedUSB reports whether text names one.
func EmulatedUSB(text string) bool {
	_, ok := emulatedUSB[text]
	return ok
}

func (s *supervisor) serveUSB(c *vm.Control, req vm.Request) {
	var st *vm.USBState
	var err error
	if req.Op == vm.OpUSBAttach {
		st, err = s.usb.attach(req.Path)
	} else {
		st, err = s.usb.detach(req.Path)
	}
	if err != nil {
		s.tell(c, vm.Reply{Fail: s.failure(err)})
		return
	}
	s.tell(c, vm.Reply{USB: st})
}

// attach gives the VM the one device that text names.
func (s *usbPart) attach(text string) (*vm.USBState, error) {
	name := s.launch.VM.Name
	if st := s.snapshot().State; st != vm.StateRunning {
		return nil, vm.Failf("VM %s: is %s; devices can be attached only while it is running", name, st)
	}
	if d, ok := emulatedUSB[text]; ok {
		return s.add(d, false)
	}
	want, err := config.ParseUSB(text)
	if err != nil {
		return nil, vm.Failf("VM %s: usb: %v", name, err)
	}
	all, err := s.hostUSB()
	if err != nil {
		return nil, err
	}
	switch found := usb.Matching(all, want); len(found) {
	case 0:
		return nil, vm.Failf("VM %s: usb %s: no such device is plugged in (hubs stay the host's); see vix usb list", name, want)
	case 1:
		s.watch()
		return s.add(found[0], false)
	default:
		return nil, vm.Failf("VM %s: usb %s: %d devices match; name one by its port, such as %s", name, want, len(found), found[0].Port)
	}
}

func (s *usbPart) hostUSB() ([]usb.Device, error) {
	list, err := usb.List(os.DirFS(s.launch.Parts.USB))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, vm.Failf("VM %s: usb: this machine has no USB", s.launch.VM.Name)
	}
	return list, err
}

// add plugs a device in.
func (s *usbPart) add(d usb.Device, rule bool) (*vm.USBState, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	name := s.launch.VM.Name
	switch {
	case slices.ContainsFunc(s.list, func(x usbDevice) bool { return x.Port == d.Port }):
		return nil, vm.Failf("VM %s: usb %s: the VM has it already", name, d.Port)
	case len(s.list) >= config.MaxUSB:
		return nil, vm.Failf("VM %s: already has %d USB devices, the most possible; detach one", name, len(s.list))
	}
	var node *os.File
	if !EmulatedUSB(d.Port) {
		var err error
		if node, err = s.takeNode(d); err != nil {
			return nil, err
		}
		defer node.Close() // QEMU has it, and with it the lock
	}
	if err := s.plugController(); err != nil {
		return nil, vm.Failf("VM %s: usb: %v", name, err)
	}
	if err := s.sendDrivers(d.Aliases); err != nil {
		s.note("VM %s: usb %s: the guest lacks some of its drivers: %v", name, d.Port, err)
	}
	s.lastID++
	dev := usbDevice{Device: d, id: fmt.Sprintf("usb%d", s.lastID), rule: rule}
	if node != nil {
		dev.fdset = fdsetUSB + s.lastID
	}
	if err := s.plugUSB(dev, node); err != nil {
		return nil, vm.Failf("VM %s: usb %s: %v", name, d.Port, err)
	}
	s.list = append(s.list, dev)
	s.show()
	s.log.Printf("vix", "usb %s (%s %s) is the VM's", d.Port, d.ID, d.Name)
	return &vm.USBState{Port: d.Port, ID: d.ID, Name: d.Name, Rule: rule}, nil
}

// fdsetUSB is where the numbers of descriptor sets begin: behind the root disk's.
const fdsetUSB = 100

// takeNode opens a device for this VM alone.
func (s *usbPart) takeNode(d usb.Device) (*os.File, error) {
	name := s.launch.VM.Name
	path := filepath.Join(s.launch.Parts.USBNodes, d.Node)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, openFailure(name, d, path, err)
	}
	free, err := vm.TryLock(f)
	switch {
	case err != nil:
		err = vm.Failf("VM %s: usb %s: %v", name, d.Port, err)
	case !free:
		err = vm.Failf("VM %s: usb %s: is in another VM; detach it there first (see vix usb list)", name, d.Port)
	default:
		if err = s.sameDevice(f, d); err == nil {
			return f, nil
		}
	}
	f.Close()
	return nil, err
}

// sameDevice makes sure that an open node is the device that was chosen: its number may
// be another's since it was looked at. What the descriptor says of itself cannot change.
func (s *usbPart) sameDevice(node *os.File, d usb.Device) error {
	changed := vm.Failf("VM %s: usb %s: is no longer the device that was chosen; see vix usb list, and try again", s.launch.VM.Name, d.Port)
	all, err := s.hostUSB()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(x usb.Device) bool {
		return x.Port == d.Port && x.ID == d.ID && x.Node == d.Node && x.Hub == d.Hub
	}) {
		return changed
	}
	st, err := node.Stat()
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeCharDevice == 0 {
		return nil // of a test; /dev is root's
	}
	said, err := usb.Identify(node)
	if err != nil {
		return vm.Failf("VM %s: usb %s: %v", s.launch.VM.Name, d.Port, proc.Cause(err))
	}
	if said.ID != d.ID || said.Hub != d.Hub {
		return changed
	}
	return nil
}

// openFailure says what to do about a device that cannot be opened.
func openFailure(name string, d usb.Device, path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return vm.Failf("VM %s: usb %s: %v", name, d.Port, err)
	}
	file, rule := usb.Rule(d)
	return vm.Failf("VM %s: usb %s: you may not open %s; as root, put this line into %s, run udevadm control --reload, and plug the device in again: %s", name, d.Port, path, file, rule)
}

// plugController plugs the controller in, with the first device.
func (s *usbPart) plugController() error {
	if s.controller {
		return nil
	}
	err := s.machine.monitor.Execute("device_add", map[string]any{"driver": "qemu-xhci", "id": qemu.USBController, "bus": qemu.USBPort, "p2": config.MaxUSB, "p3": config.MaxUSB}, nil)
	s.controller = err == nil
	return err
}

// plugUSB has QEMU take the device, of which node is nil if QEMU emulates it.
func (s *usbPart) plugUSB(d usbDevice, node *os.File) error {
	args := map[string]any{"id": d.id, "bus": qemu.USBController + ".0"}
	if node == nil {
		args["driver"] = strings.TrimPrefix(d.Port, "qemu:")
		return s.machine.monitor.Execute("device_add", args, nil)
	}
	if err := s.machine.monitor.Call(node, "add-fd", map[string]any{"fdset-id": d.fdset}, nil); err != nil {
		return err
	}
	args["driver"], args["hostdevice"] = "usb-host", fmt.Sprintf("/dev/fdset/%d", d.fdset)
	err := s.machine.monitor.Execute("device_add", args, nil)
	if err != nil {
		err = errors.Join(err, s.dropNode(d))
	}
	return err
}

func (s *usbPart) dropNode(d usbDevice) error {
	if d.fdset == 0 {
		return nil
	}
	return s.machine.monitor.Execute("remove-fd", map[string]any{"fdset-id": d.fdset}, nil)
}

// sendDrivers has the guest load the drivers of the controller and of these aliases, of
// the kernel that it booted.
func (s *usbPart) sendDrivers(aliases []string) error {
	drivers, err := findDrivers(s.launch, aliases)
	if err != nil || len(drivers) == 0 {
		return err
	}
	var modules []agent.Module
	var images bytes.Buffer
	for _, d := range drivers {
		modules = append(modules, agent.Module{Image: len(d.Image), Signature: len(d.Signature)})
		images.Write(d.Image)
		images.Write(d.Signature)
	}
	return s.guest.runOwn(agent.Request{Drivers: &agent.Drivers{Modules: modules}}, &images)
}

// findDrivers is a variable because the tests' guest has no kernel of its own.
var findDrivers = func(l vm.Launch, aliases []string) ([]boot.Driver, error) {
	kernel, err := findKernel(l)
	if err != nil {
		return nil, err
	}
	return boot.Drivers(kernel, []string{"xhci_pci"}, aliases)
}

// detach takes back the device that text names.
func (s *usbPart) detach(text string) (*vm.USBState, error) {
	want, err := config.ParseUSB(text)
	if err != nil && !EmulatedUSB(text) {
		return nil, vm.Failf("VM %s: usb: %v", s.launch.VM.Name, err)
	}
	return s.drop(func(d usbDevice) bool {
		return d.Port == text || d.Port == want.Port || want.ID != "" && d.ID == want.ID
	}, plain.Text(text, vm.MaxTitle, plain.OneLine))
}

// drop unplugs the first device that is meant.
func (s *usbPart) drop(meant func(usbDevice) bool, text string) (*vm.USBState, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	i := slices.IndexFunc(s.list, meant)
	if i < 0 {
		return nil, vm.Failf("VM %s: usb %s: the VM has no such device; see vix usb list", s.launch.VM.Name, text)
	}
	d := s.list[i]
	if err := errors.Join(s.machine.deleteDevice(d.id), s.dropNode(d)); err != nil {
		return nil, vm.Failf("VM %s: usb %s: %v", s.launch.VM.Name, d.Port, err)
	}
	s.list = slices.Delete(s.list, i, i+1)
	s.show()
	s.log.Printf("vix", "usb %s is the host's again", d.Port)
	return &vm.USBState{Port: d.Port, ID: d.ID, Name: d.Name, Rule: d.rule}, nil
}

// show brings the state up to date.
func (s *usbPart) show() {
	s.update(func(st *vm.State) {
		st.USB = []vm.USBState{}
		for _, d := range s.list {
			st.USB = append(st.USB, vm.USBState{Port: d.Port, ID: d.ID, Name: d.Name, Rule: d.rule})
		}
	})
}

func (s *usbPart) devices() []qemu.Device { return []qemu.Device{qemu.USB()} }

// run attaches what the configuration names and is there.
func (s *usbPart) run(context.Context) {
	if len(s.launch.VM.USB) == 0 {
		return
	}
	s.watch()
	all, err := s.hostUSB()
	if err != nil {
		s.note("%v", s.failure(err))
		return
	}
	for _, d := range all {
		s.ruleDevice(all, d.Port)
	}
}

// ruleDevice attaches the device at a port, if the configuration names it and the VM does
// not have it.
func (s *usbPart) ruleDevice(all []usb.Device, port string) {
	for _, want := range s.launch.VM.USB {
		for _, d := range usb.Matching(all, want) {
			has := slices.ContainsFunc(s.snapshot().USB, func(x vm.USBState) bool { return x.Port == port })
			if d.Port != port || has {
				continue
			}
			if _, err := s.add(d, true); err != nil {
				s.note("%v", s.failure(err))
			}
		}
	}
}

// watch begins to listen for devices that come and go, once.
func (s *usbPart) watch() {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.watched {
		return
	}
	s.watched = true
	events, err := listenUSB(s.launch.Parts.System)
	if err != nil {
		s.note("VM %s: usb: cannot see devices being plugged in or removed: %v", s.launch.VM.Name, err)
		return
	}
	unhook := context.AfterFunc(s.ctx, func() { events.Close() })
	s.pumps.Go(func() {
		defer events.Close()
		defer unhook()
		buf := make([]byte, 16<<10)
		for {
			n, err := events.Read(buf)
			switch {
			case errors.Is(err, unix.ENOBUFS): // some were lost
				continue
			case err != nil:
				return
			}
			s.usbEvent(buf[:n])
		}
	})
}

func (s *usbPart) usbEvent(b []byte) {
	e, ok := usb.ParseEvent(b)
	switch {
	case !ok:
	case e.Action == "add":
		if all, err := s.hostUSB(); err == nil {
			s.ruleDevice(all, e.Port)
		}
	case e.Action == "remove":
		if slices.ContainsFunc(s.snapshot().USB, func(x vm.USBState) bool { return x.Port == e.Port }) {
			if _, err := s.drop(func(d usbDevice) bool { return d.Port == e.Port }, e.Port); err != nil {
				s.log.Printf("vix", "%v", err)
			}
		}
	}
}

// listenUSB opens the channel of device events (netlink(7)): udev's, where it runs, for
// only then is a node what its rules make of it; else the kernel's own.
func listenUSB(system string) (*os.File, error) {
	group := uint32(1)
	if _, err := os.Stat(filepath.Join(system, "run/udev/control")); err == nil {
		group = 2
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: group}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "device events"), nil
}
