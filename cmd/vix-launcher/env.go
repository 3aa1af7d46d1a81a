package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/launch"
	"vix/internal/proc"
	"vix/internal/termsafe"
	"vix/internal/vm"
)

// An env holds everything that a verb takes from its environment; packages below cmd/ do not
// look for themselves.
type env struct {
	getenv         func(string) string
	environ        func() []string
	self           func() (string, error)
	stdin          io.Reader
	stdout, stderr io.Writer // for Vix's own output: a *console for a terminal
	terminal       bool      // stderr is a terminal
	// unattended reports whether nobody sits at a terminal that this process belongs to: a key
	// of the compositor has started it, or a launcher. nil is no.
	unattended func() bool
	menuWords  launch.Notes // the standard error of vix-menu
}

func osEnv() *env {
	screen := &termsafe.Terminal{}
	return &env{
		getenv: os.Getenv, environ: os.Environ, self: os.Executable,
		stdin: os.Stdin, stdout: onConsole(screen, os.Stdout), stderr: onConsole(screen, os.Stderr),
		terminal:   ttyOf(os.Stderr) != nil && os.Getenv("TERM") != "dumb",
		unattended: func() bool { return !hasTerminal() },
	}
}

// hasTerminal reports whether this process has a controlling terminal. Standard error says
// less: what a key starts may have the console on which the compositor was started, and what
// runs in a terminal may write its errors to a file.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// runtimeDir returns the directory of sockets (XDG base directory specification).
func (e *env) runtimeDir() (string, error) {
	dir := e.getenv("XDG_RUNTIME_DIR")
	switch {
	case dir == "":
		return "", fmt.Errorf("XDG_RUNTIME_DIR is not set; log in through a session manager, or set it to a directory of your own (mode 0700)")
	case !filepath.IsAbs(dir):
		return "", fmt.Errorf("XDG_RUNTIME_DIR %s: not an absolute path", dir)
	}
	return filepath.Clean(dir), nil
}

func (e *env) registry() (*vm.Registry, error) {
	dir, err := e.runtimeDir()
	if err != nil {
		return nil, err
	}
	reg, err := vm.OpenRegistry(dir)
	if err == nil {
		reg.StateDir = e.dirs().State
	}
	return reg, err
}

// xdg returns a directory of the XDG base directory specification.
func (e *env) xdg(variable, below string) (string, error) {
	if dir := e.getenv(variable); filepath.IsAbs(dir) {
		return dir, nil
	}
	home := e.getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("neither %s nor HOME is set", variable)
	}
	return filepath.Join(home, below), nil
}

// configPath returns the path of config.toml, whether or not it exists.
func (e *env) configPath() (string, error) {
	dir, err := e.xdg("XDG_CONFIG_HOME", ".config")
	return filepath.Join(dir, "vix", "config.toml"), err
}

func (e *env) config() (*config.Config, error) {
	path, err := e.configPath()
	if err != nil {
		return nil, err
	}
	conf, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	if dir, err := e.xdg("XDG_STATE_HOME", ".local/state"); err == nil {
		conf.GiveColors(vm.Colors(dir))
	}
	return conf, nil
}

// wayland returns the path of the compositor's socket, as libwayland finds it.
func (e *env) wayland() (string, error) {
	name := e.getenv("WAYLAND_DISPLAY")
	if name == "" {
		name = "wayland-0"
	}
	if filepath.IsAbs(name) {
		return name, nil
	}
	dir, err := e.runtimeDir()
	return filepath.Join(dir, name), err
}

// launcher returns a launcher of programs in VMs, with the parts that this machine and session
// have. It reports a missing part when it needs it.
func (e *env) launcher() *launch.Launcher {
	bus, err := e.sessionBus()
	if err != nil {
		bus = ""
	}
	return &launch.Launcher{
		Version: version, Dirs: e.dirs(), System: "/", Session: e.session(), Bus: bus, GuestEnv: e.guestEnv(), Log: e.stderr,
		Config: e.config, Parts: e.parts, Archive: e.archive, Check: checkPolicy, Warnings: warnings,
		Look: func(name string) (string, error) { return e.look(name) },
	}
}

// dirs returns the user's directories, those that can be determined.
func (e *env) dirs() launch.Dirs {
	named := func(dir string, err error) string {
		if err != nil {
			return ""
		}
		return filepath.Clean(dir)
	}
	home := e.getenv("HOME")
	if !filepath.IsAbs(home) {
		home = ""
	}
	return launch.Dirs{
		Home:    home,
		Config:  named(e.xdg("XDG_CONFIG_HOME", ".config")),
		Cache:   named(e.xdg("XDG_CACHE_HOME", ".cache")),
		State:   named(e.xdg("XDG_STATE_HOME", ".local/state")),
		Data:    named(e.xdg("XDG_DATA_HOME", ".local/share")),
		Runtime: named(e.runtimeDir()),
	}
}

// session returns the parts of the user's desktop session that a VM may use.
func (e *env) session() vm.Session {
	socket, _ := e.wayland() // its user reports why there is none
	return vm.Session{Wayland: socket, Sway: e.getenv("SWAYSOCK")}
}

// Directories outside PATH where distributions install virtiofsd.
var virtiofsdPlaces = []string{
	"/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/libexec/qemu/virtiofsd",
	"/run/current-system/sw/bin/virtiofsd",
}

// qemuName is QEMU's program for the only kind of machine that internal/qemu describes.
const qemuName = "qemu-system-x86_64"

// The kernel's directory of USB devices, and the directory of the nodes that programs open.
const (
	usbDevices = "/sys/bus/usb/devices"
	usbNodes   = "/dev/bus/usb"
)

// vhostVsock is the kernel's device for vsock.
const vhostVsock = "/dev/vhost-vsock"

// passtName is the program that serves a VM's network.
const passtName = "passt"

// look finds a program on PATH, then at places.
func (e *env) look(name string, places ...string) (string, error) {
	for _, dir := range filepath.SplitList(e.getenv("PATH")) {
		if filepath.IsAbs(dir) {
			places = append(places, filepath.Join(dir, name))
		}
	}
	for _, p := range places {
		// LookPath of a path with a slash checks that p is executable.
		if _, err := exec.LookPath(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// siblingPath finds another program of Vix: in this program's directory, or in ../libexec/vix.
func (e *env) siblingPath(name string) (string, error) {
	self, err := e.self()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(self)
	for _, p := range []string{filepath.Join(dir, name), filepath.Join(dir, "..", "libexec", "vix", name)} {
		if _, err := exec.LookPath(p); err == nil {
			return filepath.Clean(p), nil
		}
	}
	return "", fmt.Errorf("%s is neither beside vix-launcher (%s) nor in ../libexec/vix; reinstall Vix", name, dir)
}

// again makes a command of this running program, even if its file was replaced.
func (e *env) again(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := e.self()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Path = proc.Running
	return cmd, nil
}

// pressureFile reports how long programs wait for memory. It is a variable, so that a test's
// build can imitate a host short of memory.
var pressureFile = "/proc/pressure/memory"

// parts finds the programs that a VM needs.
func (e *env) parts() (p vm.Parts, err error) {
	p = vm.Parts{Vhost: vhostVsock, USB: usbDevices, USBNodes: usbNodes, System: "/", KVM: "/dev/kvm", CPUInfo: "/proc/cpuinfo", Proc: "/proc", Pressure: pressureFile}
	if p.Self, err = e.self(); err != nil {
		return p, err
	}
	if p.QEMU, err = e.look(qemuName); err != nil {
		return p, fmt.Errorf("%w; install QEMU 11 or newer (Debian: qemu-system-x86 from backports)", err)
	}
	if p.Virtiofsd, err = e.look("virtiofsd", virtiofsdPlaces...); err != nil {
		return p, fmt.Errorf("%w; install it (Debian, Fedora, Arch: virtiofsd)", err)
	}
	p.Passt, _ = e.look(passtName) // QEMU has a network without it
	if p.Proxy, err = e.siblingPath("vix-waylandproxy"); err != nil {
		return p, err
	}
	p.Guest, err = e.siblingPath("vix-guest")
	return p, err
}

// guestEnv returns the part of our environment that every program in a guest sees: only the
// language.
func (e *env) guestEnv() []string {
	var list []string
	for _, kv := range e.environ() {
		name, _, _ := strings.Cut(kv, "=")
		if name == "LANG" || name == "LANGUAGE" || strings.HasPrefix(name, "LC_") {
			list = append(list, kv)
		}
	}
	return list
}
