package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/durable"
)

// A receiver killed at any moment leaves each name unchanged or complete. None of its
// unfinished files stays, and none of its directories after a later copy to the same place.
func TestReceiverKilled(t *testing.T) {
	if at := os.Getenv("VIX_RECEIVE_INTO"); at != "" {
		to, err := Find(at, true)
		if err == nil {
			_, err = Receive(os.Stdin, to, Receiving{})
		}
		fmt.Println(err)
		return
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	from := t.TempDir()
	big := make([]byte, 200<<10)
	for i := range big {
		big[i] = byte(i)
	}
	err := errors.Join(os.WriteFile(from+"/a", big, 0o644), os.MkdirAll(from+"/d/e", 0o755), os.WriteFile(from+"/d/e/f", big, 0o644),
		os.WriteFile(from+"/d/g", big, 0o444), os.Symlink("x", from+"/l"), os.WriteFile(from+"/z", big, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := send(t, true, from+"/a", from+"/d", from+"/l", from+"/z")
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if err := os.WriteFile(to+"/z", []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	hidden := func() (dirs []string) {
		names, _ := filepath.Glob(filepath.Join(to, durable.Prefix+"*"))
		for _, n := range names {
			if st, err := os.Lstat(n); err == nil && st.Mode().IsRegular() {
				t.Errorf("%s: %d bytes", n, st.Size())
			}
			dirs = append(dirs, n)
		}
		return dirs
	}
	left := 0
	for range 20 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestReceiverKilled$")
		cmd.Env = append(os.Environ(), "VIX_RECEIVE_INTO="+to)
		in, err := cmd.StdinPipe()
		if err = errors.Join(err, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		n := r.IntN(len(stream))
		if _, err := in.Write(stream[:n]); err != nil { // the receiver has read all but a pipe's capacity
			t.Fatal(err)
		}
		<-time.After(time.Duration(r.IntN(10_000)) * time.Microsecond) // at any moment
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for name, size := range map[string]int{"a": len(big), "z": len(big), "d/e/f": len(big), "d/g": len(big)} {
			b, err := os.ReadFile(filepath.Join(to, name))
			if len(b) != size && !errors.Is(err, fs.ErrNotExist) && string(b) != "old" {
				t.Fatalf("killed after %d bytes of %d: %s: %d bytes, %v", n, len(stream), name, len(b), err)
			}
		}
		left = max(left, len(hidden()))
	}
	t.Logf("at most %d directories were left at a time", left)
	old := time.Now().Add(-time.Hour)
	for _, d := range hidden() {
		if err := os.Chtimes(d, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := receive(t, stream, to, true, Receiving{}); err != nil {
		t.Fatal(err)
	}
	nothingHalf(t, to)
}

// A full disk fails the copy with one line; the old content stays, and no unfinished file.
func TestReceiveFull(t *testing.T) {
	from := t.TempDir()
	err := errors.Join(os.WriteFile(from+"/f", make([]byte, 256<<10), 0o644), os.Mkdir(from+"/d", 0o755))
	for i := range 10 {
		b := make([]byte, 16<<10)
		b[len(b)-1] = 1
		err = errors.Join(err, os.WriteFile(fmt.Sprintf("%s/d/%d", from, i), b, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if err := unix.Mount("small", to, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("lacks: leave to mount a tmpfs: ", err)
	}
	defer func() {
		if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(to+"/f", []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "d"} {
		if name == "f" { // content instead of one hole
			if err := os.WriteFile(from+"/f", []byte(strings.Repeat("x", 256<<10)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		stream, err := send(t, true, filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := receive(t, stream, to, false, Receiving{}); !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(to + "/f"); string(b) != "old" || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if entries, _ := os.ReadDir(to); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}
