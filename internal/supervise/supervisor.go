package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/sandbox"
	"vix/internal/scope"
	"vix/internal/vm"
)

// Limits of time. A limit is where patience ends, never how long something
// takes: everything is waited for by its event.
const (
	firstClientLimit = 10 * time.Second       // a supervisor that nobody asks for anything leaves
	startLimit       = 4 * time.Minute        // for a guest to be ready, on a slow machine without KVM
	settleLimit      = 150 * time.Millisecond // for the other deaths that one death brings, to name the first
	powerOffLimit    = 4 * time.Second        // for a guest to switch itself off; its programs get one of it
	endLimit         = 1 * time.Second        // for a child to end after what it served has ended
	answerLimit      = 2 * time.Second        // for a client to take its last reply
)

// A supervisor owns one VM. Its goroutines are: run, one accept loop, one for
// each connection and each program, one reader for each child's output, the
// agent's pump, and the display's event reader; run returns after all of them.
type supervisor struct {
	launch  vm.Launch
	desktop Desktop
	asked   chan time.Time // of desktop.Place; holds one
	reg     *vm.Registry
	dir     *os.Root
	log     *proc.Journal
	nest    *proc.Nest
	broker  *broker
	uid     int
	// guestFile is vix-guest as it was when the VM began, or nil; launch names it.
	guestFile *os.File

	ctx    context.Context // ends when the VM has to end; its cause says why
	cancel context.CancelCauseFunc

	guest     *agent.Host
	monitor   *qemu.Monitor
	qemu      *proc.Child
	console   proc.Tail      // the guest's last words
	troubles  chan trouble   // ends of children and of the agent channel
	closers   []func() error // undo what start did, last first
	graceful  bool           // end's word to the closers: what was asked to end may still be at it
	pumps     sync.WaitGroup // agent and display events
	clients   sync.WaitGroup // connections
	running   sync.WaitGroup // programs, and runs that may still become one
	gone      chan struct{}  // closed when the directory is removed
	first     chan struct{}  // closed by the first client
	once      sync.Once
	forced    chan struct{} // closed by a stop that will not wait
	forceOnce sync.Once

	store       *vm.Store     // nil if the VM keeps nothing
	kept        *vm.KeptState // nil if it keeps no home
	shareTurn   sync.Mutex    // held by whoever adds or takes away a share
	sharesEnded bool          // under shareTurn, as is
	stuckPorts  [config.MaxShares]bool
	serving     sync.Mutex // held while a virtiofsd is started: the socket's name is one

	probes       chan struct{} // holds one; see probe
	stopReason   string        // of the monitor's events alone
	shortages    shortages
	windowLosses windowLosses
	programs     programs // under mu

	usb   usbDevices
	bound memoryBound

	saving sync.Mutex // held by whoever writes state.json; before mu

	mu    sync.Mutex
	state vm.State
	// traffic asks what the guest has said of its network last; nil until it can speak.
	traffic func() agent.Traffic
	shares  []*share       // changed under shareTurn too
	folders []sharedFolder // of shares that are, or are being made
	// unplugged are the devices that are being unplugged; closed when QEMU says so.
	unplugged map[string]chan struct{}
	silent    bool          // the guest does not answer
	users     int           // programs that run, and runs on their way
	changed   chan struct{} // closed and replaced at every change of state
	lastID    int
	// displayControl is the display's control channel while it runs.
	displayControl *os.File
}

// Why a VM ends without having failed.
var (
	errIdle   = errors.New("its last program has ended")
	errStop   = errors.New("stopped")
	errForced = errors.New("stopped by force")
	errNobody = errors.New("nobody asked for a program")
)

// Supervise is the body of a supervisor process: it reads its Launch from
// spec, serves the clients of listener, and holds lock until it returns, when
// every process and file of the VM is gone. ctx ending stops the VM. desktop.Place runs
// beside the VM, until it ends, to put its windows where they belong.
func Run(ctx context.Context, spec io.Reader, lock, listener *os.File, desktop Desktop) error {
	defer lock.Close()
	var l vm.Launch
	if err := json.NewDecoder(io.LimitReader(spec, vm.MaxFrame)).Decode(&l); err != nil {
		return fmt.Errorf("supervise: launch: %w", err)
	}
	s, err := newSupervisor(l)
	if err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	// The launcher has bound the socket. Listening again makes this process the
	// one whose id a client sees (SO_PEERCRED is that of the last listen).
	if err := unix.Listen(int(listener.Fd()), unix.SOMAXCONN); err != nil {
		return fmt.Errorf("supervise: listen: %w", err)
	}
	ln, err := net.FileListener(listener)
	listener.Close()
	if err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	s.desktop = desktop
	return s.run(ctx, ln.(*net.UnixListener))
}

// A Place puts the VM's windows where they belong. asked gets the time of each run
// that came with an activation token: whoever started it wants to see its window. The
// error is a line in the VM's log; the VM does not depend on it.
type Place func(ctx context.Context, l vm.Launch, asked <-chan time.Time) error

func newSupervisor(l vm.Launch) (*supervisor, error) {
	if err := config.CheckName(l.VM.Name); err != nil {
		return nil, err
	}
	reg, err := vm.OpenRegistry(l.RuntimeDir)
	if err != nil {
		return nil, err
	}
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
	guest, _ := os.Open(l.Parts.Guest) // whoever needs it says why not
	if guest != nil {
		l.Parts.Guest = fmt.Sprintf("/proc/self/fd/%d", guest.Fd())
	}
	return &supervisor{
		guestFile: guest,
		launch:    l, reg: reg, dir: dir, log: j, nest: n, uid: os.Getuid(),
		broker: &broker{
			session: vm.Session{Wayland: l.Wayland, Sway: l.Sway}, listener: reg.Socket(l.VM.Name, waylandName).Name, dir: dir, renewed: make(chan struct{}),
		},
		troubles: make(chan trouble, 8), asked: make(chan time.Time, 1), probes: make(chan struct{}, 1),
		gone: make(chan struct{}), first: make(chan struct{}), changed: make(chan struct{}),
		forced: make(chan struct{}), unplugged: map[string]chan struct{}{},
		state: vm.State{
			Name: l.VM.Name, State: vm.StateStarting, Vix: l.Version, Tag: l.VM.Tag, Color: l.VM.Color, Root: l.VM.Root,
			Memory: uint64(l.VM.Memory), CPUs: l.VM.CPUs, Started: now,
			PIDs:     vm.PIDs{Supervisor: os.Getpid()},
			Programs: []vm.Program{}, Windows: []vm.Window{}, Stages: []vm.Stage{}, Notes: []string{}, Shares: []vm.ShareState{},
			Net: vm.NetState{Kind: l.VM.Net, Publish: []string{}}, USB: []vm.USBState{},
		},
	}, nil
}

// run is the VM's life.
func (s *supervisor) run(ctx context.Context, ln *net.UnixListener) error {
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.cancel(nil)
	s.confined("supervisor", os.Getpid(), sandbox.ConfineStarter())
	go s.nest.Run()
	ln.SetUnlinkOnClose(false)
	s.update(func(*vm.State) {})
	s.clients.Go(func() { s.accept(ln) })
	if s.desktop.Place != nil {
		s.clients.Go(func() { s.keepPlace(s.ctx) })
	}

	err := s.waitFirst()
	leave := func() error { return nil }
	if err == nil {
		leave = s.enterScope()
		err = s.start()
	}
	if err == nil {
		err = s.watch()
	}
	s.cancel(err) // the first cause stays
	return errors.Join(s.end(ln), leave())
}

// scopeLimit bounds the wait for the session's systemd, without which it works as well.
const scopeLimit = 3 * time.Second

// enterScope puts this process, and so all that it will start, into a control group of
// the VM's. The function leaves it, when the others have ended.
func (s *supervisor) enterScope() (leave func() error) {
	ctx, cancel := context.WithTimeout(s.ctx, scopeLimit)
	defer cancel()
	v := s.launch.VM
	accel, _, _ := s.chooseAccel() // start says what is wrong with it
	b := budgetOf(v, accel != "kvm")
	sc := scope.Enter(ctx, scope.Config{Name: v.Name, Weight: v.CPUWeight, Memory: b.Max(), PID: os.Getpid(), Bus: s.launch.Bus, Proc: s.launch.Parts.Proc})
	s.bound.Lock()
	s.bound.group, s.bound.budget = sc, b
	s.bound.Unlock()
	s.log.Printf("vix", "control group: %s %s", sc.Kind, sc.Name)
	if sc.Memory > 0 {
		s.log.Printf("vix", "control group: the bound of its memory is %d MiB", sc.Memory>>20)
	}
	for _, w := range sc.Weaker {
		s.log.Add("vix", "control group: "+w)
	}
	s.update(func(st *vm.State) { st.Scope = &sc })
	return sc.Leave
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

// watch is the state running: until a stop, the last program's end, or trouble.
func (s *supervisor) watch() error {
	s.update(func(st *vm.State) {
		st.State = vm.StateRunning
		if s.users == 0 {
			s.cancel(errIdle)
		}
	})
	s.pumps.Go(func() { s.keepMemory(s.ctx) })
	s.pumps.Go(func() { s.keepAnswer(s.ctx) })
	s.pumps.Go(s.ruleUSB)
	s.pumps.Go(func() { s.keepFlow(s.ctx) })
	select {
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case t := <-s.troubles:
		return s.settle(t)
	}
}

// end is the state stopping: the guest is asked, if there is reason to hope
// for an answer; then everything is ended, last first.
func (s *supervisor) end(ln *net.UnixListener) error {
	cause := context.Cause(s.ctx)
	wasRunning := false
	s.update(func(st *vm.State) {
		wasRunning = st.State == vm.StateRunning
		st.State = vm.StateStopping
	})
	s.log.Printf("vix", "stopping: %v", cause)
	if s.graceful = wasRunning && s.planned(); s.graceful {
		s.powerOff()
	}
	var errs []error
	for _, undo := range slices.Backward(s.closers) {
		errs = append(errs, undo())
	}
	s.pumps.Wait()
	s.running.Wait() // every run has its last word
	s.nest.Close()
	proc.CloseFiles([]*os.File{s.guestFile})
	errs = append(errs, s.log.Close(), ln.Close())
	errs = append(errs, s.reg.RemoveDir(context.WithoutCancel(s.ctx), s.launch.VM.Name))
	close(s.gone)
	s.clients.Wait()
	errs = append(errs, s.dir.Close(), s.reg.Close())
	return errors.Join(errs...)
}

// planned reports whether the VM ends because it is to end, and nothing failed.
func (s *supervisor) planned() bool {
	cause := context.Cause(s.ctx)
	return errors.Is(cause, errIdle) || errors.Is(cause, errStop) || errors.Is(cause, context.Canceled)
}

// powerOff lets the guest end its programs and switch itself off. When it does not, it
// hangs, or what it waits for does: then nothing is waited for any more, and all is
// killed. A second stop, by force, cuts the waiting short.
func (s *supervisor) powerOff() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), powerOffLimit)
	defer cancel()
	go func() {
		select {
		case <-s.forced:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := s.guest.PowerOff(ctx); err != nil {
		s.log.Printf("vix", "power off: %v", err)
		s.graceful = false
	} else if s.qemu != nil {
		s.qemu.End(endLimit)
	}
}

// undo registers what ends something that start began.
func (s *supervisor) undo(f func() error) { s.closers = append(s.closers, f) }

// A trouble is the end of something that a VM cannot live without.
type trouble struct {
	rank int // the most telling first; see settle
	err  *vm.Failure
}

// Ranks of troubles. One death brings others: when QEMU is killed, the display
// process and virtiofsd end as they should; when the guest switches itself off,
// all three do. What ended badly explains what ended well.
const (
	rankKilled     = iota // a child was killed
	rankGuest             // the guest said why, or broke the agent's protocol
	rankStopped           // QEMU has stopped the machine, and said why
	rankFailed            // a back end ended with an error
	rankQEMUFailed        // QEMU did: its own fault, if no back end failed it
	rankQEMUEnded         // QEMU ended as if all were well
	rankOther             // something ended as if all were well
)

// settle waits a moment for what else ends, and returns the failure that
// explains the rest.
func (s *supervisor) settle(first trouble) error {
	t := time.NewTimer(settleLimit)
	defer t.Stop()
	best := first
	for {
		select {
		case next := <-s.troubles:
			if next.rank < best.rank {
				best = next
			}
		case <-t.C:
			return best.err
		}
	}
}

func (s *supervisor) report(t trouble) {
	select {
	case s.troubles <- t:
	default: // there are more troubles than anybody needs to hear of
	}
}

// wait waits for something of the start, and no longer than the start may go on.
func (s *supervisor) wait(done <-chan error) error {
	select {
	case err := <-done:
		if err == nil {
			return nil
		}
		// A child's death, where there is one, explains a broken channel better.
		return s.settle(trouble{rankOther, s.failure(err)})
	case t := <-s.troubles:
		return s.settle(t)
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// failure makes err a line about this VM.
func (s *supervisor) failure(err error) *vm.Failure {
	var f *vm.Failure
	if errors.As(err, &f) {
		return f
	}
	return vm.Failf("VM %s: %v", s.launch.VM.Name, err)
}

// update changes the state, tells whoever waits for a change, and saves it. f is
// called with s.mu held.
func (s *supervisor) update(f func(*vm.State)) {
	s.mu.Lock()
	f(&s.state)
	s.changedLocked()
	s.mu.Unlock()
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	snapshot := s.cloneLocked() // at least as new as what another has written meanwhile
	s.mu.Unlock()
	if err := vm.SaveState(s.dir, snapshot); err != nil {
		s.log.Printf("vix", "%s: %v", vm.StateName, err)
	}
}

func (s *supervisor) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// stage notes that a part of the start is done.
func (s *supervisor) stage(name string, uptime time.Duration) {
	st := vm.Stage{Name: name, Seconds: time.Since(s.state.Started).Seconds(), Uptime: uptime.Seconds()}
	s.log.Printf("vix", "stage %s", name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.state.Stages) < vm.MaxVMStages {
		s.state.Stages = append(s.state.Stages, st)
		s.changedLocked()
	}
}

func (s *supervisor) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.log.Add("vix", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Notes = append(s.state.Notes, text)
	s.changedLocked()
}

// slogger returns a logger that writes to the VM's log under source.
func (s *supervisor) slogger(source string) *slog.Logger {
	return slog.New(slog.NewTextHandler(proc.LineWriter(func(line string) { s.log.Add(source, line) }),
		&slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{} // the log has its own
			}
			return a
		}}))
}
