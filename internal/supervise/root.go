package supervise

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/rootfs"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// A rootPart is the root file system: an image, or a directory that a virtiofsd serves.
type rootPart struct {
	passive
	*host
	folders *folders
	child   *proc.Child
	qemu    *os.File // QEMU's end of the vhost-user socket, or the image; until QEMU has it
	format  string   // of the image; "" without one

	programs programs // under host.mu
}

func (s *rootPart) start() error {
	l := s.launch
	from, err := rootfs.FindRoot(l.VM.Root, l.VM.Packages, l.RootsDir)
	if err != nil {
		return err
	}
	s.stampPrograms(from)
	if from.Disk != "" {
		s.qemu, s.format, err = openImage(from.Disk)
		return err
	}
	cmd, spec, err := s.command(from)
	if err != nil {
		return err
	}
	if s.qemu, s.child, err = s.folders.serve(cmd, spec); err != nil {
		return err
	}
	s.own(s.child, "virtiofsd ended", func(p *vm.PIDs) *int { return &p.Virtiofsd })
	return nil
}

func (s *rootPart) devices() []qemu.Device {
	if s.format != "" {
		return []qemu.Device{qemu.Disk(take(&s.qemu), s.format)}
	}
	return []qemu.Device{qemu.RootFS(take(&s.qemu))}
}

func (s *rootPart) stop(graceful bool) error {
	proc.CloseFiles([]*os.File{s.qemu})
	endChild(s.child, graceful)
	return nil
}

// viewName is the empty directory on which the process that serves the root
// "host" mounts its view, in a mount namespace of its own.
const viewName = "root"

// command returns the virtiofsd that serves the VM's root. The child gets the listening
// socket as descriptor 3, and a directory as 4. It serves, for the root
//
//	host        an allow-listed view of the host
//	/directory  the directory as it is, by its descriptor; the same for a root that Vix has built
//
// virtiofsd makes a sandbox of its own (mounts, processes, network, seccomp). That needs
// capabilities, in a user namespace unless root runs it, and mounts.
func (s *rootPart) command(from rootfs.Root) (cmd proc.Command, spec sandbox.Spec, err error) {
	l := s.launch
	if _, err := os.Stat(l.Parts.Virtiofsd); err != nil {
		return cmd, spec, vm.Failf("virtiofsd: cannot be started: %v", err)
	}
	if err := s.dir.Mkdir(viewName, 0o700); err != nil {
		return cmd, spec, err
	}
	view := filepath.Join(s.reg.Path, l.VM.Name, viewName)
	cmd = proc.Command{Name: "virtiofsd", Attr: rootfs.ViewAttr(s.uid, os.Getgid())}
	tree := sandbox.Tree{Dir: view, Host: l.Parts.System}
	if !from.View {
		dir, err := s.folders.openPlace(from.Dir)
		if err != nil {
			return cmd, spec, vm.Failf("VM %s: root %s: %v", l.VM.Name, from.Dir, proc.Cause(err))
		}
		cmd.Files = []*os.File{dir.File}
		tree = sandbox.Tree{Dir: view, Host: dir.Path, Folder: folderFD, Whole: true}
	}
	return cmd, s.virtiofsdSpec(tree, virtiofsdArgs(view, s.uid, !from.View && from.Squash)), nil
}

// folderFD is the descriptor of the folder that a virtiofsd serves; 3 is its listening
// socket.
const folderFD = 4

// virtiofsdSpec is the confinement of a virtiofsd that serves tree.
func (s *host) virtiofsdSpec(tree sandbox.Tree, args []string) sandbox.Spec {
	return sandbox.Spec{Tree: &tree, KeepCapabilities: true, KeepMounts: true, Argv: append([]string{s.launch.Parts.Virtiofsd}, args...)}
}

// openImage opens a disk image, and finds its format. QEMU gets the descriptor and no name,
// and looks for no other file.
func openImage(path string) (*os.File, string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", vm.Failf("root %s: %v; change root in config.toml", path, proc.Cause(err))
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, "", errors.Join(vm.Failf("root %s: not a file; change root in config.toml", path), f.Close())
	}
	format, err := rootfs.ImageFormat(f)
	if err != nil {
		return nil, "", errors.Join(vm.Failf("root %s: %v", path, err), f.Close())
	}
	return f, format, nil
}

// virtiofsdArgs are virtiofsd's arguments to serve dir read-only. It announces no
// submounts: overlayfs in the guest refuses a lower layer that crosses into one.
//
// With squash, root owns every file in the guest.
func virtiofsdArgs(dir string, uid int, squash bool) []string {
	args := []string{
		"--fd=3", "--shared-dir=" + dir, "--readonly", "--no-announce-submounts",
		"--cache=always", "--sandbox=namespace", "--seccomp=kill", "--log-level=error",
		// Only a server that writes needs these capabilities, which it has if root runs it.
		"--modcaps=-chown:-fowner:-fsetid:-mknod:-setfcap",
	}
	switch {
	case squash:
		args = append(args, "--translate-uid=squash-host:0:0:4294967295", "--translate-gid=squash-host:0:0:4294967295")
	case uid != 0:
		// Root's files appear as nobody's in the user namespace.
		args = append(args, "--translate-uid=host:65534:0:1", "--translate-gid=host:65534:0:1")
	}
	return args
}

// A VM caches what it has seen of its root, and the host may upgrade the root meanwhile
// (rootfs.Stamp): run and list tell the user.

// programs describes the VM's root as it was at the VM's start. It does not change once
// the VM runs.
type programs struct {
	root  rootfs.Root
	stamp string // "" before the start
}

// stampPrograms notes the root's stamp before the guest sees any of the root.
func (s *rootPart) stampPrograms(root rootfs.Root) {
	stamp := rootfs.Stamp(root, s.launch.Parts.System)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.programs = programs{root, stamp}
}

// lookAtPrograms compares the stamps, and returns a note for the user; "" if the root has
// not changed.
func (s *rootPart) lookAtPrograms() string {
	s.mu.Lock()
	was := s.programs
	outdated := s.state.Outdated
	s.mu.Unlock()
	if !outdated && (was.stamp == "" || rootfs.Stamp(was.root, s.launch.Parts.System) == was.stamp) {
		return ""
	}
	text := vm.OutdatedText(s.launch.VM.Name, s.launch.VM.Root)
	if !outdated {
		s.log.Add("vix", text)
		s.update(func(st *vm.State) { st.Outdated = true })
	}
	return text
}
