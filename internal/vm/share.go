package vm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/rootfs"
)

// A share is a folder of the host's in the guest: its home directory, those of the
// configuration, those of mount. Each has a virtiofsd of its own, on a bind of that
// folder alone, and a virtio-fs device of its own in QEMU:
//
//	HOSTDIR ─► vix-launcher shareview ─► virtiofsd ─► vhost-user-fs-pci ─► guest: mount -t virtiofs TAG PATH
//	           (own mount namespace)     (own sandbox)  on port N
//
// A device for each, and not one tree into which folders are bound, because only so
// is a share gone when it is taken back: a guest's kernel keeps handles of the files
// that it has seen, and a server goes on serving those, whatever is unmounted above
// it. Here its server ends. The price is a process of some MiB for each share, and a
// slot: the devices sit on hot-pluggable PCI Express ports, of which QEMU gets
// config.MaxShares at its start.
//
// Adding one to a VM that runs:
//
//	virtiofsd ─ QMP getfd, chardev-add, device_add ─ agent: mount
//
// and taking it away the same backwards, but for a guest that does not let go: after
// unplugLimit its server is ended all the same.
type share struct {
	tag    string
	port   int // -1: the home's, which stays
	folder config.Share
	server *child
	qemu   *os.File // QEMU's end of the connection, until QEMU has it

	staging bool // folder is removed with the share
}

// homeTag is the virtiofs tag of the home directory.
const homeTag = "home"

// A ShareState is what a VM's state tells of a share.
type ShareState struct {
	Host  string `json:"host"`
	Guest string `json:"guest"`
	Write bool   `json:"write"`
	PID   int    `json:"pid"` // of its virtiofsd; 0 if that has ended
}

// openState opens what the VM keeps, and removes the staging folders of a run that was
// killed.
func (s *supervisor) openState() error {
	l := s.launch
	needs := slices.ContainsFunc(l.VM.Shares, func(sh config.Share) bool { return sh.Host == "" })
	if l.StateDir == "" || l.VM.State != "home" && !needs {
		return nil
	}
	store, err := OpenStore(l.StateDir)
	if err != nil {
		return err
	}
	s.store = store
	if err := store.dropStaging(l.VM.Name); err != nil {
		s.log.printf("vix", "%v", err)
	}
	if l.VM.State != "home" {
		return nil
	}
	s.kept, err = store.open(l.VM.Name)
	return err
}

// startShares starts a server for each folder of the VM's start. QEMU's ends are in
// s.shares; startQEMU passes them on.
func (s *supervisor) startShares() error {
	s.undo(s.endShares)
	if err := s.openState(); err != nil {
		return err
	}
	if s.kept != nil {
		home := config.Share{Host: s.kept.home(), Guest: "/home/" + guestUser.Name, Write: true}
		if err := s.addShare(share{tag: homeTag, port: -1, folder: home}); err != nil {
			return err
		}
	}
	for i, folder := range s.launch.VM.Shares {
		if err := s.addShare(share{tag: shareTag(i), port: i, folder: folder}); err != nil {
			return err
		}
	}
	return nil
}

func shareTag(port int) string { return fmt.Sprintf("share%d", port) }

// addShare starts a share's server.
func (s *supervisor) addShare(sh share) error {
	if err := s.findFolder(&sh); err != nil {
		return err
	}
	s.widenFor(sh.folder)
	if _, err := os.Stat(s.launch.Parts.Virtiofsd); err != nil {
		return failf("virtiofsd: cannot be started: %v", err)
	}
	if err := s.dir.MkdirAll(sh.tag, 0o700); err != nil {
		return err
	}
	view := filepath.Join(s.reg.path, s.launch.VM.Name, sh.tag)
	args := []string{"shareview", "--report-fd", "4"}
	if sh.folder.Write {
		args = append(args, "--write")
	}
	args = append(append(args, sh.folder.Host, view, s.launch.Parts.Virtiofsd), shareArgs(view, sh.folder.Write)...)
	end, child, err := s.serveFolder(command{
		name: "virtiofsd " + sh.tag, path: s.launch.Parts.Self, args: args, attr: rootfs.ViewAttr(s.uid, os.Getgid()),
	})
	if err != nil {
		return err
	}
	sh.qemu, sh.server = end, child
	s.mu.Lock()
	s.shares = append(s.shares, &sh)
	s.mu.Unlock()
	s.noteShares()
	s.pumps.Go(func() { s.watchShare(&sh) })
	return nil
}

// endShares ends every share's server. From then on there are no new ones.
func (s *supervisor) endShares() error {
	s.shareTurn.Lock()
	defer s.shareTurn.Unlock()
	s.sharesEnded = true
	s.closeShares()
	for _, sh := range s.shares {
		if s.graceful {
			sh.server.end(endLimit)
		} else {
			sh.server.kill()
		}
	}
	var errs []error
	if s.kept != nil {
		errs = append(errs, s.kept.close())
	}
	if s.store != nil {
		errs = append(errs, s.store.dropStaging(s.launch.VM.Name), s.store.Close())
	}
	return errors.Join(errs...)
}

// findFolder makes a staging folder, or makes sure that there is what is to be shared.
func (s *supervisor) findFolder(sh *share) error {
	f := &sh.folder
	if f.Host == "" {
		if s.store == nil {
			return failf("VM %s: staging: no state directory; set XDG_STATE_HOME or HOME", s.launch.VM.Name)
		}
		word := strings.ToLower(rand.Text()[:10])
		path, err := s.store.newStaging(s.launch.VM.Name, word)
		if err != nil {
			return err
		}
		sh.staging = true
		f.Host, f.Guest = path, config.ShareDir+"/"+word
		s.note("VM %s: staging: %s is %s in the guest", s.launch.VM.Name, f.Host, f.Guest)
		return nil
	}
	real, err := filepath.EvalSymlinks(f.Host)
	if err != nil {
		return failf("VM %s: share %s: %v; make it, or take it out of shares", s.launch.VM.Name, f.Host, cause(err))
	}
	st, err := os.Stat(real)
	switch {
	case err != nil:
		return failf("VM %s: share %s: %v; make it, or take it out of shares", s.launch.VM.Name, f.Host, cause(err))
	case !st.IsDir():
		return failf("VM %s: share %s: not a directory; share the one that it is in", s.launch.VM.Name, f.Host)
	}
	if sh.tag != homeTag {
		for _, own := range s.launch.Private {
			if within(own, real) || within(real, own) {
				return failf("VM %s: share %s: holds or is a folder of Vix's own (%s), which would give the VM power over others; share another folder", s.launch.VM.Name, f.Host, own)
			}
		}
	}
	f.Host = real
	return nil
}

// within reports whether path is dir, or lies in it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && (rel == "." || filepath.IsLocal(rel))
}

// shareArgs serves dir. Whoever the guest says that somebody is: on the host, all
// belongs to the user who runs the VM (who is 0 in the server's user namespace, or is
// root), and in the guest to its ordinary user.
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

// serveFolder starts virtiofsd by cmd, which gets the listening socket as 3 and its
// report's pipe as 4, and returns a connection to it for QEMU. The socket's name
// exists only until that is made.
func (s *supervisor) serveFolder(cmd command) (*os.File, *child, error) {
	path := filepath.Join(s.reg.path, s.launch.VM.Name, "fs.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close() // and unlink
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	qemuEnd, err := conn.File()
	if err != nil {
		return nil, nil, err
	}
	lnFile, err := ln.File()
	if err != nil {
		return nil, nil, errors.Join(err, qemuEnd.Close())
	}
	report, reportEnd, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, qemuEnd.Close(), lnFile.Close())
	}
	cmd.files = []*os.File{lnFile, reportEnd}
	c, err := s.startConfined(cmd, report)
	if err != nil {
		return nil, nil, errors.Join(err, qemuEnd.Close())
	}
	return qemuEnd, c, nil
}

// watchShare waits for the end of a share's server. Without the home no VM can go on;
// without another share it can, with errors where that was.
func (s *supervisor) watchShare(sh *share) {
	<-sh.server.done
	s.noteShares()
	if sh.tag == homeTag {
		s.report(s.death(sh.server, "virtiofsd of the home directory ended"))
		return
	}
	s.mu.Lock()
	wanted := slices.Contains(s.shares, sh)
	s.mu.Unlock()
	if wanted && s.ctx.Err() == nil {
		s.note("VM %s: share %s: virtiofsd ended: %s: %s", s.launch.VM.Name, sh.folder.Guest, sh.server.status(), sh.server.last.String())
	}
}

// noteShares brings the state up to date. The home is no share to whoever looks: it is
// in Home.
func (s *supervisor) noteShares() {
	s.update(func(st *State) {
		st.Shares = []ShareState{}
		for _, sh := range s.shares {
			if sh.tag == homeTag {
				st.Home = sh.folder.Host
				continue
			}
			pid := sh.server.cmd.Process.Pid
			select {
			case <-sh.server.done:
				pid = 0
			default:
			}
			st.Shares = append(st.Shares, ShareState{sh.folder.Host, sh.folder.Guest, sh.folder.Write, pid})
		}
	})
}

// closeShares closes QEMU's ends, where QEMU did not get them.
func (s *supervisor) closeShares() {
	for _, sh := range s.shares {
		if sh.qemu != nil {
			sh.qemu.Close()
			sh.qemu = nil
		}
	}
}

// mounts is what the guest is told to mount at its start.
func (s *supervisor) mounts() []agent.Mount {
	var list []agent.Mount
	for _, sh := range s.shares {
		list = append(list, agent.Mount{Tag: sh.tag, Path: sh.folder.Guest, ReadOnly: !sh.folder.Write})
	}
	return list
}
