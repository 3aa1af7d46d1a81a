package launch

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/desktop"
	"vix/internal/durable"
	"vix/internal/transfer"
	"vix/internal/vm"
)

// The host's kernel must not parse the file system of a disk image: a guest reads it. That
// guest is fresh, and has nothing but the image (no home, network, share or display), so
// that the image alone decides what is found. A running VM could claim that "Mail", of the
// image that it shares with another VM, is a command of its own choice. The result is kept
// as a small tree:
//
//	$XDG_CACHE_HOME/vix/images/KEY/root    .desktop files, icons, names of programs
//	                              /stamp   the state of the image that was read
//
// and read like any other root: as hostile.

// Limits of what an image may list.
const (
	maxImageFiles = 20_000
	maxImageBytes = 256 << 20
)

const (
	imageRoot  = "root"
	imageStamp = "stamp"
)

// imagesDir returns the directory of the trees that were read, below $XDG_CACHE_HOME.
func (l *Launcher) imagesDir() (string, error) {
	cache, err := l.Dirs.cache()
	return filepath.Join(cache, "vix", "images"), err
}

// imageKey returns the name of an image's directory there.
func imageKey(image string) string {
	sum := sha256.Sum256([]byte(image))
	return hex.EncodeToString(sum[:10])
}

// stampOf returns a text that differs between two states of an image, and two kinds of trees.
func stampOf(image string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(image, &st); err != nil {
		return "", fmt.Errorf("%s: %w", image, err)
	}
	return fmt.Sprintf("%s\ntree 2, file %d of %d, %d bytes, of %d, there since %d\n", image, st.Ino, st.Dev, st.Size, st.Mtim.Nano(), st.Ctim.Nano()), nil
}

// imageTree returns the path of an image's tree, however old; "" if there is none.
func (l *Launcher) imageTree(image string) string {
	dir, err := l.imagesDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, imageKey(image), imageRoot)
}

// ReadImages reads the changed images of the VMs that may have entries, and removes the
// trees of images that no VM has. notes say what could not be read.
func (l *Launcher) ReadImages(ctx context.Context, conf *config.Config) (notes []string) {
	dir, err := l.imagesDir()
	if err != nil {
		return []string{err.Error()}
	}
	used := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(conf.VMs)) {
		v, err := l.Dirs.expandPaths(conf.VMs[name])
		image, ok := strings.CutPrefix(v.Root, config.RootImage)
		if err != nil || !ok || wantsNone(v) || used[imageKey(image)] {
			continue
		}
		used[imageKey(image)] = true
		if _, err := os.Stat(image); err != nil {
			continue // OpenRoot reports it
		}
		if err := l.readImage(ctx, v); err != nil {
			notes = append(notes, fmt.Sprintf("VM %s: the programs of its image cannot be read: %v", name, err))
		}
	}
	if len(conf.Disabled) > 0 {
		return notes // which images those VMs have may not be known
	}
	unlock, err := lockImages(dir)
	if err != nil {
		return notes // there is nothing to forget
	}
	defer unlock()
	others, _ := os.ReadDir(dir)
	for _, o := range others {
		if o.IsDir() && !used[o.Name()] {
			removeTree(filepath.Join(dir, o.Name()))
		}
	}
	return notes
}

// lockImages lets one process at a time read images.
func lockImages(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

// readImage reads the image of v, in a VM of its own, unless it is as it was.
func (l *Launcher) readImage(ctx context.Context, v config.VM) error {
	v, err := l.Dirs.expandPaths(v)
	if err != nil {
		return err
	}
	dir, err := l.imagesDir()
	if err != nil {
		return err
	}
	image := strings.TrimPrefix(v.Root, config.RootImage)
	at := filepath.Join(dir, imageKey(image))
	stamp, err := stampOf(image) // before it is read, and after: it is one file
	if err != nil {
		return err
	}
	known := func() bool {
		old, err := os.ReadFile(filepath.Join(at, imageStamp))
		return err == nil && string(old) == stamp
	}
	if known() { // a tree can be used even if nothing can be written or locked
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	unlock, err := lockImages(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if known() { // another process has read it by now
		return nil
	}
	tmp := filepath.Join(dir, ".new-"+rand.Text()[:12])
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	defer removeTree(tmp)
	fmt.Fprintf(l.Log, "vix: VM %s: starting its image in a VM without display, network and home, to read which programs it has\n", v.Name)
	if err := l.takeMenu(ctx, v, tmp); err != nil {
		return err
	}
	if now, err := stampOf(image); err != nil || now != stamp {
		return errors.Join(err, errors.New("it changed while it was being read; try again"))
	}
	if err := durable.ReplaceFile(filepath.Join(tmp, imageStamp), 0o600, []byte(stamp)); err != nil {
		return err
	}
	removeTree(at)
	return os.Rename(tmp, at)
}

// errReceived is the error of the guest's end when our end wants no more.
var errReceived = errors.New("the guest took only part of it")

// takeMenu receives the tree of a guest with v's root into dir.
func (l *Launcher) takeMenu(ctx context.Context, v config.VM, dir string) error {
	reg, err := vm.OpenRegistry(l.Dirs.Runtime)
	if err != nil {
		return err
	}
	defer reg.Close()
	reg.StateDir = l.Dirs.State
	v.NoGUI, v.Net, v.Publish, v.Shares, v.USB = true, config.NetNone, nil, nil, nil
	return l.Disposable(ctx, reg, v, func(v config.VM) error { return l.takeMenuOf(ctx, reg, v, dir) })
}

// takeMenuOf is takeMenu by the VM v, which must not run yet.
func (l *Launcher) takeMenuOf(ctx context.Context, reg *vm.Registry, v config.VM, dir string) error {
	to, err := transfer.Find(dir, true)
	if err != nil {
		return err
	}
	defer to.Dir.Close()
	r, w := io.Pipe()
	received := make(chan error, 1)
	go func() {
		_, err := transfer.Receive(r, to, transfer.Receiving{
			Names: []string{imageRoot}, Umask: 0o022, Entries: maxImageFiles, Bytes: maxImageBytes, Reserve: transfer.Reserve(dir),
		})
		r.CloseWithError(errReceived)
		received <- err
	}()
	notes := &Notes{}
	menu := agent.Menu(desktop.MenuOfRoot())
	exit, err := l.Run(ctx, reg, v, vm.Run{
		Disposable: true, Fresh: true, How: vm.How{Kind: agent.KindRequest, Request: &agent.Request{Menu: &menu}},
		Stdin: strings.NewReader(""), Stdout: w, Stderr: notes,
	})
	w.Close()
	rerr := <-received
	if errors.Is(err, vm.ErrTaken) {
		return err // the VM of that name is somebody else's
	}
	_ = reg.Stop(ctx, v.Name, true) // it ends by itself, unless its guest does not want to
	switch {
	case err != nil:
		return err
	case rerr != nil && !errors.Is(rerr, transfer.ErrCut):
		return rerr
	case rerr != nil || exit.Status() != 0:
		return fmt.Errorf("the guest gave up: %s", strings.Join(notes.Lines(), "; "))
	}
	return nil
}

// removeTree removes a tree whose modes a guest may have chosen.
func removeTree(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
