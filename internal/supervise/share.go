package supervise

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/rootfs"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// A share is a host folder in the guest: its home directory, a share of the configuration,
// or one of mount. Each has a virtiofsd of its own, on a bind of that folder alone, and a
// virtio-fs device of its own in QEMU:
//
//	HOSTDIR ─► vix-launcher confine ─► virtiofsd ─► vhost-user-fs-pci ─► guest: mount -t virtiofs TAG PATH
//	           (own mount namespace)     (own sandbox)  on port N
//
// One tree into which folders are bound would need one device only, but could not take a
// share back: a guest's kernel keeps handles of the files that it has seen, and the server
// goes on serving those, whatever is unmounted above it. With a device for each, the
// share's server ends. The price is a process of some MiB for each share, and a slot: the
// devices sit on hot-pluggable PCI Express ports, of which QEMU gets config.MaxShares at
// its start.
//
// A share is added to a running VM so:
//
//	virtiofsd ─ QMP getfd, chardev-add, device_add ─ agent: mount
//
// and taken away in the reverse order. If the guest does not release the device, the
// server ends all the same, after unplugLimit.
type share struct {
	tag    string
	port   int // -1 for the home, which stays
	folder config.Share
	dir    *rootfs.Folder // folder.Host, open as long as the share exists
	server *proc.Child    // under host.mu
	qemu   *os.File       // QEMU's end of the connection, until QEMU has it
	over   *takeover      // nil for the home, without which the VM cannot go on
	fails  int            // how many of its servers have died

	staging bool // folder is removed with the share
}

// A sharesPart is the home and the present shares.
type sharesPart struct {
	passive
	*host
	folders *folders
	bound   *memoryBound
	machine *machine
	guest   *guest

	store      *vm.Store     // nil if the VM keeps nothing
	keptState  *vm.KeptState // nil if it keeps no home
	turn       sync.Mutex    // held while a share is added or taken away
	closed     bool          // no more shares; under turn, as is stuckPorts
	stuckPorts [config.MaxShares]bool
	shares     []*share // changed under turn and host.mu
}

// homeTag is the virtiofs tag of the home directory.
const homeTag = "home"

// openState opens the VM's kept state, and removes the staging folders of a killed run.
func (s *sharesPart) openState() error {
	l := s.launch
	needs := slices.ContainsFunc(l.VM.Shares, func(sh config.Share) bool { return sh.Host == "" })
	if l.StateDir == "" || l.VM.State != "home" && !needs {
		return nil
	}
	store, err := vm.OpenStore(l.StateDir)
	if err != nil {
		return err
	}
	s.store = store
	if err := store.SweepStaging(l.VM.Name); err != nil {
		s.log.Printf("vix", "%v", err)
	}
	go sweepStore(l.StateDir)
	if l.VM.State != "home" {
		return nil
	}
	s.keptState, err = store.Open(l.VM.Name)
	return err
}

// sweepStore finishes interrupted removals while the VM starts and runs. The next VM does
// what this one does not come to before its end.
func sweepStore(dir string) {
	store, err := vm.OpenStore(dir)
	if err != nil {
		return
	}
	_ = store.Sweep() // the verb that removes it reports the error
	_ = store.Close()
}

// start starts a server for the home and for each share of the launch.
func (s *sharesPart) start() error {
	if err := s.openState(); err != nil {
		return err
	}
	if s.keptState != nil {
		home := config.Share{Host: s.keptState.Home(), Guest: "/home/" + guestUser.Name, Write: true}
		if err := s.addShare(share{tag: homeTag, port: -1, folder: home}); err != nil {
			return err
		}
	}
	for i, folder := range s.launch.VM.Shares {
		if err := s.addShare(share{tag: shareTag(i), port: i, folder: folder}); err != nil {
			return err
		}
	}
	return s.folders.checkPlaces()
}

func (s *sharesPart) devices() []qemu.Device {
	list := []qemu.Device{qemu.Ports(config.MaxShares)}
	for _, sh := range s.shares {
		list = append(list, qemu.Share(sh.tag, sh.port, take(&sh.qemu)))
	}
	return list
}

func shareTag(port int) string { return fmt.Sprintf("share%d", port) }

// addShare starts a share's server.
func (s *sharesPart) addShare(sh share) error {
	if err := s.findShare(&sh); err != nil {
		return err
	}
	s.bound.widenFor(sh.folder)
	if err := s.serveShare(&sh); err != nil {
		s.folders.dropFolder(sh.dir)
		return err
	}
	if sh.port >= 0 {
		if err := s.insertTakeover(&sh); err != nil {
			sh.server.Kill()
			s.folders.dropFolder(sh.dir)
			return err
		}
	}
	s.mu.Lock()
	s.shares = append(s.shares, &sh)
	s.mu.Unlock()
	s.noteShares()
	if sh.tag == homeTag {
		s.pumps.Go(func() {
			<-sh.server.Done
			s.report(s.death(sh.server, "virtiofsd of the home directory ended"))
		})
	}
	return nil
}

// maxFails bounds the dead servers of a share: a guest may know how to kill one.
const maxFails = 4

// insertTakeover puts a takeover between QEMU and the share's server.
func (s *sharesPart) insertTakeover(sh *share) error {
	server, err := proc.UnixConn(sh.qemu)
	sh.qemu = nil
	if err != nil {
		return err
	}
	ours, theirs, err := proc.Socketpair("share")
	if err != nil {
		return errors.Join(err, server.Close())
	}
	qemu, err := proc.UnixConn(ours)
	if err != nil {
		return errors.Join(err, server.Close(), theirs.Close())
	}
	sh.qemu = theirs
	sh.over = newTakeover(qemu, server, func() (*net.UnixConn, error) { return s.serveAgain(sh) })
	s.pumps.Go(func() {
		if err := sh.over.fromQEMU(); err != nil {
			s.log.Printf("vix", "share %s: %v", sh.folder.Guest, err)
		}
	})
	s.pumps.Go(func() {
		err := sh.over.fromServer()
		if err != nil {
			s.serverOf(sh).Kill()
		}
		s.noteShares()
		if err != nil && s.ctx.Err() == nil {
			s.note("VM %s: share %s: virtiofsd ended, and cannot be replaced: %v; what uses the share hangs until the VM stops", s.launch.VM.Name, sh.folder.Guest, err)
		}
	})
	return nil
}

// serveAgain starts a server in the place of a dead one. We do not mount the share anew:
// there can be no new mount until the old one is gone, and between the two the path would
// read as an empty folder.
func (s *sharesPart) serveAgain(sh *share) (*net.UnixConn, error) {
	old := s.serverOf(sh)
	old.Kill() // it has closed its connection, if it has not ended
	if s.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	if sh.fails++; sh.fails >= maxFails {
		return nil, fmt.Errorf("%d have ended, the last: %s: %s", sh.fails, old.Status(), old.Last.String())
	}
	next := share{tag: sh.tag, port: sh.port, folder: sh.folder, dir: sh.dir}
	if err := s.serveShare(&next); err != nil {
		return nil, err
	}
	s.mu.Lock()
	sh.server = next.server
	s.mu.Unlock()
	s.noteShares()
	name, path, why := s.launch.VM.Name, sh.folder.Guest, old.Status()
	if last := old.Last.String(); last != "" {
		why += ": " + last
	}
	s.note("VM %s: share %s: virtiofsd ended: %s; every access fails until you remove it with vix umount %s %s (--force if it is in use) and mount it again", name, path, why, name, path)
	return proc.UnixConn(next.qemu)
}

func (s *sharesPart) serverOf(sh *share) *proc.Child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sh.server
}

// serveShare starts virtiofsd on the share's folder, and gives it a descriptor of that.
func (s *sharesPart) serveShare(sh *share) error {
	if _, err := os.Stat(s.launch.Parts.Virtiofsd); err != nil {
		return vm.Failf("virtiofsd: cannot be started: %v", err)
	}
	if err := s.dir.MkdirAll(sh.tag, 0o700); err != nil {
		return err
	}
	files, err := s.servedFiles(sh)
	if err != nil {
		return err
	}
	view := filepath.Join(s.reg.Path, s.launch.VM.Name, sh.tag)
	end, child, err := s.folders.serve(
		proc.Command{Name: "virtiofsd " + sh.tag, Attr: rootfs.ViewAttr(s.uid, os.Getgid()), Files: files},
		s.virtiofsdSpec(sandbox.Tree{Dir: view, Host: sh.folder.Host, Folder: folderFD, Write: sh.folder.Write}, shareArgs(view, sh.folder.Write)))
	if err != nil {
		return err
	}
	sh.qemu, sh.server = end, child
	return nil
}

// servedFiles returns the folder, and for the home also the state's lock, which virtiofsd
// holds as long as it lives: whatever becomes of us, nobody serves the home a second time.
func (s *sharesPart) servedFiles(sh *share) (files []*os.File, err error) {
	of := []*os.File{sh.dir.File}
	if sh.tag == homeTag {
		of = append(of, s.keptState.Lock)
	}
	for _, f := range of {
		dup, err := proc.DupFile(f)
		if err != nil {
			proc.CloseFiles(files)
			return nil, os.NewSyscallError("dup", err)
		}
		files = append(files, dup)
	}
	return files, nil
}

// stop ends every share's server, and lets no new one start.
func (s *sharesPart) stop(graceful bool) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.closed = true
	s.closeShares()
	for _, sh := range s.shares {
		if sh.over != nil {
			sh.over.close()
		}
		endChild(s.serverOf(sh), graceful)
		s.folders.dropFolder(sh.dir)
	}
	var errs []error
	if s.keptState != nil {
		errs = append(errs, s.keptState.Close())
	}
	if s.store != nil {
		for folder := range s.store.StagingLocks {
			errs = append(errs, s.store.DropStaging(folder))
		}
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// findShare makes a staging folder, or opens the folder to share, and puts its real path
// into sh.folder.
func (s *sharesPart) findShare(sh *share) (err error) {
	f := &sh.folder
	switch {
	case sh.tag == homeTag:
		sh.dir, err = s.store.OpenDir(filepath.Join(vm.VMsName, s.launch.VM.Name, vm.HomeName))
		return err
	case f.Host != "":
		if sh.dir, err = s.folders.openFolder(f.Host, f.Write); err == nil {
			f.Host = sh.dir.Path
		}
		return err
	case s.store == nil:
		return vm.Failf("VM %s: staging: no state directory; set XDG_STATE_HOME or HOME", s.launch.VM.Name)
	}
	word := strings.ToLower(rand.Text()[:10])
	if f.Host, err = s.store.NewStaging(s.launch.VM.Name, word); err != nil {
		return err
	}
	f.Guest, sh.staging = config.ShareDir+"/"+word, true
	if sh.dir, err = s.store.OpenDir(filepath.Join(vm.StagingName, filepath.Base(f.Host))); err != nil {
		return err
	}
	s.note("VM %s: staging: %s is %s in the guest", s.launch.VM.Name, f.Host, f.Guest)
	return nil
}

// shareArgs are virtiofsd's arguments to serve dir. Whatever owner the guest names: on the
// host, all files belong to the user who runs the VM (who is 0 in the server's user
// namespace, or is root), and in the guest to its ordinary user.
func shareArgs(dir string, write bool) []string {
	args := []string{
		"--fd=3", "--shared-dir=" + dir, "--no-announce-submounts",
		"--cache=auto", "--sandbox=namespace", "--seccomp=kill", "--log-level=error",
		"--modcaps=-mknod:-setfcap",
	}
	for _, id := range []string{"uid", "gid"} {
		const all = "4294967295"
		args = append(args,
			"--translate-"+id+"=squash-guest:0:0:"+all,
			fmt.Sprintf("--translate-%s=squash-host:0:%d:%s", id, guestUser.UID, all))
	}
	if !write {
		args = append(args, "--readonly")
	}
	return args
}

// guestUser is the ordinary user of every guest.
var guestUser = agent.User{Name: "user", UID: 1000, GID: 1000}

// serve starts virtiofsd with the listening socket as descriptor 3 and cmd.Files from
// folderFD, and returns a connection to it for QEMU. The socket's name exists only until
// the connection is made.
func (s *folders) serve(cmd proc.Command, spec sandbox.Spec) (_ *os.File, _ *proc.Child, err error) {
	var undo []*os.File
	defer func() {
		if err != nil {
			proc.CloseFiles(undo)
		}
	}()
	undo = append(undo, cmd.Files...)
	s.serveMu.Lock()
	defer s.serveMu.Unlock()
	at := s.reg.Socket(s.launch.VM.Name, "fs.sock")
	ln, err := net.ListenUnix("unix", at)
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close() // and unlink
	conn, err := net.DialUnix("unix", nil, at)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	qemuEnd, err := conn.File()
	if err != nil {
		return nil, nil, err
	}
	undo = append(undo, qemuEnd)
	lnFile, err := ln.File()
	if err != nil {
		return nil, nil, err
	}
	cmd.Files = append([]*os.File{lnFile}, cmd.Files...)
	undo = []*os.File{qemuEnd} // startConfined closes the others
	c, err := s.startConfined(cmd, spec)
	if err != nil {
		return nil, nil, err
	}
	return qemuEnd, c, nil
}

// noteShares brings the state up to date. The state shows the home in Home, not as a share.
func (s *sharesPart) noteShares() {
	s.update(func(st *vm.State) {
		st.Shares = []vm.ShareState{}
		for _, sh := range s.shares {
			if sh.tag == homeTag {
				st.Home = sh.folder.Host
				continue
			}
			pid := sh.server.Cmd.Process.Pid
			select {
			case <-sh.server.Done:
				pid = 0
			default:
			}
			st.Shares = append(st.Shares, vm.ShareState{Host: sh.folder.Host, Guest: sh.folder.Guest, Write: sh.folder.Write, PID: pid})
		}
	})
}

// closeShares closes the ends that QEMU did not get.
func (s *sharesPart) closeShares() {
	for _, sh := range s.shares {
		if sh.qemu != nil {
			sh.qemu.Close()
			sh.qemu = nil
		}
	}
}

// mounts lists what the guest mounts at its start.
func (s *sharesPart) mounts() []agent.Mount {
	var list []agent.Mount
	for _, sh := range s.shares {
		list = append(list, agent.Mount{Tag: sh.tag, Path: sh.folder.Guest, ReadOnly: !sh.folder.Write})
	}
	return list
}
