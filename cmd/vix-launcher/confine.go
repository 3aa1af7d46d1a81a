package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/rootfs"
	"vix/internal/sandbox"
)

// confineCommand is the process that confines itself and becomes another program, as the
// sandbox.Spec on descriptor FD says. Its parent starts it in namespaces of its own where
// possible.
func confineCommand(*env) *cobra.Command {
	var own bool
	c := &cobra.Command{
		Use:    "confine FD",
		Hidden: true,
		Args:   args(1, 1, "FD"),
		RunE: func(_ *cobra.Command, a []string) error {
			fd, err := strconv.Atoi(a[0])
			if err != nil || !isKind(fd, unix.S_IFSOCK) {
				return usagef("confine: started only by vix")
			}
			f := os.NewFile(uintptr(fd), "specification")
			spec, err := sandbox.ReadSpec(f)
			if err != nil {
				return err
			}
			if spec.Tree != nil {
				if err := mountTree(*spec.Tree); err != nil {
					return err
				}
			}
			tell := func(r sandbox.Report) {
				_ = json.NewEncoder(f).Encode(r) // the parent may have gone
				_ = f.Close()                    // the program must not inherit it
			}
			return sandbox.Exec(spec.Profile(own), tell, spec.Argv, nil)
		},
	}
	c.Flags().BoolVar(&own, strings.TrimPrefix(sandbox.OwnNamespaces, "--"), false, "started in namespaces of its own")
	return c
}

// mountTree mounts the tree that this process will serve.
func mountTree(t sandbox.Tree) error {
	if !ownMounts() {
		return usagef("confine: mounts in a namespace of its own only")
	}
	unix.Umask(0o022) // the supervisor's would lock the guest's user out, and a guest chooses its files' permissions
	if t.Folder == 0 {
		return rootfs.MountView(t.Host, t.Dir)
	}
	unix.CloseOnExec(t.Folder) // virtiofsd must not reach outside the tree
	mount := func(host, dir string) error { return rootfs.MountShare(host, dir, t.Write) }
	if t.Whole {
		mount = rootfs.MountTree
	}
	if err := mount(fmt.Sprintf("/proc/self/fd/%d", t.Folder), t.Dir); err != nil {
		return fmt.Errorf("%s: %w", t.Host, err)
	}
	return rootfs.DenySetuid()
}

// ownMounts reports whether this process has a mount namespace of its own: its mounts must
// not appear on the host.
func ownMounts() bool {
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	// From within a user namespace, the parent's namespace is not readable.
	parents, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	return err != nil || ours != parents
}

// confinedCommand makes the command of a child that carries out spec, with an empty
// environment and, if own is set, in namespaces of its own. Its report comes from report. The
// caller closes report and, after the start, cmd.ExtraFiles[0].
func (e *env) confinedCommand(ctx context.Context, spec sandbox.Spec, own bool) (cmd *exec.Cmd, report *os.File, err error) {
	if cmd, err = e.again(ctx, sandbox.Verb(3, own)...); err != nil {
		return nil, nil, err
	}
	report, theirs, err := spec.Offer()
	if err != nil {
		return nil, nil, err
	}
	cmd.Env, cmd.ExtraFiles = []string{}, []*os.File{theirs}
	if own {
		cmd.SysProcAttr = sandbox.Attr(os.Getuid(), os.Getgid())
	}
	return cmd, report, nil
}
