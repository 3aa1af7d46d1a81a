package boot

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"

	"vix/internal/durable"
)

// le appends values little endian, as ELF and the boot protocol have them.
func le(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// makeELF makes an ELF file of one segment.
func makeELF(segment elf.ProgType, content []byte) []byte {
	head := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
	}
	prog := elf.Prog64{Type: uint32(segment), Off: 120, Filesz: uint64(len(content)), Memsz: uint64(len(content)), Align: 4}
	return append(le(head, prog), content...)
}

func makeVmlinux(noteType uint32) []byte {
	note := append(le(uint32(4), uint32(8), noteType), "Xen\x00\x00\x00\x00\x01\x00\x00\x00\x00"...)
	other := append(le(uint32(4), uint32(1), uint32(1)), "GNU\x00x\x00\x00\x00"...)
	return makeELF(elf.PT_NOTE, append(other, note...))
}

func pack(t *testing.T, how string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case "none":
		return b
	case "unknown":
		return append([]byte("????"), b...)
	case "gzip":
		w = gzip.NewWriter(&out)
	case "xz":
		w, err = xz.NewWriter(&out)
	case "zstd":
		w, err = zstd.NewWriter(&out)
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// makeBzImage makes an image with the parts of the setup header that matter.
func makeBzImage(t *testing.T, release, how string, vmlinux []byte) []byte {
	t.Helper()
	const sects = 4
	payload := pack(t, how, vmlinux)
	if how != "gzip" {
		payload = append(payload, le(uint32(len(vmlinux)))...)
	}
	b := make([]byte, (sects+1)*512)
	b[setupSectsAt] = sects
	copy(b[setupMagicAt:], "HdrS")
	copy(b[setupVersionAt:], le(uint16(0x20f)))
	copy(b[kernelVersionAt:], le(uint16(0x400)))
	copy(b[0x600:], release+" (builder) #1 SMP\x00")
	copy(b[payloadOffAt:], le(uint32(16)))
	copy(b[payloadLenAt:], le(uint32(len(payload))))
	return slices.Concat(b, make([]byte, 16), payload, []byte("after the payload"))
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

const testDep = `kernel/virtio/virtio-gpu.ko.xz: kernel/virtio/virtio_dma_buf.ko.xz kernel/drm/drm_kms_helper.ko.zst kernel/drm/drm.ko.gz
kernel/virtio/virtio_dma_buf.ko.xz:
kernel/drm/drm_kms_helper.ko.zst: kernel/drm/drm.ko.gz
kernel/drm/drm.ko.gz:
kernel/fs/overlay.ko:
kernel/other.ko:
`

const testBuiltin = "kernel/fs/fuse/fuse.ko\nkernel/fs/fuse/virtiofs.ko\nkernel/virtio_pci.ko\nkernel/virtio_console.ko\n"

// makeKernel puts a kernel with its modules into a tree.
func makeKernel(t *testing.T, root, release string) {
	t.Helper()
	write(t, filepath.Join(root, "boot/vmlinuz-"+release), makeBzImage(t, release, "zstd", makeVmlinux(noteXenPhys32Entry)))
	dir := filepath.Join(root, "usr/lib/modules", release)
	write(t, filepath.Join(dir, "modules.dep"), []byte(testDep))
	write(t, filepath.Join(dir, "modules.builtin"), []byte(testBuiltin))
	for path, how := range map[string]string{
		"kernel/virtio/virtio-gpu.ko.xz": "xz", "kernel/virtio/virtio_dma_buf.ko.xz": "xz",
		"kernel/drm/drm_kms_helper.ko.zst": "zstd", "kernel/drm/drm.ko.gz": "gzip", "kernel/fs/overlay.ko": "none",
	} {
		write(t, filepath.Join(dir, path), pack(t, how, []byte("\x7fELF "+moduleName(path))))
	}
}

func TestFindKernel(t *testing.T) {
	root := t.TempDir()
	if _, err := FindKernel(root); !errors.Is(err, ErrNoKernel) {
		t.Errorf("nothing: %v", err)
	}
	for _, r := range []string{"6.9.1-amd64", "6.12.0-rc1", "6.12.107+deb13-amd64", "6.12.90+deb13-amd64"} {
		makeKernel(t, root, r)
	}
	k, err := FindKernel(root)
	if err != nil || k.Release != "6.12.107+deb13-amd64" || k.Modules != filepath.Join(root, "usr/lib/modules/6.12.107+deb13-amd64") {
		t.Fatalf("%+v, %v", k, err)
	}
	// A newer one that cannot be a guest's is passed over.
	makeKernel(t, root, "6.13.0-cloud")
	write(t, filepath.Join(root, "usr/lib/modules/6.13.0-cloud/modules.dep"), []byte("kernel/fs/overlay.ko:\n"))
	if k, err := FindKernel(root); err != nil || k.Release != "6.12.107+deb13-amd64" {
		t.Fatalf("%+v, %v", k, err)
	}
	// Arch's image is named without its release.
	arch := t.TempDir()
	makeKernel(t, arch, "6.15.1-arch1")
	if err := os.Rename(filepath.Join(arch, "boot/vmlinuz-6.15.1-arch1"), filepath.Join(arch, "boot/vmlinuz-linux")); err != nil {
		t.Fatal(err)
	}
	if k, err := FindKernel(arch); err != nil || k.Release != "6.15.1-arch1" {
		t.Fatalf("%+v, %v", k, err)
	}
	// There, and on Fedora, /boot may hold none that can be read: it is beside its modules too.
	beside := filepath.Join(arch, "usr/lib/modules/6.15.1-arch1/vmlinuz")
	if err := os.Rename(filepath.Join(arch, "boot/vmlinuz-linux"), beside); err != nil {
		t.Fatal(err)
	}
	if k, err := FindKernel(arch); err != nil || k.Release != "6.15.1-arch1" || k.Image != beside {
		t.Fatalf("%+v, %v", k, err)
	}
}

func TestFindKernelSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, root, image, modules string)
		is    error
		text  string
	}{
		"cloud": {func(t *testing.T, _, _, m string) {
			write(t, filepath.Join(m, "modules.dep"), []byte("kernel/fs/overlay.ko:\n"))
		}, ErrNoVirtioGPU, "kernel 6.12.1: this kernel has no virtio-gpu driver; install"},
		"no overlay": {func(t *testing.T, _, _, m string) {
			write(t, filepath.Join(m, "modules.dep"), []byte(strings.ReplaceAll(testDep, "overlay", "overley")))
		}, nil, "no overlay driver"},
		"no modules":   {func(t *testing.T, _, _, m string) { _ = os.RemoveAll(m) }, nil, "modules are missing"},
		"not an image": {func(t *testing.T, _, i, _ string) { write(t, i, []byte("x")) }, errNotBzImage, "vmlinuz-6.12.1: not an x86"},
		"old": {func(t *testing.T, root, i, _ string) {
			_ = os.Remove(i)
			makeKernel(t, root, "5.10.0-30-amd64")
		}, nil, "older than 5.16"},
		"secret": {func(t *testing.T, _, i, _ string) { _ = os.Chmod(i, 0) }, nil, "run: sudo chmod a+r"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "secret" && os.Getuid() == 0 {
				t.Skip("root reads everything")
			}
			root := t.TempDir()
			makeKernel(t, root, "6.12.1")
			c.spoil(t, root, filepath.Join(root, "boot/vmlinuz-6.12.1"), filepath.Join(root, "usr/lib/modules/6.12.1"))
			_, err := FindKernel(root)
			if err == nil || !strings.Contains(err.Error(), c.text) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestExtractVmlinux(t *testing.T) {
	want := makeVmlinux(noteXenPhys32Entry)
	for _, how := range []string{"zstd", "xz", "gzip"} {
		got, err := extractVmlinux(makeBzImage(t, "6.1", how, want))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", how, len(got), err)
		}
	}
	if _, err := extractVmlinux(makeBzImage(t, "6.1", "unknown", want)); !errors.Is(err, errNoPVH) {
		t.Errorf("unknown compression: %v", err)
	}
	if _, err := extractVmlinux(makeBzImage(t, "6.1", "zstd", makeVmlinux(1))); !errors.Is(err, errNoPVH) {
		t.Errorf("no note: %v", err)
	}
	image := makeBzImage(t, "6.1", "zstd", want)
	for n := range len(image) - len("after the payload") {
		if _, err := extractVmlinux(image[:n]); err == nil {
			t.Fatalf("cut at %d: no error", n)
		}
	}
	// Any one byte wrong: an error or not, but no panic.
	for i := range image {
		bad := bytes.Clone(image)
		bad[i] ^= 0xff
		_, _ = extractVmlinux(bad)
	}
}

func TestSplitSignature(t *testing.T) {
	sig := append([]byte("signature"), 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9)
	signed := slices.Concat([]byte("module"), sig, []byte(signatureMagic))
	bare, signature := splitSignature(signed)
	if string(bare) != "module" || !bytes.Equal(append(bare, signature...), signed) {
		t.Errorf("%q and %q", bare, signature)
	}
	for _, whole := range []string{"", "module", signatureMagic, "\x00\x00\x00\xff" + signatureMagic, "0123456789ab" + signatureMagic} {
		if bare, signature := splitSignature([]byte(whole)); string(bare) != whole || signature != nil {
			t.Errorf("%q: %q and %q", whole, bare, signature)
		}
	}
}

func TestCompareReleases(t *testing.T) {
	order := []string{"", "linux", "5.9", "5.16", "5.16.1", "6.1.0-9", "6.1.0-10", "6.12.107+deb13-amd64", "6.13.0"}
	order[0], order[1] = "1", "5.8"
	for i, a := range order {
		for j, b := range order {
			if got, want := compareReleases(a, b), min(1, max(-1, i-j)); got != want {
				t.Errorf("%s and %s: %d, not %d", a, b, got, want)
			}
		}
	}
}

func testConfig(t *testing.T) Config {
	root := t.TempDir()
	makeKernel(t, root, "6.12.1")
	k, err := FindKernel(root)
	if err != nil {
		t.Fatal(err)
	}
	guest := write(t, filepath.Join(root, "vix-guest"), makeELF(elf.PT_LOAD, []byte("guest")))
	return Config{Kernel: k, Guest: guest, CacheDir: filepath.Join(root, "cache/vix")}
}

func TestPrepare(t *testing.T) {
	c := testConfig(t)
	var output []string
	c.Progress = func(s string) { output = append(output, s) }
	f, err := Prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(f.Kernel); err != nil || !bytes.Equal(b, makeVmlinux(noteXenPhys32Entry)) || !f.PVH {
		t.Errorf("kernel: %v", err)
	}
	if len(output) != 2 {
		t.Errorf("said %q", output)
	}
	checkArchive(t, f.Initrd)
	checkModes(t, c.CacheDir)

	before, _ := os.ReadFile(f.Initrd)
	output = nil
	again, err := Prepare(t.Context(), c)
	if err != nil || again != f || len(output) > 0 {
		t.Errorf("again: %+v, %v, said %q", again, err, output)
	}
	_ = os.Remove(f.Initrd)
	if _, err := Prepare(t.Context(), c); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadFile(f.Initrd); !bytes.Equal(before, after) {
		t.Error("the same input gave another initramfs")
	}
	write(t, c.Guest, makeELF(elf.PT_LOAD, []byte("newer")))
	if newer, err := Prepare(t.Context(), c); err != nil || newer.Initrd == f.Initrd || newer.Kernel != f.Kernel {
		t.Errorf("with another guest: %+v, %v", newer, err)
	}
}

func checkArchive(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(b)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, r := range records {
		content, err := io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
		if err != nil && r.ReaderAt != nil {
			t.Fatal(err)
		}
		files[r.Name] = fmt.Sprintf("%o %s", r.Mode, content)
	}
	if got := files["init"]; !strings.HasPrefix(got, "100755 \x7fELF") {
		t.Errorf("init is %.40q", got)
	}
	want := "100644 root overlay.ko\ngpu drm.ko\ngpu drm_kms_helper.ko\ngpu virtio_dma_buf.ko\ngpu virtio_gpu.ko\n"
	if got := files[ListFile]; got != want {
		t.Errorf("list %q, not %q", got, want)
	}
	for _, m := range []string{"overlay", "drm", "drm_kms_helper", "virtio_dma_buf", "virtio_gpu"} {
		if got, want := files["modules/"+m+".ko"], "100644 \x7fELF "+m; got != want {
			t.Errorf("module %q, not %q", got, want)
		}
	}
	if _, ok := files["dev/console"]; !ok {
		t.Error("no console")
	}
}

func checkModes(t *testing.T, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			t.Error(err)
			return nil
		}
		info, _ := d.Info()
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, not %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
}

func TestPrepareAtOnce(t *testing.T) {
	c := testConfig(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			f, err := Prepare(t.Context(), c)
			if err != nil {
				t.Error(err)
				return
			}
			checkArchive(t, f.Initrd)
		})
	}
	all.Wait()
	if entries, _ := os.ReadDir(c.CacheDir); len(entries) != 2 {
		t.Errorf("the cache holds %v", entries)
	}
}

func TestPrepareFails(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(c *Config)
		text  string
	}{
		"no guest":      {func(c *Config) { c.Guest += "x" }, "no such file"},
		"dynamic guest": {func(c *Config) { _ = os.WriteFile(c.Guest, makeELF(elf.PT_INTERP, []byte("/lib/ld.so\x00")), 0o644) }, "CGO_ENABLED=0"},
		"script guest":  {func(c *Config) { _ = os.WriteFile(c.Guest, []byte("#!/bin/sh"), 0o644) }, "not a program"},
		"no module":     {func(c *Config) { _ = os.Remove(filepath.Join(c.Kernel.Modules, "kernel/fs/overlay.ko")) }, "overlay.ko: no such file"},
		"module outside": {func(c *Config) {
			_ = os.WriteFile(filepath.Join(c.Kernel.Modules, "modules.dep"), []byte(testDep+"../../overlay.ko:\n"), 0o644)
		}, "outside"},
		"broken module": {func(c *Config) {
			_ = os.WriteFile(filepath.Join(c.Kernel.Modules, "kernel/drm/drm.ko.gz"), []byte{0x1f, 0x8b, 8, 0}, 0o644)
		}, "module drm: "},
		"others may write": {func(c *Config) { _ = os.MkdirAll(c.CacheDir, 0o700); _ = os.Chmod(c.CacheDir, 0o777) }, "others can write to it"},
		"cache is a file":  {func(c *Config) { c.CacheDir = c.Guest }, "not a directory"},
		"kernel is broken": {func(c *Config) { _ = os.WriteFile(c.Kernel.Image, make([]byte, 4096), 0o644) }, "not an x86 Linux kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig(t)
			c.spoil(&config)
			if f, err := Prepare(t.Context(), config); err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%+v, %v", f, err)
			}
			entries, _ := os.ReadDir(config.CacheDir)
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), durable.Prefix) {
					t.Errorf("%s is left", e.Name())
				}
			}
		})
	}
}

func TestPrepareWithoutPVH(t *testing.T) {
	c := testConfig(t)
	image := makeBzImage(t, "6.12.1", "unknown", makeVmlinux(noteXenPhys32Entry))
	write(t, c.Kernel.Image, image)
	for range 2 {
		f, err := Prepare(t.Context(), c)
		if err != nil || f.PVH {
			t.Fatalf("%+v, %v", f, err)
		}
		if b, _ := os.ReadFile(f.Kernel); !bytes.Equal(b, image) {
			t.Error("the kernel is not the image itself")
		}
	}
}

func TestPrune(t *testing.T) {
	c := testConfig(t)
	old := time.Now().Add(-2 * unusedFor)
	for name, age := range map[string]time.Time{
		"initrd-old": old, "vmlinux-old": old, ".new-initrd-x": old, durable.TempName(): old, "notes": old, ".new-initrd-y": time.Now(), "initrd-z": time.Now(),
	} {
		path := write(t, filepath.Join(c.CacheDir, name), nil)
		_ = os.Chtimes(path, age, age)
	}
	if _, err := Prepare(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, _ := os.ReadDir(c.CacheDir)
	for _, e := range entries {
		names = append(names, strings.SplitAfter(e.Name(), "-")[0])
	}
	if want := []string{".new-", "initrd-", "initrd-", "notes", "vmlinux-"}; !slices.Equal(names, want) {
		t.Errorf("left: %q, not %q", names, want)
	}
}

// A guest with its root on a disk gets the drivers and file systems that there are.
func TestDiskModules(t *testing.T) {
	c := testConfig(t)
	write(t, filepath.Join(c.Kernel.Modules, "modules.dep"), []byte(testDep+"kernel/fs/ext4.ko: kernel/fs/jbd2.ko\nkernel/fs/jbd2.ko:\nkernel/virtio/virtio_blk.ko:\n"))
	for _, name := range []string{"kernel/fs/ext4.ko", "kernel/fs/jbd2.ko", "kernel/virtio/virtio_blk.ko"} {
		write(t, filepath.Join(c.Kernel.Modules, name), []byte("\x7fELF"))
	}
	plain, err := Prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	c.Disk = true
	disk, err := Prepare(t.Context(), c)
	if err != nil || disk.Initrd == plain.Initrd {
		t.Fatal(err)
	}
	index, err := loadModuleIndex(c.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.plan(GroupDisk)
	var got []string
	for _, m := range list {
		if strings.HasPrefix(m.group, GroupDisk) {
			got = append(got, m.group+" "+m.name)
		}
	}
	if err != nil || !slices.Equal(got, []string{"disk virtio_blk", "disk-ext4 jbd2", "disk-ext4 ext4"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// A guest gets the modules that it can do without where the kernel has them.
func TestOptionalModules(t *testing.T) {
	c := testConfig(t)
	if _, err := Prepare(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(c.Kernel.Modules, "modules.dep"), []byte(testDep+"kernel/virtio/virtio_balloon.ko:\nkernel/char/virtio-rng.ko:\n"))
	index, err := loadModuleIndex(c.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.plan()
	var got []string
	for _, m := range list {
		if m.group == GroupMemory || m.group == GroupEntropy {
			got = append(got, m.group+" "+m.name)
		}
	}
	if err != nil || !slices.Equal(got, []string{"memory virtio_balloon", "entropy virtio_rng"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestRealKernel takes this machine's own kernel, where it has one.
func TestRealKernel(t *testing.T) {
	k, err := FindKernel("/")
	if err != nil {
		t.Skipf("lacks: a kernel: %v", err)
	}
	guest := write(t, filepath.Join(t.TempDir(), "guest"), makeELF(elf.PT_LOAD, nil))
	dir := t.TempDir()
	at := time.Now()
	f, err := Prepare(t.Context(), Config{Kernel: k, Guest: guest, CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	cold := time.Since(at)
	at = time.Now()
	if _, err := Prepare(t.Context(), Config{Kernel: k, Guest: guest, CacheDir: dir}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(f.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("kernel %s, pvh %v, initramfs without a guest %d KiB; cold %v, warm %v", k.Release, f.PVH, info.Size()>>10, cold, time.Since(at))
}
