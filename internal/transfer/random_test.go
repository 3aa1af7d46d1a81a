package transfer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Trees of every shape arrive unchanged, however the stream is cut into reads, and again over
// existing files; nothing outside the target is touched. The subtest's name is the seed of a
// failure.
func TestRandomTrees(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			base := t.TempDir()
			g := &grower{t: t, r: rand.New(rand.NewPCG(seed, 0)), outside: filepath.Join(base, "outside")}
			g.must(os.Mkdir(g.outside, 0o755))
			g.must(os.WriteFile(filepath.Join(g.outside, "secret"), []byte("secret"), 0o600))
			before := (&census{}).of(t, g.outside)
			from := filepath.Join(base, "from")
			g.dir(from, 0)
			to := filepath.Join(base, "to")
			g.must(os.Mkdir(to, 0o755))
			umask := fs.FileMode(g.r.IntN(2)) * 0o027
			for i := range 2 {
				// An existing directory keeps its permissions, and gets the time of the copy.
				c := census{umask: umask, without: g.special, noTimes: i == 1}
				want := c.of(t, from)
				skipped := g.copy(from, to, umask)
				c.umask = 0
				if got := c.of(t, filepath.Join(to, "from")); got != want {
					t.Fatalf("copy %d: got\n%swant\n%s", i, got, want)
				}
				if skipped != len(g.special) {
					t.Errorf("%d entries left out, not %d", skipped, len(g.special))
				}
				nothingHalf(t, to)
			}
			if after := (&census{}).of(t, g.outside); after != before {
				t.Errorf("outside is\n%s", after)
			}
		})
	}
}

// A grower makes a random tree.
type grower struct {
	t       *testing.T
	r       *rand.Rand
	outside string
	files   []string
	special map[string]bool // paths that are not copied
	entries int
}

func (g *grower) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// odd are names that a program might take for something else.
var odd = []string{"-rf", "--", "...", "..x", " ", "\n", "\t", "a\nb", "*", "~", "$HOME", "\\", "'", `"`, "\x1b[2J", "\xff\xfe", "\u202e", "e\u0301", "C:", "a:b", "con", "E", "vixfiles\x01"}

func (g *grower) name() string {
	if g.r.IntN(3) == 0 {
		return odd[g.r.IntN(len(odd))]
	}
	b := make([]byte, 1+g.r.IntN(12))
	if g.r.IntN(10) == 0 {
		b = make([]byte, maxName)
	}
	for i := range b {
		for b[i] == 0 || b[i] == '/' {
			b[i] = byte(g.r.Uint32())
		}
	}
	if s := string(b); s != "." && s != ".." {
		return s
	}
	return "dots"
}

// maxEntries bounds a tree.
const maxEntries = 60

func (g *grower) dir(path string, depth int) {
	g.must(os.Mkdir(path, 0o755))
	for range g.r.IntN(10) {
		at := filepath.Join(path, g.name())
		if _, err := os.Lstat(at); err == nil || len(at) > 3000 {
			continue
		}
		if g.entries++; g.entries > maxEntries {
			break
		}
		switch k := g.r.IntN(12); {
		case k < 3 && depth < 6:
			g.dir(at, depth+1)
		case k < 8:
			g.file(at)
		case k < 10:
			g.link(at)
		case k == 10 && len(g.files) > 0:
			g.must(os.Link(g.files[g.r.IntN(len(g.files))], at))
		default:
			g.node(at)
		}
	}
	g.must(os.Chmod(path, g.mode()|0o700))
	g.time(path)
}

func (g *grower) mode() fs.FileMode {
	m := fs.FileMode(g.r.IntN(0o1000))
	if g.r.IntN(8) == 0 {
		m |= fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky // these bits are not copied
	}
	return m
}

// time sets a file's time between 1938 and 2096, with nanoseconds.
func (g *grower) time(path string) {
	ts := unix.Timespec{Sec: g.r.Int64N(5e9) - 1e9, Nsec: g.r.Int64N(1e9)}
	g.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

func (g *grower) file(path string) {
	f, err := os.Create(path)
	g.must(err)
	sizes := []int{0, 1, headerSize, 4095, 4096, 4097, flushAt - 1, flushAt, maxRecord - 1, maxRecord, maxRecord + 1, 3*maxRecord + 7}
	size := sizes[g.r.IntN(len(sizes))]
	for at := int64(0); ; {
		if g.r.IntN(3) == 0 { // a hole
			at += g.r.Int64N(2 << 20)
		}
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(g.r.Uint32())
		}
		_, err := f.WriteAt(b, at)
		g.must(err)
		at += int64(len(b))
		if g.r.IntN(2) == 0 {
			g.must(f.Truncate(at + g.r.Int64N(2)*g.r.Int64N(1<<20)))
			break
		}
	}
	g.must(f.Close())
	g.must(os.Chmod(path, g.mode()|0o400))
	g.time(path)
	g.files = append(g.files, path)
}

func (g *grower) link(path string) {
	targets := []string{"/etc/passwd", "/", "..", "../..", ".", "nowhere", g.outside, g.outside + "/secret", g.name(), strings.Repeat("x/", 2000), filepath.Base(path)}
	g.must(os.Symlink(targets[g.r.IntN(len(targets))], path))
	g.time(path)
}

// node makes an entry that is not copied; a device only where that is allowed.
func (g *grower) node(path string) {
	kind := []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR}[g.r.IntN(3)]
	err := unix.Mknod(path, kind|0o666, int(unix.Mkdev(1, 3)))
	if errors.Is(err, unix.EPERM) {
		return
	}
	g.must(err)
	if g.special == nil {
		g.special = map[string]bool{}
	}
	g.special[path] = true
}

// copy copies from into the directory to, as over a channel: in pieces of any size.
func (g *grower) copy(from, to string, umask fs.FileMode) (skipped int) {
	sources, err := Sources([]string{from}, true)
	g.must(err)
	defer CloseSources(sources)
	target, err := Find(to, false)
	g.must(err)
	defer target.Dir.Close()
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := Send(w, sources, Sending{Recursive: true, Skipped: func(string, string) { skipped++ }})
		w.CloseWithError(err)
		sent <- err
	}()
	_, err = Receive(&pieces{r, g.r}, target, Receiving{Names: []string{"from"}, Umask: umask})
	r.CloseWithError(err)
	g.must(errors.Join(err, <-sent))
	return skipped
}

// pieces reads short pieces.
type pieces struct {
	io.Reader
	r *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	limit := 1 + p.r.IntN(1<<p.r.IntN(19))
	return p.Reader.Read(b[:min(len(b), limit)])
}

// A census describes everything that a copy keeps of a tree.
type census struct {
	umask   fs.FileMode
	without map[string]bool // paths to leave out
	noTimes bool            // leave out the times of directories
}

// of returns a line for each entry.
func (c *census) of(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || c.without[path] {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		mode, what := st.Mode().Type()|st.Mode().Perm()&^c.umask, ""
		switch {
		case st.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = fmt.Sprintf("%d %x", len(content), sha256.Sum256(content))
			if holes := bytes.Count(content, make([]byte, 256<<10)); holes > 0 {
				var sys unix.Stat_t
				if err := unix.Lstat(path, &sys); err != nil {
					return err
				}
				what += fmt.Sprintf(" sparse %v", sys.Blocks*512 < sys.Size)
			}
		case mode&fs.ModeSymlink != 0:
			if what, err = os.Readlink(path); err != nil {
				return err
			}
			mode = fs.ModeSymlink // its permissions have no meaning
		}
		when := st.ModTime().UTC().Format(time.RFC3339Nano)
		if st.IsDir() && c.noTimes {
			when = "-"
		}
		fmt.Fprintf(&b, "%q %v %s %.100q\n", rel, mode, when, what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
