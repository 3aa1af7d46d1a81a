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

// A Target is the place where a stream's entries go.
type Target struct {
	Dir  *os.Root
	Path string // the name of Dir in messages
	// Name is the name given to the stream's only entry. If it is empty, the stream may have
	// many entries, which keep their own names.
	Name string
}

// Find opens the target that path means. An existing directory receives the entries;
// otherwise path is the new name of a single entry, in a directory that exists.
func Find(path string, many bool) (Target, error) {
	t, err := openTarget(path, "")
	switch {
	case err == nil || errors.Is(err, fs.ErrPermission):
		return t, err
	case len(filepath.Base(path)) > maxName:
		return t, fmt.Errorf("%.64s…: %w", show(path), unix.ENAMETOOLONG)
	case many || strings.HasSuffix(path, "/"):
		return t, fmt.Errorf("%s: no such directory", show(path))
	}
	if t, err = openTarget(filepath.Dir(path), filepath.Base(path)); err != nil {
		return t, err
	}
	if err := checkName(t.Name); err != nil {
		return Target{}, errors.Join(err, t.Dir.Close())
	}
	return t, nil
}

func openTarget(dir, name string) (Target, error) {
	// O_DIRECTORY, since opening a pipe could hang. os.OpenRoot takes no flags.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Target{}, fmt.Errorf("%s: %w", show(dir), err)
	}
	defer unix.Close(fd)
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return Target{}, fmt.Errorf("%s: %w", show(dir), Cause(err))
	}
	return Target{Dir: root, Path: dir, Name: name}, nil
}

// A Receiving says how to receive. A limit of 0 means no limit.
type Receiving struct {
	// Names are the names that entries may have in a Target without a Name; nil allows any.
	// They are the names that were requested: otherwise a sender could choose which of the
	// target's files to replace.
	Names     []string
	FilesOnly bool           // the request allows no directories and links
	Umask     fs.FileMode    // taken from every mode
	Mode      fs.FileMode    // of every file, if not 0
	Entries   int            // limit on entries
	Bytes     int64          // limit on the content of files
	Reserve   int64          // free bytes that the file system keeps
	Progress  func(Progress) // may be nil
}

// A Result says what was received.
type Result struct {
	Progress
	// Escaping counts the links that are absolute or lead out of the copied tree.
	Escaping int
}

// Receive takes a stream. When it fails, it removes the unfinished entry; complete
// entries of an existing directory stay.
func Receive(r io.Reader, t Target, how Receiving) (Result, error) {
	d, err := newDecoder(r)
	if err != nil {
		return Result{}, err
	}
	at, err := t.Dir.Open(".")
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", show(t.Path), Cause(err))
	}
	defer at.Close()
	sweep(folder{t.Dir, at})
	v := &receiver{d: d, how: how, levels: []*level{{dir: folder{t.Dir, at}, path: t.Path, only: t.Name}}}
	err = v.run()
	if err != nil {
		err = errors.Join(err, v.undo())
	}
	return v.done, err
}

// A receiver's levels are the open directories: the target's own, and each one inside
// the one before.
type receiver struct {
	d              *decoder
	how            Receiving
	levels         []*level
	file           *newFile
	done           Result
	uncheckedBytes int64 // bytes written since the last check of the free space
}

// A level is a directory that is being filled.
type level struct {
	dir  folder
	path string
	only string // the target's: the name of its only entry
	last string // the last name received; the next is greater
	any  bool   // an entry was received

	// The target's own level uses none of these.
	fresh bool   // made by us: everything in it came with this stream
	name  string // its name in the level above
	at    string // its name there until it is complete
	mode  fs.FileMode
	mtime int64
}

// A newFile is the file being written.
type newFile struct {
	fd        int
	placement *durable.Unplaced // of fd; nil where nobody can have seen the directory yet
	name      string
	mode      fs.FileMode
	mtime     int64
	size      int64
	hole      bool // it ends with a hole
}

func (v *receiver) top() *level { return v.levels[len(v.levels)-1] }

func (v *receiver) run() error {
	for {
		r, err := v.d.next()
		if err != nil {
			return err
		}
		switch r.kind {
		case kindBytes, kindHole, kindFileIn:
			if v.file == nil {
				return malformed("%c outside of a file", r.kind)
			}
			err = v.content(r)
		case kindEnd:
			if v.file != nil || len(v.levels) > 1 {
				return malformed("it ends within a directory or file")
			}
			return durable.SyncDir(v.levels[0].dir.at)
		default:
			if v.file != nil {
				return malformed("%c within a file", r.kind)
			}
			err = v.entry(r)
		}
		if err != nil {
			return err
		}
	}
}

// entry handles the beginning of an entry, or the end of a directory.
func (v *receiver) entry(r record) error {
	l := v.top()
	if r.kind == kindUp {
		if len(v.levels) == 1 {
			return malformed("an end of no directory")
		}
		return v.endDir()
	}
	if v.done.Entries++; v.how.Entries > 0 && v.done.Entries > v.how.Entries {
		return fmt.Errorf("more than %d files", v.how.Entries)
	}
	if l.any && r.name <= l.last {
		return malformed("name %.64q after %.64q", r.name, l.last)
	}
	if l.any && l.only != "" {
		return malformed("more entries than one")
	}
	l.last, l.any = r.name, true
	if err := v.checkRequested(l, r); err != nil {
		return err
	}
	if l.only != "" {
		r.name = l.only
	}
	var err error
	switch r.kind {
	case kindDir:
		err = v.beginDir(l, r)
	case kindFile:
		err = v.beginFile(l, r)
	case kindLink:
		err = v.link(l, r)
	}
	if err != nil && !errors.Is(err, ErrMalformed) {
		return fmt.Errorf("%s: %w", show(filepath.Join(l.path, r.name)), Cause(err))
	}
	return err
}

// checkRequested checks that an entry was requested.
func (v *receiver) checkRequested(l *level, r record) error {
	if len(v.levels) == 1 && l.only == "" && v.how.Names != nil && !slices.Contains(v.how.Names, r.name) {
		return fmt.Errorf("%q was not asked for", r.name)
	}
	if v.how.FilesOnly && r.kind != kindFile {
		return fmt.Errorf("%q is not a file, which was asked for", r.name)
	}
	return nil
}

// show makes a path fit for a message of one line.
func show(path string) string {
	if q := fmt.Sprintf("%q", path); q[1:len(q)-1] != path {
		return q
	}
	return path
}

// place returns the name under which l's directory or link is made: its own where nobody
// can have seen l yet, else a temporary one, until a rename. Temporary names are never
// sent: a copy of a directory into itself would not end.
func (l *level) place(name string) string {
	if l.fresh {
		return name
	}
	return durable.TempName()
}

// sweep removes what killed copies have left in the directory.
func sweep(dir folder) {
	durable.Sweep(dir.at, func(name string) { _ = removeTree(dir, name) })
}

// settle gives a complete entry its own name.
func (l *level) settle(at, name string) error {
	if at == name {
		return nil
	}
	return l.dir.Rename(at, name)
}

// replaceable checks that a file or link may replace what is there: anything but a directory.
func (l *level) replaceable(name string) error {
	if l.fresh {
		return nil
	}
	if st, err := l.dir.Lstat(name); err == nil && st.IsDir() {
		return errors.New("is a directory there")
	}
	return nil
}

func (v *receiver) beginDir(l *level, r record) error {
	if len(v.levels) > MaxDepth {
		return fmt.Errorf("more than %d directories deep", MaxDepth)
	}
	next := &level{path: filepath.Join(l.path, r.name), name: r.name, mode: r.mode &^ v.how.Umask, mtime: r.mtime}
	if st, err := l.dir.Lstat(r.name); err == nil && !l.fresh {
		if !st.IsDir() {
			return errors.New("is not a directory there")
		}
		if next.dir, err = openFolder(l.dir, r.name); err != nil {
			return err
		}
		sweep(next.dir)
		v.levels = append(v.levels, next)
		return nil
	}
	for next.fresh = true; ; {
		next.at = l.place(r.name)
		if err := l.dir.Mkdir(next.at, 0o700); err != nil {
			return err
		}
		var err error
		if next.dir, err = openFolder(l.dir, next.at); err != nil {
			return errors.Join(err, l.dir.Remove(next.at))
		}
		if l.fresh || durable.Hold(l.dir.at, next.at, next.dir.at) {
			v.levels = append(v.levels, next)
			return nil
		}
		next.dir.Close() // another copy has removed it
	}
}

func (v *receiver) endDir() error {
	l := v.top()
	above := v.levels[len(v.levels)-2]
	var err error
	switch {
	case !l.fresh: // it existed before, and keeps its mode and time
		err = durable.SyncDir(l.dir.at)
	case !above.fresh: // syncs everything in it at once: syncing each file takes a hundred times as long
		err = durable.SyncAll(l.dir.at)
	}
	if l.fresh && err == nil {
		err = errors.Join(l.dir.at.Chmod(l.mode), above.dir.setTime(l.at, l.mtime), above.settle(l.at, l.name))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", show(l.path), Cause(err))
	}
	v.levels = v.levels[:len(v.levels)-1]
	return l.dir.Close()
}

func (v *receiver) beginFile(l *level, r record) error {
	if err := l.replaceable(r.name); err != nil {
		return err
	}
	if limit := v.how.Bytes; limit > 0 && r.size > uint64(limit) {
		return v.tooMuch()
	}
	if err := v.room(0); err != nil {
		return err
	}
	n := &newFile{name: r.name, mode: r.mode &^ v.how.Umask, mtime: r.mtime}
	if v.how.Mode != 0 {
		n.mode = v.how.Mode
	}
	var err error
	if l.fresh {
		n.fd, err = l.dir.create(n.name)
	} else if n.placement, err = durable.New(l.dir.at, 0o600); err == nil {
		n.fd = int(n.placement.Fd())
	}
	if err != nil {
		return err
	}
	v.file = n
	v.done.Name, v.done.Size, v.done.Taken = r.name, int64(min(r.size, maxFile)), 0
	return nil
}

func (v *receiver) tooMuch() error {
	return fmt.Errorf("more than the limit of %d MiB", v.how.Bytes>>20)
}

// content handles a piece of the file, or its end.
func (v *receiver) content(r record) error {
	l, f := v.top(), v.file
	err := v.piece(l, f, r)
	if v.how.Progress != nil && r.kind != kindHole {
		v.how.Progress(v.done.Progress)
	}
	if err != nil && !errors.Is(err, ErrMalformed) {
		return fmt.Errorf("%s: %w", show(filepath.Join(l.path, f.name)), Cause(err))
	}
	return err
}

func (v *receiver) piece(l *level, f *newFile, r record) error {
	switch r.kind {
	case kindBytes:
		n := int64(len(r.data))
		if v.done.Bytes += n; v.how.Bytes > 0 && v.done.Bytes > v.how.Bytes {
			return v.tooMuch()
		}
		if err := v.room(n); err != nil {
			return err
		}
		at := f.size
		f.size, f.hole = f.size+n, false
		v.done.Taken += n
		return writeAt(f.fd, r.data, at)
	case kindHole:
		if f.size += int64(r.size); f.size > maxFile {
			return malformed("a file of %d bytes", f.size)
		}
		f.hole = true
		v.done.Taken += int64(r.size)
		return nil
	}
	return v.endFile(l, f)
}

func (v *receiver) endFile(l *level, f *newFile) error {
	if f.hole {
		if err := unix.Ftruncate(f.fd, f.size); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(f.fd, uint32(f.mode)); err != nil {
		return err
	}
	if f.placement != nil {
		if err := errors.Join(setTime(f.placement.File, f.mtime), f.placement.Sync()); err != nil {
			return err
		}
		if err := f.placement.Place(f.name, true); err != nil {
			return err
		}
		v.file = nil
		return f.placement.Close()
	}
	fd := f.fd
	f.fd = -1
	if err := unix.Close(fd); err != nil {
		return err
	}
	if err := l.dir.setTime(f.name, f.mtime); err != nil {
		return err
	}
	v.file = nil
	return nil
}

func (v *receiver) link(l *level, r record) error {
	if err := l.replaceable(r.name); err != nil {
		return err
	}
	at := l.place(r.name)
	if err := l.dir.Symlink(r.target, at); err != nil {
		return err
	}
	err := errors.Join(l.dir.setTime(at, r.mtime), l.settle(at, r.name))
	if err != nil {
		return errors.Join(err, l.dir.Remove(at))
	}
	if v.escapes(r.target) {
		v.done.Escaping++
	}
	return nil
}

// escapes reports whether a link in the current directory leads out of the stream's own
// tree.
func (v *receiver) escapes(target string) bool {
	if strings.HasPrefix(target, "/") {
		return true
	}
	depth := len(v.levels) - 2 // below the first directory of the stream
	for _, c := range strings.Split(target, "/") {
		switch c {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return true
		}
	}
	return false
}

// roomEvery is the number of bytes written between two checks of the free space.
const roomEvery = 32 << 20

// room fails when n more bytes would use up the reserve.
func (v *receiver) room(n int64) error {
	if v.how.Reserve == 0 {
		return nil
	}
	if v.uncheckedBytes -= n; v.uncheckedBytes > 0 {
		return nil
	}
	v.uncheckedBytes = roomEvery
	var st unix.Statfs_t
	if err := unix.Fstatfs(v.levels[0].dir.fd(), &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free-roomEvery < v.how.Reserve {
		return fmt.Errorf("no space left: %d MiB are free, and %d MiB are kept so", free>>20, v.how.Reserve>>20)
	}
	return nil
}

// undo removes unfinished entries, and closes everything that is open.
func (v *receiver) undo() error {
	var errs []error
	if f := v.file; f != nil {
		if f.placement != nil {
			errs = append(errs, f.placement.Close())
		} else if f.fd >= 0 {
			unix.Close(f.fd)
		}
	}
	for len(v.levels) > 1 {
		l := v.top()
		v.levels = v.levels[:len(v.levels)-1]
		l.dir.Close()
		if above := v.top(); l.fresh && !above.fresh {
			errs = append(errs, removeTree(above.dir, l.at))
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a tree that we made. Complete directories may have modes that
// forbid it.
func removeTree(dir folder, name string) error {
	if err := dir.RemoveAll(name); err == nil {
		return nil
	}
	openUp(dir, name)
	return dir.RemoveAll(name)
}

func openUp(parent folder, name string) {
	if st, err := parent.Lstat(name); err != nil || !st.IsDir() || parent.Chmod(name, 0o700) != nil {
		return
	}
	dir, names, err := openNames(parent, name)
	if err != nil {
		return
	}
	defer dir.Close()
	for _, n := range names {
		openUp(dir, n)
	}
}
