package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/boot"
	"vix/internal/display"
	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/rootfs"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// start brings the VM up, in the order in which the parts need each other;
// what it began, the closers end in the reverse order.
//
//  0. the agent's channel        openChannel
//  1. kernel and initramfs       prepareBoot
//  2. vix-waylandproxy host      startDisplay ─┐
//  3. virtiofsd                  startRoot   ──┤
//     one for each folder        startShares ──┤
//     passt                      startNetwork ─┼─ sockets
//  4. QEMU                       startQEMU  ◄──┘
//  5. QMP                        connectQMP
//  6. agent: boot … ready        bootGuest
func (s *supervisor) start() error {
	accel, slow, err := s.chooseAccel()
	if err != nil {
		return err
	}
	channel, err := s.openChannel()
	if err != nil {
		return s.failure(err)
	}
	s.undo(func() error { channel.close(); return nil })
	s.update(func(st *vm.State) { st.Channel = channel.state() })
	files, err := prepareBoot(s.ctx, s.launch, channel.state().Kind == config.ChannelVsock, func(text string) { s.log.Add("vix", text) })
	if err != nil {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		return s.failure(err)
	}
	debug.FreeOSMemory() // a kernel was read: 20 MiB that are never needed again
	if slow != "" {
		s.note("%s", slow)
	}
	for _, w := range s.launch.Warnings {
		s.note("%s", w)
	}
	s.stage("prepared", 0)
	var display *os.File
	if !s.launch.VM.NoGUI {
		if display, err = s.startDisplay(); err != nil {
			return s.failure(err)
		}
	}
	root, format, err := s.startRoot()
	if err != nil {
		proc.CloseFiles([]*os.File{display})
		return s.failure(err)
	}
	err = s.startShares()
	if err == nil {
		err = s.checkPlaces()
	}
	if err != nil {
		proc.CloseFiles([]*os.File{display, root})
		return s.failure(err)
	}
	net, netEnd, err := s.startNetwork()
	if err != nil {
		s.closeShares()
		proc.CloseFiles([]*os.File{display, root})
		return s.failure(err)
	}
	if err := s.startQEMU(qemuParts{accel, files, display, root, format, net, netEnd, channel}); err != nil {
		return s.failure(err)
	}
	s.stage("qemu", 0)
	conn, err := s.connectGuest(channel)
	if err != nil {
		return err
	}
	return s.bootGuest(conn)
}

// prepareBoot finds the host's kernel and makes what QEMU boots. A variable,
// because the tests' QEMU boots nothing.
var prepareBoot = func(ctx context.Context, l vm.Launch, vsock bool, progress func(string)) (boot.Files, error) {
	kernel, err := findKernel(l)
	if err != nil {
		return boot.Files{}, err
	}
	return boot.Prepare(ctx, boot.Config{Kernel: kernel, Guest: l.Parts.Guest, CacheDir: l.CacheDir,
		Disk: strings.HasPrefix(l.VM.Root, config.RootImage), Net: l.VM.Net == config.NetNAT, Vsock: vsock, Progress: progress})
}

func findKernel(l vm.Launch) (boot.Kernel, error) {
	if l.VM.Kernel != "" {
		return boot.NamedKernel(l.VM.Kernel, l.VM.Initrd, l.Parts.System)
	}
	return boot.FindKernel(l.Parts.System)
}

// startDisplay starts the display process, and returns QEMU's end of its
// vhost-user socket.
func (s *supervisor) startDisplay() (*os.File, error) {
	var ours, theirs []*os.File
	pair := func(o, t *os.File, err error) error {
		if err == nil {
			ours, theirs = append(ours, o), append(theirs, t)
		}
		return err
	}
	broker, brokerEnd, err := brokerFiles()
	if err == nil {
		err = errors.Join(pair(proc.Socketpair("display")), pair(os.Pipe()), pair(display.NewDisplayControl()))
	}
	if err != nil {
		proc.CloseFiles(append(ours, theirs...))
		if broker != nil {
			err = errors.Join(err, broker.Close(), brokerEnd.Close())
		}
		return nil, err
	}
	l := s.launch
	d := display.Display{
		VM: l.VM.Name, Tag: l.VM.Tag, Color: l.VM.Color, Frame: l.VM.Frame,
		Allow: l.VM.Allow, Deny: l.VM.Deny, Limits: l.VM.Limits, Drags: l.Drags,
		VhostFD: 3, EventsFD: 4, ControlFD: 5, BrokerFD: 6,
	}
	child, err := proc.Start(s.nest, s.log, proc.Command{
		Name: displayChild, Path: l.Parts.Proxy, Args: d.Args(), Files: append(theirs, brokerEnd),
		Own: sandbox.Attr(s.uid, os.Getgid()),
	})
	if err != nil {
		proc.CloseFiles(ours)
		return nil, errors.Join(err, broker.Close())
	}
	qemuEnd, events, ctl := ours[0], ours[1], ours[2]
	s.setDisplayControl(ctl)
	s.pumps.Go(func() {
		defer events.Close()
		s.readEvents(events, child.Cmd.Process.Pid)
	})
	s.pumps.Go(func() { s.serveBroker(broker) })
	s.own(child, "the display process ended", func(p *vm.PIDs) *int { return &p.Display })
	// Something else may hold the pipe: the reader must not outlive the process.
	s.pumps.Go(func() {
		<-child.Done
		_ = events.SetReadDeadline(time.Now().Add(proc.DrainLimit))
		s.setDisplayControl(nil)
		ctl.Close()
		broker.Close()
	})
	return qemuEnd, nil
}

// startRoot returns what QEMU makes the root's device of: a connection to virtiofsd,
// which it starts, or an image, with its format.
func (s *supervisor) startRoot() (root *os.File, format string, err error) {
	l := s.launch
	from, err := rootfs.FindRoot(l.VM.Root, l.VM.Packages, l.RootsDir)
	if err != nil {
		return nil, "", err
	}
	s.stampPrograms(from)
	if from.Disk != "" {
		return openImage(from.Disk)
	}
	cmd, spec, err := s.rootCommand(from)
	if err != nil {
		return nil, "", err
	}
	qemuEnd, child, err := s.serveFolder(cmd, spec)
	if err != nil {
		return nil, "", err
	}
	s.own(child, "virtiofsd ended", func(p *vm.PIDs) *int { return &p.Virtiofsd })
	return qemuEnd, "", nil
}

// qemuParts is what QEMU is started on.
type qemuParts struct {
	accel         string
	files         boot.Files
	display, root *os.File // vhost-user sockets; root may be a disk instead,
	format        string   // of this format
	net           network  // nil: none
	netEnd        *os.File // nil where QEMU needs none
	channel       channel
}

// startQEMU starts QEMU on p, whose files it takes over, and connects to its monitor.
func (s *supervisor) startQEMU(p qemuParts) error {
	theirs := []*os.File{nil, p.display, p.root}
	qmp, qmpEnd, err := proc.Socketpair("qmp")
	fail := func(err error) error {
		proc.CloseFiles(append(theirs, qmp))
		return err
	}
	if err != nil {
		return fail(err)
	}
	theirs[0] = qmpEnd
	v := s.launch.VM
	displayFD := 4
	if p.display == nil { // then the descriptor is closed there
		displayFD = 0
	}
	m := qemu.Machine{
		Name: v.Name, Accel: p.accel, Memory: v.Memory, CPUs: v.CPUs,
		Kernel: p.files.Kernel, Initrd: p.files.Initrd,
		QMPFD: 3, DisplayFD: displayFD, RootFD: 5, DiskFormat: p.format, Ports: config.MaxShares, USBPort: true,
	}
	theirs = p.channel.attach(&m, theirs)
	if p.net != nil {
		m.Netdev = p.net.netdev(3 + len(theirs))
	}
	if p.netEnd != nil {
		theirs = append(theirs, p.netEnd)
	}
	for _, sh := range s.shares {
		m.Shares = append(m.Shares, qemu.Folder{Tag: sh.tag, Port: sh.port, FD: 3 + len(theirs)})
		theirs = append(theirs, sh.qemu)
		sh.qemu = nil
	}
	spec, own, err := s.qemuConfinement(p)
	if err != nil {
		return fail(err)
	}
	spec.Argv = append([]string{s.launch.Parts.QEMU}, m.Args()...)
	child, err := s.startConfined(proc.Command{
		Name:  qemuChild,
		Own:   own,
		Files: theirs,
		Stdout: func(line string) {
			s.console.Add(line)
			s.log.Add("console", line)
		},
	}, spec)
	theirs = nil
	if err != nil {
		return fail(err)
	}
	s.qemu = child
	s.own(child, "QEMU ended", func(p *vm.PIDs) *int { return &p.QEMU })
	s.update(func(st *vm.State) { st.Accel = p.accel })
	return s.connectQMP(qmp)
}

// qemuConfinement says what QEMU keeps, and which namespaces are its own.
func (s *supervisor) qemuConfinement(p qemuParts) (spec sandbox.Spec, own *syscall.SysProcAttr, err error) {
	kvm := ""
	if p.accel == "kvm" {
		kvm = s.launch.Parts.KVM
	}
	if spec.Files, err = qemuFiles(s.launch.Parts.QEMU, p.files.Kernel, p.files.Initrd, kvm); err != nil {
		return spec, nil, err
	}
	own = sandbox.Attr(s.uid, os.Getgid())
	if p.net != nil && p.net.inQEMU() {
		spec.Network = true
		own.Cloneflags &^= unix.CLONE_NEWNET
	}
	return spec, own, nil
}

const (
	qemuChild    = "qemu"
	displayChild = "display"
)

// chooseAccel decides how the processor is made, and says why not by KVM.
func (s *supervisor) chooseAccel() (accel, slow string, err error) {
	v := s.launch.VM
	if v.Accel == "tcg" {
		return "tcg", "", nil
	}
	err = qemu.CheckKVM(s.launch.Parts.KVM, s.launch.Parts.CPUInfo)
	switch {
	case err == nil:
		return "kvm", "", nil
	case v.Accel == "kvm":
		return "", "", vm.Failf(`VM %s: KVM does not work: %v; or set accel = "auto"`, v.Name, err)
	}
	return "tcg", fmt.Sprintf("no KVM, so VM %s is emulated and slow: %v", v.Name, err), nil
}

// connectQMP greets QEMU. That it answers also means that it accepted its
// command line: a refusal is told by the trouble that follows.
func (s *supervisor) connectQMP(conn *os.File) error {
	m := qemu.NewMonitor(conn)
	s.undo(m.Disconnect)
	done := make(chan error, 1)
	s.pumps.Go(func() { done <- m.Connect() })
	if err := s.wait(done); err != nil {
		return err
	}
	s.monitor = m
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

// bootGuest runs the agent's channel and waits until programs can be started.
func (s *supervisor) bootGuest(conn io.ReadWriteCloser) error {
	s.guest = agent.NewHost(conn, s.slogger("agent"))
	s.guest.OnShortage = s.onShortage
	s.guest.OnWindowLoss = s.onWindowLoss
	s.mu.Lock()
	s.traffic = s.guest.Traffic
	s.mu.Unlock()
	// Not s.ctx: the channel must outlive the wish to stop, to carry it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	s.undo(func() error { cancel(); return nil })
	ran := make(chan struct{})
	s.pumps.Go(func() {
		defer close(ran)
		s.agentEnded(s.guest.Run(ctx))
	})
	s.pumps.Go(func() { s.keepClock(ctx) })
	s.pumps.Go(func() {
		select {
		case err := <-s.guest.Failed():
			s.agentEnded(err) // without waiting for the guest to switch itself off
		case <-ran:
		}
	})
	err := s.guest.Boot(agent.Boot{
		Hostname: s.launch.VM.Name,
		Time:     time.Now().UnixNano(),
		User:     guestUser,
		Env:      s.launch.GuestEnv,
		Mounts:   s.mounts(),
	})
	if err != nil {
		return s.failure(err)
	}
	ready, done := make(chan error, 1), make(chan error, 1)
	limit, stop := context.WithTimeout(s.ctx, startLimit)
	s.pumps.Go(func() {
		defer stop()
		ready <- s.guest.Ready(limit)
	})
	s.pumps.Go(func() { s.pumpStages(s.guest.Stages(), ready, done) })
	if err := s.wait(done); err != nil {
		return err
	}
	s.startNames()
	return nil
}

// pumpStages notes the guest's stages until there can be no more, and passes
// on when it is ready, after the stages before that.
func (s *supervisor) pumpStages(stages <-chan agent.Stage, ready <-chan error, done chan<- error) {
	note := func(st agent.Stage) {
		if st.State == "" {
			s.stage(st.Name, time.Duration(st.Uptime)*time.Millisecond)
		} else {
			s.log.Printf("vix", "guest: %s is %s", st.Name, st.State)
		}
	}
	for stages != nil || ready != nil {
		select {
		case st, ok := <-stages:
			if !ok {
				stages = nil
				continue
			}
			note(st)
		case err := <-ready:
			ready = nil
			for more := err == nil && stages != nil; more; {
				select {
				case st, ok := <-stages:
					if more = ok; ok {
						note(st)
					}
				default:
					more = false
				}
			}
			if err == nil {
				s.stage("ready", 0)
			}
			done <- err
		}
	}
}

// agentEnded makes the end of the agent's channel a trouble.
func (s *supervisor) agentEnded(err error) {
	name := s.launch.VM.Name
	var ge *agent.GuestError
	switch {
	case errors.As(err, &ge):
		s.report(trouble{rankGuest, vm.Failf("VM %s: %v; run it again", name, ge)})
	case errors.Is(err, agent.ErrProtocol):
		s.report(trouble{rankGuest, vm.Failf("VM %s: %v; the VM was ended, because it cannot be trusted to be well", name, err)})
	case err != nil:
		s.report(trouble{rankOther, vm.Failf("VM %s: agent channel: %v; run it again", name, err)})
	default:
		s.report(trouble{rankOther, vm.Failf("VM %s: the guest switched itself off; run it again", name)})
	}
}

// own makes a child a part of the VM: its end is a trouble, and the closers
// end it. pid says where the state shows it.
func (s *supervisor) own(c *proc.Child, what string, pid func(*vm.PIDs) *int) {
	s.update(func(st *vm.State) { *pid(&st.PIDs) = c.Cmd.Process.Pid })
	s.pumps.Go(func() {
		<-c.Done
		s.update(func(st *vm.State) { *pid(&st.PIDs) = 0 })
		s.report(s.death(c, what))
	})
	s.undo(func() error {
		if s.graceful {
			c.End(endLimit) // what it served has ended, and so will it
		} else {
			c.Kill()
		}
		return nil
	})
}

// death says how a child ended, and its last word about it. When QEMU ended
// well, the last word is the guest's, on its console.
func (s *supervisor) death(c *proc.Child, what string) trouble {
	rank, last := rankOther, c.Last.String()
	if call, ok := c.Broken(); ok {
		s.log.Printf("vix", "%s broke its confinement: %s", c.Name, call)
		return trouble{rankKilled, vm.Failf("VM %s: %s broke its confinement by %s; the VM was ended, because it cannot be trusted to be well", s.launch.VM.Name, c.Name, call)}
	}
	switch {
	case c.Killed():
		rank = rankKilled
	case c.Err != nil && c.Name == qemuChild:
		rank = rankQEMUFailed
	case c.Err != nil:
		rank = rankFailed
	case c.Name == qemuChild:
		rank, what, last = rankQEMUEnded, "the guest switched itself off", s.console.String()
	}
	if c.Trap.Crowded {
		last = proc.NoThreadText
	}
	text := fmt.Sprintf("VM %s: %s: %s", s.launch.VM.Name, what, c.Status())
	if last != "" {
		text += ": " + last
	}
	return trouble{rank, &vm.Failure{Code: vm.CodeVix, Text: text + `; run it again, and "vix-launcher doctor" if it persists`}}
}

// readEvents reads what the display process pid tells of itself and of windows, a
// JSON object a line, until it ends. Titles are a guest's words.
func (s *supervisor) readEvents(r io.Reader, pid int) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 4<<10), 64<<10)
	for lines.Scan() {
		var e struct {
			Event string `json:"event"`
			vm.Window
			sandbox.Report
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			s.log.Printf("vix", "display: bad event: %v", err)
			continue
		}
		if e.Event == "confined" {
			s.confined(displayChild, pid, e.Report)
			continue
		}
		s.windowEvent(e.Event, e.Window)
	}
	if err := lines.Err(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.log.Printf("vix", "display: events: %v", err)
	}
}

func (s *supervisor) windowEvent(event string, w vm.Window) {
	w.Title, w.AppID = plain.Text(w.Title, vm.MaxTitle, plain.OneLine), plain.Text(w.AppID, vm.MaxTitle, plain.OneLine)
	first := false
	s.mu.Lock()
	list := slices.DeleteFunc(s.state.Windows, func(x vm.Window) bool { return x.ID == w.ID })
	if event == "window" && len(list) < vm.MaxWindows {
		list = append(list, w)
		first = !slices.ContainsFunc(s.state.Stages, func(st vm.Stage) bool { return st.Name == "window" })
	}
	s.state.Windows = list
	s.changedLocked()
	s.mu.Unlock()
	if first {
		s.stage("window", 0)
	}
}
