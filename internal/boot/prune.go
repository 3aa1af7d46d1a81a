package boot

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Installed returns the kernels under root (normally "/") that a guest can use.
func Installed(root string) (list []Kernel) {
	for _, pattern := range imagePatterns {
		paths, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, path := range paths {
			if k, err := inspect(root, path); err == nil {
				list = append(list, k)
			}
		}
	}
	return list
}

// SpareLately is how long an entry of the cache is safe after its last use: a VM that is
// starting has been told its path, and opens it a moment later.
const SpareLately = 15 * time.Minute

// Unused returns the names of the cache's entries that no VM would boot from with one of the
// kernels and the program guest (a path), and that nobody has used of late. Where it cannot
// tell, an entry is in use.
func Unused(cache *os.Root, kernels []Kernel, guest string) ([]string, error) {
	keys := map[string]bool{}
	for _, k := range kernels {
		image, err := readBounded(k.Image, maxImage)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Image, err)
		}
		keys["vmlinux-"+digest([]byte("vmlinux"), image)] = true
		keys["bzimage-"+digest([]byte("bzimage"), image)] = true
		for i := range 8 { // every kind of guest
			key, _, _, err := Config{Kernel: k, Guest: guest, Disk: i&1 != 0, Net: i&2 != 0, Vsock: i&4 != 0}.initrd()
			if err != nil && i == 0 {
				return nil, fmt.Errorf("kernel %s: %w", k.Release, err)
			}
			if err == nil { // a kernel may lack what some guests need
				keys[key] = true
			}
		}
	}
	entries, err := fs.ReadDir(cache.FS(), ".")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()).Abs() < SpareLately {
			continue
		}
		key, _, _ := strings.Cut(e.Name(), ".")
		if strings.HasPrefix(e.Name(), oldTempPrefix) || isEntry(e.Name()) && !keys[key] {
			list = append(list, e.Name())
		}
	}
	return list, nil
}

// entryPrefixes begin the names of the cache's entries.
var entryPrefixes = []string{"vmlinux-", "bzimage-", "initrd-"}

func isEntry(name string) bool {
	return slices.ContainsFunc(entryPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Drop removes an entry that Unused returned, unless somebody has used it since.
func Drop(cache *os.Root, name string) error {
	st, err := cache.Lstat(name)
	if err != nil || time.Since(st.ModTime()).Abs() < SpareLately {
		return err
	}
	return cache.Remove(name)
}
