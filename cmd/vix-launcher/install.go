package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/agent"
)

// guestBin is in every guest's PATH, before the root's directories.
const guestBin = "/usr/local/bin"

func installCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "install NAME FILE…",
		Short: "copy programs of the host into a running VM",
		Long: `Copies executable files of the host to /usr/local/bin of the running VM NAME, where
its programs find them by name. They disappear with the VM. Libraries and data that
they need must be there already.

Each FILE must be a program: an ELF file or a script ("#!"). A link stands for the
file that it leads to. Two files of the same name are refused.`,
		Example: `  vix install web ./mytool
  vix install build scripts/*.sh`,
		Args: func(c *cobra.Command, a []string) error {
			if err := args(2, -1, "NAME or FILE")(c, a); err != nil {
				return err
			}
			if err := config.CheckName(a[0]); err != nil {
				return usagef("install: %v", err)
			}
			return nil
		},
		ValidArgsFunction: func(c *cobra.Command, a []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(a) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return completeFirstName(e)(c, a, word)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			c := &copyJob{
				e: e, sources: a[1:], to: location{a[0], guestBin},
				user: "root", receive: agent.Receive{Directory: true, Make: true, Mode: 0o755},
				check: checkProgram,
			}
			return c.run(cmd.Context())
		},
	}
}

// checkProgram refuses a file that is not executable, before it fails in the VM.
func checkProgram(f *os.File) error {
	path := f.Name()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("%s: not a file", path)
	}
	head := make([]byte, 4)
	n, _ := io.ReadFull(f, head)
	if head = head[:n]; !bytes.Equal(head, []byte("\x7fELF")) && !bytes.HasPrefix(head, []byte("#!")) {
		return fmt.Errorf("%s: neither an ELF program nor a script; for other files use vix cp", path)
	}
	return nil
}
