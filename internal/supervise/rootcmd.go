package supervise

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vix/internal/proc"
	"vix/internal/rootfs"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// viewName is the empty directory on which the process that serves the root
// "host" mounts its view, in a mount namespace of its own.
const viewName = "root"

// rootCommand says how the VM's root is served on the listening socket that the child gets
// as descriptor 3, and a directory's as 4: by virtiofsd, on
//
//	host        an allow-listed view of the host
//	/directory  the directory as it is, by its descriptor; that of a root that was built, too
//
// virtiofsd makes a sandbox of its own (mounts, processes, network, seccomp). For it,
// it needs its capabilities, in a user namespace if it is not root's, and mounts.
func (s *supervisor) rootCommand(from rootfs.Root) (cmd proc.Command, spec sandbox.Spec, err error) {
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
		dir, err := s.openPlace(from.Dir)
		if err != nil {
			return cmd, spec, vm.Failf("VM %s: root %s: %v", l.VM.Name, from.Dir, proc.Cause(err))
		}
		cmd.Files = []*os.File{dir.File}
		tree = sandbox.Tree{Dir: view, Host: dir.Path, Folder: folderFD, Whole: true}
	}
	return cmd, s.virtiofsdSpec(tree, virtiofsdArgs(view, s.uid, !from.View && from.Squash)), nil
}

// folderFD is the descriptor of the folder that a virtiofsd serves; before it, as 3, comes
// the socket on which it does.
const folderFD = 4

func (s *supervisor) virtiofsdSpec(tree sandbox.Tree, args []string) sandbox.Spec {
	return sandbox.Spec{Tree: &tree, KeepCapabilities: true, KeepMounts: true, Argv: append([]string{s.launch.Parts.Virtiofsd}, args...)}
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
