package vm

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
	"vix/internal/plain"
	"vix/internal/rootfs"
	"vix/internal/sandbox"
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
	s.update(func(st *State) { st.Channel = channel.state() })
	files, err := prepareBoot(s.ctx, s.launch, channel.state().Kind == config.ChannelVsock, func(text string) { s.log.add("vix", text) })
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
		closeFiles([]*os.File{display})
		return s.failure(err)
	}
	err = s.startShares()
	if err == nil {
		err = s.checkPlaces()
	}
	if err != nil {
		closeFiles([]*os.File{display, root})
		return s.failure(err)
	}
	net, netEnd, err := s.startNetwork()
	if err != nil {
		s.closeShares()
		closeFiles([]*os.File{display, root})
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
var prepareBoot = func(ctx context.Context, l Launch, vsock bool, progress func(string)) (rootfs.Files, error) {
	kernel, err := findKernel(l)
	if err != nil {
		return rootfs.Files{}, err
	}
	return rootfs.Prepare(ctx, rootfs.Config{Kernel: kernel, Guest: l.Parts.Guest, CacheDir: l.CacheDir,
		Disk: strings.HasPrefix(l.VM.Root, config.RootImage), Net: l.VM.Net == config.NetNAT, Vsock: vsock, Progress: progress})
}

func findKernel(l Launch) (rootfs.Kernel, error) {
	if l.VM.Kernel != "" {
		return rootfs.NamedKernel(l.VM.Kernel, l.VM.Initrd, l.Parts.System)
	}
	return rootfs.FindKernel(l.Parts.System)
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
		err = errors.Join(pair(socketpair("display")), pair(os.Pipe()), pair(newDisplayControl()))
	}
	if err != nil {
		closeFiles(append(ours, theirs...))
		if broker != nil {
			err = errors.Join(err, broker.Close(), brokerEnd.Close())
		}
		return nil, err
	}
	l := s.launch
	d := Display{
		VM: l.VM.Name, Tag: l.VM.Tag, Color: l.VM.Color, Frame: l.VM.Frame,
		Allow: l.VM.Allow, Deny: l.VM.Deny, Limits: l.VM.Limits, Drags: l.Drags,
		VhostFD: 3, EventsFD: 4, ControlFD: 5, BrokerFD: 6,
	}
	child, err := startChild(s.nest, s.log, command{
		name: displayChild, path: l.Parts.Proxy, args: d.Args(), files: append(theirs, brokerEnd),
		own: sandbox.Attr(s.uid, os.Getgid()),
	})
	if err != nil {
		closeFiles(ours)
		return nil, errors.Join(err, broker.Close())
	}
	qemuEnd, events, ctl := ours[0], ours[1], ours[2]
	s.setDisplayControl(ctl)
	s.pumps.Go(func() {
		defer events.Close()
		s.readEvents(events, child.cmd.Process.Pid)
	})
	s.pumps.Go(func() { s.serveBroker(broker) })
	s.own(child, "the display process ended", func(p *PIDs) *int { return &p.Display })
	// Something else may hold the pipe: the reader must not outlive the process.
	s.pumps.Go(func() {
		<-child.done
		_ = events.SetReadDeadline(time.Now().Add(drainLimit))
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
	cmd, err := s.rootCommand(from)
	if err != nil {
		return nil, "", err
	}
	qemuEnd, child, err := s.serveFolder(cmd)
	if err != nil {
		return nil, "", err
	}
	s.own(child, "virtiofsd ended", func(p *PIDs) *int { return &p.Virtiofsd })
	return qemuEnd, "", nil
}

// qemuParts is what QEMU is started on.
type qemuParts struct {
	accel         string
	files         rootfs.Files
	display, root *os.File // vhost-user sockets; root may be a disk instead,
	format        string   // of this format
	net           network  // nil: none
	netEnd        *os.File // nil where QEMU needs none
	channel       channel
}

// startQEMU starts QEMU on p, whose files it takes over, and connects to its monitor.
func (s *supervisor) startQEMU(p qemuParts) error {
	theirs := []*os.File{nil, p.display, p.root}
	qmp, qmpEnd, err := socketpair("qmp")
	fail := func(err error) error {
		closeFiles(append(theirs, qmp))
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
	m := Machine{
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
		m.Shares = append(m.Shares, Folder{Tag: sh.tag, Port: sh.port, FD: 3 + len(theirs)})
		theirs = append(theirs, sh.qemu)
		sh.qemu = nil
	}
	report, reportEnd, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	theirs = append(theirs, reportEnd)
	c, own, err := s.qemuConfinement(p)
	if err != nil {
		report.Close()
		return fail(err)
	}
	c.ReportFD, c.Argv = 2+len(theirs), append([]string{s.launch.Parts.QEMU}, m.Args()...)
	child, err := s.startConfined(command{
		name: qemuChild, path: s.launch.Parts.Self, args: c.Args(),
		own:   own,
		files: theirs,
		stdout: func(line string) {
			s.console.add(line)
			s.log.add("console", line)
		},
	}, report)
	theirs = nil
	if err != nil {
		return fail(err)
	}
	s.qemu = child
	s.own(child, "QEMU ended", func(p *PIDs) *int { return &p.QEMU })
	s.update(func(st *State) { st.Accel = p.accel })
	return s.connectQMP(qmp)
}

// qemuConfinement says what QEMU keeps, and which namespaces are its own.
func (s *supervisor) qemuConfinement(p qemuParts) (c Confine, own *syscall.SysProcAttr, err error) {
	kvm := ""
	if p.accel == "kvm" {
		kvm = s.launch.Parts.KVM
	}
	if c.Files, err = qemuFiles(s.launch.Parts.QEMU, p.files.Kernel, p.files.Initrd, kvm); err != nil {
		return c, nil, err
	}
	own = sandbox.Attr(s.uid, os.Getgid())
	if p.net != nil && p.net.inQEMU() {
		c.Network = true
		own.Cloneflags &^= unix.CLONE_NEWNET
	}
	return c, own, nil
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
	err = CheckKVM(s.launch.Parts.KVM, s.launch.Parts.CPUInfo)
	switch {
	case err == nil:
		return "kvm", "", nil
	case v.Accel == "kvm":
		return "", "", failf(`VM %s: KVM does not work: %v; or set accel = "auto"`, v.Name, err)
	}
	return "tcg", fmt.Sprintf("no KVM, so VM %s is emulated and slow: %v", v.Name, err), nil
}

// connectQMP greets QEMU. That it answers also means that it accepted its
// command line: a refusal is told by the trouble that follows.
func (s *supervisor) connectQMP(conn *os.File) error {
	m := newMonitor(conn)
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
		Search:   s.search(),
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
			s.log.printf("vix", "guest: %s is %s", st.Name, st.State)
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
		s.report(trouble{rankGuest, failf("VM %s: %v; run it again", name, ge)})
	case errors.Is(err, agent.ErrProtocol):
		s.report(trouble{rankGuest, failf("VM %s: %v; the VM was ended, because it cannot be trusted to be well", name, err)})
	case err != nil:
		s.report(trouble{rankOther, failf("VM %s: agent channel: %v; run it again", name, err)})
	default:
		s.report(trouble{rankOther, failf("VM %s: the guest switched itself off; run it again", name)})
	}
}

// own makes a child a part of the VM: its end is a trouble, and the closers
// end it. pid says where the state shows it.
func (s *supervisor) own(c *child, what string, pid func(*PIDs) *int) {
	s.update(func(st *State) { *pid(&st.PIDs) = c.cmd.Process.Pid })
	s.pumps.Go(func() {
		<-c.done
		s.update(func(st *State) { *pid(&st.PIDs) = 0 })
		s.report(s.death(c, what))
	})
	s.undo(func() error {
		if s.graceful {
			c.end(endLimit) // what it served has ended, and so will it
		} else {
			c.kill()
		}
		return nil
	})
}

// death says how a child ended, and its last word about it. When QEMU ended
// well, the last word is the guest's, on its console.
func (s *supervisor) death(c *child, what string) trouble {
	rank, last := rankOther, c.last.String()
	if call, ok := c.broken(); ok {
		s.log.printf("vix", "%s broke its confinement: %s", c.name, call)
		return trouble{rankKilled, failf("VM %s: %s broke its confinement by %s; the VM was ended, because it cannot be trusted to be well", s.launch.VM.Name, c.name, call)}
	}
	switch {
	case c.killed():
		rank = rankKilled
	case c.err != nil && c.name == qemuChild:
		rank = rankQEMUFailed
	case c.err != nil:
		rank = rankFailed
	case c.name == qemuChild:
		rank, what, last = rankQEMUEnded, "the guest switched itself off", s.console.String()
	}
	if c.trap.crowded {
		last = crowded
	}
	text := fmt.Sprintf("VM %s: %s: %s", s.launch.VM.Name, what, c.status())
	if last != "" {
		text += ": " + last
	}
	return trouble{rank, &Failure{CodeVix, text + `; run it again, and "vix-launcher doctor" if it persists`}}
}

// readEvents reads what the display process pid tells of itself and of windows, a
// JSON object a line, until it ends. Titles are a guest's words.
func (s *supervisor) readEvents(r io.Reader, pid int) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 4<<10), 64<<10)
	for lines.Scan() {
		var e struct {
			Event string `json:"event"`
			Window
			sandbox.Report
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			s.log.printf("vix", "display: bad event: %v", err)
			continue
		}
		if e.Event == "confined" {
			s.confined(displayChild, pid, e.Report)
			continue
		}
		s.windowEvent(e.Event, e.Window)
	}
	if err := lines.Err(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.log.printf("vix", "display: events: %v", err)
	}
}

func (s *supervisor) windowEvent(event string, w Window) {
	w.Title, w.AppID = plain.Text(w.Title, maxTitle, plain.OneLine), plain.Text(w.AppID, maxTitle, plain.OneLine)
	first := false
	s.mu.Lock()
	list := slices.DeleteFunc(s.state.Windows, func(x Window) bool { return x.ID == w.ID })
	if event == "window" && len(list) < maxWindows {
		list = append(list, w)
		first = !slices.ContainsFunc(s.state.Stages, func(st Stage) bool { return st.Name == "window" })
	}
	s.state.Windows = list
	s.changedLocked()
	s.mu.Unlock()
	if first {
		s.stage("window", 0)
	}
}
