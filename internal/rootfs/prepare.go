package rootfs

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A Config says what to boot and where to keep it.
type Config struct {
	Kernel   Kernel
	Guest    string       // path of the static vix-guest binary
	CacheDir string       // made if missing, 0700; holds only our files
	Disk     bool         // the root is on a disk
	Net      bool         // the guest has a network card
	Vsock    bool         // the agent's channel is a vsock connection
	Progress func(string) // told what takes a while; may be nil
}

// Files is what QEMU boots.
type Files struct {
	Kernel string // the uncompressed vmlinux, or the bzImage where that has no PVH entry
	Initrd string
	PVH    bool // Kernel is a vmlinux
}

// unusedFor is how long an entry of the cache is kept after its last use.
const unusedFor = 30 * 24 * time.Hour

// maxImage bounds a bzImage and vix-guest.
const maxImage = 256 << 20

// Prepare returns the files, making what the cache lacks. Entries are named by
// the content they are made from and written aside first, so that any number
// of Prepares may run at once and a half-written file is never used.
func Prepare(ctx context.Context, c Config) (Files, error) {
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if err := os.MkdirAll(c.CacheDir, 0o700); err != nil {
		return Files{}, err
	}
	cache, err := os.OpenRoot(c.CacheDir)
	if err != nil {
		return Files{}, err
	}
	defer cache.Close()
	if err := ownCache(cache); err != nil {
		return Files{}, fmt.Errorf("%s: %w", c.CacheDir, err)
	}
	var f Files
	if f.Kernel, f.PVH, err = prepareKernel(ctx, c, cache); err != nil {
		return Files{}, fmt.Errorf("%s: %w", c.Kernel.Image, err)
	}
	if f.Initrd, err = prepareInitrd(ctx, c, cache); err != nil {
		return Files{}, fmt.Errorf("kernel %s: %w", c.Kernel.Release, err)
	}
	return f, nil
}

// ownCache refuses a cache that another user could write to: an entry's name vouches for
// its content. It is the open directory that is looked at.
func ownCache(cache *os.Root) error {
	st, err := cache.Stat(".")
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Getuid() || st.Mode().Perm()&0o022 != 0 {
		return errors.New("others can write to it, or it is not yours; make it yours alone (0700)")
	}
	return nil
}

func prepareKernel(ctx context.Context, c Config, cache *os.Root) (path string, pvh bool, err error) {
	image, err := readBounded(c.Kernel.Image, maxImage)
	if err != nil {
		return "", false, err
	}
	name := "vmlinux-" + digest([]byte("vmlinux"), image)
	if touch(cache, name) {
		return filepath.Join(c.CacheDir, name), true, nil
	}
	bz := "bzimage-" + digest([]byte("bzimage"), image)
	if touch(cache, bz) {
		return filepath.Join(c.CacheDir, bz), false, nil
	}
	if err := ctx.Err(); err != nil {
		return "", false, err
	}
	c.Progress("unpacking kernel " + c.Kernel.Release)
	vmlinux, err := extractVmlinux(image)
	if errors.Is(err, errNoPVH) {
		// A copy, because the original may go with its package while VMs run.
		err = store(cache, bz, func(w io.Writer) error { _, err := w.Write(image); return err })
		return filepath.Join(c.CacheDir, bz), false, err
	}
	if err != nil {
		return "", false, err
	}
	err = store(cache, name, func(w io.Writer) error { _, err := w.Write(vmlinux); return err })
	return filepath.Join(c.CacheDir, name), true, err
}

func prepareInitrd(ctx context.Context, c Config, cache *os.Root) (string, error) {
	guest, err := readBounded(c.Guest, maxImage)
	if err != nil {
		return "", err
	}
	if err := checkStatic(guest); err != nil {
		return "", fmt.Errorf("%s: %w", c.Guest, err)
	}
	index, err := loadModuleIndex(c.Kernel)
	if err != nil {
		return "", err
	}
	plan, err := index.plan(c.groups()...)
	if err != nil {
		return "", err
	}
	parts := [][]byte{[]byte("initrd " + initramfsFormat), guest}
	mods := make([]packedModule, len(plan))
	for i, m := range plan {
		data, err := index.read(m)
		if err != nil {
			return "", err
		}
		mods[i] = packedModule{m, data}
		parts = append(parts, []byte(m.group+" "+m.name), data)
	}
	name := "initrd-" + digest(parts...)
	path := filepath.Join(c.CacheDir, name)
	if touch(cache, name) {
		return path, nil
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	c.Progress("writing the initramfs for kernel " + c.Kernel.Release)
	return path, store(cache, name, func(w io.Writer) error { return writeInitramfs(w, guest, mods) })
}

// groups are those of the modules that not every guest needs.
func (c Config) groups() (list []string) {
	for group, with := range map[string]bool{GroupDisk: c.Disk, GroupNet: c.Net, GroupVsock: c.Vsock} {
		if with {
			list = append(list, group)
		}
	}
	return list
}

// checkStatic: there is no C library in the initramfs to run a dynamic one.
func checkStatic(guest []byte) error {
	f, err := elf.NewFile(bytes.NewReader(guest))
	if err != nil {
		return fmt.Errorf("not a program: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("not a static program; build it with CGO_ENABLED=0")
		}
	}
	return nil
}

// digest hashes parts with their lengths, so that no two lists look the same.
func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// touch reports whether an entry is there, and marks it as used.
func touch(cache *os.Root, name string) bool {
	now := time.Now()
	return cache.Chtimes(name, now, now) == nil
}

// store writes an entry aside, and renames it when it is whole and on disk.
func store(cache *os.Root, name string, write func(io.Writer) error) (err error) {
	prune(cache)
	temp := tempPrefix + name + "." + rand.Text()[:8]
	f, err := cache.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = cache.Remove(temp)
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return cache.Rename(temp, name)
}

const tempPrefix = ".new-"

// prune removes entries that were not used for long, and what an interrupted
// store left. Errors do not matter: it is tried again at the next store.
func prune(cache *os.Root) {
	dir, err := cache.Open(".")
	if err != nil {
		return
	}
	defer dir.Close()
	entries, _ := dir.ReadDir(-1)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		age := time.Since(info.ModTime())
		temp := strings.HasPrefix(e.Name(), tempPrefix)
		ours := strings.HasPrefix(e.Name(), "vmlinux-") || strings.HasPrefix(e.Name(), "bzimage-") || strings.HasPrefix(e.Name(), "initrd-")
		if temp && age > time.Hour || ours && age > unusedFor {
			_ = cache.Remove(e.Name())
		}
	}
}
