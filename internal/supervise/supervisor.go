package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/proc"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// Limits of time. A limit says where patience ends, never how long something takes:
// the supervisor waits for the event itself.
const (
	firstClientLimit = 10 * time.Second       // for a first client, before the supervisor leaves
	startLimit       = 4 * time.Minute        // for a guest to be ready, on a slow machine without KVM
	settleLimit      = 150 * time.Millisecond // for the other deaths that one death brings, to name the first
	explainLimit     = 2 * time.Second        // and for one that explains what ended as if all were well
	powerOffLimit    = 4 * time.Second        // for a guest to switch itself off; its programs get one of it
	endLimit         = 1 * time.Second        // for a child to end after what it served has ended
	answerLimit      = 2 * time.Second        // for a client to take its last reply
)

// A supervisor owns one VM. Its goroutines are: run, one accept loop, one for
// each connection and each program, one reader for each child's output, the
// agent's pump, and the display's event reader; run returns after all of them.
type supervisor struct {
	*host
	parts      []part // in the order in which they start
	startCount int    // parts whose start was called
	display    *displayPart
	root       *rootPart
	shares     *sharesPart
	usb        *usbPart
	machine    *machine
	guest      *guest

	broker  *broker
	placer  *placer
	folders *folders
	bound   *memoryBound
	// guestFile is vix-guest as it was when the VM began, or nil; launch has its path.
	guestFile *os.File

	clients   sync.WaitGroup // connections
	running   sync.WaitGroup // programs, and runs that may still start one
	gone      chan struct{}  // closed when the directory is removed
	first     chan struct{}  // closed by the first client
	once      sync.Once
	forced    chan struct{} // closed by a forced stop
	forceOnce sync.Once
	users     int // running programs and runs under way; under mu
}

// Reasons for a VM's end that are no failures.
var (
	errIdle   = errors.New("its last program has ended")
	errStop   = errors.New("stopped")
	errForced = errors.New("stopped by force")
	errNobody = errors.New("nobody asked for a program")
)

// Run is the body of a supervisor process. It reads its Launch from spec, serves the
// clients of listener, and holds lock until it returns; by then every process and file of
// the VM is gone. The end of ctx stops the VM. desktop.Place runs beside the VM until the
// VM ends, to put its windows where they belong.
func Run(ctx context.Context, spec io.Reader, lock, listener *os.File, desktop Desktop) error {
	defer lock.Close()
	var l vm.Launch
	if err := json.NewDecoder(io.LimitReader(spec, vm.MaxFrame)).Decode(&l); err != nil {
		return fmt.Errorf("supervise: launch: %w", err)
	}
	s, err := newSupervisor(l, desktop)
	if err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	ln, err := listen(listener)
	if err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	return s.run(ctx, ln)
}

// listen takes over a socket that the launcher has bound. It calls listen(2) again, so that
// clients see this process's id (SO_PEERCRED is that of the last listen).
func listen(socket *os.File) (*net.UnixListener, error) {
	defer socket.Close()
	if err := unix.Listen(int(socket.Fd()), unix.SOMAXCONN); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	ln, err := net.FileListener(socket)
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

// A Place puts the VM's windows where they belong. requests gets the time of each run that
// came with an activation token: whoever started it wants to see its window. The error
// becomes a line in the VM's log; the VM does not depend on it.
type Place func(ctx context.Context, l vm.Launch, requests <-chan time.Time) error

func newSupervisor(l vm.Launch, desktop Desktop) (*supervisor, error) {
	if err := config.CheckName(l.VM.Name); err != nil {
		return nil, err
	}
	reg, err := vm.OpenRegistry(l.RuntimeDir)
	if err != nil {
		return nil, err
	}
	reg.StateDir = l.StateDir
	dir, err := reg.Root.OpenRoot(l.VM.Name)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	j, err := proc.OpenJournal(dir, now)
	if err != nil {
		return nil, err
	}
	n := proc.NewNest(l.Parts.Self, l.Parts.Proxy)
	guestFile, _ := os.Open(l.Parts.Guest) // whoever needs it says why not
	if guestFile != nil {
		l.Parts.Guest = fmt.Sprintf("/proc/self/fd/%d", guestFile.Fd())
	}
	s := &supervisor{
		host: &host{
			launch: l, reg: reg, dir: dir, log: j, nest: n, uid: os.Getuid(),
			troubles: make(chan trouble, 8), changed: make(chan struct{}),
			state: vm.State{
				Name: l.VM.Name, State: vm.StateStarting, Vix: l.Version, Tag: l.VM.Tag, Color: l.VM.Color, Root: l.VM.Root,
				Memory: uint64(l.VM.Memory), CPUs: l.VM.CPUs, Started: now,
				PIDs:     vm.PIDs{Supervisor: os.Getpid()},
				Programs: []vm.Program{}, Windows: []vm.Window{}, Stages: []vm.Stage{}, Notes: []string{}, Shares: []vm.ShareState{},
				Net: vm.NetOf(l.VM), USB: []vm.USBState{}, USBRules: vm.USBRulesOf(l.VM), Clipboard: l.VM.Clipboard, Display: vm.DisplayOf(l.VM),
			},
		},
		guestFile: guestFile,
		gone:      make(chan struct{}), first: make(chan struct{}), forced: make(chan struct{}),
	}
	s.compose(desktop)
	return s, nil
}

// compose makes the VM's parts, in the order in which they start, and in which QEMU has
// their devices:
//
//	channel   the agent's channel   ─┐
//	boot      kernel and initramfs   │
//	display   vix-waylandproxy host ─┤
//	root      virtiofsd, or an image ┤
//	network   passt                 ─┼─ devices
//	memory    the balloon           ─┤
//	usb       an empty port         ─┤
//	shares    a virtiofsd for each  ─┤
//	machine   QEMU, QMP            ◄─┘
//	guest     the agent: boot … ready, and who takes the guest's calls
//	flow      while the VM runs
func (s *supervisor) compose(desktop Desktop) {
	h := s.host
	s.broker = newBroker(h)
	s.folders, s.bound = &folders{host: h}, &memoryBound{host: h}
	channel := &channelPart{host: h}
	boot := &bootPart{host: h, channel: channel, accelerator: chooseAccel(h.launch)}
	s.machine = &machine{host: h, boot: boot, unplugs: map[string]chan struct{}{}}
	s.guest = &guest{host: h, channel: channel, desktop: desktop, probes: make(chan struct{}, 1), calls: map[agent.CallKind]agent.Handler{}}
	if h.launch.VM.Net == config.NetNAT {
		s.guest.calls[agent.CallNames] = (&nameServer{host: h, guest: s.guest}).handler()
	}
	s.display = &displayPart{host: h, broker: s.broker}
	s.root = &rootPart{host: h, folders: s.folders}
	s.shares = &sharesPart{host: h, folders: s.folders, bound: s.bound, machine: s.machine, guest: s.guest}
	s.usb = &usbPart{host: h, machine: s.machine, guest: s.guest}
	network := newNetwork(h, s.machine)
	memory := &memoryPart{host: h, machine: s.machine}
	s.machine.network, s.guest.shares = network, s.shares
	s.machine.parts = []part{channel, s.display, s.root, network, memory, s.usb, s.shares}
	s.parts = append([]part{channel, boot}, s.machine.parts[1:]...)
	s.parts = append(s.parts, s.machine, s.guest, &flowPart{host: h, broker: s.broker})
	if desktop.Place != nil {
		s.placer = &placer{host: h, broker: s.broker, place: desktop.Place, requests: make(chan time.Time, 1)}
	}
}

// run is the VM's life.
func (s *supervisor) run(ctx context.Context, ln *net.UnixListener) error {
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.cancel(nil)
	s.noteConfinement("supervisor", os.Getpid(), sandbox.ConfineStarter())
	go s.nest.Run()
	ln.SetUnlinkOnClose(false)
	s.update(func(*vm.State) {})
	s.clients.Go(func() { s.accept(ln) })
	if s.placer != nil {
		s.clients.Go(func() { s.placer.keep(s.ctx) })
	}

	err := s.waitFirst()
	leave := func() error { return nil }
	if err == nil {
		leave = s.bound.enterScope(s.machine.boot.accel != "kvm")
		err = s.start()
	}
	if err == nil {
		err = s.watch()
	}
	s.cancel(err) // the first cause stays
	return errors.Join(s.end(ln), leave())
}

func (s *supervisor) waitFirst() error {
	t := time.NewTimer(firstClientLimit)
	defer t.Stop()
	select {
	case <-s.first:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case <-t.C:
		return errNobody
	}
}

// start brings the VM up, part by part.
func (s *supervisor) start() error {
	for _, p := range s.parts {
		s.startCount++
		if err := p.start(); err != nil {
			return s.failure(err)
		}
	}
	return nil
}

// watch is the state running: until a stop, the last program's end, or trouble.
func (s *supervisor) watch() error {
	for _, p := range s.parts {
		s.pumps.Go(func() { p.run(s.ctx) })
	}
	s.update(func(st *vm.State) {
		st.State = vm.StateRunning
		if s.users == 0 {
			s.cancel(errIdle)
		}
	})
	select {
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case t := <-s.troubles:
		return s.settle(t)
	}
}

// end is the state stopping. It asks the guest to switch itself off, if an answer can be
// expected; then it stops the parts, the last one first.
func (s *supervisor) end(ln *net.UnixListener) error {
	cause := context.Cause(s.ctx)
	wasRunning := false
	s.update(func(st *vm.State) {
		wasRunning = st.State == vm.StateRunning
		st.State = vm.StateStopping
	})
	s.log.Printf("vix", "stopping: %v", cause)
	graceful := wasRunning && s.planned() && s.powerOff()
	var errs []error
	for _, p := range slices.Backward(s.parts[:s.startCount]) {
		errs = append(errs, p.stop(graceful))
	}
	s.pumps.Wait()
	s.running.Wait() // until every run has sent its last reply
	s.nest.Close()
	proc.CloseFiles([]*os.File{s.guestFile})
	errs = append(errs, s.log.Close())
	if !errors.Is(cause, errNobody) {
		// While clients can connect: who finds nobody listening finds the log kept.
		errs = append(errs, s.reg.KeepLog(s.launch.VM.Name))
	}
	errs = append(errs, ln.Close())
	errs = append(errs, s.reg.RemoveDir(context.WithoutCancel(s.ctx), s.launch.VM.Name))
	close(s.gone)
	s.clients.Wait()
	errs = append(errs, s.dir.Close(), s.reg.Close())
	return errors.Join(errs...)
}

// planned reports whether the VM ends on purpose, and not by a failure.
func (s *supervisor) planned() bool {
	cause := context.Cause(s.ctx)
	return errors.Is(cause, errIdle) || errors.Is(cause, errStop) || errors.Is(cause, context.Canceled)
}

// powerOff lets the guest end its programs and switch itself off. When the guest does not,
// it hangs, or something that it waits for does: then powerOff returns false, and the caller
// kills everything without waiting. A second stop, by force, cuts the wait short.
func (s *supervisor) powerOff() bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), powerOffLimit)
	defer cancel()
	go func() {
		select {
		case <-s.forced:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := s.guest.agent.PowerOff(ctx); err != nil {
		s.log.Printf("vix", "power off: %v", err)
		return false
	}
	s.machine.child.End(endLimit)
	return true
}
