package transfer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vix/internal/durable"
)

// A Source is an entry to send.
type Source struct {
	Dir  *os.Root // the directory that holds it; Close closes it
	Name string   // in Dir
	As   string   // its name in the stream
	Path string   // its name in messages
	id   fileID   // its identity when it was found: nothing else is sent in its place
}

// A fileID shows whether a name still means the same file.
type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{st.Dev, st.Ino} }

var errChanged = errors.New("changed while it was opened")

// Open opens a source that is a file, so that it can be checked before it is sent.
func (s Source) Open() (*os.File, error) {
	at, err := s.Dir.Open(".")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", show(s.Path), Cause(err))
	}
	defer at.Close()
	fd, st, err := folder{s.Dir, at}.open(s.Name)
	if err == nil && idOf(&st) != s.id {
		unix.Close(fd)
		err = errChanged
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", show(s.Path), err)
	}
	return os.NewFile(uintptr(fd), s.Path), nil
}

// Sources opens the directories of paths, which are absolute or relative to the working
// directory. Without recursive, a path to a link means the link's target.
func Sources(paths []string, recursive bool) (list []Source, err error) {
	defer func() {
		if err != nil {
			CloseSources(list)
		}
	}()
	for _, path := range paths {
		full, err := filepath.Abs(path)
		if err != nil {
			return list, err
		}
		as := filepath.Base(full)
		if as == "/" {
			return list, errors.New("/: the whole root cannot be copied; name what is in it")
		}
		src, err := find(full, !recursive || strings.HasSuffix(path, "/"))
		if err != nil {
			return list, fmt.Errorf("%s: %w", show(path), Cause(err))
		}
		src.As, src.Path = as, path
		list = append(list, src)
	}
	slices.SortFunc(list, func(a, b Source) int { return strings.Compare(a.As, b.As) })
	for i := range list[min(1, len(list)):] {
		if list[i].As == list[i+1].As {
			return list, fmt.Errorf("%s and %s would both be %s", show(list[i].Path), show(list[i+1].Path), show(list[i].As))
		}
	}
	return list, nil
}

// find opens the directory that holds path; with follow, the one that holds the target of
// a link at its end. It follows the path once, and checks that the directory then holds
// the same file.
func find(full string, follow bool) (src Source, err error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(full, flags, 0)
	if err != nil {
		return src, err
	}
	defer unix.Close(fd)
	var is, named unix.Stat_t
	if err := unix.Fstat(fd, &is); err != nil {
		return src, err
	}
	if full, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
		return src, err
	}
	if full == "/" {
		return src, errors.New("is the whole root, which cannot be copied; name what is in it")
	}
	src.Name, src.id = filepath.Base(full), idOf(&is)
	if src.Dir, err = os.OpenRoot(filepath.Dir(full)); err != nil {
		return src, err
	}
	at, err := src.Dir.Open(".")
	if err == nil {
		named, err = folder{src.Dir, at}.lstat(src.Name)
		at.Close()
	}
	if err == nil && idOf(&named) != src.id {
		err = errChanged
	}
	if err != nil {
		src.Dir.Close()
	}
	return src, err
}

// CloseSources closes what Sources opened.
func CloseSources(list []Source) {
	for _, s := range list {
		s.Dir.Close()
	}
}

// A Sending says how to send.
type Sending struct {
	Recursive bool                   // directories too, and links as links
	Skipped   func(path, why string) // a device, socket, pipe, or file that has vanished
	Progress  func(Progress)         // may be nil
}

// A Progress says how far a transfer is.
type Progress struct {
	Entries     int
	Bytes       int64  // of files' content
	Name        string // the current file; the name may come from a guest
	Size, Taken int64  // the current file's announced size; its bytes so far
}

// Send writes the sources to w as one stream. When it fails, the stream is cut off, and
// the receiver keeps nothing of the unfinished entry.
func Send(w io.Writer, sources []Source, how Sending) error {
	s := &sender{w: w, how: how, buf: make([]byte, 0, 2*maxRecord)}
	s.buf = append(s.buf, magic...)
	for _, src := range sources {
		if err := s.source(src); err != nil {
			return err
		}
	}
	if err := s.writeRecord(record{kind: kindEnd}); err != nil {
		return err
	}
	return s.flush()
}

type sender struct {
	w    io.Writer
	how  Sending
	buf  []byte // records not written yet
	done Progress
}

// flushAt is the number of bytes collected before a write: a pipe's capacity. Fewer bytes
// than that stand before a record of file content.
const flushAt = 64 << 10

func (s *sender) writeRecord(r record) error {
	s.buf = appendRecord(s.buf, r)
	if len(s.buf) < flushAt {
		return nil
	}
	return s.flush()
}

func (s *sender) flush() error {
	_, err := s.w.Write(s.buf)
	s.buf = s.buf[:0]
	return err
}

func (s *sender) progress() {
	if s.how.Progress != nil {
		s.how.Progress(s.done)
	}
}

func (s *sender) source(src Source) error {
	at, err := src.Dir.Open(".")
	if err != nil {
		return fmt.Errorf("%s: %w", show(src.Path), Cause(err))
	}
	defer at.Close()
	dir := folder{src.Dir, at}
	if st, err := dir.lstat(src.Name); err == nil && idOf(&st) != src.id {
		return fmt.Errorf("%s: %w", show(src.Path), errChanged)
	}
	return s.entry(dir, src.Name, src.As, src.Path, 0)
}

// entry sends name from dir, under the name as.
func (s *sender) entry(dir folder, name, as, path string, depth int) error {
	st, err := dir.lstat(name)
	if err == nil {
		switch mode := st.Mode & unix.S_IFMT; {
		case mode == unix.S_IFREG:
			err = s.file(dir, name, as, &st)
		case mode == unix.S_IFDIR && !s.how.Recursive:
			return fmt.Errorf("%s: is a directory; copy it with -r", show(path))
		case mode == unix.S_IFDIR && depth >= MaxDepth:
			return fmt.Errorf("%s: more than %d directories deep", show(path), MaxDepth)
		case mode == unix.S_IFDIR:
			return s.dir(dir, name, as, path, &st, depth)
		case mode == unix.S_IFLNK: // only if recursive: see Sources
			var target string
			if target, err = dir.Readlink(name); err == nil {
				s.done.Entries++
				return s.writeRecord(record{kind: kindLink, name: as, target: target, mtime: st.Mtim.Nano()})
			}
		case depth == 0:
			return fmt.Errorf("%s: neither a file nor a directory", show(path))
		default:
			s.how.Skipped(show(path), "neither a file, a directory nor a link")
		}
	}
	switch {
	case err == nil:
		return nil
	case depth > 0 && errors.Is(err, fs.ErrNotExist):
		s.how.Skipped(show(path), "went away")
		return nil
	}
	return fmt.Errorf("%s: %w", show(path), Cause(err))
}

func (s *sender) dir(parent folder, name, as, path string, st *unix.Stat_t, depth int) error {
	dir, names, err := openNames(parent, name)
	if err != nil {
		return fmt.Errorf("%s: %w", show(path), Cause(err))
	}
	defer dir.Close()
	s.done.Entries++
	if err := s.writeRecord(record{kind: kindDir, name: as, mode: permissions(st), mtime: st.Mtim.Nano()}); err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, durable.Prefix) {
			continue
		}
		if err := s.entry(dir, n, n, filepath.Join(path, n), depth+1); err != nil {
			return err
		}
	}
	return s.writeRecord(record{kind: kindUp})
}

func permissions(st *unix.Stat_t) fs.FileMode { return fs.FileMode(st.Mode).Perm() }

// openNames opens a directory and reads its names.
func openNames(parent folder, name string) (folder, []string, error) {
	dir, err := openFolder(parent, name)
	if err != nil {
		return folder{}, nil, err
	}
	names, err := dir.at.Readdirnames(-1)
	if err != nil {
		dir.Close()
		return folder{}, nil, err
	}
	slices.Sort(names)
	return dir, names, nil
}

// openDir opens the directory called name. It does not follow a link.
func openDir(parent *os.Root, name string) (*os.Root, error) {
	is, err := parent.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !is.IsDir() {
		return nil, errors.New("not a directory")
	}
	dir, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	if now, err := dir.Stat("."); err != nil || !os.SameFile(is, now) {
		dir.Close()
		return nil, errChanged
	}
	return dir, nil
}

func (s *sender) file(dir folder, name, as string, was *unix.Stat_t) error {
	fd, st, err := dir.open(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if idOf(&st) != idOf(was) {
		return errChanged
	}
	size := max(st.Size, 0)
	s.done.Entries++
	s.done.Name, s.done.Size, s.done.Taken = as, size, 0
	if err := s.writeRecord(record{kind: kindFile, name: as, mode: permissions(&st), mtime: st.Mtim.Nano(), size: uint64(size)}); err != nil {
		return err
	}
	switch {
	case size == 0: // files of /proc report this size too
		_, err = s.bytes(fd, maxFile)
	case st.Blocks*512 < size:
		err = s.sparse(fd, size)
	default:
		_, err = s.bytes(fd, size)
	}
	if err != nil {
		return err
	}
	s.progress()
	return s.writeRecord(record{kind: kindFileIn})
}

// bytes sends n bytes from the file's offset, or fewer if the file ends.
func (s *sender) bytes(fd int, n int64) (sent int64, err error) {
	for sent < n {
		at := len(s.buf)
		content := at + headerSize
		k, err := read(fd, s.buf[content:content+int(min(n-sent, maxRecord))])
		if err != nil || k == 0 {
			return sent, err
		}
		// The content was read into its place; the record's head goes before it.
		s.buf = appendRecord(s.buf, record{kind: kindBytes})[:content+k]
		setLength(s.buf[at:])
		sent += int64(k)
		s.done.Bytes += int64(k)
		s.done.Taken += int64(k)
		if len(s.buf) >= flushAt {
			if err := s.flush(); err != nil {
				return sent, err
			}
		}
		s.progress()
	}
	return sent, nil
}

// The whences of lseek(2) that find holes.
const (
	seekData = 3
	seekHole = 4
)

// sparse sends a file of size end that has holes.
func (s *sender) sparse(fd int, end int64) error {
	for at := int64(0); at < end; {
		data, err := unix.Seek(fd, at, seekData)
		switch {
		case errors.Is(err, unix.ENXIO):
			data = end // the rest is a hole
		case err != nil && at == 0: // the file system knows no holes
			_, err := s.bytes(fd, end)
			return err
		case err != nil:
			return err
		}
		data = min(data, end)
		if data > at {
			s.done.Taken += data - at
			if err := s.writeRecord(record{kind: kindHole, size: uint64(data - at)}); err != nil {
				return err
			}
		}
		if at = data; at == end {
			return nil
		}
		hole, err := unix.Seek(fd, at, seekHole)
		if err != nil {
			return err
		}
		if _, err := unix.Seek(fd, at, io.SeekStart); err != nil {
			return err
		}
		hole = min(hole, end)
		if sent, err := s.bytes(fd, hole-at); err != nil || sent < hole-at {
			return err // or the file has become shorter
		}
		at = hole
	}
	return nil
}

// Cause returns err without the operation and path, which a message already names.
func Cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}
