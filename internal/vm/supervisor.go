package vm

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
	"vix/internal/sandbox"
	"vix/internal/scope"
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

// A Launch is all that a supervisor is given: it looks at no environment.
type Launch struct {
	Version    string            `json:"version"` // of Vix
	VM         config.VM         `json:"vm"`
	RuntimeDir string            `json:"runtime_dir"` // that holds vix/
	CacheDir   string            `json:"cache_dir"`   // for kernel and initramfs
	Wayland    string            `json:"wayland"`     // the compositor's socket
	Bus        string            `json:"bus"`         // D-Bus address of the session's bus; "" where there is none
	GuestEnv   []string          `json:"guest_env"`   // K=V for every program
	Warnings   []string          `json:"warnings"`    // for whoever starts a program while the VM starts
	Parts      Parts             `json:"parts"`
	RootsDir   string            `json:"roots_dir"`        // $XDG_CACHE_HOME/vix/roots, of roots that were built
	StateDir   string            `json:"state_dir"`        // $XDG_STATE_HOME, that holds vix/; "" where there is none
	Drags      []config.DragRule `json:"drags,omitempty"`  // the clipboard's rules, for the display process
	ConfigDir  string            `json:"config_dir"`       // $XDG_CONFIG_HOME, that holds vix/, for the clipboard's rules
	Private    []string          `json:"private"`          // directories of Vix's own, which are never shared
	Others     []SharedFolder    `json:"others,omitempty"` // the shares of the configuration's other VMs
	Sway       string            `json:"sway"`             // sway's IPC socket, or ""; for who places windows
}

// Parts are the paths of the programs and files of the host that a VM needs.
type Parts struct {
	Self      string `json:"self"` // vix-launcher
	QEMU      string `json:"qemu"`
	Virtiofsd string `json:"virtiofsd"`
	Proxy     string `json:"proxy"`     // vix-waylandproxy
	Guest     string `json:"guest"`     // vix-guest
	System    string `json:"system"`    // "/": where the kernel and the host's programs are
	KVM       string `json:"kvm"`       // /dev/kvm
	CPUInfo   string `json:"cpuinfo"`   // /proc/cpuinfo
	Proc      string `json:"proc"`      // /proc
	Pressure  string `json:"pressure"`  // /proc/pressure/memory; need not be there
	Passt     string `json:"passt"`     // "" if it is not installed
	Vhost     string `json:"vhost"`     // /dev/vhost-vsock
	Vsock     string `json:"vsock"`     // vhost-device-vsock; "" if it is not installed
	USB       string `json:"usb"`       // /sys/bus/usb/devices
	USBNodes  string `json:"usb_nodes"` // /dev/bus/usb
}

// A supervisor owns one VM. Its goroutines are: run, one accept loop, one for
// each connection and each program, one reader for each child's output, the
// agent's pump, and the display's event reader; run returns after all of them.
type supervisor struct {
	launch  Launch
	desktop Desktop
	asked   chan time.Time // of desktop.Place; holds one
	reg     *Registry
	dir     *os.Root
	log     *journal
	nest    *nest
	broker  *broker
	uid     int

	ctx    context.Context // ends when the VM has to end; its cause says why
	cancel context.CancelCauseFunc

	guest     *agent.Host
	monitor   *monitor
	qemu      *child
	console   tail           // the guest's last words
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

	store       *Store     // nil if the VM keeps nothing
	kept        *keptState // nil if it keeps no home
	shareTurn   sync.Mutex // held by whoever adds or takes away a share
	sharesEnded bool       // under shareTurn, as is
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
	state State
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
func Supervise(ctx context.Context, spec io.Reader, lock, listener *os.File, desktop Desktop) error {
	defer lock.Close()
	var l Launch
	if err := json.NewDecoder(io.LimitReader(spec, maxFrame)).Decode(&l); err != nil {
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
type Place func(ctx context.Context, l Launch, asked <-chan time.Time) error

func newSupervisor(l Launch) (*supervisor, error) {
	if err := config.CheckName(l.VM.Name); err != nil {
		return nil, err
	}
	reg, err := OpenRegistry(l.RuntimeDir)
	if err != nil {
		return nil, err
	}
	dir, err := reg.root.OpenRoot(l.VM.Name)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	j, err := openJournal(dir, now)
	if err != nil {
		return nil, err
	}
	n := newNest()
	n.held = holdPrograms(&l.Parts)
	return &supervisor{
		launch: l, reg: reg, dir: dir, log: j, nest: n, uid: os.Getuid(),
		broker: &broker{
			session: Session{l.Wayland, l.Sway}, listener: reg.socket(l.VM.Name, waylandName).Name, dir: dir, renewed: make(chan struct{}),
		},
		troubles: make(chan trouble, 8), asked: make(chan time.Time, 1), probes: make(chan struct{}, 1),
		gone: make(chan struct{}), first: make(chan struct{}), changed: make(chan struct{}),
		forced: make(chan struct{}), unplugged: map[string]chan struct{}{},
		state: State{
			Name: l.VM.Name, State: StateStarting, Vix: l.Version, Tag: l.VM.Tag, Color: l.VM.Color, Root: l.VM.Root,
			Memory: uint64(l.VM.Memory), CPUs: l.VM.CPUs, Started: now,
			PIDs:     PIDs{Supervisor: os.Getpid()},
			Programs: []Program{}, Windows: []Window{}, Stages: []Stage{}, Notes: []string{}, Shares: []ShareState{},
			Net: NetState{Kind: l.VM.Net, Publish: []string{}}, USB: []USBState{},
		},
	}, nil
}

// run is the VM's life.
func (s *supervisor) run(ctx context.Context, ln *net.UnixListener) error {
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.cancel(nil)
	s.confined("supervisor", os.Getpid(), sandbox.ConfineStarter())
	go s.nest.run()
	ln.SetUnlinkOnClose(false)
	s.update(func(*State) {})
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
	s.log.printf("vix", "control group: %s %s", sc.Kind, sc.Name)
	if sc.Memory > 0 {
		s.log.printf("vix", "control group: the bound of its memory is %d MiB", sc.Memory>>20)
	}
	for _, w := range sc.Weaker {
		s.log.add("vix", "control group: "+w)
	}
	s.update(func(st *State) { st.Scope = &sc })
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
	s.update(func(st *State) {
		st.State = StateRunning
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
	s.update(func(st *State) {
		wasRunning = st.State == StateRunning
		st.State = StateStopping
	})
	s.log.printf("vix", "stopping: %v", cause)
	if s.graceful = wasRunning && s.planned(); s.graceful {
		s.powerOff()
	}
	var errs []error
	for _, undo := range slices.Backward(s.closers) {
		errs = append(errs, undo())
	}
	s.pumps.Wait()
	s.running.Wait() // every run has its last word
	s.nest.close()
	errs = append(errs, s.log.close(), ln.Close())
	errs = append(errs, s.reg.remove(context.WithoutCancel(s.ctx), s.launch.VM.Name))
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
		s.log.printf("vix", "power off: %v", err)
		s.graceful = false
	} else if s.qemu != nil {
		s.qemu.end(endLimit)
	}
}

// undo registers what ends something that start began.
func (s *supervisor) undo(f func() error) { s.closers = append(s.closers, f) }

// A trouble is the end of something that a VM cannot live without.
type trouble struct {
	rank int // the most telling first; see settle
	err  *Failure
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
func (s *supervisor) failure(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return failf("VM %s: %v", s.launch.VM.Name, err)
}

// update changes the state, tells whoever waits for a change, and saves it. f is
// called with s.mu held.
func (s *supervisor) update(f func(*State)) {
	s.mu.Lock()
	f(&s.state)
	s.changedLocked()
	s.mu.Unlock()
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	snapshot := s.cloneLocked() // at least as new as what another has written meanwhile
	s.mu.Unlock()
	if err := saveState(s.dir, snapshot); err != nil {
		s.log.printf("vix", "%s: %v", stateName, err)
	}
}

func (s *supervisor) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// stage notes that a part of the start is done.
func (s *supervisor) stage(name string, uptime time.Duration) {
	st := Stage{Name: name, Seconds: time.Since(s.state.Started).Seconds(), Uptime: uptime.Seconds()}
	s.log.printf("vix", "stage %s", name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.state.Stages) < maxVMStages {
		s.state.Stages = append(s.state.Stages, st)
		s.changedLocked()
	}
}

func (s *supervisor) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.log.add("vix", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Notes = append(s.state.Notes, text)
	s.changedLocked()
}

// slogger returns a logger that writes to the VM's log under source.
func (s *supervisor) slogger(source string) *slog.Logger {
	return slog.New(slog.NewTextHandler(lineWriter(func(line string) { s.log.add(source, line) }),
		&slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{} // the log has its own
			}
			return a
		}}))
}
