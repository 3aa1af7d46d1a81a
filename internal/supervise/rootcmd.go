package supervise

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vix/internal/proc"
	"vix/internal/rootfs"
	"vix/internal/vm"
)

// viewName is the empty directory on which the process that serves the root
// "host" mounts its view, in a mount namespace of its own.
const viewName = "root"

// rootCommand says how the VM's root is served on the listening socket that
// the child gets as descriptor 3; its report comes through 4, and a directory as 5:
//
//	host        vix-launcher rootview: an allow-listed view of the host, which becomes virtiofsd
//	/directory  vix-launcher shareview: the directory as it is, by its descriptor; that of a
//	            root that was built, too
//
// virtiofsd makes a sandbox of its own (mounts, processes, network, seccomp). For it,
// it needs its capabilities, in a user namespace if it is not root's, and mounts.
func (s *supervisor) rootCommand(from rootfs.Root) (proc.Command, error) {
	l := s.launch
	if _, err := os.Stat(l.Parts.Virtiofsd); err != nil {
		return proc.Command{}, vm.Failf("virtiofsd: cannot be started: %v", err)
	}
	if err := s.dir.Mkdir(viewName, 0o700); err != nil {
		return proc.Command{}, err
	}
	view := filepath.Join(s.reg.Path, l.VM.Name, viewName)
	cmd := proc.Command{Name: "virtiofsd", Path: l.Parts.Self, Attr: rootfs.ViewAttr(s.uid, os.Getgid())}
	if from.View {
		cmd.Args = append([]string{"rootview", "--report-fd", "4", l.Parts.System, view, l.Parts.Virtiofsd}, virtiofsdArgs(view, s.uid, false)...)
		return cmd, nil
	}
	dir, err := s.openPlace(from.Dir)
	if err != nil {
		return proc.Command{}, vm.Failf("VM %s: root %s: %v", l.VM.Name, from.Dir, proc.Cause(err))
	}
	cmd.Files = []*os.File{dir.File}
	cmd.Args = append([]string{"shareview", "--report-fd", "4", "--folder-fd", "5", "--whole", dir.Path, view, l.Parts.Virtiofsd}, virtiofsdArgs(view, s.uid, from.Squash)...)
	return cmd, nil
}

// openImage opens a disk's image. QEMU gets the descriptor and no name, and looks for
// no other file: what the image is, is looked at here.
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

// virtiofsdArgs serves dir, read-only. Submounts are not announced: overlayfs
// in the guest refuses a lower layer that crosses into one.
//
// squash: every file is to be root's in the guest.
func virtiofsdArgs(dir string, uid int, squash bool) []string {
	args := []string{
		"--fd=3", "--shared-dir=" + dir, "--readonly", "--no-announce-submounts",
		"--cache=always", "--sandbox=namespace", "--seccomp=kill", "--log-level=error",
		// What a server that writes would need: root's own capabilities, if root runs it.
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
