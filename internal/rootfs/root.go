package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Root is the read-only tree below a guest's overlay. Its maker (root.go for existing
// roots, debian.go for built ones) fills in one of the three; a supervisor needs to know no
// more of it:
//
//	View   virtiofsd on MountView's allow-listed view of the host
//	Dir    virtiofsd on a directory, as it is
//	Disk   virtio-blk on a file; the guest finds the file system in it
type Root struct {
	View bool
	Dir  string
	Disk string
	// Squash: the files of Dir belong to the user who built it, and to root in the guest.
	Squash bool
}

// The kinds of roots, by what their names begin with (package config checks them).
const (
	debianPrefix = "debian:"
	imagePrefix  = "image:"
)

// ErrNotBuilt: the root has to be built first (Debian.Build).
var ErrNotBuilt = errors.New("not built yet")

// FindRoot returns the root called name: "host", "debian:SUITE" (built before, in
// cacheDir, with these packages), "image:PATH" or a directory.
func FindRoot(name string, packages []string, cacheDir string) (Root, error) {
	if name == "host" {
		return Root{View: true}, nil
	}
	if suite, ok := strings.CutPrefix(name, debianPrefix); ok {
		d := Debian{Suite: suite, Packages: packages, CacheDir: cacheDir}
		if !d.Built() {
			return Root{}, fmt.Errorf("root %s: %w; run again to build it", name, ErrNotBuilt)
		}
		return Root{Dir: d.Dir(), Squash: os.Getuid() != 0}, nil
	}
	path, image := strings.CutPrefix(name, imagePrefix)
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return Root{}, fmt.Errorf("root %s: %w; change root in config.toml", path, cause(err))
	case image && !st.Mode().IsRegular():
		return Root{}, fmt.Errorf("root %s: not a file; change root in config.toml", path)
	case image:
		return Root{Disk: path}, nil
	case !st.IsDir():
		return Root{}, fmt.Errorf("root %s: not a directory; change root in config.toml", path)
	}
	return Root{Dir: filepath.Clean(path)}, nil
}

// cause is err without the path that the message already names.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
