package vm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a guest forbids to be moved and removed goes all the same, and what an earlier
// version left.
func TestSweepForbidden(t *testing.T) {
	dir := t.TempDir()
	store, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	k, err := store.Open("t")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for _, d := range []string{"vix/vms/t/home/d/e", "vix/vms/.removed-u/home/f", "vix/vms/t/.removed-home/f"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(os.Chmod(dir+"/vix/vms/t/home/d", 0), os.Chmod(dir+"/vix/vms/t/home", 0o500))
	if err := errors.Join(err, store.dropHome("t"), store.Sweep()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range []string{"vix", "vix/vms", "vix/vms/t"} {
		list, err := os.ReadDir(filepath.Join(dir, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			got = append(got, e.Name())
		}
	}
	if got := strings.Join(got, " "); got != "vms t home lock used vix.json" {
		t.Error(got)
	}
	if st, err := os.Stat(dir + "/vix/vms/t/home"); err != nil || st.Mode().Perm() != 0o700 {
		t.Error(st, err)
	}
}
