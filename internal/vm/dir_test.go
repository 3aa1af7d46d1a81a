package vm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"vix/internal/scope"
)

// What a VM whose supervisor was killed has left goes with the next look: its directory, and
// the control group that its state names.
func TestDeadVMLeavesNothing(t *testing.T) {
	reg, err := OpenRegistry(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	groups := t.TempDir()
	for _, name := range []string{"vix-t-7", "vix-other-7"} {
		if err := os.Mkdir(filepath.Join(groups, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	leave := func(group string) {
		t.Helper()
		err := reg.Root.Mkdir("t", 0o700)
		dir, openErr := reg.Root.OpenRoot("t")
		if err := errors.Join(err, openErr); err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		if err := SaveState(dir, State{Name: "t", Scope: &scope.Scope{Kind: scope.KindGroup, Name: filepath.Join(groups, group)}}); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(path string) bool {
		_, err := os.Lstat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	leave("vix-t-7")
	live, err := reg.Names(t.Context())
	if err != nil || len(live) > 0 {
		t.Errorf("%q, %v", live, err)
	}
	if !gone(filepath.Join(reg.Path, "t")) || !gone(filepath.Join(groups, "vix-t-7")) {
		t.Error("left behind")
	}
	// A name that is no group of this VM's is not removed.
	leave("vix-other-7")
	seat, err := reg.Take(t.Context(), "t")
	if err != nil || seat == nil {
		t.Fatalf("%v, %v", seat, err)
	}
	seat.Close()
	if gone(filepath.Join(groups, "vix-other-7")) {
		t.Error("another VM's group was removed")
	}
}
