package supervise

import (
	"context"
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

	"vix/internal/vm"
)

// The verbs that remove, and a VM's start and end that stage, killed at any moment: what is
// there has all its files or is not there, and whatever comes next leaves nothing.
func TestRemovalKilled(t *testing.T) {
	if dir := os.Getenv("VIX_REMOVAL_DIR"); dir != "" {
		removeFor(dir, os.Getenv("VIX_REMOVAL_VERB"))
		return
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	const files = 1200
	whole := func(at string) {
		t.Helper()
		for i := range files {
			d := filepath.Join(at, fmt.Sprint(i/200))
			if i%200 == 0 {
				if err := os.MkdirAll(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(d, fmt.Sprint(i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	state := filepath.Join(dir, "state/vix")
	interruptions := 0
	for _, verb := range []string{"remove", "reset", "staging"} {
		for round := range 4 {
			at := filepath.Join(state, "vms/t/home")
			if verb == "staging" {
				at = filepath.Join(state, "staging/t-0123456789")
			}
			if err := os.MkdirAll(filepath.Join(state, "vms/t/home"), 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestRemovalKilled$")
			cmd.Env = append(os.Environ(), "VIX_REMOVAL_DIR="+dir, "VIX_REMOVAL_VERB="+verb)
			in, err1 := cmd.StdinPipe()
			out, err2 := cmd.StdoutPipe()
			if err := errors.Join(err1, err2, cmd.Start()); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 64)
			n, err := out.Read(line) // it has what it needs
			if err != nil || string(line[:n]) != "ready\n" {
				t.Fatalf("%q, %v", line[:n], err)
			}
			whole(at)
			_, _ = fmt.Fprintln(in)
			<-time.After(time.Duration(r.IntN(15_000)) * time.Microsecond) // any moment
			_ = cmd.Process.Kill()
			_ = cmd.Wait()

			if n := count(at); n != 0 && n != files {
				t.Fatalf("%s, round %d: %d files are there of %d", verb, round, n, files)
			}
			if count(state) > 0 && count(at) == 0 {
				interruptions++
			}
			// What comes next: a verb, or a VM's start.
			if round%2 == 0 {
				store, err := vm.OpenStore(filepath.Dir(state))
				if err != nil {
					t.Fatal(err)
				}
				if count(at) > 0 && verb != "staging" {
					if err := os.Rename(filepath.Join(state, "vms/t"), filepath.Join(state, "vms/.removed-test")); err != nil {
						t.Error(err)
					}
				}
				if err := errors.Join(store.Sweep(), store.Close()); err != nil {
					t.Error(err)
				}
			} else {
				b := newBench(t)
				l := b.launch("t")
				l.VM.State, l.StateDir = "home", filepath.Dir(state)
				s := b.goRun(b.with(l, "sleep", "1000"))
				b.state(s)
				if verb != "staging" {
					if err := os.RemoveAll(at); err != nil { // which the verb may not have come to
						t.Fatal(err)
					}
				}
				waitForNone(t, state)
				if err := b.reg.Stop(t.Context(), "t", false); err != nil {
					t.Fatal(err)
				}
				<-s.done
				if err := os.RemoveAll(filepath.Join(state, vm.LogsName)); err != nil { // it is to stay
					t.Fatal(err)
				}
			}
			waitForNone(t, state)
		}
	}
	t.Logf("%d of 12 were interrupted while they removed", interruptions)
}

// removeFor is what is killed.
func removeFor(dir, verb string) {
	ctx := context.Background()
	store, err1 := vm.OpenStore(filepath.Join(dir, "state"))
	run := filepath.Join(dir, "run")
	err2 := os.MkdirAll(run, 0o700)
	reg, err3 := vm.OpenRegistry(run)
	err := errors.Join(err1, err2, err3)
	if verb == "staging" && err == nil {
		_, err = store.NewStaging("t", "0123456789")
	}
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	_, _ = fmt.Scanln()
	switch verb {
	case "remove":
		err = reg.Remove(ctx, store, "t")
	case "reset":
		err = reg.Reset(ctx, store, "t")
	case "staging":
		err = store.DropStaging("t-0123456789")
	}
	if err != nil {
		panic(err)
	}
}

// count counts the files below dir but for Vix's own.
func count(dir string) (n int) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasPrefix(d.Name(), "vix.json") && d.Name() != "used" && !strings.HasPrefix(d.Name(), "lock") && !strings.HasSuffix(d.Name(), ".lock") {
			n++
		}
		return nil
	})
	return n
}

// waitForNone waits until the state has none of the files, and nothing hidden.
func waitForNone(t *testing.T, state string) {
	t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		var hiddenNames []string
		_ = filepath.WalkDir(state, func(path string, d fs.DirEntry, _ error) error {
			if strings.HasPrefix(filepath.Base(path), ".") || strings.Contains(path, "staging/") {
				hiddenNames = append(hiddenNames, path)
			}
			return nil
		})
		if len(hiddenNames) == 0 && count(state) == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d files are left, and %.3q", count(state), hiddenNames)
		}
		time.Sleep(5 * time.Millisecond) // the sweep of a supervisor says nothing
	}
}
