package vm

import (
	"errors"
	"strings"
	"testing"
)

// What was shared to be written to is remembered, and not without end.
func TestRemembered(t *testing.T) {
	store, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for i := range maxWritten + 10 {
		f := WrittenFolder{VM: "a", Path: "/p"}
		f.Ino = uint64(i)
		if i > 20 && i < maxWritten {
			continue // fewer files to write
		}
		if err := errors.Join(store.AddWritten(f), store.AddWritten(f)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := store.Written()
	if err != nil || len(list) != 31 || list[30].Ino != maxWritten+9 {
		t.Errorf("%d, %v", len(list), err)
	}
	for _, bad := range []string{"", "{", `{"version": 2}`} {
		if err := store.root.WriteFile(writtenName, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Written(); err == nil || !strings.Contains(err.Error(), "written.json: damaged, or of another version; remove it") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
