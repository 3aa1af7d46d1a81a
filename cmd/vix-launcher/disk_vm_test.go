package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// within runs vix-launcher in a mount namespace of its own, after a script has mounted there.
func (r *rig) within(script string, args ...string) *launched {
	r.t.Helper()
	unshare := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		unshare = []string{"unshare", "--user", "--map-root-user", "--mount"}
	}
	argv := append(unshare, "sh", "-ec", script+`; exec "$@"`, "sh", filepath.Join(r.bin, "vix-launcher"))
	p := &launched{Cmd: exec.Command(argv[0], append(argv[1:], args...)...), t: r.t, done: make(chan struct{})}
	p.Env, p.Stdout, p.Stderr = append(r.env, "D="+r.dir), &p.out, &p.err
	if err := p.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		_ = p.Wait() // its ProcessState is used
		close(p.done)
	}()
	return p
}

// full mounts a small file system on a directory of the rig, and fills it except for left KiB.
func full(dir, left string) string {
	return `mkdir -p -m 700 $D/` + dir + `; mount -t tmpfs -o size=256k,mode=700 full $D/` + dir +
		`; head -c $((256-` + left + `))k /dev/zero >$D/` + dir + `/fill`
}

// If nothing can be written, a run prints one line with advice, and leaves nothing; once a VM
// runs, it goes on.
func TestVMFullDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		what, script string
		args         []string
		want         []string
	}{
		{"state", full(".local/state", "0"), nil, []string{"vix/vms/t/vix.json: no space left on device", "free some, or run with --disposable"}},
		{"state, read-only", full(".local/state", "9") + "; mount -o remount,ro $D/.local/state", nil,
			[]string{"state/vix: read-only file system", "run with --disposable"}},
		{"cache", full("cache", "0") + "; export XDG_CACHE_HOME=$D/cache", []string{"--disposable"}, []string{"VM t", "no space left on device", "cache"}},
		{"cache, read-only", full("cache", "9") + "; mount -o remount,ro $D/cache; export XDG_CACHE_HOME=$D/cache", []string{"--disposable"},
			[]string{"VM t", "read-only file system", "cache"}},
		{"runtime directory, read-only", full("run2", "9") + "; mount -o remount,ro $D/run2; export XDG_RUNTIME_DIR=$D/run2", nil,
			[]string{"run2", "read-only file system", "set XDG_RUNTIME_DIR"}},
	} {
		p := r.within(c.script, append(append([]string{"run", "--no-gui"}, c.args...), "--vm", "t", "true")...)
		text := ""
		if code := p.code(); code != 125 {
			t.Errorf("%s: status %d", c.what, code)
		}
		for line := range strings.Lines(p.err.String()) {
			if !strings.Contains(line, "no KVM, so VM t is emulated") {
				text += line
			}
		}
		if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "vix: ") {
			t.Errorf("%s: not one line: %q", c.what, text)
		}
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q does not say %q", c.what, text, w)
			}
		}
		r.nothingLeft()
	}
	// One VM has no space for its log and state, and its home fills up while it runs.
	p := r.within(full("run3", "0")+"; export XDG_RUNTIME_DIR=$D/run3; "+full(".local/state", "64"),
		"run", "--no-gui", "--vm", "t", "sh", "-c", "head -c 1M /dev/zero 2>&1 >~/much | grep -o 'No space left on device'; echo alive; cat ~/small; exit 7")
	if code := p.code(); code != 7 || !strings.Contains(p.out.String(), "No space left on device\nalive\n") {
		t.Errorf("status %d: %q %s", code, p.out.String(), p.err.String())
	}
}
