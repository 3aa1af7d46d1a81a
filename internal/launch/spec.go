package launch

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"vix/config"
	"vix/internal/rootfs"
	"vix/internal/vm"
)

// Complete expands "~" in a VM's configuration, adds shares, which are run's, and checks
// what package config cannot.
func (l *Launcher) Complete(v config.VM, shares ...config.Share) (config.VM, error) {
	v, err := l.Dirs.expandPaths(v)
	if err != nil {
		return v, err
	}
	if v.Shares, err = l.Dirs.expandShares(v.Shares); err != nil {
		return v, err
	}
	v.Shares = append(v.Shares, shares...)
	if err := config.CheckShares(v.Shares); err != nil {
		return v, misusef("run: --share: %v", err)
	}
	return v, l.Check(v)
}

// expandPaths puts the home directory where a path of v begins with "~/".
func (d Dirs) expandPaths(v config.VM) (_ config.VM, err error) {
	if v.Initrd != "" && v.Kernel == "" {
		return v, fmt.Errorf("VM %s: initrd is set but kernel is not; set kernel to the one whose modules it holds", v.Name)
	}
	for _, path := range []*string{&v.Kernel, &v.Initrd} {
		if *path, err = d.Expand(*path); err != nil {
			return v, err
		}
	}
	if image, ok := strings.CutPrefix(v.Root, config.RootImage); ok {
		if image, err = d.Expand(image); err != nil {
			return v, err
		}
		v.Root = config.RootImage + image
	}
	return v, nil
}

// Spec gathers what a new VM needs, its colour too. Its error says what is missing, before
// anything starts.
func (l *Launcher) Spec(ctx context.Context, v config.VM) (vm.Launch, error) {
	l.giveColor(ctx, &v)
	parts, err := l.Parts()
	if err != nil {
		return vm.Launch{}, err
	}
	cache, err := l.Dirs.cache()
	if err != nil {
		return vm.Launch{}, err
	}
	roots, err := l.Dirs.Roots()
	if err != nil {
		return vm.Launch{}, err
	}
	socket := ""
	if !v.NoGUI {
		if socket, err = l.compositor(); err != nil {
			return vm.Launch{}, err
		}
	}
	conf, err := l.Config()
	if err != nil {
		return vm.Launch{}, err
	}
	return vm.Launch{
		Version: l.Version, VM: v, Parts: parts,
		RuntimeDir: l.Dirs.Runtime, ConfigDir: l.Dirs.Config, StateDir: l.Dirs.State,
		CacheDir: filepath.Join(cache, "vix", "boot"), RootsDir: roots,
		Wayland: socket, Sway: l.Session.Sway, Bus: l.Bus,
		GuestEnv: l.GuestEnv, Warnings: l.Warnings(v), Drags: conf.Clipboard.Drags(v.Name),
		Private: l.private(), Others: l.OtherShares(conf, v.Name),
	}, nil
}

// compositor returns the path of the compositor's socket, if there is one behind it.
func (l *Launcher) compositor() (string, error) {
	socket := l.Session.Wayland
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return "", fmt.Errorf("no compositor at %s; start a Wayland session, or set WAYLAND_DISPLAY, or run with --no-gui", socket)
	}
	return socket, conn.Close()
}

// BuildRoot builds the root of a VM, if it is a built one and does not exist yet.
func (l *Launcher) BuildRoot(ctx context.Context, v config.VM) error {
	suite, ok := strings.CutPrefix(v.Root, config.RootDebian)
	if !ok {
		return nil
	}
	roots, err := l.Dirs.Roots()
	if err != nil {
		return err
	}
	d := rootfs.Debian{Suite: suite, Packages: v.Packages, CacheDir: roots}
	if d.Built() {
		return nil
	}
	if err := l.Archive(&d); err != nil {
		return err
	}
	needs := []string{"mmdebstrap"}
	if os.Getuid() != 0 {
		needs = append(needs, "newuidmap", "tar")
	}
	for _, name := range needs {
		if _, err := l.Look(name); err != nil {
			return fmt.Errorf("root %s: %w; install it to build the root (Debian: mmdebstrap and uidmap)", v.Root, err)
		}
	}
	err = d.Build(ctx)
	if err != nil && strings.Contains(err.Error(), "/etc/subuid") {
		err = fmt.Errorf("%w; building it needs a range of subordinate ids: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER", err)
	}
	return err
}
