package rootfs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vix/internal/durable"
)

// A Debian is a root that is built from packages, once for all VMs with the same ones.
// Below CacheDir:
//
//	debian-SUITE-KEY/      a finished root; the key is of the suite and the packages
//	debian-SUITE-KEY.log   what building it said last
//	.new-XXXXXXXX/         one that is being built, or that was not finished
//	lock                   flock: held by who builds
type Debian struct {
	Suite    string
	Packages []string
	CacheDir string // $XDG_CACHE_HOME/vix/roots

	// Further needs of Build.
	Mirror   string                                                               // of the archive
	Keyring  string                                                               // a file of keys; "" is left to apt
	Run      func(ctx context.Context, log io.Writer, pipeline ...[]string) error // runs programs, each reading what the one before writes
	Progress func(string)
}

const tempPrefix = ".new-"

// debianFormat is part of the key: change it with the content of roots.
const debianFormat = "1"

// Dir returns the path of the finished root, before it is built too.
func (d Debian) Dir() string {
	return filepath.Join(d.CacheDir, "debian-"+d.Suite+"-"+d.key())
}

// key returns a hash of the root's ingredients: each with its length, so that no two lists
// look the same.
func (d Debian) key() string {
	h := sha256.New()
	for _, part := range []string{debianFormat, d.Suite, strings.Join(slices.Sorted(slices.Values(d.Packages)), ",")} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// Built reports whether the root is finished.
func (d Debian) Built() bool {
	st, err := os.Lstat(d.Dir())
	return err == nil && st.IsDir()
}

// Build builds the root, unless it exists. Of two builders, one builds and the other waits;
// an unfinished root never has the name of a finished one.
func (d Debian) Build(ctx context.Context) error {
	if d.Built() {
		return nil
	}
	if err := os.MkdirAll(d.CacheDir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(d.CacheDir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := d.takeLock(lock); err != nil {
		return err
	}
	if d.Built() {
		return nil
	}
	old, _ := filepath.Glob(filepath.Join(d.CacheDir, tempPrefix+"*"))
	for _, dir := range old { // of builders that were killed: the lock is ours
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return d.build(ctx)
}

func (d Debian) takeLock(lock *os.File) error {
	err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		d.Progress("another run is building a root; waiting for it")
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		}
	}
	return err
}

func (d Debian) build(ctx context.Context) (err error) {
	work := filepath.Join(d.CacheDir, tempPrefix+rand.Text()[:8])
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	logPath := d.Dir() + ".log"
	logFile, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	d.Progress(fmt.Sprintf("building Debian %s with %d packages (once; some minutes)", d.Suite, len(d.Packages)))
	root := filepath.Join(work, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	news := &builderLog{log: logFile, progress: d.Progress}
	if err := d.Run(ctx, news, d.pipeline(root, os.Getuid() == 0)...); err != nil {
		return fmt.Errorf("root debian:%s: mmdebstrap: %w: %s; its whole log is %s", d.Suite, err, news.last, logPath)
	}
	for _, name := range []string{"etc/machine-id", "etc/hostname", "etc/resolv.conf"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return d.settle(root)
}

// settle gives a whole root its name, after writing all of it to disk: dpkg had orders not
// to.
func (d Debian) settle(root string) error {
	dir, err := os.Open(d.CacheDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := durable.SyncAll(dir); err != nil {
		return err
	}
	if err := os.Rename(root, d.Dir()); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// pipeline returns the commands that build the root in dir. An ordinary user builds it in a
// user namespace, and its files become the user's own: removing it needs no help, and
// virtiofsd shows them as root's.
func (d Debian) pipeline(dir string, root bool) [][]string {
	source := d.source()
	args := []string{
		"mmdebstrap", "--variant=apt",
		"--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Retries \"3\"",
		"--aptopt=Acquire::http::Timeout \"30\"", "--aptopt=Acquire::Languages \"none\"",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=force-unsafe-io",
	}
	if len(d.Packages) > 0 {
		args = append(args, "--include="+strings.Join(slices.Sorted(slices.Values(d.Packages)), ","))
	}
	if root {
		return [][]string{append(args, "--mode=root", d.Suite, dir, source)}
	}
	return [][]string{
		append(args, "--mode=unshare", d.Suite, "-", source),
		{"tar", "-x", "--no-same-owner", "--exclude=./dev/*", "-C", dir},
	}
}

// A builderLog keeps the builder's output, shows its progress, and remembers its last
// complaint.
type builderLog struct {
	log      io.Writer
	progress func(string)

	mu   sync.Mutex // several programs write
	rest []byte
	last string
}

func (b *builderLog) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = append(b.rest, p...)
	for {
		line, rest, ok := bytes.Cut(b.rest, []byte("\n"))
		if !ok {
			break
		}
		b.rest = rest
		text := string(line)
		switch {
		case strings.HasPrefix(text, "I: "):
			b.progress(text[3:])
		case strings.HasPrefix(text, "E: ") && !strings.HasPrefix(text, "E: mmdebstrap failed"), b.last == "" && text != "":
			b.last = strings.TrimPrefix(text, "E: ")
		}
	}
	if len(b.rest) > 64<<10 {
		b.rest = nil
	}
	return b.log.Write(p)
}

// AptMirror returns the archive that apt's own sources name (below the directory
// /etc/apt): the first with the component main that is a Debian archive's, and not one
// of security updates (its path ends in /debian). A mirror list stands for its first
// line. "" if there is none.
func AptMirror(apt fs.FS) string {
	var uris []string
	for _, pattern := range []string{"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"} {
		names, _ := fs.Glob(apt, pattern)
		for _, name := range names {
			b, err := fs.ReadFile(apt, name)
			if err != nil {
				continue
			}
			if strings.HasSuffix(name, ".sources") {
				uris = append(uris, deb822URIs(string(b))...)
			} else {
				uris = append(uris, listURIs(string(b))...)
			}
		}
	}
	for _, uri := range uris {
		if path, ok := strings.CutPrefix(uri, "mirror+file:"); ok {
			b, _ := fs.ReadFile(apt, strings.TrimPrefix(strings.TrimLeft(path, "/"), "etc/apt/"))
			uri = firstLine(b)
		}
		uri = strings.TrimRight(uri, "/")
		if strings.Contains(uri, ":/") && strings.HasSuffix(uri, "/debian") {
			return uri
		}
	}
	return ""
}

// firstLine is the first word of the first line that is no comment.
func firstLine(b []byte) string {
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) > 0 && f[0][0] != '#' {
			return f[0]
		}
	}
	return ""
}

// listURIs reads sources.list(5)'s one-line style.
func listURIs(text string) (uris []string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] != "deb" {
			continue
		}
		i := 1
		if strings.HasPrefix(f[1], "[") {
			for i < len(f) && !strings.HasSuffix(f[i], "]") {
				i++
			}
			i++
		}
		if i+2 < len(f) && slices.Contains(f[i+2:], "main") {
			uris = append(uris, f[i])
		}
	}
	return uris
}

// deb822URIs reads its style of stanzas.
func deb822URIs(text string) (uris []string) {
	for stanza := range strings.SplitSeq(text+"\n", "\n\n") {
		field := map[string]string{}
		for line := range strings.Lines(stanza) {
			if name, value, ok := strings.Cut(line, ":"); ok && line[0] != '#' {
				field[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
			}
		}
		if strings.EqualFold(field["enabled"], "no") || !slices.Contains(strings.Fields(field["types"]), "deb") || !slices.Contains(strings.Fields(field["components"]), "main") {
			continue
		}
		uris = append(uris, strings.Fields(field["uris"])...)
	}
	return uris
}
