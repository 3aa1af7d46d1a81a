package vm

import (
	"slices"
	"unicode/utf8"

	"vix/config"
	"vix/internal/agent"
)

// A Launch is everything that a supervisor gets: it looks at no environment.
type Launch struct {
	Version    string            `json:"version"` // of Vix
	VM         config.VM         `json:"vm"`
	RuntimeDir string            `json:"runtime_dir"` // that holds vix/
	CacheDir   string            `json:"cache_dir"`   // for kernel and initramfs
	Wayland    string            `json:"wayland"`     // the compositor's socket
	Bus        string            `json:"bus"`         // D-Bus address of the session's bus; "" where there is none
	GuestEnv   agent.Strings     `json:"guest_env"`   // K=V for every program
	Warnings   []string          `json:"warnings"`    // for clients that start a program while the VM starts
	Parts      Parts             `json:"parts"`
	RootsDir   string            `json:"roots_dir"`        // $XDG_CACHE_HOME/vix/roots, of roots that were built
	StateDir   string            `json:"state_dir"`        // $XDG_STATE_HOME, that holds vix/; "" where there is none
	Drags      []config.DragRule `json:"drags,omitempty"`  // the clipboard's rules, for the display process
	ConfigDir  string            `json:"config_dir"`       // $XDG_CONFIG_HOME, that holds vix/, for the clipboard's rules
	Private    []string          `json:"private"`          // directories of Vix's own, which are never shared
	Others     []SharedFolder    `json:"others,omitempty"` // the shares of the configuration's other VMs
	Sway       string            `json:"sway"`             // sway's IPC socket, or ""; for who places windows
}

// Parts are the paths of the programs and files of the host that a VM needs.
type Parts struct {
	Self      string `json:"self"` // vix-launcher
	QEMU      string `json:"qemu"`
	Virtiofsd string `json:"virtiofsd"`
	Proxy     string `json:"proxy"`     // vix-waylandproxy
	Guest     string `json:"guest"`     // vix-guest
	System    string `json:"system"`    // "/": where the kernel and the host's programs are
	KVM       string `json:"kvm"`       // /dev/kvm
	CPUInfo   string `json:"cpuinfo"`   // /proc/cpuinfo
	Proc      string `json:"proc"`      // /proc
	Pressure  string `json:"pressure"`  // /proc/pressure/memory; need not be there
	Passt     string `json:"passt"`     // "" if it is not installed
	Vhost     string `json:"vhost"`     // /dev/vhost-vsock
	USB       string `json:"usb"`       // /sys/bus/usb/devices
	USBNodes  string `json:"usb_nodes"` // /dev/bus/usb
}

// A Session is what a VM has of the user's desktop session.
type Session struct {
	Wayland string `json:"wayland,omitempty"` // the compositor's socket
	Sway    string `json:"sway,omitempty"`    // sway's IPC socket, to place windows
}

// A SharedFolder is a share of another VM's configuration.
type SharedFolder struct {
	VM    string `json:"vm"`
	Host  string `json:"host"`
	Write bool   `json:"write"`
}

// checkPaths refuses paths of the host that are not UTF-8: JSON would silently replace their
// bytes, and so would messages. What a program gets may be any bytes (agent.Bytes).
func (l Launch) checkPaths() error {
	v, p := l.VM, l.Parts
	paths := append([]string{
		l.RuntimeDir, l.CacheDir, l.RootsDir, l.StateDir, l.ConfigDir, l.Wayland, l.Sway, l.Bus, v.Root, v.Kernel, v.Initrd,
		p.Self, p.QEMU, p.Virtiofsd, p.Proxy, p.Guest, p.Passt,
	}, l.Private...)
	for _, s := range v.Shares {
		paths = append(paths, s.Host)
	}
	for _, s := range l.Others {
		paths = append(paths, s.Host)
	}
	return checkUTF8(v.Name, paths...)
}

// checkUTF8 says which of a VM's paths of the host is not UTF-8.
func checkUTF8(name string, paths ...string) error {
	if i := slices.IndexFunc(paths, func(s string) bool { return !utf8.ValidString(s) }); i >= 0 {
		return Failf("VM %s: %.128q is not UTF-8, as each path of this machine has to be that a VM depends on; rename it, or see HOME and the XDG_ variables", name, paths[i])
	}
	return nil
}
