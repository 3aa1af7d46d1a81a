package transfer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Source is an entry to be sent.
type Source struct {
	Dir  *os.Root // that holds it; Close closes it
	Name string   // in Dir
	As   string   // what it is called in the stream
	Path string   // what messages call it
}

// Sources opens the directories of paths, which must be absolute or relative to
// the working directory. Without recursive, a path that is a link means what it
// leads to.
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
		if !recursive || strings.HasSuffix(path, "/") {
			if full, err = filepath.EvalSymlinks(full); err != nil {
				return list, fmt.Errorf("%s: %w", path, Cause(err))
			}
		}
		dir, err := os.OpenRoot(filepath.Dir(full))
		if err != nil {
			return list, fmt.Errorf("%s: %w", path, Cause(err))
		}
		list = append(list, Source{Dir: dir, Name: filepath.Base(full), As: as, Path: path})
	}
	slices.SortFunc(list, func(a, b Source) int { return strings.Compare(a.As, b.As) })
	for i := range list[min(1, len(list)):] {
		if list[i].As == list[i+1].As {
			return list, fmt.Errorf("%s and %s would both be %s", list[i].Path, list[i+1].Path, list[i].As)
		}
	}
	return list, nil
}

// CloseSources closes what Sources opened.
func CloseSources(list []Source) {
	for _, s := range list {
		s.Dir.Close()
	}
}

// A Sending says how to send.
type Sending struct {
	Recursive bool                   // directories too, and links as such
	Skipped   func(path, why string) // a device, socket or pipe, or what went away
	Progress  func(Progress)         // may be nil
}

// A Progress is how far a transfer is.
type Progress struct {
	Entries     int
	Bytes       int64  // of files' content
	Name        string // of the file that is being transferred; a guest's, perhaps
	Size, Taken int64  // of that file, as it was said; its bytes so far
}

// Send writes the sources to w as one stream. When it fails, the stream is cut,
// and its receiver keeps nothing of the entry that it was at.
func Send(w io.Writer, sources []Source, how Sending) error {
	s := &sender{w: bufio.NewWriterSize(w, 256<<10), how: how, data: make([]byte, maxRecord)}
	if _, err := s.w.WriteString(magic); err != nil {
		return err
	}
	for _, src := range sources {
		if err := s.entry(src.Dir, src.Name, src.As, src.Path, 0); err != nil {
			return err
		}
	}
	if err := s.put(record{kind: kindEnd}); err != nil {
		return err
	}
	return s.w.Flush()
}

type sender struct {
	w    *bufio.Writer
	how  Sending
	head []byte
	data []byte
	done Progress
}

func (s *sender) put(r record) error {
	s.head = appendRecord(s.head[:0], r)
	_, err := s.w.Write(s.head)
	return err
}

func (s *sender) progress() {
	if s.how.Progress != nil {
		s.how.Progress(s.done)
	}
}

// entry sends what name is in dir, under the name as.
func (s *sender) entry(dir *os.Root, name, as, path string, depth int) error {
	st, err := dir.Lstat(name)
	if depth > 0 && errors.Is(err, fs.ErrNotExist) {
		s.how.Skipped(path, "went away")
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, Cause(err))
	}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		err = s.file(dir, name, as, st)
	case mode.IsDir() && !s.how.Recursive:
		return fmt.Errorf("%s: is a directory; copy it with -r", path)
	case mode.IsDir() && depth >= MaxDepth:
		return fmt.Errorf("%s: more than %d directories deep", path, MaxDepth)
	case mode.IsDir():
		return s.dir(dir, name, as, path, st, depth)
	case mode&fs.ModeSymlink != 0: // only if recursive: see Sources
		var target string
		if target, err = dir.Readlink(name); err == nil {
			s.done.Entries++
			return s.put(record{kind: kindLink, name: as, target: target, mtime: st.ModTime().UnixNano()})
		}
	case depth == 0:
		return fmt.Errorf("%s: neither a file nor a directory", path)
	default:
		s.how.Skipped(path, "neither a file, a directory nor a link")
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, Cause(err))
	}
	return nil
}

func (s *sender) dir(parent *os.Root, name, as, path string, st fs.FileInfo, depth int) error {
	dir, err := openDir(parent, name)
	if err != nil {
		return fmt.Errorf("%s: %w", path, Cause(err))
	}
	defer dir.Close()
	names, err := readNames(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", path, Cause(err))
	}
	s.done.Entries++
	if err := s.put(record{kind: kindDir, name: as, mode: st.Mode().Perm(), mtime: st.ModTime().UnixNano()}); err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, halfMade) {
			continue
		}
		if err := s.entry(dir, n, n, filepath.Join(path, n), depth+1); err != nil {
			return err
		}
	}
	return s.put(record{kind: kindUp})
}

func readNames(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// openDir opens the directory that name itself is, and not what a link of that
// name leads to.
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
		return nil, errors.New("changed while it was opened")
	}
	return dir, nil
}

func (s *sender) file(dir *os.Root, name, as string, st fs.FileInfo) error {
	// Without O_NONBLOCK a pipe that has come in its place would hang us.
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if now, err := f.Stat(); err != nil || !os.SameFile(st, now) {
		return errors.New("changed while it was opened")
	}
	size := max(st.Size(), 0)
	s.done.Entries++
	s.done.Name, s.done.Size, s.done.Taken = as, size, 0
	if err := s.put(record{kind: kindFile, name: as, mode: st.Mode().Perm(), mtime: st.ModTime().UnixNano(), size: uint64(size)}); err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Blocks*512 < size {
		err = s.sparse(f)
	} else {
		err = s.bytes(f, -1)
	}
	if err != nil {
		return err
	}
	s.progress()
	return s.put(record{kind: kindFileIn})
}

// bytes sends n bytes of f from where it is; all of them if n is negative.
func (s *sender) bytes(f *os.File, n int64) error {
	for n != 0 {
		buf := s.data
		if n > 0 {
			buf = buf[:min(n, int64(len(buf)))]
		}
		k, err := f.Read(buf)
		if k > 0 {
			if n > 0 {
				n -= int64(k)
			}
			s.done.Bytes += int64(k)
			s.done.Taken += int64(k)
			if err := s.put(record{kind: kindBytes, data: buf[:k]}); err != nil {
				return err
			}
			s.progress()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// The whences of lseek(2) that find holes.
const (
	seekData = 3
	seekHole = 4
)

// sparse sends a file that has holes. It ends at the size that it now has.
func (s *sender) sparse(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	for at, end := int64(0), st.Size(); at < end; {
		data, err := f.Seek(at, seekData)
		switch {
		case errors.Is(err, unix.ENXIO):
			data = end // nothing but a hole
		case err != nil && at == 0: // a file system that does not know holes
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
			return s.bytes(f, -1)
		case err != nil:
			return err
		}
		data = min(data, end)
		if data > at {
			s.done.Taken += data - at
			if err := s.put(record{kind: kindHole, size: uint64(data - at)}); err != nil {
				return err
			}
		}
		if at = data; at == end {
			return nil
		}
		hole, err := f.Seek(at, seekHole)
		if err != nil {
			return err
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return err
		}
		if err := s.bytes(f, hole-at); err != nil {
			return err
		}
		at = hole
	}
	return nil
}

// Cause is err without the operation and path that a message already names.
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
