package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/durable"
)

// A Config says what to boot and where to keep it.
type Config struct {
	Kernel   Kernel
	Guest    string       // path of the static vix-guest binary
	CacheDir string       // made if missing, 0700; holds only our files
	Disk     bool         // the root is on a disk
	Net      bool         // the guest has a network card
	Vsock    bool         // the agent's channel is a vsock connection
	Progress func(string) // gets a line for each slow step; may be nil
}

// Files are the files that QEMU boots.
type Files struct {
	Kernel string // the uncompressed vmlinux, or the bzImage if that has no PVH entry
	Initrd string
	PVH    bool // Kernel is a vmlinux
}

// unusedFor is how long an entry of the cache is kept after its last use.
const unusedFor = 30 * 24 * time.Hour

// oldTempPrefix begins the names of half-written entries of earlier builds; package durable
// names them now.
const oldTempPrefix = ".new-"

// maxImage bounds a bzImage and vix-guest.
const maxImage = 256 << 20

// Prepare returns the files, and makes those that the cache lacks. An entry's name comes from
// the content that it is made from, and from its own (entry), so that any number of Prepares
// may run at once, and files that a disk has damaged are made again. Prepare only reads a
// cache that has everything.
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

// ownCache refuses a cache that another user could write to: an entry's name vouches for its
// content. It checks the open directory.
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
	key := "vmlinux-" + digest([]byte("vmlinux"), image)
	if name, ok := lookUp(cache, key); ok {
		return filepath.Join(c.CacheDir, name), true, nil
	}
	bz := "bzimage-" + digest([]byte("bzimage"), image)
	if name, ok := lookUp(cache, bz); ok {
		return filepath.Join(c.CacheDir, name), false, nil
	}
	if err := ctx.Err(); err != nil {
		return "", false, err
	}
	c.Progress("unpacking kernel " + c.Kernel.Release)
	vmlinux, err := extractVmlinux(image)
	if errors.Is(err, errNoPVH) {
		// A copy, because the original may go with its package while VMs run.
		name, err := store(cache, bz, func(w io.Writer) error { _, err := w.Write(image); return err })
		return filepath.Join(c.CacheDir, name), false, err
	}
	if err != nil {
		return "", false, err
	}
	name, err := store(cache, key, func(w io.Writer) error { _, err := w.Write(vmlinux); return err })
	return filepath.Join(c.CacheDir, name), true, err
}

func prepareInitrd(ctx context.Context, c Config, cache *os.Root) (string, error) {
	key, guest, mods, err := c.initrd()
	if err != nil {
		return "", err
	}
	if name, ok := lookUp(cache, key); ok {
		return filepath.Join(c.CacheDir, name), nil
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	c.Progress("writing the initramfs for kernel " + c.Kernel.Release)
	name, err := store(cache, key, func(w io.Writer) error { return writeInitramfs(w, guest, mods) })
	return filepath.Join(c.CacheDir, name), err
}

// initrd returns the key of the guest's initramfs, and what that is made of.
func (c Config) initrd() (key string, guest []byte, mods []packedModule, err error) {
	if guest, err = readBounded(c.Guest, maxImage); err != nil {
		return "", nil, nil, err
	}
	if err := checkStatic(guest); err != nil {
		return "", nil, nil, fmt.Errorf("%s: %w", c.Guest, err)
	}
	index, err := loadModuleIndex(c.Kernel)
	if err != nil {
		return "", nil, nil, err
	}
	plan, err := index.plan(c.groups()...)
	if err != nil {
		return "", nil, nil, err
	}
	parts := [][]byte{[]byte("initrd " + initramfsFormat), guest}
	for _, m := range plan {
		data, err := index.read(m)
		if err != nil {
			return "", nil, nil, err
		}
		mods = append(mods, packedModule{m, data})
		parts = append(parts, []byte(m.group+" "+m.name), data)
	}
	return "initrd-" + digest(parts...), guest, mods, nil
}

// groups returns the groups of modules that this guest needs beside those of every guest.
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

// An entry of the cache is called KEY.SIZE.SUM, in hexadecimal: the sum of its content is in
// its name, and is taken at each look-up. A CRC is enough, for nobody but the user can write
// here: it finds what a disk does, in a quarter of the time that a cryptographic digest
// takes (15 ms and 60 ms for both files).
type entry struct {
	size int64
	sum  hash.Hash32
}

func newEntry() *entry { return &entry{sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))} }

func (e *entry) Write(p []byte) (int, error) {
	e.size += int64(len(p))
	return e.sum.Write(p)
}

func (e *entry) name(key string) string { return fmt.Sprintf("%s.%x.%08x", key, e.size, e.sum.Sum32()) }

// lookUp returns the entry of a key if it is whole, and marks it as used if the cache can be
// written to. It removes a damaged entry.
func lookUp(cache *os.Root, key string) (name string, ok bool) {
	names, _ := fs.Glob(cache.FS(), key+".*")
	for _, name := range names {
		if whole(cache, key, name) {
			now := time.Now()
			_ = cache.Chtimes(name, now, now)
			return name, true
		}
		_ = cache.Remove(name)
	}
	return "", false
}

func whole(cache *os.Root, key, name string) bool {
	f, err := cache.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || !strings.HasPrefix(name, fmt.Sprintf("%s.%x.", key, st.Size())) {
		return false
	}
	e := newEntry()
	_, err = io.CopyBuffer(struct{ io.Writer }{e}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	return err == nil && e.name(key) == name
}

// store writes an entry without a name, and gives it its name when it is whole and on disk.
func store(cache *os.Root, key string, write func(io.Writer) error) (name string, err error) {
	defer func() {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		if err != nil {
			err = fmt.Errorf("%s: cannot be written to: %w; make room there, or set XDG_CACHE_HOME to another directory", cache.Name(), err)
		}
	}()
	prune(cache)
	dir, err := cache.Open(".")
	if err != nil {
		return "", err
	}
	defer dir.Close()
	f, err := durable.New(dir, 0o600)
	if err != nil {
		return "", err
	}
	e := newEntry()
	if err = errors.Join(write(io.MultiWriter(f, e)), f.Sync()); err == nil {
		name = e.name(key)
		err = errors.Join(f.Place(name, true), durable.SyncDir(dir))
	}
	return name, errors.Join(err, f.Close())
}

// prune removes entries without a recent use, and the remains of interrupted stores on file
// systems where a file needs a name. Errors do not matter: the next store tries again.
func prune(cache *os.Root) {
	durable.SweepFiles(cache, ".")
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
		if ours := strings.HasPrefix(e.Name(), oldTempPrefix) || isEntry(e.Name()); ours && age > unusedFor {
			_ = cache.Remove(e.Name())
		}
	}
}
