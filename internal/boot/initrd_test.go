package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

// archive makes a newc archive of files.
func archive(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	var records []cpio.Record
	for name, content := range files {
		records = append(records, cpio.StaticFile(name, content, 0o644))
	}
	w := cpio.Newc.Writer(&b)
	if err := cpio.WriteRecords(w, records); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestModulesIn(t *testing.T) {
	microcode := archive(t, map[string]string{"kernel/x86/microcode/x": "code"})
	microcode = append(microcode, make([]byte, 512)...)
	main := archive(t, map[string]string{
		"usr/lib/modules/6.1/modules.dep": "a.ko:\n", "lib/modules/6.1/kernel/a.ko": "\x7fELF", "lib/modules/6.2/b.ko": "other", "etc/passwd": "x",
	})
	for _, how := range []string{"none", "gzip", "xz", "zstd"} {
		files, err := modulesIn(append(slices.Clone(microcode), pack(t, how, main)...), "6.1")
		if err != nil || len(files) != 2 || string(files["kernel/a.ko"]) != "\x7fELF" || string(files["modules.dep"]) != "a.ko:\n" {
			t.Errorf("%s: %q, %v", how, files, err)
		}
	}
	for what, c := range map[string]struct {
		initrd []byte
		want   string
	}{
		"empty":      {nil, "holds no modules of kernel 6.1"},
		"another's":  {archive(t, map[string]string{"lib/modules/6.2/modules.dep": ""}), "holds no modules of kernel 6.1"},
		"cut":        {main[:len(main)-300], "damaged"},
		"text":       {[]byte("an initrd"), "neither a cpio archive"},
		"two halves": {append(slices.Clone(main), "garbage"...), "neither a cpio archive"},
	} {
		if _, err := modulesIn(c.initrd, "6.1"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A kernel of the user's: where its modules are looked for.
func TestNamedKernel(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "boot", "my-kernel")
	add := func(path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	add(image, string(makeBzImage(t, "6.1-x", "none", makeVmlinux(noteXenPhys32Entry))))
	if k, err := NamedKernel(image, "", dir+"/none"); err != nil || k.Release != "6.1-x" || k.Modules != "" {
		t.Errorf("without modules: %+v, %v", k, err)
	}
	add(dir+"/lib/modules/6.1-x/modules.dep", "")
	if _, err := NamedKernel(image, "", dir+"/none"); err == nil || !strings.Contains(err.Error(), "kernel 6.1-x: the kernel has no virtio_pci driver") {
		t.Errorf("with no modules: %v", err)
	}
	var builtin strings.Builder
	for _, w := range neededDrivers {
		builtin.WriteString("kernel/" + w.name + ".ko\n")
	}
	add(dir+"/lib/modules/6.1-x/modules.builtin", builtin.String())
	if k, err := NamedKernel(image, "", dir+"/none"); err != nil || k.Modules != dir+"/lib/modules/6.1-x" {
		t.Errorf("above it: %+v, %v", k, err)
	}
	add(dir+"/initrd", string(archive(t, map[string]string{"lib/modules/6.1-x/modules.dep": ""})))
	if _, err := NamedKernel(image, dir+"/initrd", dir); err == nil || !strings.Contains(err.Error(), "initrd "+dir+"/initrd: the kernel has no") {
		t.Errorf("an initrd without modules: %v", err)
	}
	add(dir+"/initrd", string(archive(t, map[string]string{"lib/modules/6.1-x/modules.dep": "", "lib/modules/6.1-x/modules.builtin": builtin.String()})))
	if _, err := NamedKernel(image, dir+"/initrd", dir); err != nil {
		t.Error(err)
	}
	if _, err := NamedKernel(dir+"/initrd", "", dir); err == nil || !strings.Contains(err.Error(), "not an x86 Linux kernel") {
		t.Error(err)
	}
}

// FuzzInitrd: no input panics or makes files from nothing.
func FuzzInitrd(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 || !bytes.HasPrefix(b, []byte(newcMagic)) && len(b) > 0 {
			return // what unpacks is the libraries'
		}
		files, err := modulesIn(b, "6.1")
		size := 0
		for _, content := range files {
			size += len(content)
		}
		if err == nil && (len(files) == 0 || size > len(b)) {
			t.Errorf("%d files of %d bytes from %d", len(files), size, len(b))
		}
	})
}
