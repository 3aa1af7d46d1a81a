package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"vix/internal/rootfs"
)

// debianKeyring is the path of the archive's keys on Debian and its derivatives.
const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// archive sets the source of a Debian and the function that fetches it.
func (e *env) archive(d *rootfs.Debian) error {
	if d.Mirror = e.getenv("VIX_MIRROR"); d.Mirror == "" {
		if apt, err := os.OpenRoot("/etc/apt"); err == nil {
			d.Mirror = rootfs.AptMirror(apt.FS())
			apt.Close()
		}
	}
	if d.Mirror == "" {
		return fmt.Errorf("root debian:%s: this machine's apt sources name no Debian archive; set VIX_MIRROR to the URI of one", d.Suite)
	}
	if _, err := os.Stat(debianKeyring); err == nil {
		d.Keyring = debianKeyring
	}
	d.Run = e.pipeline
	d.Progress = func(text string) { fmt.Fprintf(e.stderr, "vix: %s\n", text) }
	return nil
}

// pipeline runs programs, each reading the output of the one before. The first program's error
// comes before the others'.
func (e *env) pipeline(ctx context.Context, log io.Writer, argvs ...[]string) error {
	var cmds []*exec.Cmd
	var last io.Reader
	for _, argv := range argvs {
		path, err := e.look(argv[0])
		if err != nil {
			return err
		}
		c := exec.CommandContext(ctx, path, argv[1:]...)
		c.Env = []string{"PATH=" + e.getenv("PATH"), "HOME=" + e.getenv("HOME"), "LANG=C.UTF-8"}
		c.Stdin, c.Stderr = last, log
		if len(cmds)+1 < len(argvs) {
			if last, err = c.StdoutPipe(); err != nil {
				return err
			}
		} else {
			c.Stdout = log
		}
		cmds = append(cmds, c)
	}
	for _, c := range cmds {
		if err := c.Start(); err != nil {
			return err
		}
	}
	// The last program is waited for first: Wait may close a pipe only after its reader is done.
	errs := make([]error, len(cmds))
	for i := len(cmds) - 1; i >= 0; i-- {
		errs[i] = cmds[i].Wait()
	}
	return errors.Join(errs...)
}
