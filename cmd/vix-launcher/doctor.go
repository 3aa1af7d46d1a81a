package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/balloon"
	"vix/internal/boot"
	"vix/internal/launch"
	"vix/internal/plain"
	"vix/internal/qemu"
	"vix/internal/rootfs"
	"vix/internal/scope"
)

// A check is one requirement: its name, its state, and advice about it.
type check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // "ok", "warn" or "fail"
	Detail string `json:"detail"` // the finding
	Fix    string `json:"fix,omitempty"`
	// Errors are those of config.toml, a line each.
	Errors []string `json:"errors,omitempty"`
}

func good(format string, a ...any) check {
	return check{Status: "ok", Detail: fmt.Sprintf(format, a...)}
}

// warning is a check of something that works, but worse; bad is one that lets no VM run.
func warning(fix, format string, a ...any) check {
	return check{Status: "warn", Detail: fmt.Sprintf(format, a...), Fix: fix}
}

func bad(fix, format string, a ...any) check {
	return check{Status: "fail", Detail: fmt.Sprintf(format, a...), Fix: fix}
}

func doctorCommand(e *env) *cobra.Command {
	var asJSON, verbose bool
	c := &cobra.Command{
		Use:   "doctor [-v] [--json]",
		Short: "check that this machine can run VMs",
		Long: `Checks everything that a VM needs of this machine. Each result is ok, warn (it
works, but worse) or fail (no VM can run), with what to install or change. Then
shows how each process of the running VMs is confined. With -v, it also lists which
of this machine's files a VM with root = "host" can read. It changes nothing.

The exit status is 1 if a check failed. With --json, prints one object.`,
		Example: `  vix doctor
  vix doctor --json | jq '.checks[] | select(.status != "ok")'`,
		Args:              args(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, _ []string) error { return doctor(c.Context(), e, asJSON, verbose) },
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, `also list this machine's files that a VM with root = "host" can read`)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// checkLimit bounds each check: a program that hangs counts as broken.
const checkLimit = 10 * time.Second

func doctor(ctx context.Context, e *env, asJSON, verbose bool) error {
	checks := []struct {
		name string
		run  func(context.Context, *env) check
	}{
		{"QEMU", checkQEMU},
		{"KVM", checkKVM},
		{"virtiofsd", checkVirtiofsd},
		{"network", checkNetwork},
		{"channel", checkChannel},
		{"USB", checkUSB},
		{"kernel", checkKernel},
		{"Vix", checkVix},
		{"config.toml", checkConfig},
		{"runtime directory", checkRuntimeDir},
		{"directories", checkDirectories},
		{"disk space", checkSpace},
		{"compositor", checkCompositor},
		{"namespaces", checkNamespaces},
		{"confinement", checkConfinement},
		{"memfd", checkMemfd},
		{"open files", checkOpenFiles},
		{"locked memory", checkLockedMemory},
		{"memory", checkMemory},
		{"pressure", checkPressure},
		{"control groups", checkGroups},
	}
	report := struct {
		Checks []check      `json:"checks"`
		VMs    []confinedVM `json:"vms"`
		hostView
	}{VMs: confinedVMs(ctx, e, os.DirFS("/proc"))}
	var err error
	if report.hostView, err = viewOfHost("/"); err != nil {
		return err
	}
	failed := 0
	for _, c := range checks {
		ctx, cancel := context.WithTimeout(ctx, checkLimit)
		r := c.run(ctx, e)
		cancel()
		r.Name = c.name
		if r.Status == "fail" {
			failed++
		}
		report.Checks = append(report.Checks, r)
	}
	if asJSON {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(report); err != nil {
			return err
		}
	} else if err := printReport(e.stdout, report.Checks, report.VMs); err != nil {
		return err
	} else if err := printView(e.stdout, report.hostView, verbose); err != nil {
		return err
	}
	if failed > 0 {
		return &exitError{exitFailed, fmt.Errorf("doctor: %d of %d checks failed; VMs cannot start until this is fixed", failed, len(checks))}
	}
	if !asJSON {
		_, err = fmt.Fprintf(e.stdout, "\n%s\n", verdict(report.Checks))
	}
	return err
}

// verdict says in one line what checks of which none failed come to.
func verdict(checks []check) string {
	warnings := 0
	for _, c := range checks {
		if c.Status == "warn" {
			warnings++
		}
	}
	switch warnings {
	case 0:
		return "All is well; VMs can run."
	case 1:
		return "1 warning; VMs can run."
	}
	return fmt.Sprintf("%d warnings; VMs can run.", warnings)
}

// A hostView is the part of this machine's files that a VM with root = "host" can read, and
// which of them are hidden.
type hostView struct {
	View   []string `json:"view"`
	Hidden []string `json:"hidden"`
}

func viewOfHost(root string) (hostView, error) {
	v := hostView{View: []string{}, Hidden: []string{}}
	hidden, err := rootfs.Hidden(root)
	for _, rel := range rootfs.Shown(root) {
		v.View = append(v.View, "/"+rel)
	}
	for _, rel := range hidden {
		v.Hidden = append(v.Hidden, "/"+rel)
	}
	return v, err
}

// maxHiddenShown bounds the hidden paths on a terminal; JSON has all.
const maxHiddenShown = 12

func printReport(w io.Writer, checks []check, vms []confinedVM) error {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "%-5s %-18s %s\n", c.Status, c.Name, c.Detail)
		for _, line := range c.Errors {
			fmt.Fprintf(&b, "%-5s %-18s %s\n", "", "", line)
		}
		if c.Fix != "" {
			fmt.Fprintf(&b, "%-5s %-18s → %s\n", "", "", c.Fix)
		}
	}
	writeConfinement(&b, vms)
	_, err := io.WriteString(w, b.String())
	return err
}

// printView prints the view of the host's files: where it can be seen, or all of it.
func printView(w io.Writer, view hostView, all bool) error {
	if !all {
		_, err := fmt.Fprintln(w, "\nWhich files of this machine a VM with root = \"host\" can read: vix doctor -v")
		return err
	}
	var b strings.Builder
	b.WriteString("\nA VM with root = \"host\" sees these files of this machine, read-only, and no others:\n")
	writePaths(&b, view.View)
	if n := len(view.Hidden); n > 0 {
		fmt.Fprintf(&b, "It does not see %d entries in them, which other users may not read or which hold a secret:\n", n)
		writePaths(&b, view.Hidden[:min(n, maxHiddenShown)])
		if n > maxHiddenShown {
			fmt.Fprintf(&b, "  and %d more; vix doctor --json lists all\n", n-maxHiddenShown)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writePaths writes paths in lines as wide as a terminal.
func writePaths(b *strings.Builder, paths []string) {
	line := " "
	for _, path := range paths {
		path = plain.Text(path, 4096, plain.OneLine)
		if len(line)+1+len(path) > 78 && line != " " {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + path
	}
	b.WriteString(line + "\n")
}

// output runs a program of the machine and returns what it prints.
func output(ctx context.Context, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var versionPattern = regexp.MustCompile(`(\d+)\.(\d+)(\.\d+)*`)

// versionAtLeast finds the first version in text.
func versionAtLeast(text string, major, minor int) (version string, ok bool) {
	m := versionPattern.FindStringSubmatch(text)
	if m == nil {
		return "", false
	}
	x, _ := strconv.Atoi(m[1])
	y, _ := strconv.Atoi(m[2])
	return m[0], x > major || x == major && y >= minor
}

func checkQEMU(ctx context.Context, e *env) check {
	const fix = "install QEMU 11 or newer (Debian: qemu-system-x86 from backports)"
	if runtime.GOARCH != "amd64" {
		return bad("", "VMs need an x86-64 machine; this one is %s", runtime.GOARCH)
	}
	path, err := e.look(qemuName)
	if err != nil {
		return bad(fix, "%v", err)
	}
	text, err := output(ctx, path, "--version")
	if err != nil {
		return bad(fix, "%s --version: %v", path, err)
	}
	version, ok := versionAtLeast(text, 11, 0)
	if !ok {
		return bad(fix, "%s is version %s", path, version)
	}
	devices, err := output(ctx, path, "-device", "help")
	if err != nil {
		return bad(fix, "%s -device help: %v", path, err)
	}
	for _, d := range []string{"vhost-user-test-device-pci", "vhost-user-fs-pci", "virtserialport", "virtio-balloon-pci", "virtio-rng-pci"} {
		if !strings.Contains(devices, `"`+d+`"`) {
			return bad("install a QEMU that is built with vhost-user", "%s %s has no device %s", path, version, d)
		}
	}
	return good("%s %s, with vhost-user-test-device-pci", path, version)
}

func checkKVM(context.Context, *env) check {
	if err := qemu.CheckKVM("/dev/kvm", "/proc/cpuinfo"); err != nil {
		return warning("without it VMs are emulated, and about ten times slower", "%v", err)
	}
	return good("/dev/kvm works")
}

func checkVirtiofsd(ctx context.Context, e *env) check {
	const fix = "install virtiofsd 1.10 or newer (Debian, Fedora, Arch: virtiofsd)"
	path, err := e.look("virtiofsd", virtiofsdPlaces...)
	if err != nil {
		return bad(fix, "%v", err)
	}
	text, err := output(ctx, path, "--version")
	if err != nil {
		return bad(fix, "%s --version: %v", path, err)
	}
	version, ok := versionAtLeast(text, 1, 10)
	if !ok {
		return bad(fix, "%s is version %s", path, version)
	}
	return good("%s %s", path, version)
}

func checkNetwork(ctx context.Context, e *env) check {
	path, err := e.look(passtName)
	if err != nil {
		return warning("install passt (Debian, Fedora, Arch: passt)",
			`%v: a VM with net = "nat" has QEMU's own network, reaches what listens on this machine's 127.0.0.1, and its QEMU is confined less`, err)
	}
	text, err := output(ctx, path, "--version")
	if err != nil {
		return warning("install it again", "%s --version: %v", path, err)
	}
	version, _, _ := strings.Cut(text, "\n")
	if version != "" {
		version = " (" + version + ")"
	}
	return good(`%s%s, for VMs with net = "nat"; by default a VM has no network`, path, version)
}

// checkChannel reports the transport that channel = "auto" means here. Each is as good.
func checkChannel(context.Context, *env) check {
	err := qemu.CheckVhost(vhostVsock)
	if err == nil {
		var k boot.Kernel
		if k, err = boot.FindKernel("/"); err == nil {
			err = k.CheckVsock()
		}
	}
	if err != nil {
		return good("virtio-serial; no vsock: %v", err)
	}
	return good("vsock, by %s", vhostVsock)
}

func checkKernel(context.Context, *env) check {
	k, err := boot.FindKernel("/")
	if err != nil {
		what, fix, _ := strings.Cut(err.Error(), "; ")
		return bad(fix, "%s", what)
	}
	return good("%s, with virtio_gpu, virtiofs and overlay", k.Image)
}

func checkVix(ctx context.Context, e *env) check {
	for _, name := range []string{"vix-waylandproxy", "vix-guest"} {
		if _, err := e.siblingPath(name); err != nil {
			what, fix, _ := strings.Cut(err.Error(), "; ")
			return bad(fix, "%s", what)
		}
	}
	var old []string
	if reg, err := e.registry(); err == nil { // otherwise another check reports it
		defer reg.Close()
		vms, _ := reg.List(ctx)
		for _, v := range vms {
			if oldVersion(v) != "" {
				old = append(old, v.Name)
			}
		}
	}
	if len(old) > 0 {
		return warning("stop them and run them again", "version %s; VMs started by another version: %s", version, strings.Join(old, ", "))
	}
	return good("version %s; vix-waylandproxy and vix-guest are there", version)
}

func checkConfig(_ context.Context, e *env) check {
	path, err := e.configPath()
	if err != nil {
		return bad("set HOME", "%v", err)
	}
	const correct = "correct the file, and see vix config check; vix config keys explains the keys"
	c, err := e.config()
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		r := bad(correct, "%s: %s; no VM can start", path, count(len(mistakes), "error"))
		r.Errors = shortLines(mistakes)
		return r
	}
	if err != nil {
		return bad("correct the file; see vix-config.toml(5)", "%v", err)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return good("%s is not there, and need not be", path)
	}
	c.Defaults.Name = "of [defaults]"
	risks := warnings(c.Defaults)
	for _, name := range slices.Sorted(maps.Keys(c.VMs)) {
		risks = append(risks, warnings(c.VMs[name])...)
	}
	risks = append(risks, overlaps(e.launcher(), c)...)
	for _, names := range c.SameColor() {
		risks = append(risks, fmt.Sprintf("VMs %s have the same colour; give one of them its own", strings.Join(names, ", ")))
	}
	risks = append(risks, absentShares(e.launcher(), c)...)
	if len(c.Errors) > 0 {
		found := append([]string{count(len(c.Errors), "error"), consequence(c)}, risks...)
		r := warning(correct, "%s: %s", path, strings.Join(found, "; "))
		r.Errors = shortLines(c.Errors)
		return r
	}
	if len(risks) > 0 {
		return warning("vix-config.toml(5) explains each key", "%s, with %d VMs; %s", path, len(c.VMs), strings.Join(risks, "; "))
	}
	return good("%s, with %d VMs", path, len(c.VMs))
}

// overlaps lists VMs whose shares exclude each other: the second of them does not start.
func overlaps(l *launch.Launcher, c *config.Config) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(c.VMs)) {
		for _, own := range c.VMs[name].Shares {
			for _, other := range l.OtherShares(c, name) {
				host, err := l.Dirs.Expand(own.Host)
				if other.VM < name || err != nil {
					continue
				}
				if err := config.Apart(config.Share{Host: host, Write: own.Write}, config.Share{Host: other.Host, Write: other.Write}); err != nil {
					list = append(list, fmt.Sprintf("shares of VM %s and VM %s: %v", name, other.VM, err))
				}
			}
		}
	}
	return list
}

func checkRuntimeDir(_ context.Context, e *env) check {
	const fix = "log in through a session manager (logind makes one), or set XDG_RUNTIME_DIR to a directory of your own with mode 0700"
	dir, err := e.runtimeDir()
	if err != nil {
		what, _, _ := strings.Cut(err.Error(), "; ")
		return bad(fix, "%s", what)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return bad(fix, "%v", err)
	}
	sys, _ := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.IsDir():
		return bad(fix, "%s is not a directory", dir)
	case sys != nil && int(sys.Uid) != os.Getuid():
		return bad(fix, "%s belongs to user %d", dir, sys.Uid)
	case st.Mode().Perm()&0o077 != 0:
		return warning("chmod 0700 "+dir, "%s is open to others (%v)", dir, st.Mode().Perm())
	}
	return good("%s", dir)
}

// checkNamespaces does what the server of a root does: it makes a mount namespace and, for an
// ordinary user, a user namespace around it.
func checkNamespaces(ctx context.Context, e *env) check {
	cmd, err := e.again(ctx, "--version")
	if err != nil {
		return bad("", "%v", err)
	}
	cmd.Env = []string{}
	cmd.SysProcAttr = rootfs.ViewAttr(os.Getuid(), os.Getgid())
	if err := cmd.Run(); err != nil {
		return bad(`allow them (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces), or use VMs whose root is a directory`,
			"user and mount namespaces: %v", err)
	}
	if os.Getuid() == 0 {
		return good("mount namespaces (as root)")
	}
	return good("user and mount namespaces")
}

func checkMemfd(context.Context, *env) check {
	fd, err := unix.MemfdCreate("doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return bad("a newer kernel is needed", "memfd_create: %v", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 4096); err != nil {
		return bad("is memory exhausted?", "memfd: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return bad("a newer kernel is needed", "memfd seals: %v", err)
	}
	return good("shared memory with seals")
}

// wantFiles is the number of descriptors in a VM's largest process (virtiofsd) with a busy
// desktop program, with reserve.
const wantFiles = 4096

func checkOpenFiles(context.Context, *env) check {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return bad("", "%v", err)
	}
	if l.Max < wantFiles {
		return warning(fmt.Sprintf("raise it to %d (limits.conf, or LimitNOFILE of the user's session)", wantFiles), "hard limit %d: programs that open many files will fail", l.Max)
	}
	return good("hard limit %d", l.Max)
}

func checkLockedMemory(context.Context, *env) check {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return bad("", "%v", err)
	}
	// No part locks guest memory, but io_uring on old kernels counts against the limit.
	const least = 64 << 10
	switch {
	case l.Cur == unix.RLIM_INFINITY:
		return good("unlimited")
	case l.Cur < least:
		return warning("raise it to 64 KiB or more (limits.conf)", "limit %d bytes", l.Cur)
	}
	return good("limit %d KiB", l.Cur>>10)
}

func checkMemory(ctx context.Context, e *env) check {
	host, err := balloon.OpenHost("", filepath.Join("/proc", "meminfo")).Read()
	if err != nil {
		return warning("", "%v", err)
	}
	vms, sum := 0, uint64(0)
	if reg, err := e.registry(); err == nil {
		defer reg.Close()
		list, _ := reg.List(ctx) // without the running VMs, the check goes on
		for _, v := range list {
			vms, sum = vms+1, sum+v.Memory
		}
	}
	c, err := e.config()
	if err != nil {
		return good("%d MiB available", host.Available>>20)
	}
	return memoryCheck(host, uint64(c.Defaults.Memory), vms, sum)
}

// memoryCheck compares the host's memory with the demand of a new VM, and with sum, the total
// that the running vms may use.
func memoryCheck(host balloon.Memory, want uint64, vms int, sum uint64) check {
	if sum > host.Total {
		return warning("stop a VM, or give VMs less memory (memory in config.toml)",
			"the %d VMs that run may use %d MiB together, and this machine has %d: if all do, programs of the host end", vms, sum>>20, host.Total>>20)
	}
	if host.Available < want {
		return warning("close other programs, or give VMs less memory (memory in config.toml)", "%d MiB available; a VM has %d MiB", host.Available>>20, want>>20)
	}
	return good("%d MiB available; a VM has %d MiB; those that run, %d of %d MiB", host.Available>>20, want>>20, sum>>20, host.Total>>20)
}

// checkPressure checks that idle VMs can return memory when the host is short of it.
func checkPressure(context.Context, *env) check {
	h := balloon.OpenHost(pressureFile, filepath.Join("/proc", "meminfo"))
	defer h.Close()
	if !h.Triggered() {
		return warning("use a kernel with PSI (Linux 6.4, CONFIG_PSI)", "%s takes no triggers: a shortage of memory is noticed late, from what is available", pressureFile)
	}
	return good("the kernel tells when memory is short; idle VMs then give theirs back")
}

// checkGroups checks for a control group, which a VM's processor share needs.
func checkGroups(ctx context.Context, e *env) check {
	bus, err := e.sessionBus()
	if err != nil {
		return warning("", "%v", err)
	}
	s := scope.Probe(ctx, scope.Config{PID: os.Getpid(), Bus: bus, Proc: "/proc"})
	const fix = "VMs run all the same; for cpu-weight, log in through a session manager with systemd"
	switch s.Kind {
	case scope.KindScope:
		return good("each VM is a scope in %s", s.Name)
	case scope.KindGroup:
		return warning(fix, "each VM is a group in %s; %s", s.Name, strings.Join(s.Weaker, "; "))
	}
	return warning(fix, "%s", strings.Join(s.Weaker, "; "))
}
