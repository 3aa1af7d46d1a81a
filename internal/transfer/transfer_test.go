package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/durable"
)

// send returns the stream of paths.
func send(t testing.TB, recursive bool, paths ...string) ([]byte, error) {
	t.Helper()
	sources, err := Sources(paths, recursive)
	if err != nil {
		return nil, err
	}
	defer CloseSources(sources)
	var b bytes.Buffer
	err = Send(&b, sources, Sending{Recursive: recursive, Skipped: func(path, why string) { t.Logf("%s: %s", path, why) }})
	return b.Bytes(), err
}

func receive(t testing.TB, stream []byte, path string, many bool, how Receiving) (Result, error) {
	t.Helper()
	to, err := Find(path, many)
	if err != nil {
		return Result{}, err
	}
	defer to.Dir.Close()
	return Receive(bytes.NewReader(stream), to, how)
}

// tree makes a tree with every kind of entry, with modes and times.
func tree(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	at := func(n string) string { return filepath.Join(dir, n) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"", "empty", "a", "a/b", "a/b/c", "closed", "-rf", "\xff\xfe", "new\nline"} {
		must(os.Mkdir(at(d), 0o755))
	}
	for name, content := range map[string]string{
		"zero": "", "one": "1", "a/b/c/deep": "deep", "closed/f": "in a closed directory", "-rf/--": "dashes",
		"\xff\xfe/\x80": "no UTF-8", "new\nline/\x1b[2J": "an escape", "big": strings.Repeat("0123456789abcdef", 1<<16),
		strings.Repeat("n", 255): "a long name",
	} {
		must(os.WriteFile(at(name), []byte(content), 0o644))
	}
	must(os.Chmod(at("one"), 0o755))
	must(os.Chmod(at("zero"), 0o400))
	for name, target := range map[string]string{
		"link": "one", "a/up": "../one", "dangling": "nowhere", "absolute": "/etc/passwd", "out": "../../..", "a/loop": "loop",
	} {
		must(os.Symlink(target, at(name)))
	}
	sparse, err := os.Create(at("sparse"))
	must(err)
	_, err = sparse.WriteAt([]byte("middle"), 8<<20)
	must(errors.Join(err, sparse.Truncate(32<<20), sparse.Close()))
	must(unix.Mkfifo(at("pipe"), 0o644))
	must(os.Chmod(at("closed"), 0o555))
	past := time.Unix(1234567890, 123456789)
	for _, n := range []string{"one", "sparse", "a/b/c/deep", "empty", "closed", "a/b/c", "a/b", "a"} {
		must(os.Chtimes(at(n), past, past))
	}
	ts := unix.NsecToTimespec(past.UnixNano())
	must(unix.UtimesNanoAt(unix.AT_FDCWD, at("link"), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	return dir
}

// listing describes everything that a copy keeps, a line for each entry.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil || st.Mode()&fs.ModeNamedPipe != 0 {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		content := ""
		switch {
		case st.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%d %.40q", len(data), bytes.TrimRight(data, "\x00"))
		case st.Mode()&fs.ModeSymlink != 0:
			content, _ = os.Readlink(path)
		}
		mtime := st.ModTime().UnixNano()
		if rel == "." {
			mtime = 0 // that of the omitted pipe
		}
		fmt.Fprintf(&b, "%q %v %d %s\n", rel, st.Mode(), mtime, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTree(t *testing.T) {
	from := tree(t)
	stream, err := send(t, true, from)
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	for _, dest := range []string{to, filepath.Join(to, "other")} {
		res, err := receive(t, stream, dest, false, Receiving{})
		if err != nil {
			t.Fatal(err)
		}
		got := dest
		if dest == to {
			got = filepath.Join(to, "tree")
		}
		if a, b := listing(t, from), listing(t, got); a != b {
			t.Errorf("%s: got\n%s\nwant\n%s", dest, b, a)
		}
		if res.Escaping != 2 { // one absolute, one that leads out
			t.Errorf("%d links lead out", res.Escaping)
		}
		st, _ := os.Stat(filepath.Join(got, "sparse"))
		if blocks := st.Sys().(*syscall.Stat_t).Blocks; st.Size() != 32<<20 || blocks*512 > 1<<20 {
			t.Errorf("sparse: %d bytes in %d blocks", st.Size(), blocks)
		}
	}
	// A second copy over the first gives the same tree, and nothing beside it.
	if _, err := receive(t, stream, to, false, Receiving{}); err == nil {
		// For root, closed directories do not matter.
		if a, b := listing(t, from), listing(t, filepath.Join(to, "tree")); a != b && os.Getuid() != 0 {
			t.Errorf("merged: got\n%s\nwant\n%s", b, a)
		}
	} else if os.Getuid() == 0 {
		t.Error(err)
	}
	nothingHalf(t, to)
}

// nothingHalf checks that no temporary name is left.
func nothingHalf(t testing.TB, dir string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), durable.Prefix) {
			t.Errorf("left: %s", path)
		}
		return nil
	})
}

func TestDestinations(t *testing.T) {
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	_ = os.WriteFile(at("f"), []byte("new"), 0o640)
	_ = os.WriteFile(at("g"), []byte("g"), 0o600)
	_ = os.Mkdir(at("d"), 0o755)
	_ = os.Mkdir(at("d/f"), 0o755) // in the way
	_ = os.WriteFile(at("there"), []byte("old"), 0o600)
	_ = os.WriteFile(at("precious"), []byte("precious"), 0o600)
	_ = os.Symlink("precious", at("link"))
	_ = os.Symlink("d", at("dirlink"))
	for _, c := range []struct {
		from, to, want string
	}{
		{"f", "copy", ""},
		{"f", "there", ""},
		{"f", "link", ""}, // replaced, not written through
		{"f", "no/such", "no such file or directory"},
		{"f", "copy/", "no such directory"},
		{"f", "d", "is a directory there"},
		{"g", "d", ""},
		{"g", "dirlink", ""},
		{"d", "x", "is a directory; copy it with -r"},
		{"none", "x", "no such file"},
	} {
		stream, err := send(t, false, at(c.from))
		if err == nil {
			to := at(c.to)
			if strings.HasSuffix(c.to, "/") {
				to += "/"
			}
			_, err = receive(t, stream, to, false, Receiving{})
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: %v, want %q", c.from, c.to, err, c.want)
		}
	}
	for name, want := range map[string]string{"copy": "new", "there": "new", "link": "new", "precious": "precious", "d/g": "g"} {
		if b, err := os.ReadFile(at(name)); string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	// Many files come at once, with the receiver's mode and umask.
	stream, err := send(t, false, at("g"), at("f"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := receive(t, stream, at("new"), true, Receiving{}); err == nil || !strings.Contains(err.Error(), "no such directory") {
		t.Error(err)
	}
	if _, err := receive(t, stream, at("new"), false, Receiving{}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	_ = os.Mkdir(at("many"), 0o755)
	if _, err := receive(t, stream, at("many"), true, Receiving{Mode: 0o755}); err != nil {
		t.Error(err)
	}
	if st, _ := os.Stat(at("many/f")); st == nil || st.Mode() != 0o755 {
		t.Errorf("%v", st)
	}
	if _, err := receive(t, stream, at("many"), true, Receiving{Umask: 0o077}); err != nil {
		t.Error(err)
	}
	if st, _ := os.Stat(at("many/f")); st == nil || st.Mode() != 0o600 {
		t.Errorf("%v", st)
	}
	if _, err := send(t, false, at("f"), at("d/../f")); err == nil || !strings.Contains(err.Error(), "would both be f") {
		t.Error(err)
	}
	nothingHalf(t, dir)
}

// A stream that is cut off anywhere leaves nothing new under a final name.
func TestCut(t *testing.T) {
	from := filepath.Join(t.TempDir(), "t")
	for _, d := range []string{"", "a", "z"} {
		_ = os.Mkdir(filepath.Join(from, d), 0o755)
	}
	for _, f := range []string{"a/f", "b", "z/g"} {
		_ = os.WriteFile(filepath.Join(from, f), []byte("content"), 0o444)
	}
	_ = os.Symlink("b", filepath.Join(from, "l"))
	_ = os.Chmod(filepath.Join(from, "a"), 0o555)
	stream, err := send(t, true, from)
	if err != nil {
		t.Fatal(err)
	}
	end := len(stream) - headerSize // the tree is complete before the stream
	for n := range stream {
		to := t.TempDir()
		_, err := receive(t, stream[:n], to, false, Receiving{})
		if !errors.Is(err, ErrCut) {
			t.Fatalf("cut at %d of %d: %v", n, len(stream), err)
		}
		left, _ := os.ReadDir(to)
		if n < end && len(left) != 0 || n >= end && len(left) != 1 {
			t.Fatalf("cut at %d of %d: left %v", n, len(stream), left)
		}
	}
	// Over an existing tree, each file is the old one or the new.
	for n := 0; n < len(stream); n += 3 {
		to := t.TempDir()
		_ = os.MkdirAll(filepath.Join(to, "t/a"), 0o755)
		_ = os.WriteFile(filepath.Join(to, "t/b"), []byte("old"), 0o600)
		_, err := receive(t, stream[:n], to, false, Receiving{})
		if b, _ := os.ReadFile(filepath.Join(to, "t/b")); !errors.Is(err, ErrCut) || string(b) != "old" && string(b) != "content" {
			t.Fatalf("cut at %d: %v, %q", n, err, b)
		}
		nothingHalf(t, to)
	}
}

func stream(records ...record) []byte {
	b := []byte(magic)
	for _, r := range records {
		b = appendRecord(b, r)
	}
	return b
}

func dir(name string) record  { return record{kind: kindDir, name: name, mode: 0o755} }
func file(name string) record { return record{kind: kindFile, name: name, mode: 0o644} }
func link(name, target string) record {
	return record{kind: kindLink, name: name, target: target}
}
func data(s string) record { return record{kind: kindBytes, data: []byte(s)} }

var (
	up     = record{kind: kindUp}
	fileIn = record{kind: kindFileIn}
	end    = record{kind: kindEnd}
)

func raw(k byte, payload string) []byte {
	b := append([]byte(magic), k, byte(len(payload)), byte(len(payload)>>8), byte(len(payload)>>16), byte(len(payload)>>24))
	return append(b, payload...)
}

// hostile returns streams, and the error that each must cause.
func hostile() map[string]struct {
	stream []byte
	want   string
} {
	deep := []record{}
	for range MaxDepth + 2 {
		deep = append(deep, dir("d"))
	}
	many := []record{}
	for i := range 400 {
		many = append(many, file(fmt.Sprintf("%04d", i)), fileIn)
	}
	h := map[string]struct {
		stream []byte
		want   string
	}{
		"dotdot":                {stream(file("..")), "name"},
		"dot":                   {stream(dir(".")), "name"},
		"empty name":            {stream(file("")), "name"},
		"a path":                {stream(file("a/b")), "name"},
		"absolute":              {stream(file("/etc/passwd")), "name"},
		"NUL":                   {stream(file("a\x00b")), "name"},
		"long name":             {stream(file(strings.Repeat("n", 256))), "name"},
		"link named dotdot":     {stream(link("..", "x")), "name"},
		"twice":                 {stream(file("a"), fileIn, file("a")), "after"},
		"twice, link first":     {stream(link("a", "/etc/passwd"), file("a"), data("x"), fileIn, end), "after"},
		"link, then directory":  {stream(link("a", ".."), dir("a"), file("b"), fileIn), "after"},
		"directory twice":       {stream(dir("a"), up, dir("a")), "after"},
		"descending":            {stream(file("b"), fileIn, file("a")), "after"},
		"into a link there":     {stream(dir("linkdir"), file("x"), fileIn, up, end), "is not a directory there"},
		"over a directory":      {stream(file("have"), fileIn, end), "is a directory there"},
		"link over a directory": {stream(link("have", "x"), end), "is a directory there"},
		"directory over a file": {stream(dir("file"), up, end), "is not a directory there"},
		"deep":                  {stream(deep...), "directories deep"},
		"many":                  {stream(many...), "more than 300 files"},
		"up at the top":         {stream(up), "end of no directory"},
		"up twice":              {stream(dir("a"), up, up), "end of no directory"},
		"end in a directory":    {stream(dir("a"), end), "ends within"},
		"end in a file":         {stream(file("a"), end), "ends within"},
		"file in a file":        {stream(file("a"), file("b")), "within a file"},
		"up in a file":          {stream(dir("d"), file("a"), up), "within a file"},
		"bytes outside":         {stream(data("x")), "outside of a file"},
		"hole outside":          {stream(record{kind: kindHole, size: 1}), "outside of a file"},
		"no bytes":              {stream(file("a"), data("")), "no bytes"},
		"no hole":               {stream(file("a"), record{kind: kindHole}), "a hole of 0 bytes"},
		"a vast hole":           {stream(file("a"), record{kind: kindHole, size: 1 << 63}), "a hole of"},
		"vast holes":            {stream(file("a"), record{kind: kindHole, size: maxFile}, record{kind: kindHole, size: maxFile}), "a file of"},
		"a vast file, it says":  {stream(record{kind: kindFile, name: "a", size: 1 << 62}), "more than the limit"},
		"more than the limit":   {stream(file("a"), data(strings.Repeat("x", 100<<10)), data(strings.Repeat("x", 100<<10)), data(strings.Repeat("x", 100<<10))), "more than the limit"},
		"setuid":                {stream(record{kind: kindFile, name: "a", mode: 0o4755}), "mode 04755"},
		"link to nothing":       {stream(link("a", "")), "link"},
		"link with a NUL":       {stream(link("a", "b\x00")), "link"},
		"long link":             {stream(link("a", strings.Repeat("l", 4096))), "link"},
		"a name too long":       {raw('L', "\x00\x00\x00\x00\x00\x00\x00\x00\xff\xffab"), "a name of 65535 bytes"},
		"unknown kind":          {raw('X', ""), "kind 0x58"},
		"short":                 {raw('F', "abc"), "at least"},
		"long up":               {raw('U', "abc"), "3 bytes more"},
		"a vast record":         {append([]byte(magic), 'B', 255, 255, 255, 255), "a record of 4294967295 bytes"},
		"another format":        {[]byte("!<arch>\nxxxxxx"), "begins with"},
		"another version":       {[]byte("vixfiles\x02E\x00\x00\x00\x00"), "begins with"},
		"nothing":               {nil, "cut off"},
		"no end":                {stream(file("a"), data("x"), fileIn), "cut off"},
	}
	return h
}

// place makes a directory to receive into, with files in it, beside others that must not
// change.
func place(t testing.TB) (in, outside string) {
	t.Helper()
	top, err := os.MkdirTemp("", "transfer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	in, outside = filepath.Join(top, "in"), filepath.Join(top, "outside")
	err = errors.Join(os.MkdirAll(filepath.Join(in, "have"), 0o755), os.Mkdir(outside, 0o755),
		os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644),
		os.WriteFile(filepath.Join(in, "file"), []byte("file"), 0o644),
		os.Symlink("../outside", filepath.Join(in, "linkdir")), os.Symlink("../outside/secret", filepath.Join(in, "linkfile")),
		os.Symlink("../../outside", filepath.Join(in, "have", "linkdir")))
	if err != nil {
		t.Fatal(err)
	}
	return in, outside
}

// small holds limits that a test can reach.
var small = Receiving{Entries: 300, Bytes: 256 << 10, Umask: 0o022}

func TestHostile(t *testing.T) {
	for name, c := range hostile() {
		in, outside := place(t)
		before := listing(t, outside)
		_, err := receive(t, c.stream, in, false, small)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\x00") {
			t.Errorf("%s: not fit for a terminal: %q", name, err)
		}
		if after := listing(t, outside); after != before {
			t.Errorf("%s: outside is\n%s", name, after)
		}
		nothingHalf(t, in)
	}
	// Existing links are replaced.
	in, outside := place(t)
	before := listing(t, outside)
	_, err := receive(t, stream(file("linkdir"), data("x"), fileIn, file("linkfile"), data("x"), fileIn, end), in, false, small)
	if err != nil || listing(t, outside) != before {
		t.Errorf("%v, outside is\n%s", err, listing(t, outside))
	}
}

// A sender can send only what was requested.
func TestAsked(t *testing.T) {
	one := Receiving{Names: []string{"a", "b"}, FilesOnly: true}
	for _, c := range []struct {
		stream []byte
		how    Receiving
		to     string
		want   string
	}{
		{stream(file("a"), fileIn, file("b"), fileIn, end), one, "", ""},
		{stream(file("b"), fileIn, end), one, "", ""},
		{stream(file("c"), fileIn, end), one, "/new", ""}, // we give it a name
		{stream(file(".bashrc"), fileIn, end), one, "", `".bashrc" was not asked for`},
		{stream(file("\x1b"), fileIn, end), one, "", `"\x1b" was not asked for`},
		{stream(dir(".ssh"), up, end), one, "", `".ssh" was not asked for`},
		{stream(link("a", "/etc"), end), one, "", "is not a file"},
		{stream(dir("a"), up, end), one, "/new", "is not a file"},
		{stream(dir("a"), file("c"), fileIn, up, end), Receiving{Names: []string{"a"}}, "", ""},
		{stream(file("a"), fileIn, end), Receiving{Names: []string{""}}, "", "was not asked for"},
	} {
		in, _ := place(t)
		_, err := receive(t, c.stream, in+c.to, false, c.how)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.stream, err, c.want)
		}
	}
}

// An endless is a stream without an end.
type endless struct {
	head, piece []byte
	left        []byte
	n           int64
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.left) == 0 {
		e.left = e.piece
		if e.n == 0 {
			e.left = e.head
		}
	}
	n := copy(p, e.left)
	e.left = e.left[n:]
	e.n += int64(n)
	return n, nil
}

func TestEndless(t *testing.T) {
	for name, e := range map[string]*endless{
		"bytes": {head: stream(file("a")), piece: appendRecord(nil, data(strings.Repeat("x", 64<<10)))},
		"holes": {head: stream(file("a")), piece: appendRecord(nil, record{kind: kindHole, size: 1 << 40})},
	} {
		in, _ := place(t)
		to, err := Find(in, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = Receive(e, to, small); err == nil {
			t.Errorf("%s: taken", name)
		}
		to.Dir.Close()
		nothingHalf(t, in)
	}
	// The file system's reserve stays free.
	in, _ := place(t)
	to, _ := Find(in, false)
	defer to.Dir.Close()
	e := &endless{head: stream(file("a")), piece: appendRecord(nil, data("x"))}
	if _, err := Receive(e, to, Receiving{Reserve: 1 << 60}); err == nil || !strings.Contains(err.Error(), "no space left: ") {
		t.Error(err)
	}
}

// A million entries do not make the memory grow.
func TestManyEntries(t *testing.T) {
	const n = 20_000
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, magic)
		for i := range n {
			if _, err := w.Write(appendRecord(appendRecord(nil, link(fmt.Sprintf("%08d", i), "x")), record{})[:headerSize+10+8+1]); err != nil {
				break
			}
		}
		w.CloseWithError(io.EOF)
	}()
	in, _ := place(t)
	to, _ := Find(in, false)
	defer to.Dir.Close()
	res, err := Receive(r, to, Receiving{Entries: n / 2})
	r.Close()
	if err == nil || res.Entries != n/2+1 || !strings.Contains(err.Error(), "more than 10000 files") {
		t.Errorf("%d, %v", res.Entries, err)
	}
}

// A copy of a tree into itself copies it once.
func TestIntoItself(t *testing.T) {
	from := filepath.Join(t.TempDir(), "t")
	for _, d := range []string{"", "a", "z"} {
		_ = os.Mkdir(filepath.Join(from, d), 0o755)
	}
	_ = os.WriteFile(filepath.Join(from, "a", "big"), make([]byte, 1<<20), 0o644) // more than the pipe holds
	_ = os.WriteFile(filepath.Join(from, "z", "f"), nil, 0o644)
	sources, err := Sources([]string{from}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseSources(sources)
	to, err := Find(filepath.Join(from, "z"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Dir.Close()
	r, w := io.Pipe()
	go func() { w.CloseWithError(Send(w, sources, Sending{Recursive: true})) }()
	if _, err := Receive(r, to, Receiving{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(from, "z/t/z/f")); err != nil {
		t.Error(err)
	}
	if names, _ := os.ReadDir(filepath.Join(from, "z/t/z")); len(names) != 1 {
		t.Errorf("%v", names)
	}
}

// A file vanishes, or changes, while it is sent.
func TestSourceChanges(t *testing.T) {
	from := tree(t)
	sources, err := Sources([]string{from}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseSources(sources)
	skipped := 0
	first := true
	var b bytes.Buffer
	err = Send(&b, sources, Sending{Recursive: true, Skipped: func(string, string) { skipped++ }, Progress: func(Progress) {
		if first {
			first = false
			_ = os.Remove(filepath.Join(from, "zero"))
			_ = os.RemoveAll(filepath.Join(from, "\xff\xfe"))
		}
	}})
	if err != nil || skipped != 3 { // also the pipe
		t.Errorf("%v, %d skipped", err, skipped)
	}
	if _, err := receive(t, b.Bytes(), t.TempDir(), false, Receiving{}); err != nil {
		t.Error(err)
	}
}

// Files of /proc have size 0, but content.
func TestProc(t *testing.T) {
	s, err := send(t, false, "/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "status")
	if _, err := receive(t, s, to, false, Receiving{}); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(to); !bytes.Contains(b, []byte("VmRSS")) {
		t.Errorf("%q", b)
	}
	if _, err := send(t, true, "/"); err == nil {
		t.Error("the root is copied")
	}
}

func FuzzRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, k byte, p []byte) {
		r, err := parseRecord(kind(k), p)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v is not ErrMalformed", err)
			}
			return
		}
		if b := appendRecord(nil, r); b[0] != k || !bytes.Equal(b[headerSize:], p) {
			t.Fatalf("%q became %q", p, b)
		}
	})
}

// Whatever the stream is, nothing outside changes, no unfinished file stays, and no link is
// followed.
func FuzzReceive(f *testing.F) {
	_, outside := place(f)
	before := listing(f, outside)
	f.Fuzz(func(t *testing.T, stream []byte) {
		in := filepath.Join(filepath.Dir(outside), "in")
		err := errors.Join(os.RemoveAll(in), os.MkdirAll(filepath.Join(in, "have"), 0o755),
			os.WriteFile(filepath.Join(in, "file"), nil, 0o644), os.Symlink("../outside/secret", filepath.Join(in, "linkfile")),
			os.Symlink("../outside", filepath.Join(in, "linkdir")), os.Symlink("../../outside", filepath.Join(in, "have", "linkdir")))
		if err != nil {
			t.Fatal(err)
		}
		to, err := Find(in, false)
		if err != nil {
			t.Fatal(err)
		}
		defer to.Dir.Close()
		res, err := Receive(bytes.NewReader(stream), to, small)
		if after := listing(t, outside); after != before {
			t.Fatalf("outside is\n%s", after)
		}
		if err == nil && res.Entries > small.Entries || res.Bytes > small.Bytes+maxRecord {
			t.Fatalf("%+v", res)
		}
		nothingHalf(t, in)
	})
}

// TestWriteCorpus writes the seeds of both targets: real trees, and the hostile streams. Run
// it with VIX_WRITE_CORPUS=1 after a change of the format.
func TestWriteCorpus(t *testing.T) {
	if os.Getenv("VIX_WRITE_CORPUS") == "" {
		t.Skip("writes testdata, with VIX_WRITE_CORPUS=1")
	}
	write := func(target, name, text string) {
		dir := filepath.Join("testdata", "fuzz", target)
		_ = os.MkdirAll(dir, 0o755)
		if err := os.WriteFile(filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "").Replace(name)), []byte("go test fuzz v1\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	streams := map[string][]byte{}
	for name, c := range hostile() {
		if len(c.stream) < 4<<10 {
			streams[name] = c.stream
		}
	}
	from := tree(t)
	_ = os.WriteFile(filepath.Join(from, "big"), []byte("smaller"), 0o644)
	streams["tree"], _ = send(t, true, from)
	streams["file"], _ = send(t, false, filepath.Join(from, "one"))
	streams["into what is there"] = stream(dir("have"), file("a"), data("x"), fileIn, link("b", "a"), up, file("new"), fileIn, end)
	for name, s := range streams {
		write("FuzzReceive", name, fmt.Sprintf("[]byte(%q)\n", s))
	}
	for name, r := range map[string]record{"dir": dir("d"), "file": file("f"), "link": link("l", "to"), "bytes": data("x"), "up": up, "end": end, "file-end": fileIn, "hole": {kind: kindHole, size: 4096}} {
		write("FuzzRecord", name, fmt.Sprintf("byte('\\x%02x')\n[]byte(%q)\n", byte(r.kind), appendRecord(nil, r)[headerSize:]))
	}
}
