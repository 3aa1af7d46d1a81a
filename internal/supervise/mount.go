package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/plain"
	"vix/internal/qemu"
	"vix/internal/vm"
)

// Shares of a VM that runs: share.go says how they are made.

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
	st, err := s.mount(req.Share)
	if err != nil {
		s.tell(c, vm.Reply{Fail: s.failure(err)})
		return
	}
	s.tell(c, vm.Reply{Mounted: st})
}

// serveUmount takes one away.
func (s *supervisor) serveUmount(c *vm.Control, req vm.Request) {
	if err := s.umount(req.Path, req.Force); err != nil {
		s.tell(c, vm.Reply{Fail: s.failure(err)})
		return
	}
	s.tell(c, vm.Reply{Done: true})
}

// takeShareTurn waits until nobody else adds or takes away a share.
func (s *supervisor) takeShareTurn() error {
	s.shareTurn.Lock()
	if st := s.snapshot().State; s.sharesEnded || st != vm.StateRunning {
		s.shareTurn.Unlock()
		return vm.Failf("VM %s: is %s; shares are changed while it runs", s.launch.VM.Name, st)
	}
	return nil
}

func (s *supervisor) mount(text string) (*vm.ShareState, error) {
	folder, err := config.ParseShare(text)
	if err != nil {
		return nil, err
	}
	if err := s.takeShareTurn(); err != nil {
		return nil, err
	}
	defer s.shareTurn.Unlock()
	if s.store == nil && folder.Host == "" && s.launch.StateDir != "" {
		if s.store, err = vm.OpenStore(s.launch.StateDir); err != nil {
			return nil, err
		}
	}
	port := s.freePort()
	if port < 0 {
		return nil, vm.Failf("VM %s: has %d shares, and no place for more; take one away with vix-launcher umount", s.launch.VM.Name, config.MaxShares)
	}
	for _, sh := range s.shares {
		if sh.folder.Guest == folder.Guest {
			return nil, vm.Failf("VM %s: %s is a share already; name another path", s.launch.VM.Name, folder.Guest)
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

// freePort returns a port without a device; -1 if there is none.
func (s *supervisor) freePort() int {
	for port := range config.MaxShares {
		if !s.stuckPorts[port] && !slices.ContainsFunc(s.shares, func(sh *share) bool { return sh.port == port }) {
			return port
		}
	}
	return -1
}

// attach plugs a share's device in, and has the guest mount it.
func (s *supervisor) attach(sh *share) error {
	defer s.closeShares() // QEMU has its end, or never will
	if err := s.monitor.Call(sh.qemu, "getfd", map[string]string{"fdname": sh.tag}, nil); err != nil {
		return err
	}
	type object map[string]any
	err := s.monitor.Execute("chardev-add", object{"id": sh.tag, "backend": object{
		"type": "socket", "data": object{"server": false, "addr": object{"type": "fd", "data": object{"str": sh.tag}}},
	}}, nil)
	if err != nil {
		return err
	}
	err = s.monitor.Execute("device_add", object{
		"driver": "vhost-user-fs-pci", "id": sh.device(), "chardev": sh.tag, "tag": sh.tag, "bus": qemu.PortName(sh.port),
	}, nil)
	if err != nil {
		return errors.Join(err, s.monitor.Execute("chardev-remove", object{"id": sh.tag}, nil))
	}
	mode := "ro"
	if sh.folder.Write {
		mode = "rw"
	}
	if err := s.mounter("mount", sh.tag, sh.folder.Guest, mode); err != nil {
		return errors.Join(vm.Failf("VM %s: share at %s: %v", s.launch.VM.Name, sh.folder.Guest, err), s.unplug(sh))
	}
	return nil
}

func (sh *share) device() string { return "dev-" + sh.tag }

// mounter runs the agent's mounter.
func (s *supervisor) mounter(argv ...string) error {
	return s.inGuest(agent.Spawn{Kind: agent.KindMount, Argv: argv}, nil)
}

// inGuest runs a program of the agent's own, as root, with in as its standard input. What
// it says is the guest's word.
func (s *supervisor) inGuest(spawn agent.Spawn, in io.Reader) error {
	spawn.User = "root"
	ctx, cancel := context.WithTimeout(s.ctx, mountLimit)
	defer cancel()
	p, err := s.guest.Spawn(ctx, spawn)
	if err != nil {
		return err
	}
	unhook := context.AfterFunc(ctx, func() { _ = p.Kill(unix.SIGKILL); _ = p.Stdin.Close(); _ = p.Stdout.Close(); _ = p.Stderr.Close() })
	defer unhook()
	var out sync.WaitGroup
	out.Go(func() {
		if in != nil {
			_, _ = io.Copy(p.Stdin, in)
		}
		_ = p.Stdin.Close()
	})
	out.Go(func() { _, _ = io.Copy(io.Discard, p.Stdout) })
	said, _ := io.ReadAll(io.LimitReader(p.Stderr, 1<<10))
	_ = p.Stderr.Close()
	select {
	case <-p.Exited():
	case <-ctx.Done():
		return fmt.Errorf("the guest does not answer within %s", mountLimit)
	}
	out.Wait()
	switch st, err := p.Wait(); {
	case err != nil:
		return err
	case st.Code != 0 || st.Signal != 0:
		return errors.New(plain.Text(strings.TrimSpace(string(said)), vm.MaxTitle, plain.OneLine))
	}
	return nil
}

func (s *supervisor) umount(path string, force bool) error {
	if err := s.takeShareTurn(); err != nil {
		return err
	}
	defer s.shareTurn.Unlock()
	name := s.launch.VM.Name
	i := slices.IndexFunc(s.shares, func(sh *share) bool { return sh.port >= 0 && sh.folder.Guest == path })
	if i < 0 {
		return vm.Failf("VM %s: %s is not a share; vix-launcher list --json shows those there are", name, plain.Text(path, vm.MaxTitle, plain.OneLine))
	}
	sh := s.shares[i]
	mode := ""
	if force {
		mode = "force"
	}
	if err := s.mounter("umount", sh.folder.Guest, mode); err != nil && !force {
		return vm.Failf("VM %s: %s: %v; end what uses it, or take it away all the same with vix-launcher umount --force %s %s", name, path, err, name, path)
	}
	err := s.unplug(sh)
	s.drop(sh)
	if err != nil {
		s.note("VM %s: %s: %v; its place stays taken until the VM stops, its files are out of reach", name, path, err)
	}
	return nil
}

// unplug takes a share's device away, which needs the guest's consent.
func (s *supervisor) unplug(sh *share) error {
	err := s.deleteDevice(sh.device())
	if err == nil {
		return s.monitor.Execute("chardev-remove", map[string]string{"id": sh.tag}, nil)
	}
	s.stuckPorts[sh.port] = true
	return err
}

// deleteDevice takes a device of QEMU's away, and returns when it is gone.
func (s *supervisor) deleteDevice(id string) error {
	gone := make(chan struct{})
	s.mu.Lock()
	s.unplugged[id] = gone
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.unplugged, id)
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
		return errors.New("the guest does not let go of the device")
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// onDeviceDeleted takes QEMU's event.
func (s *supervisor) onDeviceDeleted(device any) {
	id, _ := device.(string)
	s.mu.Lock()
	defer s.mu.Unlock()
	if gone := s.unplugged[id]; gone != nil {
		close(gone)
		delete(s.unplugged, id)
	}
}

// drop ends a share's server: whatever the guest still holds of it leads nowhere.
func (s *supervisor) drop(sh *share) {
	s.mu.Lock()
	s.shares = slices.DeleteFunc(slices.Clone(s.shares), func(x *share) bool { return x == sh })
	s.mu.Unlock()
	s.noteShares()
	sh.over.close() // before: nothing takes over what was taken away
	s.serverOf(sh).Kill()
	s.dropFolder(sh.dir)
	if sh.staging {
		if err := s.store.DropStaging(filepath.Base(sh.folder.Host)); err != nil {
			s.log.Printf("vix", "%v", err)
		}
	}
	_ = s.dir.Remove(sh.tag)
}
