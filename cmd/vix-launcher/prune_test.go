package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"vix/config"
	"vix/internal/rootfs"
	"vix/internal/vm"
)

// Whatever there is, prune keeps what config.toml names, what a VM that runs may use, and
// every home with something in it; and afterwards there is nothing left to prune.
func TestPruneKeeps(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { pruneOnce(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

// tellState answers whoever asks for a VM's state, in its supervisor's place, until the test
// ends.
func tellState(t *testing.T, seat *vm.Seat, st vm.State) {
	ln, err := net.FileListener(seat.Listener)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			c := &vm.Control{Conn: conn.(*net.UnixConn)}
			var req vm.Request
			if c.Recv(&req, vm.MaxFrame) == nil {
				_ = c.Send(vm.Reply{State: &st})
			}
			conn.Close()
		}
	})
}

func pruneOnce(t *testing.T, r *rand.Rand) {
	dir, err := os.MkdirTemp("", "vix") // short, for sockets
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"run", "state", "config/vix", "cache/vix/roots"} {
		must(os.MkdirAll(filepath.Join(dir, sub), 0o700))
	}
	var stderr, stdout bytes.Buffer
	e := &env{
		getenv: func(name string) string {
			return map[string]string{"HOME": dir, "XDG_RUNTIME_DIR": dir + "/run", "XDG_STATE_HOME": dir + "/state", "XDG_CONFIG_HOME": dir + "/config", "XDG_CACHE_HOME": dir + "/cache"}[name]
		},
		environ: func() []string { return nil }, self: os.Executable,
		stdin: strings.NewReader(""), stdout: &stdout, stderr: io.MultiWriter(&stderr),
	}
	half := func() bool { return r.IntN(2) == 0 }

	var conf strings.Builder
	var stay []string // paths that have to be there afterwards
	roots := dir + "/cache/vix/roots"
	root := func(suite string, packages []string) string {
		path := rootfs.Debian{Suite: suite, Packages: packages, CacheDir: roots}.Dir()
		must(os.MkdirAll(path+"/usr", 0o700))
		return path
	}
	store, err := vm.OpenStore(dir + "/state")
	must(err)
	defer store.Close()
	reg, err := e.registry()
	must(err)
	defer reg.Close()
	for i := range 1 + r.IntN(8) {
		name := fmt.Sprintf("v%d", i)
		configured, runs := half(), r.IntN(4) == 0
		suite, packages := []string{"sid", "trixie", "bookworm"}[r.IntN(3)], []string{"foot", fmt.Sprintf("p%d", r.IntN(3))}
		if configured {
			fmt.Fprintf(&conf, "[vm.%s]\n", name)
			if half() {
				fmt.Fprintf(&conf, "root = \"debian:%s\"\npackages = [%q, %q]\n", suite, packages[0], packages[1])
				stay = append(stay, root(suite, packages))
			}
		}
		if half() {
			root(suite, append(packages, "old"))
		}
		if half() {
			k, err := store.Open(name)
			must(err)
			must(k.Close())
			home := store.HomePath(name)
			if configured || runs {
				stay = append(stay, home)
			}
			switch r.IntN(3) {
			case 0:
				must(os.WriteFile(home+"/file", nil, 0o600))
				stay = append(stay, home+"/file")
			case 1:
				must(os.Mkdir(home+"/folder", 0o000))
				stay = append(stay, home+"/folder")
			}
		}
		if runs {
			seat, err := reg.Take(t.Context(), name)
			must(err)
			defer seat.Close()
			tellState(t, seat, vm.State{Name: name, State: vm.StateRunning, Root: config.RootDebian + suite})
			stay = append(stay, root(suite, []string{"of before"}))
		}
	}
	must(os.WriteFile(dir+"/config/vix/config.toml", []byte(conf.String()), 0o600))
	stay = append(stay, dir+"/config/vix/config.toml")

	if code := run([]string{"prune", "--yes"}, e); code != 0 {
		t.Fatalf("status %d: %s", code, stderr.String())
	}
	for _, path := range stay {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%v; config.toml:\n%s\nremoved:\n%s", err, conf.String(), stdout.String())
		}
	}
	stdout.Reset()
	if code := run([]string{"prune", "--yes"}, e); code != 0 || !slices.Equal(strings.Fields(stdout.String()), []string{"nothing", "to", "remove"}) {
		t.Errorf("again: status %d, %s%s", code, stdout.String(), stderr.String())
	}
}
