package soak

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/desktoptest"
)

// A use is what one process has of the machine.
type use struct {
	pss, own                       int // KiB; own is anonymous memory
	descriptors, threads, mappings int
}

// Of two halves of the work, the second may let a process's own memory grow by this, in
// KiB. QEMU without KVM keeps translations of the guest's code, in a buffer that ends at
// 1 GiB, and a run of some minutes sees it grow.
const (
	ownSlack     = 4 << 10
	ownSlackQEMU = 48 << 10
)

// Go starts a thread when all others are in the kernel, and does not end it; an allocator
// takes a mapping more or less as it likes. What leaks, leaks with each cycle.
const (
	threadSlack  = 3
	mappingSlack = 12
)

// A file that the guest's programs use takes a descriptor of the root's server, and which do,
// in the moment of the counting, differs.
const rootDescriptorSlack = 32

// A program takes another buffer when the compositor still shows those that it has, which
// depends on the moment; the guest's proxy has a descriptor of each.
const proxyDescriptorSlack = 3

func descriptorSlack(name string) int {
	if strings.HasSuffix(name, "guest: vix-waylandprox") {
		return proxyDescriptorSlack
	}
	if strings.Contains(name, "virtiofsd root") {
		return rootDescriptorSlack
	}
	return 0
}

// warmUp cycles go before anything is counted: what is made at the first use stays.
const warmUp = 2

// TestFlat does the same work again and again, and compares what every process has before
// and after: descriptors, threads, mappings, memory.
func TestFlat(t *testing.T) {
	w := newWorld(t)
	w.vms = w.vms[:2]
	if err := w.holdAll(); err != nil {
		t.Fatal(err)
	}
	for _, m := range w.vms {
		p, err := desktoptest.Command(t, w.command("run", "--vm", m.name, "foot", "--app-id=held", "sleep", "1000000"), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.WaitWindow(t, desktoptest.ByAppID("vix."+m.name+".held"))
		defer p.Stop()
	}
	cycles, begin := 0, time.Now()
	work := func(until func() bool) {
		for !until() {
			if err := w.cycle(cycles); err != nil {
				t.Fatalf("cycle %d: %v", cycles, err)
			}
			cycles++
		}
	}
	count := func(n int) func() bool { return func() bool { n--; return n < 0 } }
	half := count(2)
	if *minutes > 0 {
		half = func() bool { return time.Since(begin).Minutes() >= *minutes/2 }
	}
	work(count(warmUp))
	before := w.idle(nil)
	begin = time.Now()
	work(half)
	middle := w.idle(before)
	if half = count(2); *minutes > 0 {
		half = func() bool { return time.Since(begin).Minutes() >= *minutes }
	}
	busy := w.busy()
	work(half)
	after := w.idle(before)
	table := fmt.Sprintf("%d cycles in %.1f minutes, after %d; own is anonymous memory\n%s", cycles-warmUp, time.Since(begin).Minutes(), warmUp,
		tableOf([]string{"before", "middle", "busy", "after"}, before, middle, busy, after))
	t.Logf("\n%s", table)
	out := "../../build/e2e/soak.txt"
	if err := errors.Join(os.MkdirAll(filepath.Dir(out), 0o755), os.WriteFile(out, []byte(table), 0o644)); err != nil {
		t.Error(err)
	}
	for _, text := range grown(before, after) {
		t.Error(text)
	}
	for _, text := range grewOwn(middle, after) {
		t.Error(text)
	}
	w.end()
}

// cycle is some of all that a VM is used for.
func (w *world) cycle(n int) error {
	a, b := w.vms[0].name, w.vms[1].name
	for i := range 4 {
		size := 1 << (4 * i)
		if r := w.vix("exec", a, "--", "head", "-c", fmt.Sprint(size), "/dev/zero"); r.code != 0 || len(r.out) != size {
			return fmt.Errorf("exec: %v", r)
		}
	}
	file := filepath.Join(w.dir, "file")
	content := bytes.Repeat([]byte{byte(n)}, 1<<18)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		return err
	}
	if r := w.vix("cp", file, a+":/tmp/file"); r.code != 0 {
		return fmt.Errorf("cp: %v", r)
	}
	if r := w.vix("mount", a, w.shared()+":/mnt/s"); r.code != 0 {
		return fmt.Errorf("mount: %v", r)
	}
	if r := w.vix("exec", a, "--", "cat", "/mnt/s/word"); r.out != "word" {
		return fmt.Errorf("a share: %v", r)
	}
	if r := w.vix("umount", a, "/mnt/s"); r.code != 0 {
		return fmt.Errorf("umount: %v", r)
	}
	closeWindow := w.openWindow()
	closeWindow()
	// Who was a window's has the focus again: wl-copy makes one of its own.
	word := fmt.Sprintf("word %d", n)
	if r := w.vix("exec", a, "--", "sh", "-c", "printf '"+word+"' | timeout 60 wl-copy"); r.code != 0 {
		return fmt.Errorf("wl-copy: %v", r)
	}
	for _, args := range [][]string{{"clipboard", "copy", "--vm", a}, {"clipboard", "paste", "--vm", b}} {
		if r := w.vix(args...); r.code != 0 {
			return fmt.Errorf("%q: %v", args, r)
		}
	}
	if r := w.vix("exec", b, "--", "timeout", "60", "wl-paste", "--no-newline"); r.out != word {
		return fmt.Errorf("pasted %v, not %q", r, word)
	}
	_ = w.vix("clipboard", "clear")
	return nil
}

func (w *world) shared() string {
	dir := filepath.Join(w.dir, "shared")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "word"), []byte("word"), 0o644)); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// openWindow opens one in the first VM; the function closes it.
func (w *world) openWindow() func() {
	w.t.Helper()
	mine := func(n *desktoptest.Node) bool { return strings.HasPrefix(n.AppID, "vix.a.") && n.AppID != "vix.a.held" }
	p, err := desktoptest.Command(w.t, w.command("run", "--vm", "a", "weston-simple-shm"), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.WaitWindow(w.t, mine)
	return func() {
		p.Signal(unix.SIGTERM)
		p.Wait()
		w.WaitNoWindow(w.t, mine)
	}
}

// busy counts with a window and a share more.
func (w *world) busy() map[string]use {
	w.t.Helper()
	if r := w.vix("mount", "a", w.shared()+":/mnt/s"); r.code != 0 {
		w.t.Fatalf("mount: %v", r)
	}
	closeWindow := w.openWindow()
	all := w.uses()
	closeWindow()
	if r := w.vix("umount", "a", "/mnt/s"); r.code != 0 {
		w.t.Fatalf("umount: %v", r)
	}
	return all
}

// forget lets the guests' kernels forget what they have seen: of each file that they know,
// virtiofsd holds a descriptor.
func (w *world) forget() {
	w.t.Helper()
	for _, m := range w.vms {
		if r := w.vix("exec", "--user", "root", m.name, "--", "sh", "-c", "sync; echo 3 >/proc/sys/vm/drop_caches"); r.code != 0 {
			w.t.Fatalf("VM %s: dropping caches: %v", m.name, r)
		}
	}
}

// idle counts when all is as it was before, or when it seems that it will not be.
func (w *world) idle(before map[string]use) map[string]use {
	w.t.Helper()
	var all map[string]use
	_, err := until("as many descriptors, threads and mappings as before", 30*time.Second, func() (bool, error) {
		w.forget()
		all = w.uses()
		list := grown(before, all)
		return before == nil || len(list) == 0, errors.New(strings.Join(list, "\n"))
	})
	if err != nil {
		w.t.Log(err) // it is judged at the end
	}
	return all
}

// grown tells what a process has more of than before, or which has come or gone.
func grown(before, after map[string]use) (list []string) {
	names := map[string]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		b, was := before[name]
		a, is := after[name]
		switch {
		case !was || !is:
			list = append(list, fmt.Sprintf("%s: before: %v, after: %v", name, was, is))
		case a.descriptors > b.descriptors+descriptorSlack(name):
			list = append(list, fmt.Sprintf("%s: descriptors grew from %d to %d", name, b.descriptors, a.descriptors))
		case a.threads > b.threads+threadSlack:
			list = append(list, fmt.Sprintf("%s: threads grew from %d to %d", name, b.threads, a.threads))
		case a.mappings > b.mappings+mappingSlack:
			list = append(list, fmt.Sprintf("%s: mappings grew from %d to %d", name, b.mappings, a.mappings))
		}
	}
	return list
}

// uses is what every process of the VMs has, on the host and in the guests.
func (w *world) uses() map[string]use {
	w.t.Helper()
	vms, err := w.list()
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]use{}
	for _, m := range w.vms {
		v := vms[m.name]
		n := map[string]int{}
		for _, p := range tree(v.PIDs.Supervisor) {
			name := m.name + " " + role(v, p)
			if n[name]++; n[name] > 1 {
				name = fmt.Sprintf("%s %d", name, n[name])
			}
			if u, err := useOf(p.pid); err == nil {
				all[name] = u
			}
		}
		for role, u := range w.guestUses(m.name) {
			all[m.name+" guest: "+role] = u
		}
	}
	return all
}

func useOf(pid int) (u use, err error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	rollup, err := os.ReadFile(dir + "smaps_rollup")
	if err != nil {
		return u, err
	}
	maps, err := os.ReadFile(dir + "maps")
	if err != nil {
		return u, err
	}
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		return u, err
	}
	tasks, err := os.ReadDir(dir + "task")
	return use{field(rollup, "Pss:"), field(rollup, "Anonymous:"), len(fds), len(tasks), bytes.Count(maps, []byte("\n"))}, err
}

func field(text []byte, name string) (n int) {
	for line := range bytes.Lines(text) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == name {
			_, _ = fmt.Sscan(f[1], &n)
		}
	}
	return n
}

// guestScript counts the agent, which is the guest's first process, and the Wayland proxy.
const guestScript = `for p in 1 $(pgrep -o -f '^vix-waylandproxy'); do
	set -- $(awk '/^Pss:/ {p=$2} /^Anonymous:/ {a=$2} END {print p, a}' /proc/$p/smaps_rollup)
	echo $(cat /proc/$p/comm) $1 $2 $(ls /proc/$p/fd | wc -l) $(ls /proc/$p/task | wc -l) $(wc -l </proc/$p/maps)
done`

func (w *world) guestUses(name string) map[string]use {
	w.t.Helper()
	r := w.vix("exec", "--user", "root", name, "--", "sh", "-c", guestScript)
	all := map[string]use{}
	for line := range strings.Lines(r.out) {
		var role string
		var u use
		if _, err := fmt.Sscan(line, &role, &u.pss, &u.own, &u.descriptors, &u.threads, &u.mappings); err != nil {
			w.t.Fatalf("counting in VM %s: %v: %v", name, err, r)
		}
		all[role] = u
	}
	if len(all) != 2 {
		w.t.Fatalf("counting in VM %s: %v", name, r)
	}
	return all
}

// tableOf is a line for each process and moment.
func tableOf(moments []string, uses ...map[string]use) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %-7s %9s %9s %6s %8s %9s\n", "process", "", "PSS KiB", "own KiB", "fds", "threads", "mappings")
	names := map[string]bool{}
	for _, all := range uses {
		for name := range all {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for i, all := range uses {
			if u, ok := all[name]; ok {
				fmt.Fprintf(&b, "%-28s %-7s %9d %9d %6d %8d %9d\n", name, moments[i], u.pss, u.own, u.descriptors, u.threads, u.mappings)
			}
		}
	}
	return b.String()
}
