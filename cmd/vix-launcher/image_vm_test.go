package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"vix/internal/boot"
)

// testImageRoots starts the VM t, which has kept its home, with its root on every kind of disk;
// without a display, as there is no compositor.
func testImageRoots(t *testing.T, r *rig) {
	tree := smallSystem(t, r.dir)
	ext4 := filepath.Join(r.dir, "disk.ext4")
	if err := errors.Join(os.WriteFile(ext4, nil, 0o600), os.Truncate(ext4, 32<<20)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind, image string
		make        [][]string
	}{
		{"raw ext4", ext4, [][]string{{"mkfs.ext4", "-q", "-d", tree, ext4}}},
		{"qcow2 and an own kernel", r.dir + "/disk.qcow2", [][]string{{"qemu-img", "convert", "-O", "qcow2", ext4, r.dir + "/disk.qcow2"}}},
		{"squashfs", r.dir + "/disk.squashfs", [][]string{{"mksquashfs", tree, r.dir + "/disk.squashfs", "-quiet", "-no-progress"}}},
		{"erofs", r.dir + "/disk.erofs", [][]string{{"mkfs.erofs", "--quiet", r.dir + "/disk.erofs", tree}}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			conf := "root = \"image:" + c.image + "\"\nmemory = \"256M\"\n"
			if strings.HasSuffix(c.kind, "kernel") {
				conf += ownKernel(t, r.dir)
			}
			for _, argv := range c.make {
				if _, err := exec.LookPath(argv[0]); err != nil {
					t.Skip("lacks: " + argv[0])
				}
				if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%q: %v: %s", argv, err, out)
				}
			}
			sub := *r
			sub.t = t
			sub.env = append(sub.env, "WAYLAND_DISPLAY=/nowhere")
			sub.configure("[vm.t]\n" + conf)
			p := sub.vix(0, "run", "--no-gui", "--executable", "sh", "t", "-c",
				"cat /etc/motto ~/kept; echo mine >/etc/motto; cat /etc/motto ~/d/link; cat /tmp/lost 2>/dev/null; echo ${WAYLAND_DISPLAY-none}")
			if want := "on a disk\nkept\nmine\nkept\nnone\n"; p.out.String() != want {
				t.Errorf("%q %s, not %q", p.out.String(), p.err.String(), want)
			}
		})
	}
}

// configure writes config.toml.
func (r *rig) configure(text string) {
	r.t.Helper()
	dir := filepath.Join(r.dir, ".config/vix")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(dir+"/config.toml", []byte(text), 0o600)); err != nil {
		r.t.Fatal(err)
	}
}

// smallSystem makes a tree with a shell, cat and the C library.
func smallSystem(t *testing.T, dir string) string {
	t.Helper()
	tree := filepath.Join(dir, "tree")
	for _, path := range []string{"/bin/sh", "/bin/cat", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"} {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			t.Skip("lacks: " + path)
		}
		if err = errors.Join(err, os.MkdirAll(filepath.Dir(tree+path), 0o755), os.WriteFile(tree+path, b, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.Mkdir(tree+"/etc", 0o755), os.WriteFile(tree+"/etc/motto", []byte("on a disk\n"), 0o666), os.Chmod(tree+"/etc/motto", 0o666))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// ownKernel copies the machine's kernel and its modules, these into an initrd, and returns the
// lines of config.toml that name both.
func ownKernel(t *testing.T, dir string) string {
	t.Helper()
	k, err := boot.FindKernel("/")
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(k.Image)
	if err == nil {
		err = os.WriteFile(dir+"/my-kernel", image, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(dir + "/my-initrd")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := cpio.Newc.Writer(f)
	err = filepath.WalkDir(k.Modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) == ".xz" && !strings.Contains(path, "/fs/") && !strings.Contains(path, "virt") && !strings.Contains(path, "/crypto/") && !strings.Contains(path, "/lib/") && !strings.Contains(path, "/drm") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := "usr/lib/modules/" + k.Release + strings.TrimPrefix(path, k.Modules)
		return w.WriteRecord(cpio.StaticFile(name, string(b), 0o644))
	})
	if err = errors.Join(err, cpio.WriteTrailer(w)); err != nil {
		t.Fatal(err)
	}
	return "kernel = \"" + dir + "/my-kernel\"\ninitrd = \"" + dir + "/my-initrd\"\n"
}
