package boot

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What an installed kernel is booted from stays, for every kind of guest, and nothing has to
// be made again; what an old kernel or an old Vix made goes, unless it was used just now.
func TestUnused(t *testing.T) {
	c := testConfig(t)
	root := filepath.Dir(filepath.Dir(c.Kernel.Image))
	makeKernel(t, root, "6.13.1")
	// Its content differs, as a kernel's does.
	write(t, filepath.Join(root, "boot/vmlinuz-6.13.1"), makeBzImage(t, "6.13.1", "xz", append(makeVmlinux(noteXenPhys32Entry), 1)))
	write(t, filepath.Join(root, "usr/lib/modules/6.13.1/kernel/fs/overlay.ko"), []byte("\x7fELF overlay of 6.13.1"))
	kernels := Installed(root)
	if len(kernels) != 2 {
		t.Fatalf("%+v", kernels)
	}
	made := map[string][]string{} // by what made it
	prepare := func(what string, c Config) {
		t.Helper()
		f, err := Prepare(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		made[what] = append(made[what], filepath.Base(f.Kernel), filepath.Base(f.Initrd))
	}
	guests := func(what string, k Kernel) {
		for _, disk := range []bool{false, true} { // this kernel has what they need, and no more
			c := c
			c.Kernel, c.Disk = k, disk
			prepare(what, c)
		}
	}
	for _, k := range kernels {
		guests(k.Release, k)
	}
	guest, err := os.ReadFile(c.Guest)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.Guest, makeELF(elf.PT_LOAD, []byte("another version")))
	prepare("old Vix", c)
	write(t, c.Guest, guest)
	write(t, filepath.Join(c.CacheDir, "mine"), nil)

	cache, err := os.OpenRoot(c.CacheDir)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	unused := func(kernels []Kernel) []string {
		t.Helper()
		list, err := Unused(cache, kernels, c.Guest)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := unused(kernels[:1]); len(list) > 0 {
		t.Errorf("used a moment ago, and unused: %q", list)
	}
	old := time.Now().Add(-2 * SpareLately)
	entries, _ := os.ReadDir(c.CacheDir)
	for _, e := range entries {
		if err := cache.Chtimes(e.Name(), old, old); err != nil {
			t.Fatal(err)
		}
	}
	want := slices.Concat(made["6.12.1"], made["old Vix"][1:])
	want = slices.Compact(slices.Sorted(slices.Values(want)))
	newest := kernels[slices.IndexFunc(kernels, func(k Kernel) bool { return k.Release == "6.13.1" })]
	got := unused([]Kernel{newest})
	if !slices.Equal(got, want) {
		t.Errorf("unused: %q, want %q", got, want)
	}
	if both := unused(kernels); !slices.Equal(both, made["old Vix"][1:]) {
		t.Errorf("unused with both kernels: %q", both)
	}
	for _, name := range got {
		if err := Drop(cache, name); err != nil {
			t.Error(err)
		}
	}
	c.Progress = func(text string) { t.Errorf("made again: %s", text) }
	guests("after", newest)

	// A kernel that cannot be read says nothing of what it makes.
	if _, err := Unused(cache, []Kernel{{Release: "gone", Image: filepath.Join(root, "gone")}}, c.Guest); err == nil {
		t.Error("a kernel that is not there makes nothing")
	}
	if entries, _ := os.ReadDir(c.CacheDir); !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "mine" }) || strings.Contains(strings.Join(got, " "), "mine") {
		t.Error("another's file is gone")
	}
}
