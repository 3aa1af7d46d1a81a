package rootfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

func TestImageFormat(t *testing.T) {
	raw := func(at int, mark string) []byte {
		b := make([]byte, 8<<10)
		copy(b[at:], mark)
		return b
	}
	qcow2 := func(change func(b []byte)) []byte {
		b := make([]byte, 1<<10)
		binary.BigEndian.PutUint32(b, qcow2Magic)
		binary.BigEndian.PutUint32(b[qcow2VersionAt:], 3)
		if change != nil {
			change(b)
		}
		return b
	}
	for _, c := range []struct {
		name   string
		image  []byte
		format string
		text   string
	}{
		{"ext4", raw(0x438, "\x53\xef"), "raw", ""},
		{"squashfs", raw(0, "hsqs")[:600], "raw", ""},
		{"erofs", raw(1024, "\xe2\xe1\xf5\xe0"), "raw", ""},
		{"xfs", raw(0, "XFSB"), "raw", ""},
		{"partitions", raw(510, "\x55\xaa"), "raw", ""},
		{"qcow2", qcow2(nil), "qcow2", ""},
		{"empty", nil, "", "too small"},
		{"text", bytes.Repeat([]byte("text"), 500), "", "neither a file system"},
		{"version", qcow2(func(b []byte) { b[qcow2VersionAt+3] = 9 }), "", "version 9"},
		{"backing file", qcow2(func(b []byte) { b[qcow2BackingAt+7] = 104 }), "", "backing file; make one file"},
		{"encrypted", qcow2(func(b []byte) { b[qcow2CryptAt+3] = 2 }), "", "encryption"},
		{"external data", qcow2(func(b []byte) { b[qcow2FeaturesAt+7] = qcow2ExternalData }), "", "data in another file"},
	} {
		format, err := ImageFormat(bytes.NewReader(c.image))
		if c.text == "" && (err != nil || format != c.format) || c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %q, %v", c.name, format, err)
		}
	}
}

func TestFindRoot(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Root{"host": {View: true}, dir: {Dir: dir}, "image:" + file: {Disk: file}} {
		if got, err := FindRoot(name, nil, dir); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		file: "not a directory", dir + "/none": "no such file", "image:" + dir: "not a file", "image:" + dir + "/none": "no such file",
		"debian:trixie": "not built yet; run again",
	} {
		if got, err := FindRoot(name, nil, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// fakeDebian builds a root with one file.
func fakeDebian(t *testing.T, run func(dir string, log io.Writer) error) (Debian, *int) {
	var mu sync.Mutex
	runs := new(int)
	return Debian{
		Suite: "trixie", Packages: []string{"foot", "dbus"}, CacheDir: filepath.Join(t.TempDir(), "roots"), Mirror: "http://mirror/debian",
		Progress: func(string) {},
		Run: func(_ context.Context, log io.Writer, pipeline ...[]string) error {
			mu.Lock()
			*runs++
			mu.Unlock()
			last := pipeline[len(pipeline)-1]
			dir := last[len(last)-1]
			if len(pipeline) == 1 {
				dir = last[len(last)-2]
			}
			return run(dir, log)
		},
	}, runs
}

func TestDebian(t *testing.T) {
	d, runs := fakeDebian(t, func(dir string, log io.Writer) error {
		fmt.Fprint(log, "I: working\nW: beware\n")
		return errors.Join(os.MkdirAll(dir+"/etc", 0o755), os.WriteFile(dir+"/etc/machine-id", nil, 0o644), os.WriteFile(dir+"/etc/os-release", nil, 0o644))
	})
	if d.Built() {
		t.Fatal("built already")
	}
	var all sync.WaitGroup
	for range 4 { // one builds, the others wait
		all.Go(func() {
			if err := d.Build(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if *runs != 1 || !d.Built() {
		t.Errorf("%d builders, built: %v", *runs, d.Built())
	}
	if r, err := FindRoot("debian:trixie", []string{"dbus", "foot"}, d.CacheDir); err != nil || r.Dir != d.Dir() {
		t.Errorf("%+v, %v", r, err) // in whatever order the packages stand
	}
	if _, err := os.Stat(d.Dir() + "/etc/machine-id"); err == nil {
		t.Error("every VM would be the same machine")
	}
	other := d
	other.Packages = []string{"foot"}
	if other.Dir() == d.Dir() || other.Built() {
		t.Error("other packages, the same root")
	}
}

// What fails, or was killed, leaves nothing under the root's name.
func TestDebianFails(t *testing.T) {
	d, _ := fakeDebian(t, func(dir string, log io.Writer) error {
		fmt.Fprint(log, "I: working\nE: no such suite\nE: mmdebstrap failed to run\n")
		return errors.New("exit status 25")
	})
	dead := filepath.Join(d.CacheDir, tempPrefix+"dead")
	if err := os.MkdirAll(dead+"/root", 0o755); err != nil {
		t.Fatal(err)
	}
	err := d.Build(t.Context())
	if err == nil || d.Built() || !strings.Contains(err.Error(), "root debian:trixie: mmdebstrap: exit status 25: no such suite; its whole log is ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(d.Dir() + ".log"); err != nil || !strings.Contains(string(b), "E: no such suite") {
		t.Errorf("log %q, %v", b, err)
	}
	entries, _ := os.ReadDir(d.CacheDir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestDebianPipeline(t *testing.T) {
	d := Debian{Suite: "trixie", Packages: []string{"foot", "dbus"}, Mirror: "http://m/debian", Keyring: "/k.gpg"}
	root, user := d.pipeline("/dir", true), d.pipeline("/dir", false)
	if len(root) != 1 || !slices.Equal(root[0][len(root[0])-4:], []string{"--mode=root", "trixie", "/dir", "deb [signed-by=/k.gpg] http://m/debian trixie main"}) || !slices.Contains(root[0], "--include=dbus,foot") {
		t.Errorf("%q", root)
	}
	if len(user) != 2 || !slices.Contains(user[0], "--mode=unshare") || user[1][0] != "tar" || !slices.Contains(user[1], "--no-same-owner") {
		t.Errorf("%q", user)
	}
}

func TestAptMirror(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  string
	}{
		"none":      {fstest.MapFS{}, ""},
		"list":      {fstest.MapFS{"sources.list": file("# deb http://a/debian x main\ndeb-src http://b/debian x main\ndeb [arch=amd64 signed-by=/k] http://c/debian/ x main contrib\n")}, "http://c/debian"},
		"security":  {fstest.MapFS{"sources.list": file("deb http://a/debian-security x main\ndeb http://b/debian x contrib\n")}, ""},
		"directory": {fstest.MapFS{"sources.list.d/v.list": file("deb http://vendor/apt x main\n"), "sources.list.d/d.list": file("deb http://d/debian x main\n")}, "http://d/debian"},
		"deb822": {fstest.MapFS{"sources.list.d/d.sources": file("Types: deb-src\nURIs: http://a/debian\nComponents: main\n\nEnabled: no\nTypes: deb\nURIs: http://b/debian\nComponents: main\n\n" +
			"Types: deb deb-src\n# a comment\nURIs: http://c/other http://d/debian\nSuites: x\nComponents: main contrib\n")}, "http://d/debian"},
		"mirror list": {fstest.MapFS{"sources.list": file("deb mirror+file:/etc/apt/mirrors/debian.list x main\n"), "mirrors/debian.list": file("# first\nhttps://e/debian/\tpriority:1\n")}, "https://e/debian"},
	} {
		if got := AptMirror(c.files); got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
	}
}
