// Package launch starts programs in VMs, for the verb run, desktop entries, the D-Bus
// service, the menu, and the reader of disk images. A program's way:
//
//	Request ─► find       which VM, which command; its root may have to be read for that
//	        ─► Complete   paths with "~", shares, the check of the display's policy
//	        ─► BuildRoot  a root of packages that is not there yet
//	        ─► Run        vm.Registry's; Spec gathers what a new VM needs
//
// A notification (Startup), or a line on a terminal (Progress), shows how far the start is,
// and why it failed. The VM has the files that a desktop entry opens while their program
// runs (grants.go).
//
// It reads no command line and no environment, and starts no process: a Launcher has the
// machine and the session as cmd/ found them, and functions for the rest. Package vm
// defines what starts a VM, and how to ask one.
package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/godbus/dbus/v5"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/rootfs"
	"vix/internal/vm"
)

// A Launcher starts programs in VMs. Its fields do not change.
type Launcher struct {
	Version  string // of Vix
	Dirs     Dirs
	System   string     // "/": where the host's programs are
	Session  vm.Session // of the desktop, for windows
	Bus      string     // D-Bus address of the session's bus; "" where there is none
	GuestEnv []string   // K=V for every program in a guest
	Log      io.Writer  // gets a line for each slow step

	// Config reads config.toml, for each program anew.
	Config func() (*config.Config, error)
	// Parts finds the programs and files that a VM needs.
	Parts func() (vm.Parts, error)
	// Look finds a program of the host.
	Look func(program string) (path string, err error)
	// Archive says where a Debian comes from, and who fetches it.
	Archive func(*rootfs.Debian) error
	// Check finds what a VM's display would refuse of its configuration.
	Check func(config.VM) error
	// Warnings says, a line each, which protection a configuration takes away.
	Warnings func(config.VM) []string
}

// Dirs are the user's directories (XDG base directory specification): absolute paths,
// or "" where nothing names one.
type Dirs struct {
	Home    string
	Config  string // $XDG_CONFIG_HOME, and so on: all hold a directory vix
	Cache   string
	State   string
	Data    string
	Runtime string
}

func (d Dirs) cache() (string, error) { return requireDir(d.Cache, "XDG_CACHE_HOME") }

func (d Dirs) data() (string, error) { return requireDir(d.Data, "XDG_DATA_HOME") }

func requireDir(dir, variable string) (string, error) {
	if dir == "" {
		return "", fmt.Errorf("neither %s nor HOME is set", variable)
	}
	return dir, nil
}

// Roots returns the directory of the roots that Vix has built.
func (d Dirs) Roots() (string, error) {
	cache, err := d.cache()
	return filepath.Join(cache, "vix", "roots"), err
}

// A MisuseError is a mistake in the request, not a failure.
type MisuseError struct{ text string }

func (e *MisuseError) Error() string { return e.text }

func misusef(format string, a ...any) error { return &MisuseError{fmt.Sprintf(format, a...)} }

// Run runs a program in v, which it starts if v does not run, and returns as vm.Registry's
// Run does. It fills in r's fields about v and the session.
func (l *Launcher) Run(ctx context.Context, reg *vm.Registry, v config.VM, r vm.Run) (*vm.Exit, error) {
	r.VM, r.Session = v.Name, l.Session
	r.Launch = func() (vm.Launch, error) {
		spec, err := l.Spec(ctx, v)
		if err == nil {
			err = l.checkProgram(v, r)
		}
		return spec, err
	}
	return reg.Run(ctx, r)
}

// giveColor gives v, which starts now, a colour that it keeps, where config.toml names none.
// Without a state directory to keep it in, v has the one that would be chosen now.
func (l *Launcher) giveColor(ctx context.Context, v *config.VM) {
	if !v.NoColor {
		return
	}
	conf, err := l.Config()
	if err != nil {
		return // Spec reports it
	}
	store, err := vm.OpenStore(l.Dirs.State)
	if err != nil {
		return
	}
	defer store.Close()
	color, err := store.GiveColor(ctx, v.Name, func(given map[string]config.Color) config.Color {
		conf.GiveColors(given)
		named, _ := conf.VM(v.Name)
		return named.Color
	})
	if err == nil {
		v.Color = color
	}
}

// DialBus connects to the session bus.
func (l *Launcher) DialBus(ctx context.Context) (*dbus.Conn, error) {
	if l.Bus == "" {
		return nil, errors.New("there is no session bus")
	}
	return desktop.DialBus(ctx, l.Bus)
}
