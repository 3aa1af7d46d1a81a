package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/launch"
	"vix/internal/plain"
	"vix/internal/sandbox"
)

func desktopCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "desktop sync|list|remove",
		Short: "make desktop entries for the programs of VMs",
		Long: `Makes desktop entries for the programs of the VMs in config.toml, so that every
launcher and menu offers them. They are in $XDG_DATA_HOME/applications, named
dev.vix.VM.PROGRAM.desktop, with an icon that has the VM's colour in its corner.

A VM's key "desktop" says which programs have entries, and "mime" which files they
open. Each entry starts its program in its VM and nowhere else. Its actions run the
program in a new disposable VM, open a terminal in the VM, and stop the VM.`,
		Example: `  vix desktop sync
  vix desktop sync --dry-run
  vix desktop list
  vix desktop remove web`,
		Args: func(c *cobra.Command, a []string) error {
			if len(a) == 0 {
				return usagef("desktop: want sync, list or remove; see %s --help", c.CommandPath())
			}
			return usagef("desktop: unknown verb %q; want sync, list or remove", clip(a[0]))
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	c.AddCommand(desktopSyncCommand(e), desktopListCommand(e), desktopRemoveCommand(e), desktopLaunchCommand(e))
	return c
}

func desktopSyncCommand(e *env) *cobra.Command {
	var dry, asJSON bool
	c := &cobra.Command{
		Use:   "sync [--dry-run] [--json]",
		Short: "make the entries that config.toml asks for",
		Long: `Writes the desktop entries, icons and D-Bus service files of the VMs' programs, and
removes those of programs and VMs that are gone; those of a VM that an error in
config.toml disables stay. Touches only files that it has made. To read a disk
image (root = "image:PATH") that is new or has changed, it starts the image briefly
in a VM without a display, network or home, even with --dry-run.`,
		Example: "  vix desktop sync --dry-run",
		Args:    args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := e.config()
			if err != nil {
				return err
			}
			want, notes, err := e.entries(c.Context(), conf)
			if err != nil {
				return err
			}
			for _, name := range slices.Sorted(maps.Keys(conf.Disabled)) {
				notes = append(notes, "the entries of VM "+name+" stay as they are: "+plain.Error(conf.Disabled[name].Errors))
			}
			if want, err = e.keepDisabled(conf, want); err != nil {
				return err
			}
			for _, n := range notes {
				fmt.Fprintln(e.stderr, "vix: "+n)
			}
			return e.applyEntries(c.Context(), want, dry, asJSON)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would change, and change nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print the changes as JSON")
	return c
}

func desktopListCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "list [--json]",
		Short:   "list the entries",
		Long:    `Lists the desktop entries that "desktop sync" has made.`,
		Example: "  vix desktop list --json",
		Args:    args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			data, err := e.dataDir()
			if err != nil {
				return err
			}
			defer data.Close()
			list := desktop.List(data)
			if asJSON {
				return printJSON(e.stdout, list)
			}
			for _, i := range list {
				fmt.Fprintf(e.stdout, "%-16s %-32s %s\n", i.VM, i.App, i.Name)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return c
}

func desktopRemoveCommand(e *env) *cobra.Command {
	var dry, asJSON bool
	c := &cobra.Command{
		Use:   "remove [--dry-run] [--json] [VM…]",
		Short: "remove the entries of some VMs, or all",
		Long: `Removes the desktop entries of the named VMs, or all. The next "desktop sync" makes
them again, unless config.toml says otherwise.`,
		Example: "  vix desktop remove web",
		Args:    args(0, -1, "VM"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			data, err := e.dataDir()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			defer data.Close()
			var names []string
			for _, i := range desktop.List(data) {
				names = append(names, i.VM)
			}
			slices.Sort(names)
			return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, vms []string) error {
			data, err := e.dataDir()
			if err != nil {
				return err
			}
			defer data.Close()
			for _, name := range vms {
				if err := config.CheckName(name); err != nil {
					return usagef("desktop remove: %v", err)
				}
			}
			rest, err := desktop.Keep(data, func(i desktop.InstalledEntry) bool { return len(vms) > 0 && !slices.Contains(vms, i.VM) })
			if err != nil {
				return err
			}
			return e.applyEntries(c.Context(), rest, dry, asJSON)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would change, and change nothing")
	c.Flags().BoolVar(&asJSON, "json", false, "print the changes as JSON")
	return c
}

// keepDisabled adds the entries that there are of VMs which an error in config.toml disables:
// what they should be is not known.
func (e *env) keepDisabled(conf *config.Config, want []desktop.File) ([]desktop.File, error) {
	if len(conf.Disabled) == 0 {
		return want, nil
	}
	data, err := e.dataDir()
	if err != nil {
		return nil, err
	}
	defer data.Close()
	kept, err := desktop.Keep(data, func(i desktop.InstalledEntry) bool {
		_, ok := conf.Disabled[i.VM]
		return ok
	})
	return append(want, kept...), err
}

// dataDir opens $XDG_DATA_HOME, and makes it if necessary.
func (e *env) dataDir() (*os.Root, error) {
	dir, err := e.xdg("XDG_DATA_HOME", filepath.Join(".local", "share"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

// entries returns the files of every entry that the configuration requests.
func (e *env) entries(ctx context.Context, conf *config.Config) (files []desktop.File, notes []string, err error) {
	self, err := e.installedPath()
	if err != nil {
		return nil, nil, err
	}
	unit := e.unit()
	l := e.launcher()
	unread := l.ReadImages(ctx, conf)
	list, notes := l.Apps(conf)
	notes = append(unread, notes...)
	defer launch.CloseApps(list)
	for _, a := range list {
		for _, app := range a.Apps {
			name := app.EntryName()
			f := desktop.EntryFile{App: app, VM: a.VM, Launcher: self, Icon: name, DBus: true}
			icons, err := desktop.Icon(ctx, a.Root, app.Icon, a.VM.Color, e.rasterise)
			if err != nil {
				if f.Icon = "application-x-executable"; a.VM.Root == config.RootHost && app.Icon != "" {
					f.Icon = app.Icon // an icon of the host's own theme
				}
			}
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			files = append(files, f.Files(icons, unit)...)
		}
	}
	return files, notes, nil
}

// installedPath is the path of Vix in entries: the one found in PATH if it is this program,
// since a system link outlives a version.
func (e *env) installedPath() (string, error) {
	self, err := e.self()
	if err != nil {
		return "", err
	}
	if found, err := e.look(filepath.Base(self)); err == nil && sameFile(found, self) {
		return found, nil
	}
	return self, nil
}

// sameFile reports whether two paths lead to one file.
func sameFile(a, b string) bool {
	realA, err := filepath.EvalSymlinks(a)
	if err != nil {
		return false
	}
	realB, err := filepath.EvalSymlinks(b)
	return err == nil && realA == realB
}

// unitName is the systemd user unit of the D-Bus service.
const unitName = "vix-dbus.service"

// unit returns unitName if it is installed, else "".
func (e *env) unit() string {
	dirs := []string{"/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user", "/run/current-system/sw/lib/systemd/user"}
	for _, x := range []struct{ variable, below string }{{"XDG_DATA_HOME", ".local/share"}, {"XDG_CONFIG_HOME", ".config"}} {
		if dir, err := e.xdg(x.variable, x.below); err == nil {
			dirs = append(dirs, filepath.Join(dir, "systemd", "user"))
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, unitName)); err == nil {
			return unitName
		}
	}
	return ""
}

// applyEntries writes the files in want, prints the changes, and tells the bus.
func (e *env) applyEntries(ctx context.Context, want []desktop.File, dry, asJSON bool) error {
	data, err := e.dataDir()
	if err != nil {
		return err
	}
	defer data.Close()
	changes, err := desktop.Sync(data, want, dry)
	if asJSON {
		if changes == nil {
			changes = []desktop.Change{}
		}
		err = errors.Join(err, printJSON(e.stdout, changes))
	} else {
		n := map[string]int{}
		for _, c := range changes {
			if strings.HasSuffix(c.Path, ".desktop") {
				n[c.Action]++
				fmt.Fprintf(e.stdout, "%-6s %s\n", c.Action, strings.TrimSuffix(filepath.Base(c.Path), ".desktop"))
			}
		}
		would := ""
		if dry {
			would = "would be "
		}
		fmt.Fprintf(e.stdout, "%d entries %sadded, %d updated, %d removed\n", n["add"], would, n["update"], n["remove"])
	}
	if !dry && len(changes) > 0 {
		e.announceEntries(ctx, data.Name())
	}
	return err
}

// announceEntries notifies those who keep lists of entries: the bus about its services, our
// own service about its names, and file managers about file types. All of them are optional.
func (e *env) announceEntries(ctx context.Context, data string) {
	if address, err := e.sessionBus(); err == nil {
		limit, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		desktop.Reload(limit, address)
	}
	if path, err := e.look("update-desktop-database"); err == nil {
		_ = exec.CommandContext(ctx, path, "-q", filepath.Join(data, "applications")).Run()
	}
}

// sessionBus returns the address of the session bus (D-Bus specification; systemd's pam puts
// its socket into the runtime directory).
func (e *env) sessionBus() (string, error) {
	if a := e.getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" {
		return a, nil
	}
	dir, err := e.runtimeDir()
	return "unix:path=" + filepath.Join(dir, "bus"), err
}

// Limits of the child that draws an icon.
const (
	rasteriseLimit = 10 * time.Second
	maxRasterised  = 4 << 20
)

// rasterise lets librsvg draw a guest's SVG, in a child that has only the system's files, no
// network, and no privileges to gain.
func (e *env) rasterise(ctx context.Context, svg []byte, size int) ([]byte, error) {
	tool, err := e.look("rsvg-convert")
	if err != nil {
		return nil, fmt.Errorf("%w; install librsvg's tools (Debian: librsvg2-bin)", err)
	}
	if tool, err = filepath.EvalSymlinks(tool); err != nil {
		return nil, err
	}
	side := fmt.Sprint(size)
	spec := sandbox.Spec{Files: sandbox.ProgramFiles(tool), Argv: []string{tool, "-a", "-w", side, "-h", side}}
	ctx, cancel := context.WithTimeout(ctx, rasteriseLimit)
	defer cancel()
	var out []byte
	for _, own := range []bool{true, false} { // not every machine allows users to make namespaces
		var cmd *exec.Cmd
		var report *os.File
		if cmd, report, err = e.confinedCommand(ctx, spec, own); err != nil {
			return nil, err
		}
		cmd.Stdin = bytes.NewReader(svg)
		out, err = outputOf(cmd, maxRasterised)
		report.Close()
		cmd.ExtraFiles[0].Close()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return out, err
}

// outputOf runs cmd and returns its output, at most limit bytes.
func outputOf(cmd *exec.Cmd, limit int64) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(pipe, limit+1))
	if int64(len(out)) > limit {
		_ = cmd.Process.Kill()
		err = fmt.Errorf("more than %d bytes", limit)
	}
	if werr := cmd.Wait(); err == nil && werr != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		err = fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), werr, clip(first))
	}
	return out, err
}
