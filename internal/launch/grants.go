package launch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/durable"
	"vix/internal/plain"
	"vix/internal/transfer"
)

// A VM sees the files that desktop entries open in one folder for all of them, which is one
// of its few shares, read-only:
//
//	$XDG_DATA_HOME/vix/open/VM/NAME ─► grantsPath/NAME in the guest
//
// Each entry is a process of its own. It holds the folder's lock, shared, while its program
// runs, and then takes its files back. The last process, which gets the lock for itself,
// takes the share away too, so that the guest's remaining handles lead nowhere.
const (
	grantsDir  = "vix/open" // below $XDG_DATA_HOME: beside most files of the user's
	grantsPath = config.ShareDir + "/open-files"
)

// A grants is one process's files in a VM's folder.
type grants struct {
	path  string
	root  *os.Root // of $XDG_DATA_HOME
	name  string   // below it
	dir   *os.Root
	lock  *os.File // the folder itself
	names []string // of our files
}

// openGrants opens the folder of a VM, and removes the files of killed processes.
func openGrants(data, vmName string) (_ *grants, err error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	g := &grants{path: filepath.Join(data, grantsDir, vmName), name: filepath.Join(grantsDir, vmName)}
	if g.root, err = os.OpenRoot(data); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	for {
		if err := g.root.MkdirAll(g.name, 0o700); err != nil {
			return nil, err
		}
		if g.dir, err = g.root.OpenRoot(g.name); err != nil {
			return nil, err
		}
		if g.lock, err = g.dir.Open("."); err != nil {
			return nil, err
		}
		if unix.Flock(int(g.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			g.sweep()
		}
		if err := unix.Flock(int(g.lock.Fd()), unix.LOCK_SH); err != nil {
			return nil, os.NewSyscallError("flock", err)
		}
		ours, err := g.lock.Stat()
		if err != nil {
			return nil, err
		}
		if now, err := g.root.Stat(g.name); err == nil && os.SameFile(ours, now) {
			return g, nil
		}
		g.lock.Close() // the last process has just removed it
		g.dir.Close()
	}
}

// sweep removes every file; no other process has one here.
func (g *grants) sweep() {
	entries, _ := fs.ReadDir(g.dir.FS(), ".")
	for _, e := range entries {
		_ = g.dir.Remove(e.Name())
	}
}

// add puts a file into the folder, and returns its name there: its own, or with a number in
// front if that is taken.
func (g *grants) add(file string) (string, error) {
	const most = 1000 // files of one name at once
	for i := 0; ; i++ {
		name, err := handOver(file, g.dir, i)
		switch {
		case err == nil:
			g.names = append(g.names, name)
			return name, nil
		case !errors.Is(err, fs.ErrExist) || i == most:
			return "", err
		}
	}
}

// revoke takes this process's files back. The last process calls unshare, which takes the
// share away and reports whether it is gone, and removes the folder.
func (g *grants) revoke(unshare func() bool) {
	defer g.close()
	for _, name := range g.names {
		_ = g.dir.Remove(name)
	}
	if unix.Flock(int(g.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && unshare() {
		_ = g.root.Remove(g.name)
	}
}

func (g *grants) close() {
	if g.lock != nil {
		g.lock.Close()
	}
	for _, r := range []*os.Root{g.dir, g.root} {
		if r != nil {
			r.Close()
		}
	}
}

// handOver puts file into dir, under its own name, and returns the name. It makes a second
// link to the same file, which costs nothing and shows later content too, or a copy if there
// can be no link. It opens the file once, so that it links or copies the file that it has
// checked. i counts the attempts to find a name; fs.ErrExist means that the name is taken.
func handOver(file string, dir *os.Root, i int) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("%s: %w", plain.Clip(file), transfer.Cause(err))
	}
	src, err := os.OpenFile(strings.TrimPrefix(file, "file://"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s: not a file", plain.Clip(file))
	}
	self := fmt.Sprintf("/proc/self/fd/%d", src.Fd())
	real, err := os.Readlink(self)
	if err != nil {
		return fail(err)
	}
	name := filepath.Base(real)
	if i > 0 {
		name = fmt.Sprintf("%d-%s", i+1, name)
	}
	to, err := dir.Open(".")
	if err != nil {
		return fail(err)
	}
	defer to.Close()
	switch err := unix.Linkat(unix.AT_FDCWD, self, int(to.Fd()), name, unix.AT_SYMLINK_FOLLOW); {
	case err == nil:
		return name, nil
	case errors.Is(err, fs.ErrExist):
		return fail(err)
	}
	dst, err := durable.New(to, 0o400)
	if err != nil {
		return fail(err)
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return fail(err)
	}
	if err := dst.Place(name, false); err != nil {
		return fail(err)
	}
	return name, nil
}
