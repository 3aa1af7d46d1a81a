package logtest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// failedTest stands for a test that fails: this one must not.
type failedTest struct {
	*testing.T
	dir      string
	failed   bool
	cleanups []func()
}

func (f *failedTest) Failed() bool        { return f.failed }
func (f *failedTest) ArtifactDir() string { return f.dir }
func (f *failedTest) Cleanup(c func())    { f.cleanups = append(f.cleanups, c) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// wait waits until n logs are open, of which there is no event.
func wait(t *testing.T, l *Logs, n int) {
	t.Helper()
	again, limit := time.NewTicker(time.Millisecond), time.After(30*time.Second)
	defer again.Stop()
	for {
		l.mu.Lock()
		have := len(l.files)
		l.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-again.C:
		case <-limit:
			t.Fatalf("%d logs, want %d", have, n)
		}
	}
}

// A failed test has the logs whole, those of VMs that are gone too; one that passed
// keeps nothing.
func TestLogsOutliveVMs(t *testing.T) {
	for _, failed := range []bool{true, false} {
		runtime := t.TempDir()
		f := &failedTest{T: t, dir: t.TempDir(), failed: failed}
		write(t, runtime+"/vix/a/log", "before\n")
		l := Watch(f, runtime)
		write(t, runtime+"/vix/b/log", "first of b\n")
		wait(t, l, 2)
		write(t, runtime+"/vix/b/log", "last of b\n")
		if err := os.RemoveAll(runtime + "/vix/b"); err != nil {
			t.Fatal(err)
		}
		write(t, runtime+"/vix/b/log", "b again\n")
		wait(t, l, 3)
		for _, c := range f.cleanups {
			c()
		}
		got := map[string]string{}
		entries, err := os.ReadDir(f.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			text, _ := os.ReadFile(filepath.Join(f.dir, e.Name()))
			got[e.Name()] = string(text)
		}
		want := map[string]string{}
		if failed {
			want = map[string]string{"vm-a-1.log": "before\n", "vm-b-1.log": "first of b\nlast of b\n", "vm-b-2.log": "b again\n"}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("failed %v: kept %q, want %q", failed, got, want)
		}
	}
}

func TestLogsAreBounded(t *testing.T) {
	runtime := t.TempDir()
	f := &failedTest{T: t, dir: t.TempDir()}
	l := Watch(f, runtime)
	for i := range maxFiles + 5 {
		write(t, fmt.Sprintf("%s/vix/vm%d/log", runtime, i), "x")
	}
	l.look()
	l.mu.Lock()
	n := len(l.files)
	l.mu.Unlock()
	if n != maxFiles {
		t.Errorf("%d files are open", n)
	}
	for _, c := range f.cleanups {
		c()
	}
}
