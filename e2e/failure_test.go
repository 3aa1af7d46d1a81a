package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// What cannot start says so in one line, with the next step, and leaves nothing.
func TestFailingStarts(t *testing.T) {
	r := newRig(t, Config{Timeout: 30 * time.Second})
	release := kernelRelease(t)
	gpu := "/usr/lib/modules/" + release + "/kernel/drivers/gpu/drm/virtio"
	if _, err := os.Stat("/lib/modules/" + release); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for _, c := range []struct {
		name, script string // before exec; in a mount namespace of its own
		args         []string
		toml         string
		code         int
		says         []string
	}{
		{name: "no such program", args: []string{"run", "--vm", "f", "no-such-program"}, code: 127, says: []string{"no-such-program"}},
		{name: "no compositor", script: "unset WAYLAND_DISPLAY", args: []string{"run", "--vm", "f", "true"}, code: 125, says: []string{"compositor", "WAYLAND_DISPLAY"}},
		{name: "compositor gone", script: "export WAYLAND_DISPLAY=wayland-99", args: []string{"run", "--vm", "f", "true"}, code: 125, says: []string{"wayland-99"}},
		{name: "no runtime directory", script: "unset XDG_RUNTIME_DIR", args: []string{"run", "--vm", "f", "true"}, code: 125, says: []string{"XDG_RUNTIME_DIR"}},
		{name: "KVM demanded", toml: "[vm.f]\naccel = \"kvm\"\n", args: []string{"run", "--vm", "f", "true"}, code: 125, says: []string{"KVM"}},
		{name: "no virtiofsd", script: hide("/usr/libexec/virtiofsd"), args: []string{"run", "--vm", "f", "true"}, code: 125, says: []string{"virtiofsd", "install"}},
		{name: "no QEMU", script: hide("/usr/bin/qemu-system-x86_64"), args: []string{"run", "--vm", "f", "true"}, code: 125, says: []string{"qemu", "install"}},
		{name: "no kernel", script: "mount --bind " + empty + " /boot", args: []string{"run", "--vm", "f", "true"}, code: 125, says: []string{"kernel"}},
		{name: "kernel without virtio-gpu", script: "mount --bind " + empty + " " + gpu + "; mount --bind " + modulesWithoutGPU(t, release) + " /usr/lib/modules/" + release + "/modules.dep", args: []string{"run", "--vm", "f", "true"}, code: 125, says: []string{"virtio", "gpu"}},
		{name: "bad VM name", args: []string{"run", "--vm", "../x", "true"}, code: 2, says: []string{"../x"}},
		{name: "no program", args: []string{"run", "--vm", "f"}, code: 2},
		{name: "unknown key", toml: "[vm.f]\nmemry = \"1G\"\n", args: []string{"run", "--vm", "f", "true"}, code: 125, says: []string{"config.toml:2", "memry", "memory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.For(t)
			if strings.Contains(c.script, "mount") && os.Getuid() != 0 {
				t.Skip("hiding a file of the system needs root")
			}
			if c.name == "KVM demanded" && kvmWorks() {
				t.Skip("KVM works here")
			}
			if err := r.SetConfig(c.toml); err != nil {
				t.Fatal(err)
			}
			argv := append([]string{r.Launcher()}, c.args...)
			if c.script != "" {
				sh := []string{"sh", "-ec", c.script + "\n" + `exec "$@"`, "sh"}
				if strings.Contains(c.script, "mount") {
					sh = append([]string{"unshare", "--mount"}, sh...)
				}
				argv = append(sh, argv...)
			}
			res := r.Run(r.Command(argv...))
			t.Logf("%.1f s: %s", res.Seconds, strings.TrimSpace(res.Stderr))
			if res.Code != c.code {
				t.Errorf("status %d, want %d", res.Code, c.code)
			}
			if n := len(res.Lines()); n != 1 && c.code != 2 {
				t.Errorf("%d lines", n)
			}
			for _, word := range c.says {
				if !strings.Contains(strings.ToLower(res.Stderr), strings.ToLower(word)) {
					t.Errorf("the line does not mention %q", word)
				}
			}
			waitNoVM(t, r)
			r.CheckClean()
		})
	}
}

// hide makes a program of the system unusable: an empty file that is not
// executable stands in its place.
func hide(path string) string { return "mount --bind /dev/null " + path }

// modulesWithoutGPU writes a modules.dep as a kernel without virtio-gpu has it.
func modulesWithoutGPU(t *testing.T, release string) string {
	t.Helper()
	b, err := os.ReadFile("/lib/modules/" + release + "/modules.dep")
	if err != nil {
		t.Fatal(err)
	}
	var kept strings.Builder
	for l := range strings.Lines(string(b)) {
		if !strings.Contains(l, "virtio-gpu") {
			kept.WriteString(l)
		}
	}
	path := filepath.Join(t.TempDir(), "modules.dep")
	if err := os.WriteFile(path, []byte(kept.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func kernelRelease(t *testing.T) string {
	t.Helper()
	kernels, err := filepath.Glob("/boot/vmlinuz-*")
	if err != nil || len(kernels) == 0 {
		t.Fatal("no kernel image")
	}
	return strings.TrimPrefix(kernels[len(kernels)-1], "/boot/vmlinuz-")
}

func kvmWorks() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !strings.Contains(string(b), " vmx ") && !strings.Contains(string(b), " svm ") {
		return false
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// Without KVM a VM runs, and one line says why it is slow.
func TestWithoutKVM(t *testing.T) {
	if kvmWorks() {
		t.Skip("KVM works here")
	}
	r := newRig(t, Config{})
	res := r.Vix("run", "--vm", "slow", "uname", "-sr")
	if res.Code != 0 || !strings.HasPrefix(res.Stdout, "Linux ") {
		t.Fatal(res)
	}
	if n := strings.Count(res.Stderr, "KVM"); n != 1 || strings.Count(res.Stderr, "\n") != 1 {
		t.Errorf("stderr should be one line about KVM: %q", res.Stderr)
	}
	waitNoVM(t, r)
	r.CheckClean()
}

// Whichever process of a VM is killed, the others end within two seconds, list
// tells the truth, and run works again at once: the VM that it then starts is the
// next one's victim. Another VM is not harmed.
func TestKilled(t *testing.T) {
	r := newRig(t, Config{})
	other := r.startIn("other", foot("204060", "sleep", "1000"))
	p := r.startIn("victim", foot("a03020", "sleep", "1000"))
	r.WaitWindows(t, 2, nil)
	outer := t
	for _, victim := range []string{"qemu", "display", "virtiofsd", "supervisor"} {
		if !t.Run(victim, func(t *testing.T) {
			r.For(t)
			kill(t, r, victim)
			if code := waitEnd(t, p, 3*time.Second); code != 125 {
				t.Errorf("run ended with %d", code)
			}
			t.Logf("run said: %s", strings.TrimSpace(p.Output()))
			for _, v := range r.List() {
				if v.Name == "victim" {
					t.Errorf("list still tells of it: %+v", v)
				}
			}
			r.WaitNoWindow(t, desktoptest.ByAppID("vix.victim.foot"))
			r.For(outer) // it lives beyond this victim's part
			p = r.startIn("victim", foot("20a030", "sleep", "1000"))
			r.For(t)
			r.WaitWindow(t, desktoptest.ByAppID("vix.victim.foot"))
			if len(r.Windows(t, desktoptest.ByAppID("vix.other.foot"))) != 1 || r.Guest("other", "echo well") != "well" {
				t.Error("the other VM was harmed")
			}
		}) {
			break
		}
	}
	r.Must("stop", "--all")
	waitEnd(t, p, 5*time.Second)
	waitEnd(t, other, 5*time.Second)
	r.CheckClean()
}

// kill kills a process of VM victim and waits for the end of its other ones.
func kill(t *testing.T, r *Rig, what string) {
	t.Helper()
	procs := r.VM("victim").Processes()
	for name, pid := range procs {
		if pid == 0 {
			t.Fatalf("list tells no process id of the %s", name)
		}
	}
	begin, limit := time.Now(), 2*time.Second
	if err := syscall.Kill(procs[what], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), begin.Add(limit))
	defer cancel()
	for name, pid := range procs {
		if err := WaitExit(ctx, pid); err != nil {
			t.Errorf("%s outlived the %s by more than two seconds", name, what)
		}
	}
	t.Logf("all ended %.2f s after", time.Since(begin).Seconds())
}

// killProxies kills the guest's proxy as often as one would have to, for there to be none
// any more if there were a last one. The guest has no event for the next.
const killProxies = `pid() { pgrep -o -f '^vix-waylandproxy'; }
for i in 1 2 3 4 5; do
	old=$(pid); kill -9 $old
	until new=$(pid) && [ "$new" != "$old" ]; do sleep 0.1; done
done
echo well`

// When the guest's proxy is killed, which its own user may do, the programs that have
// windows lose them; the others go on, new windows come, and the person is told.
func TestGuestProxyKilled(t *testing.T) {
	r := newRig(t, Config{})
	p := r.startIn("victim", foot("a03020", "sleep", "1000"))
	r.WaitWindow(t, nil)
	// Of no window's.
	other := r.Start("run", "--vm", "victim", "sh", "-c", "echo up; sleep 1000")
	if got := r.Guest("victim", killProxies); got != "well" {
		t.Errorf("the shell that killed it: %q", got)
	}
	r.WaitNoWindow(t, nil)
	waitEnd(t, p, 20*time.Second)
	p = r.startIn("victim", foot("20a030", "sleep", "1000"))
	r.WaitWindow(t, desktoptest.ByAppID("vix.victim.foot"))
	select {
	case <-other.Done():
		t.Errorf("a program without a window has ended: %s", other.Output())
	default:
	}
	const told = "VM victim: its windows are gone: the guest's Wayland proxy ended"
	if text := other.Output(); !strings.Contains(text, told) {
		t.Errorf("whoever runs a program reads: %s", text)
	}
	if text := r.Must("status", "victim"); !strings.Contains(text, told) {
		t.Errorf("status says: %s", text)
	}
	r.Must("stop", "--all")
	waitEnd(t, p, 5*time.Second)
	waitEnd(t, other, 5*time.Second)
	r.CheckClean()
}

// When run itself is killed, its program is hung up, and the VM ends with it.
func TestRunKilled(t *testing.T) {
	r := newRig(t, Config{})
	p := r.startIn("hup", []string{"weston-simple-shm"}) // foot ignores a hang-up
	r.WaitWindow(t, nil)
	p.Signal(syscall.SIGKILL)
	p.Wait()
	r.WaitNoWindow(t, nil)
	waitNoVM(t, r)
	r.CheckClean()
}

// When the compositor ends, programs lose their display as they would without a
// VM; nothing hangs and nothing stays.
func TestCompositorEnds(t *testing.T) {
	r := newRig(t, Config{})
	p := r.startIn("lone", foot("305070", "sleep", "1000"))
	r.WaitSettled(t, desktoptest.ByAppID("vix.lone.foot"))
	r.Sway.Signal(syscall.SIGKILL)
	r.Sway.Wait()
	if code := waitEnd(t, p, 20*time.Second); code == 0 {
		t.Errorf("run ended with 0 although its program lost its display")
	}
	waitNoVM(t, r)
	r.CheckClean()
}

// An ordinary user needs nothing of root's.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("all tests run as an ordinary user here")
	}
	cred := &syscall.Credential{Uid: 1000, Gid: 1000}
	r := newRig(t, Config{Desktop: desktoptest.Config{Credential: cred}})
	p := r.startIn("user", foot("604080", "sh", "-c", `read line; exit "$line"`))
	r.WaitSettled(t, desktoptest.ByAppID("vix.user.foot"))
	for what, pid := range r.VM("user").Processes() {
		// Not the directory's owner: that of a process that is not dumpable is root.
		st, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !strings.Contains(string(st), "\nUid:\t1000\t1000\t1000\t1000\n") {
			t.Errorf("%s does not run as the user: %v", what, err)
		}
	}
	r.Type(t, "23\n")
	if code := waitEnd(t, p, 20*time.Second); code != 23 {
		t.Errorf("status %d, want 23: %s", code, p.Output())
	}
	waitNoVM(t, r)
	r.CheckClean()
}

// Connections that were opened and closed leave no descriptor, thread, mapping
// or process behind, on either side.
func TestConnectionsLeaveNothing(t *testing.T) {
	r := newRig(t, Config{})
	p := r.startIn("leak", foot("405060", "sleep", "1000"))
	r.WaitSettled(t, desktoptest.ByAppID("vix.leak.foot"))
	const script = `for i in $(seq %d); do wayland-info >/dev/null || exit 1; done
pid=$(pgrep -o -f '^vix-waylandproxy'); echo $(ls /proc/$pid/fd | wc -l) $(wc -l </proc/$pid/maps)`
	count := func(n int) (counts [6]int) {
		if _, err := fmt.Sscan(r.Guest("leak", fmt.Sprintf(script, n)), &counts[0], &counts[1]); err != nil {
			t.Fatal(err)
		}
		v := r.VM("leak")
		counts[2], counts[3] = openFiles(t, v.PIDs.Display), mappings(t, v.PIDs.Display)
		counts[4], counts[5] = openFiles(t, v.PIDs.QEMU), openFiles(t, v.PIDs.Supervisor)
		return counts
	}
	before := count(20)
	grew := func(after [6]int) (which []int) {
		for i, slack := range [6]int{2, 20, 2, 20, 4, 2} {
			if after[i] > before[i]+slack {
				which = append(which, i)
			}
		}
		return which
	}
	// What the last runs had open is closed a moment after their clients have left, of which
	// there is no event; what leaks stays.
	after := count(200)
	for limit := time.Now().Add(time.Minute); len(grew(after)) > 0 && time.Now().Before(limit); {
		after = count(1)
	}
	t.Logf("guest proxy fds, mappings; display fds, mappings; QEMU fds; supervisor fds: %v, after 200 connections %v", before, after)
	for _, i := range grew(after) {
		t.Errorf("count %d grew from %d to %d", i, before[i], after[i])
	}
	r.Must("stop", "leak")
	waitEnd(t, p, 5*time.Second)
	r.CheckClean()
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func mappings(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}
