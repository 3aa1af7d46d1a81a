package rootfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// aptPrefix begins the names of the folders that Download keeps.
const aptPrefix = "apt-"

// Unneeded returns the names of what cacheDir has and nobody needs: roots that are none of
// keep, what building them said, packages for a suite that no root of keep has, and roots
// that were not finished. Whatever belongs to one of the suites inUse stays.
func Unneeded(cacheDir string, keep []Debian, inUse []string) ([]string, error) {
	entries, err := os.ReadDir(cacheDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var roots, suites []string
	for _, d := range keep {
		roots, suites = append(roots, filepath.Base(d.Dir())), append(suites, d.Suite)
	}
	var list []string
	for _, e := range entries {
		root := strings.TrimSuffix(e.Name(), ".log")
		suite, apt := strings.CutPrefix(root, aptPrefix)
		needed := true
		switch {
		case strings.HasPrefix(root, tempPrefix):
			needed = false
		case apt:
			needed = slices.Contains(suites, suite) || slices.Contains(inUse, suite)
		case strings.HasPrefix(root, "debian-"):
			needed = slices.Contains(roots, root) || slices.Contains(inUse, suiteOf(root))
		}
		if !needed {
			list = append(list, e.Name())
		}
	}
	return list, nil
}

// suiteOf returns the suite of a root's directory: debian-SUITE-KEY.
func suiteOf(name string) string {
	name = strings.TrimPrefix(name, "debian-")
	return name[:max(strings.LastIndexByte(name, '-'), 0)]
}

// errBusy: somebody builds a root, or fetches packages, now.
var errBusy = errors.New("in use by another run of Vix; try again when that has ended")

// Drop removes one of the names that Unneeded returned. No root is ever half there under its
// name, and the next build finishes a removal that was interrupted.
func Drop(cacheDir, name string) error {
	locks := []string{filepath.Join(cacheDir, "lock")}
	if strings.HasPrefix(name, aptPrefix) {
		locks = append(locks, filepath.Join(cacheDir, name, "lock"))
	}
	for _, path := range locks {
		lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		defer lock.Close()
		switch err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("%s: %w", filepath.Join(cacheDir, name), errBusy)
		case err != nil:
			return os.NewSyscallError("flock", err)
		}
	}
	cache, err := os.OpenRoot(cacheDir)
	if err != nil {
		return err
	}
	defer cache.Close()
	away := name
	if !strings.HasPrefix(name, tempPrefix) {
		away = tempPrefix + rand.Text()[:8]
		if err := cache.Rename(name, away); err != nil {
			return err
		}
	}
	err = cache.RemoveAll(away)
	if errors.Is(err, fs.ErrPermission) { // of directories that their packages made read-only
		_ = fs.WalkDir(cache.FS(), away, func(path string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = cache.Chmod(path, 0o700)
			}
			return nil
		})
		err = cache.RemoveAll(away)
	}
	return err
}
