package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/plain"
	"vix/internal/qemu"
	"vix/internal/vm"
)

// Shares of a running VM; share.go shows how they are made.

const (
	mountLimit  = 30 * time.Second // for a guest to find a new device, and mount it, on a slow machine
	unplugLimit = 5 * time.Second  // for a guest to let go of a device
)

// serveMount adds a share, when the VM is ready for it.
func (s *supervisor) serveMount(c *vm.Control, req vm.Request) {
	if err := s.awaitReady(s.ctx); err != nil {
		s.tell(c, vm.Reply{Fail: s.runFailure(err)})
		return
	}
	st, err := s.shares.mount(req.Share)
	if err != nil {
		s.tell(c, vm.Reply{Fail: s.failure(err)})
		return
	}
	s.tell(c, vm.Reply{Mounted: st})
}

// serveUmount takes a share away.
func (s *supervisor) serveUmount(c *vm.Control, req vm.Request) {
	if err := s.shares.umount(req.Path, req.Force); err != nil {
		s.tell(c, vm.Reply{Fail: s.failure(err)})
		return
	}
	s.tell(c, vm.Reply{Done: true})
}

// takeTurn waits until nobody else adds or takes away a share. The caller unlocks turn.
func (s *sharesPart) takeTurn() error {
	s.turn.Lock()
	if err := s.canChange(); err != nil {
		s.turn.Unlock()
		return err
	}
	return nil
}

// canChange says why no share can be added or taken away now. It runs with turn held.
func (s *sharesPart) canChange() error {
	if st := s.snapshot().State; s.closed || st != vm.StateRunning {
		return vm.Failf("VM %s: is %s; shares can change only while it is running", s.launch.VM.Name, st)
	}
	return nil
}

func (s *sharesPart) mount(text string) (*vm.ShareState, error) {
	folder, err := config.ParseShare(text)
	if err != nil {
		return nil, err
	}
	if err := s.takeTurn(); err != nil {
		return nil, err
	}
	defer s.turn.Unlock()
	return s.add(folder)
}

// want adds a share if the VM does not have it. One that is there needs no answer of the
// guest.
func (s *sharesPart) want(text string) error {
	folder, err := config.ParseShare(text)
	if err != nil {
		return err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	sh := s.find(folder)
	if sh == nil || s.closed {
		if err = s.canChange(); err == nil {
			_, err = s.add(folder)
		}
		return err
	}
	select {
	case <-s.serverOf(sh).Done:
		name, path := s.launch.VM.Name, sh.folder.Guest
		return vm.Failf("VM %s: share %s: its server has ended; remove it with vix umount --force %s %s, and try again", name, path, name, path)
	default:
		return nil
	}
}

// find returns the share of a folder at its place of the guest, or nil. Any staging folder is
// the one that is looked for.
func (s *sharesPart) find(folder config.Share) *share {
	host, err := os.Stat(folder.Host)
	for _, sh := range s.shares {
		switch {
		case sh.port < 0:
		case folder.Host == "" && sh.staging:
			return sh
		case err != nil || sh.folder.Guest != folder.Guest || sh.folder.Write != folder.Write:
		default:
			if st, err := sh.dir.File.Stat(); err == nil && os.SameFile(st, host) {
				return sh
			}
		}
	}
	return nil
}

// add starts a share, with turn held.
func (s *sharesPart) add(folder config.Share) (*vm.ShareState, error) {
	var err error
	if s.store == nil && folder.Host == "" && s.launch.StateDir != "" {
		if s.store, err = vm.OpenStore(s.launch.StateDir); err != nil {
			return nil, err
		}
	}
	port := s.freePort()
	if port < 0 {
		return nil, vm.Failf("VM %s: already has %d shares, the most possible; remove one with vix umount", s.launch.VM.Name, config.MaxShares)
	}
	for _, sh := range s.shares {
		if sh.folder.Guest == folder.Guest {
			return nil, vm.Failf("VM %s: %s is already a share; use another path", s.launch.VM.Name, folder.Guest)
		}
	}
	if err := s.addShare(share{tag: shareTag(port), port: port, folder: folder}); err != nil {
		return nil, err
	}
	sh := s.shares[len(s.shares)-1]
	if err := s.attach(sh); err != nil {
		s.drop(sh)
		return nil, err
	}
	s.log.Printf("vix", "share %s is at %s", sh.folder.Host, sh.folder.Guest)
	return &vm.ShareState{Host: sh.folder.Host, Guest: sh.folder.Guest, Write: sh.folder.Write, PID: s.serverOf(sh).Cmd.Process.Pid}, nil
}

// freePort returns a port without a device, or -1.
func (s *sharesPart) freePort() int {
	for port := range config.MaxShares {
		if !s.stuckPorts[port] && !slices.ContainsFunc(s.shares, func(sh *share) bool { return sh.port == port }) {
			return port
		}
	}
	return -1
}

// attach plugs a share's device in, and has the guest mount it.
func (s *sharesPart) attach(sh *share) error {
	defer s.closeShares() // QEMU has its end by now, or never will
	if err := s.machine.monitor.Call(sh.qemu, "getfd", map[string]string{"fdname": sh.tag}, nil); err != nil {
		return err
	}
	type object map[string]any
	err := s.machine.monitor.Execute("chardev-add", object{"id": sh.tag, "backend": object{
		"type": "socket", "data": object{"server": false, "addr": object{"type": "fd", "data": object{"str": sh.tag}}},
	}}, nil)
	if err != nil {
		return err
	}
	err = s.machine.monitor.Execute("device_add", object{
		"driver": "vhost-user-fs-pci", "id": sh.device(), "chardev": sh.tag, "tag": sh.tag, "bus": qemu.PortName(sh.port),
	}, nil)
	if err != nil {
		return errors.Join(err, s.machine.monitor.Execute("chardev-remove", object{"id": sh.tag}, nil))
	}
	mount := agent.Mount{Tag: sh.tag, Path: sh.folder.Guest, ReadOnly: !sh.folder.Write}
	if err := s.guest.runOwn(agent.Request{Mount: &mount}, nil); err != nil {
		return errors.Join(vm.Failf("VM %s: share at %s: %v", s.launch.VM.Name, sh.folder.Guest, err), s.unplug(sh))
	}
	return nil
}

func (sh *share) device() string { return qemu.ShareID(sh.tag) }

func (s *sharesPart) umount(path string, force bool) error {
	if err := s.takeTurn(); err != nil {
		return err
	}
	defer s.turn.Unlock()
	name := s.launch.VM.Name
	i := slices.IndexFunc(s.shares, func(sh *share) bool { return sh.port >= 0 && sh.folder.Guest == path })
	if i < 0 {
		return vm.Failf("VM %s: %s is not a share; vix list --json shows its shares", name, plain.Text(path, vm.MaxTitle, plain.OneLine))
	}
	sh := s.shares[i]
	unmount := agent.Unmount{Path: sh.folder.Guest, Force: force}
	if err := s.guest.runOwn(agent.Request{Unmount: &unmount}, nil); err != nil && !force {
		return vm.Failf("VM %s: %s: %v; end what uses it, or force it with vix umount --force %s %s", name, path, err, name, path)
	}
	err := s.unplug(sh)
	s.drop(sh)
	if err != nil {
		s.note("VM %s: %s: %v; its slot stays in use until the VM stops; its files are out of reach", name, path, err)
	}
	return nil
}

// unplug takes a share's device away, which needs the guest's consent.
func (s *sharesPart) unplug(sh *share) error {
	err := s.machine.deleteDevice(sh.device())
	if err == nil {
		return s.machine.monitor.Execute("chardev-remove", map[string]string{"id": sh.tag}, nil)
	}
	s.stuckPorts[sh.port] = true
	return err
}

// drop ends a share's server: whatever the guest still holds of it leads nowhere.
func (s *sharesPart) drop(sh *share) {
	s.mu.Lock()
	s.shares = slices.DeleteFunc(slices.Clone(s.shares), func(x *share) bool { return x == sh })
	s.mu.Unlock()
	s.noteShares()
	sh.over.close() // first: no server may take over a share that is gone
	s.serverOf(sh).Kill()
	s.folders.dropFolder(sh.dir)
	if sh.staging {
		if err := s.store.DropStaging(filepath.Base(sh.folder.Host)); err != nil {
			s.log.Printf("vix", "%v", err)
		}
	}
	_ = s.dir.Remove(sh.tag)
}
