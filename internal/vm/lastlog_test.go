package vm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vix/internal/proc"
)

// logRig is a registry and a store, and a function that makes a VM's log.
func logRig(t *testing.T) (*Registry, *Store, func(name string, files map[string]string)) {
	t.Helper()
	reg, err := OpenRegistry(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reg.Close() })
	reg.StateDir = t.TempDir()
	store, err := OpenStore(reg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return reg, store, func(name string, files map[string]string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(reg.Path, name), 0o700); err != nil {
			t.Fatal(err)
		}
		for file, text := range files {
			if err := os.WriteFile(filepath.Join(reg.Path, name, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func readLast(t *testing.T, s *Store, name string) (string, time.Time) {
	t.Helper()
	f, ended, err := s.LastLog(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), ended
}

// A VM's last log is replaced at the next end, is bounded, and is its user's alone.
func TestLastLog(t *testing.T) {
	reg, store, write := logRig(t)
	if _, _, err := store.LastLog("web"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before any end: %v", err)
	}
	write("web", map[string]string{proc.LogName: "first\n"})
	if err := reg.KeepLog("web"); err != nil {
		t.Fatal(err)
	}
	if text, ended := readLast(t, store, "web"); text != "first\n" || time.Since(ended) > time.Hour {
		t.Errorf("%q, ended %v", text, ended)
	}
	old := strings.Repeat("an old line\n", maxLastLog/12+1)
	write("web", map[string]string{proc.OldLogName: old, proc.LogName: "the newest line\n"})
	if err := reg.KeepLog("web"); err != nil {
		t.Fatal(err)
	}
	text, _ := readLast(t, store, "web")
	if len(text) > maxLastLog || !strings.HasPrefix(text, "an old line\n") || !strings.HasSuffix(text, "an old line\nthe newest line\n") {
		t.Errorf("%d bytes: %.40q … %q", len(text), text, text[len(text)-40:])
	}
	st, err := os.Stat(filepath.Join(reg.StateDir, "vix", LogsName, "web"))
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	// A VM that has said nothing replaces nothing.
	write("web", map[string]string{proc.OldLogName: "", proc.LogName: ""})
	if err := reg.KeepLog("web"); err != nil {
		t.Error(err)
	}
	if again, _ := readLast(t, store, "web"); again != text {
		t.Errorf("replaced by %q", again)
	}
	if err := store.renameLog("web", "mail"); err != nil {
		t.Error(err)
	}
	if again, _ := readLast(t, store, "mail"); again != text {
		t.Errorf("after the rename: %q", again)
	}
	if err := errors.Join(store.dropLog("mail"), store.dropLog("mail")); err != nil {
		t.Error(err)
	}
	if store.hasLog("mail") || store.hasLog("web") {
		t.Error("a log is left")
	}
}

// VMs that keep nothing but a log keep it only for a while.
func TestLastLogsAreBounded(t *testing.T) {
	reg, store, write := logRig(t)
	keeps, err := store.Open("keeps")
	if err != nil {
		t.Fatal(err)
	}
	keeps.Close()
	began := time.Now().Add(-time.Hour)
	for i, name := range append([]string{"keeps"}, names(maxLooseLogs+2)...) {
		write(name, map[string]string{proc.LogName: "of " + name + "\n"})
		if err := reg.keepLog(name, began.Add(time.Duration(i)*time.Second), ""); err != nil {
			t.Fatal(err)
		}
	}
	want := append([]string{"keeps"}, names(maxLooseLogs + 2)[2:]...)
	if got := store.LogNames(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("there are %v, want %v", got, want)
	}
	// The logs of VMs that keep more go with what they keep.
	if err := reg.Remove(t.Context(), store, "keeps"); err != nil || store.hasLog("keeps") {
		t.Errorf("%v; has its log: %v", err, store.hasLog("keeps"))
	}
	// A VM that has kept only its log can be removed, and not reset.
	if err := reg.CheckKept(t.Context(), store, "tmp17", "reset"); err == nil {
		t.Error("a log can be reset")
	}
	if err := errors.Join(reg.CheckKept(t.Context(), store, "tmp17", "remove"), reg.Remove(t.Context(), store, "tmp17")); err != nil || store.hasLog("tmp17") {
		t.Errorf("%v; has its log: %v", err, store.hasLog("tmp17"))
	}
}

func names(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("tmp%02d", i))
	}
	return list
}

// Whoever clears what a killed supervisor has left keeps its log, which says so.
func TestLastLogOfKilled(t *testing.T) {
	reg, store, write := logRig(t)
	write("web", map[string]string{proc.LogName: "   1.000 [vix] at work\n"})
	was := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(filepath.Join(reg.Path, "web", proc.LogName), was, was); err != nil {
		t.Fatal(err)
	}
	if live, err := reg.Names(t.Context()); err != nil || len(live) > 0 {
		t.Fatalf("%v, %v", live, err)
	}
	text, ended := readLast(t, store, "web")
	if text != "   1.000 [vix] at work\n"+lostText || !ended.Equal(was) {
		t.Errorf("%q, ended %v, want %v", text, ended, was)
	}
	if _, err := reg.Root.Stat("web"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its directory is left: %v", err)
	}
}
