package vm

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"vix/internal/durable"
	"vix/internal/plain"
	"vix/internal/proc"
)

// Copies of the home that a VM has kept:
//
//	Backup    home ─► tar
//	Restore           tar ─► .removed-XXXXXXXX, locked ─► home of a VM that has kept nothing
//	Clone     home ─► tar ─►          "
//
// A home holds what a guest has written, and a tar file what anybody has: nothing of either
// leads out of its own directory, special files are left out, and so are owners (all files
// are the user's) and the bits setuid, setgid and sticky. What an interruption leaves of a new
// home looks like a removal that was interrupted, which Sweep finishes.

// maxLate bounds the directories of a tar file that get their permissions at its end.
const maxLate = 1 << 18

// maxTarName bounds the names and links of a tar file, in bytes.
const maxTarName = 4096

// Skipped counts what a copy has left out: sockets, pipes and devices.
type Skipped int

// Backup writes the home that the VM name has kept, as a tar file.
func (r *Registry) Backup(ctx context.Context, s *Store, name string, w io.Writer) (skipped Skipped, err error) {
	err = r.withState(ctx, s, name, "back up", func() error {
		skipped, err = s.writeHome(ctx, name, w)
		return err
	})
	return skipped, err
}

// Restore gives the VM name, which must have kept nothing, the home of a tar file, which may
// be compressed by gzip.
func (r *Registry) Restore(ctx context.Context, s *Store, name string, from io.Reader) (skipped Skipped, err error) {
	seat, err := r.Take(ctx, name)
	if err != nil {
		return 0, err
	}
	if seat == nil {
		return 0, runs(name, "restore")
	}
	defer seat.Close()
	skipped, err = s.restoreHome(ctx, name, from)
	return skipped, errors.Join(err, r.RemoveDir(context.WithoutCancel(ctx), name))
}

// Clone gives the VM to, which must have kept nothing, a copy of the home of the VM from. It
// writes what it copies to seen, too.
func (r *Registry) Clone(ctx context.Context, s *Store, from, to string, seen io.Writer) (skipped Skipped, err error) {
	seat, err := r.Take(ctx, to)
	if err != nil {
		return 0, err
	}
	if seat == nil {
		return 0, runs(to, "clone "+from+" to")
	}
	defer seat.Close()
	err = r.withState(ctx, s, from, "clone", func() error {
		tarFrom, tarTo := io.Pipe()
		sent := make(chan Skipped, 1)
		go func() {
			n, err := s.writeHome(ctx, from, tarTo)
			tarTo.CloseWithError(err)
			sent <- n
		}()
		_, err := s.restoreHome(ctx, to, io.TeeReader(tarFrom, seen))
		tarFrom.CloseWithError(io.ErrClosedPipe) // ends a writer that goes on
		skipped = <-sent
		return err
	})
	return skipped, errors.Join(err, r.RemoveDir(context.WithoutCancel(ctx), to))
}

// writeHome writes the home of the VM name as a tar file.
func (s *Store) writeHome(ctx context.Context, name string, w io.Writer) (Skipped, error) {
	home, err := s.root.OpenRoot(filepath.Join(VMsName, name, HomeName))
	if err != nil {
		return 0, stateFailure(s.HomePath(name), err)
	}
	defer home.Close()
	t := &tarWriter{ctx: ctx, Writer: tar.NewWriter(w), home: home, names: map[[2]uint64]string{}}
	if err := t.addDir("."); err != nil {
		return t.skipped, Failf("%s: %v", s.HomePath(name), pathCause(err))
	}
	return t.skipped, t.Close()
}

// pathCause returns an error of a file in the home with the file's name, made plain.
func pathCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", plain.Text(pe.Path, MaxTitle, plain.OneLine), pe.Err)
	}
	return err
}

type tarWriter struct {
	*tar.Writer
	ctx     context.Context
	home    *os.Root
	names   map[[2]uint64]string // of files with several names, by device and number
	skipped Skipped
}

// addDir adds what is in a directory. fs.WalkDir does not know names that are not UTF-8.
func (t *tarWriter) addDir(dir string) error {
	f, err := t.home.Open(dir)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := t.add(path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// add adds an entry, and what is in it.
func (t *tarWriter) add(name string) error {
	if err := context.Cause(t.ctx); err != nil {
		return err
	}
	info, err := t.home.Lstat(name)
	if err != nil {
		return err
	}
	link := ""
	switch mode := info.Mode(); {
	case mode.IsRegular(), mode.IsDir():
	case mode&fs.ModeSymlink != 0:
		if link, err = t.home.Readlink(name); err != nil {
			return err
		}
	default:
		t.skipped++
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && st.Nlink > 1 {
		id := [2]uint64{st.Dev, st.Ino}
		if first, again := t.names[id]; again {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			t.names[id] = name
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeDir:
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		return t.addDir(name)
	default:
		return t.WriteHeader(h)
	}
	f, err := t.home.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyN(t, contextReader{t.ctx, f}, h.Size)
	return err
}

// A contextReader ends with ctx.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// restoreHome makes the state of the VM name, with the home of a tar file. The caller has the
// VM's seat.
func (s *Store) restoreHome(ctx context.Context, name string, from io.Reader) (Skipped, error) {
	if empty, err := s.HoldsNothing(name); err == nil && !empty {
		return 0, Failf("VM %s: has already kept something; remove that first with vix remove %s, or use another name", name, name)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, stateFailure(s.HomePath(name), err)
	}
	fresh := removedPrefix + strings.ToLower(rand.Text()[:12])
	if err := s.root.Mkdir(fresh, 0o700); err != nil {
		return 0, stateFailure(filepath.Join(s.path, fresh), err)
	}
	skipped, err := s.fillHome(ctx, fresh, from)
	if err == nil {
		err = s.placeHome(name, fresh)
	}
	if err != nil {
		return skipped, errors.Join(err, s.removeAll(fresh))
	}
	return skipped, nil
}

// placeHome makes the directory fresh the home of the VM name.
func (s *Store) placeHome(name, fresh string) error {
	k, err := s.Open(name)
	if err != nil {
		return err
	}
	defer k.Close()
	home := filepath.Join(VMsName, name, HomeName)
	err = s.root.Remove(home) // the empty one that Open made
	if err == nil {
		err = s.root.Rename(fresh, home)
	}
	if err != nil {
		return Failf("%s: cannot be put in place: %v", filepath.Join(s.path, home), proc.Cause(err))
	}
	dir, err := openBelow(s.root, filepath.Dir(home), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return stateFailure(filepath.Join(s.path, home), err)
	}
	return errors.Join(durable.SyncDir(dir), dir.Close())
}

// fillHome unpacks a tar file into the directory dir of the store, and writes it to the disk.
func (s *Store) fillHome(ctx context.Context, dir string, from io.Reader) (Skipped, error) {
	top, err := openBelow(s.root, dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, stateFailure(filepath.Join(s.path, dir), err)
	}
	defer top.Close()
	if ours, err := TryLock(top); !ours { // a Sweep was faster, and will remove it
		return 0, Failf("%s: is being removed; try again (%v)", filepath.Join(s.path, dir), err)
	}
	home, err := s.root.OpenRoot(dir)
	if err != nil {
		return 0, stateFailure(filepath.Join(s.path, dir), err)
	}
	defer home.Close()
	plainTar, err := unzipped(from)
	if err != nil {
		return 0, err
	}
	t := &tarReader{Reader: tar.NewReader(contextReader{ctx, plainTar}), home: home, late: map[string]fs.FileMode{}}
	for {
		if err := t.next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return t.skipped, err
		}
	}
	if err := t.close(); err != nil {
		return t.skipped, err
	}
	return t.skipped, unix.Syncfs(int(top.Fd()))
}

// unzipped returns what is in a gzip file, or the bytes themselves of another.
func unzipped(from io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(from, 64<<10)
	if head, _ := b.Peek(2); !bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	return gzip.NewReader(b)
}

type tarReader struct {
	*tar.Reader
	home    *os.Root
	late    map[string]fs.FileMode // of directories that their owner may not write to
	skipped Skipped
}

// close gives the late directories their permissions, what is in them first.
func (t *tarReader) close() error {
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(t.late))) {
		if err := t.home.Chmod(name, t.late[name]); err != nil {
			return pathCause(err)
		}
	}
	return nil
}

// next unpacks the next entry; io.EOF at the end.
func (t *tarReader) next() error {
	h, err := t.Next()
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("not a whole tar file: %w", err)
	}
	name, err := insideName(h.Name)
	if err != nil {
		return err
	}
	if err := t.unpack(h, name); err != nil {
		return fmt.Errorf("%s: %w", plain.Text(name, MaxTitle, plain.OneLine), proc.Cause(err))
	}
	return nil
}

// insideName returns the name of an entry, or why it cannot be one of a home.
func insideName(name string) (string, error) {
	clean := path.Clean(name)
	if name == "" || len(name) > maxTarName || !filepath.IsLocal(clean) || strings.ContainsRune(clean, 0) {
		return "", fmt.Errorf("%s: leads out of the home, or is no name", plain.Text(name, MaxTitle, plain.OneLine))
	}
	return clean, nil
}

func (t *tarReader) unpack(h *tar.Header, name string) error {
	mode := fs.FileMode(h.Mode) & 0o777
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return errors.New("is no directory")
		}
		return nil
	}
	if err := t.home.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if mode&0o700 != 0o700 {
			t.late[name] = mode
			if len(t.late) > maxLate {
				return errors.New("there are too many directories that cannot be written to")
			}
		}
		if err := t.home.Mkdir(name, mode|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return t.home.Chmod(name, mode|0o700)
	case tar.TypeReg:
		f, err := t.home.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		if err == nil {
			err = f.Chmod(mode)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		return t.home.Chtimes(name, h.ModTime, h.ModTime)
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxTarName {
			return errors.New("is a link to nothing")
		}
		return t.home.Symlink(h.Linkname, name)
	case tar.TypeLink:
		to, err := insideName(h.Linkname)
		if err != nil {
			return err
		}
		return t.home.Link(to, name)
	}
	t.skipped++
	return nil
}
