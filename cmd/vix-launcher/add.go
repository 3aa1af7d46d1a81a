package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/plain"
	"vix/internal/rootfs"
	"vix/internal/vm"
)

func addCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME PACKAGE…",
		Short: "add packages to a running VM",
		Long: `Adds packages to the running VM NAME, the way its root allows:

- "debian:SUITE": this machine's apt-get fetches and checks them, and Vix installs
  them in the VM, which needs no network.
- "image:PATH" or a directory: the root's own package manager (apt, dnf, pacman,
  apk or zypper) adds them, if the VM has a network.
- "host": has this machine's own programs. Install the packages here.

The packages disappear with the VM. The command prints the line for config.toml
that adds them at every start.`,
		Example: `  vix add web jq
  vix add office libreoffice-writer hunspell-de-de`,
		Args: func(c *cobra.Command, a []string) error {
			if err := args(2, -1, "NAME or PACKAGE")(c, a); err != nil {
				return err
			}
			if err := config.CheckName(a[0]); err != nil {
				return usagef("add: %v", err)
			}
			for _, p := range a[1:] {
				if !config.IsPackage(p) {
					return usagef("add: %q is not a package's name", clip(p))
				}
			}
			return nil
		},
		ValidArgsFunction: completeFirstName(e),
		RunE:              func(c *cobra.Command, a []string) error { return e.add(c.Context(), a[0], a[1:]) },
	}
}

func (e *env) add(ctx context.Context, name string, packages []string) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	st, err := stateOf(ctx, reg, name)
	if err != nil {
		return err
	}
	suite, debian := strings.CutPrefix(st.Root, config.RootDebian)
	switch {
	case st.Root == config.RootHost:
		return fmt.Errorf("VM %s: its programs are this machine's own; install %s here and restart the VM, or give it a root of its own, such as root = \"debian:trixie\"", name, strings.Join(packages, ", "))
	case !debian:
		return e.addByOwn(ctx, name, packages)
	}
	return e.addDebs(ctx, name, suite, packages)
}

// addDebs fetches packages for a Debian root and installs them in the VM.
func (e *env) addDebs(ctx context.Context, name, suite string, packages []string) error {
	conf, err := e.config()
	if err != nil {
		return err
	}
	v, err := conf.VM(name)
	if err != nil {
		return err
	}
	roots, err := e.dirs().Roots()
	if err != nil {
		return err
	}
	d := rootfs.Debian{Suite: suite, Packages: v.Packages, CacheDir: roots}
	if !d.Built() {
		return fmt.Errorf("VM %s: the packages in config.toml have changed since it started; stop it and run it again", name)
	}
	if err := e.archive(&d); err != nil {
		return err
	}
	if _, err := e.look("apt-get"); err != nil {
		return fmt.Errorf("VM %s: %w; it is needed to fetch packages (Debian: apt)", name, err)
	}
	files, err := d.Download(ctx, packages)
	if err != nil {
		return fmt.Errorf("VM %s: %w", name, err)
	}
	if len(files) == 0 {
		fmt.Fprintf(e.stderr, "vix: VM %s: its root already has %s\n", name, strings.Join(packages, ", "))
		return nil
	}
	if err := e.installDebs(ctx, name, files); err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "vix: VM %s: added %d packages until it stops; to add them at every start, put this under [vm.%s] in config.toml:\n", name, len(files), name)
	fmt.Fprintf(e.stdout, "packages = [%s]\n", quote(append(v.Packages, packages...)))
	return nil
}

// quote returns the inside of a TOML array of the names, each once.
func quote(names []string) string {
	var list []string
	seen := map[string]bool{}
	for _, n := range names {
		if !seen[n] {
			list = append(list, `"`+n+`"`)
		}
		seen[n] = true
	}
	return strings.Join(list, ", ")
}

// debsDir is the guest's directory of packages to install.
const debsDir = "/var/cache/vix-add"

func (e *env) installDebs(ctx context.Context, name string, files []string) error {
	c := &copyJob{
		e: e, sources: files, to: location{name, debsDir},
		user: "root", receive: agent.Receive{Directory: true, Make: true, Mode: 0o644},
	}
	if err := c.run(ctx); err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "vix: installing %d packages in VM %s\n", len(files), name)
	return e.asRoot(ctx, name, "cd "+debsDir+" && dpkg --force-unsafe-io --install ./*.deb; s=$?; rm -r "+debsDir+"; exit $s")
}

// ownManagers installs "$@" as root, or reports that it cannot.
const ownManagers = `
awk 'NR > 1 && $2 == "00000000" { ok = 1 } END { exit !ok }' /proc/net/route 2>/dev/null ||
	{ echo "the VM has no network" >&2; exit 100; }
if command -v apt-get >/dev/null; then apt-get -q update && exec apt-get -qy install -- "$@"; exit 1; fi
if command -v dnf >/dev/null; then exec dnf -y install -- "$@"; fi
if command -v pacman >/dev/null; then exec pacman -Sy --noconfirm -- "$@"; fi
if command -v apk >/dev/null; then exec apk add -- "$@"; fi
if command -v zypper >/dev/null; then exec zypper -n install -- "$@"; fi
echo "its root has no known package manager (apt, dnf, pacman, apk, zypper)" >&2; exit 100`

func (e *env) addByOwn(ctx context.Context, name string, packages []string) error {
	fmt.Fprintf(e.stderr, "vix: asking the package manager of VM %s\n", name)
	err := e.asRoot(ctx, name, ownManagers, packages...)
	if err != nil {
		return fmt.Errorf("%w; for single programs use vix install, or change root in config.toml", err)
	}
	return nil
}

// asRoot runs a script as root in a VM. An error contains the end of the script's output.
func (e *env) asRoot(ctx context.Context, name, script string, args ...string) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	lastOutput := &lastLine{}
	exit, err := reg.Run(ctx, vm.Run{
		VM: name, How: vm.How{User: "root", Cwd: "/"}, Env: []string{"DEBIAN_FRONTEND=noninteractive"},
		Argv:  append([]string{"sh", "-c", script, "sh"}, args...),
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: lastOutput,
	})
	if err != nil {
		return err
	}
	if code := exit.Status(); code != 0 {
		if lastOutput.text == "" {
			lastOutput.text = fmt.Sprintf("status %d", code)
		}
		return errors.New("VM " + name + ": " + lastOutput.text)
	}
	return nil
}

// A lastLine keeps the last line written to it, made fit for a terminal.
type lastLine struct {
	rest []byte
	text string
}

const maxLastLine = 256

func (l *lastLine) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c != '\n' && len(l.rest) < maxLastLine:
			l.rest = append(l.rest, c)
		case c == '\n':
			if line := bytes.TrimSpace(l.rest); len(line) > 0 {
				l.text = plain.Text(string(line), maxLastLine, plain.OneLine)
			}
			l.rest = l.rest[:0]
		}
	}
	return len(p), nil
}
