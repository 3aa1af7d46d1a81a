package gpu_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"vix/internal/gpu"
	"vix/internal/vhost"
	"vix/internal/wayland"
)

// TestVM boots the machine's own kernel in QEMU, whose GPU is this package's device,
// with an initramfs whose only program is testdata/guest. It needs QEMU ≥ 11 and a
// kernel with virtio-gpu.
func TestVM(t *testing.T) {
	total := bootVM(t, "checks", "-no-reboot")
	t.Logf("%d connections", total)
}

// TestVMReboots: the guest reboots with open connections, and finds a fresh
// device.
func TestVMReboots(t *testing.T) { bootVM(t, "reboot") }

// bootVM runs a VM to its end, with vix.test=mode on the kernel's command line.
func bootVM(t *testing.T, mode string, args ...string) (total int64) {
	if testing.Short() {
		t.Skip("boots a VM: not with -short")
	}
	qemu, kernel, release := vmParts(t)
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(initrd, buildGuest(t, dir), release); err != nil {
		t.Fatal(err)
	}
	ours, theirs := socketPair(t)
	var open, accepted, boots atomic.Int64
	dev, err := gpu.New(gpu.Config{Limits: gpu.Limits{Mappings: 100}, Accept: func(tr wayland.Transport) {
		open.Add(1)
		accepted.Add(1)
		defer open.Add(-1)
		if err := (&echo{t: tr, boots: &boots}).serve(); err != nil {
			t.Logf("echo: %v", err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	args = append(args, "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
		"-machine", "q35,memory-backend=mem,usb=off,sata=off,smbus=off,vmport=off,i8042=off", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512M",
		"-kernel", kernel, "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1 quiet mitigations=off nokaslr no_timer_check tsc=reliable audit=0 8250.nr_uarts=1 vix.test="+mode,
		"-object", "memory-backend-memfd,id=mem,size=512M,share=on",
		"-chardev", "socket,id=gpu,fd=3",
		"-device", "vhost-user-test-device-pci,chardev=gpu,virtio-id=16,num_vqs=2,vq_size=1024,config_size=16")
	cmd := exec.CommandContext(ctx, qemu, args...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	served := make(chan error, 1)
	go func() { served <- vhost.Serve(ctx, ours, dev) }()
	done := readConsole(t, out)
	if err := cmd.Wait(); err != nil || !done {
		t.Errorf("qemu: %v, all checks run: %v\n%s", err, done, stderr.String())
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if n := open.Load(); n != 0 {
		t.Errorf("%d of %d connections still open", n, accepted.Load())
	}
	return accepted.Load()
}

// readConsole logs the guest's lines as the test's, and reports whether the guest
// finished.
func readConsole(t *testing.T, out io.Reader) (done bool) {
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		switch {
		case strings.Contains(line, "VMTEST FAIL"):
			t.Error(line)
		case strings.Contains(line, "VMTEST DONE"):
			done = true
		default:
			t.Log(line)
		}
	}
	return done
}

// vmParts finds the test's requirements, or skips the test with a reason.
func vmParts(t *testing.T) (qemu, kernel, release string) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("skipped: no qemu-system-x86_64 here; run it in the system root")
	}
	v, err := exec.Command(qemu, "--version").Output()
	var major int
	if _, serr := fmt.Sscanf(string(v), "QEMU emulator version %d", &major); err != nil || serr != nil || major < 11 {
		t.Skipf("skipped: QEMU 11 or newer is needed, this is %q", v)
	}
	ks, _ := filepath.Glob("/boot/vmlinuz-*")
	for _, k := range ks {
		release = strings.TrimPrefix(filepath.Base(k), "vmlinuz-")
		if _, err := os.Stat(filepath.Join("/lib/modules", release, "modules.dep")); err == nil {
			return qemu, k, release
		}
	}
	t.Skip("skipped: no kernel with modules in /boot; run it in the system root")
	return
}

func buildGuest(t *testing.T, dir string) string {
	t.Helper()
	out := filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-o", out, "./testdata/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v\n%s", err, b)
	}
	return out
}

// writeInitrd writes /init, the modules of virtio_gpu, and their order.
func writeInitrd(path, init, release string) error {
	var buf bytes.Buffer
	w := cpio.Newc.Writer(&buf)
	prog, err := os.ReadFile(init)
	if err != nil {
		return err
	}
	records := []cpio.Record{
		cpio.Directory("modules", 0o755), cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("init", string(prog), 0o755),
	}
	var order []string
	mods, err := moduleOrder(release, "virtio-gpu")
	if err != nil {
		return err
	}
	for _, m := range mods {
		b, err := readModule(filepath.Join("/lib/modules", release, m))
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(m), ".xz")
		order = append(order, name)
		records = append(records, cpio.StaticFile("modules/"+name, string(b), 0o644))
	}
	records = append(records, cpio.StaticFile("modules/order", strings.Join(order, "\n"), 0o644))
	if err := errors.Join(cpio.WriteRecords(w, records), cpio.WriteTrailer(w)); err != nil {
		return err
	}
	return os.WriteFile(path, buf.Bytes(), 0o600)
}

// moduleOrder lists a module's dependencies and the module, in loading order.
func moduleOrder(release, name string) ([]string, error) {
	dep, err := os.ReadFile(filepath.Join("/lib/modules", release, "modules.dep"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(dep)) {
		mod, deps, _ := strings.Cut(strings.TrimSpace(line), ":")
		if base, _, _ := strings.Cut(filepath.Base(mod), "."); base != name {
			continue
		}
		order := []string{mod}
		for d := range strings.FieldsSeq(deps) {
			order = append([]string{d}, order...)
		}
		return order, nil
	}
	return nil, fmt.Errorf("kernel %s has no module %s", release, name)
}

func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if filepath.Ext(path) != ".xz" {
		return io.ReadAll(f)
	}
	r, err := xz.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// socketPair returns a connection for the device and a file for QEMU.
func socketPair(t *testing.T) (*net.UnixConn, *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(p[0]), "vhost")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn), os.NewFile(uintptr(p[1]), "qemu")
}
