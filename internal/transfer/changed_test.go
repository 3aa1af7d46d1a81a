package transfer

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A source that was found, by links or not, is what is sent: nothing else that got its name
// since.
func TestSourceReplaced(t *testing.T) {
	for _, recursive := range []bool{false, true} {
		dir := t.TempDir()
		at := func(name string) string { return filepath.Join(dir, name) }
		err := errors.Join(os.WriteFile(at("file"), []byte("mine"), 0o644), os.WriteFile(at("secret"), []byte("secret"), 0o600), os.Symlink("file", at("link")))
		if err != nil {
			t.Fatal(err)
		}
		name := "link"
		if recursive {
			name = "file"
		}
		send := func(spoil func() error) (string, error) {
			t.Helper()
			sources, err := Sources([]string{at(name)}, recursive)
			if err != nil {
				t.Fatal(err)
			}
			defer CloseSources(sources)
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err = Send(&out, sources, Sending{Recursive: recursive, Skipped: func(string, string) {}})
			if f, oerr := sources[0].Open(); (oerr == nil) != (err == nil) {
				t.Errorf("sent: %v, opened: %v", err, oerr)
			} else if oerr == nil {
				f.Close()
			}
			return out.String(), err
		}
		if out, err := send(func() error { return nil }); err != nil || !strings.Contains(out, "mine") {
			t.Errorf("%q, %v", out, err)
		}
		// The link leads elsewhere by now: its old target is sent.
		if out, err := send(func() error { return errors.Join(os.Remove(at("link")), os.Symlink("secret", at("link"))) }); err != nil || !strings.Contains(out, "mine") {
			t.Errorf("%q, %v", out, err)
		}
		if err := errors.Join(os.Remove(at("link")), os.Symlink("file", at("link"))); err != nil {
			t.Fatal(err)
		}
		// Another file has its name.
		if out, err := send(func() error { return os.Rename(at("secret"), at("file")) }); err == nil || !strings.Contains(err.Error(), "changed while it was opened") || strings.Contains(out, "secret") {
			t.Errorf("%q, %v", out, err)
		}
	}
}
