package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"vix/config"
	"vix/internal/vm"
)

// fillAll fills every directory where a guest's files are in memory, all at once.
const fillAll = `
for f in /tmp/fill /dev/shm/fill /run/fill /var/tmp/fill /dev/fill; do
	(dd if=/dev/zero of=$f bs=64k 2>&1 | grep -o 'No space left on device' | sed "s,^,$f: ,") &
done
wait`

// makeFiles makes as many empty files as possible.
const makeFiles = `
perl -e 'mkdir "/tmp/d"; for ($i = 0; open(F, ">", "/tmp/d/$i"); $i++) { close F } print "files: $!\n"'`

// Whatever a guest's programs write, the error is "no space left", and nothing is killed. A
// program that allocates more memory than there is, is killed, and the user learns which.
func TestVMOutOfMemory(t *testing.T) {
	t.Parallel()
	t.Run("least memory", func(t *testing.T) { outOfMemory(t, config.MinMemory.String(), fillAll+makeFiles, "files") })
	t.Run("default memory", func(t *testing.T) { outOfMemory(t, "512M", fillAll) })
}

func outOfMemory(t *testing.T, memory, fill string, more ...string) {
	r := newRig(t)
	stdin, keep := io.Pipe()
	defer keep.Close()
	first := r.start(stdin, "run", "--no-gui", "--memory", memory, "--vm", "t", "sh", "-c", "echo up; while read x; do echo got $x; done")
	first.says("up\n")
	t.Logf("%s", r.vix(0, "exec", "t", "--", "sh", "-c", "cat /proc/meminfo | head -3; df -k /tmp").out.String())
	p := r.vix(0, "exec", "t", "--user", "root", "--", "sh", "-c", fill)
	for _, place := range append([]string{"/tmp/fill", "/dev/shm/fill", "/run/fill", "/var/tmp/fill", "/dev/fill"}, more...) {
		if !strings.Contains(p.out.String(), place+": No space left on device\n") {
			t.Errorf("%s is not full: %q %s", place, p.out.String(), p.err.String())
		}
	}
	fmt.Fprintln(keep, "one")
	first.says("got one\n")
	if p := r.vix(0, "exec", "t", "--", "sh", "-c", "head -2 /proc/meminfo; echo runs"); !strings.HasSuffix(p.out.String(), "runs\n") {
		t.Errorf("nothing starts any more: %q %s", p.out.String(), p.err.String())
	} else {
		t.Log(p.out.String())
	}
	if text := r.vix(0, "logs", "t").out.String(); strings.Contains(text, "out of memory") {
		t.Errorf("somebody was killed: %s", text)
	}

	const note = "VM t: out of memory: its kernel killed perl; give the VM more memory (memory in config.toml, or --memory)"
	hog := r.start(nil, "exec", "t", "--", "perl", "-e", `push @x, "x" x (1 << 20) while 1`)
	if code := hog.code(); code != 137 || !strings.Contains(hog.err.String(), note) {
		t.Errorf("a program that takes all memory: %d: %s", code, hog.err.String())
	}
	fmt.Fprintln(keep, "two")
	first.says("got two\n")
	first.saysOn(&first.err, note)
	for _, verb := range [][]string{{"logs", "t"}, {"status", "t"}} {
		if text := r.vix(0, verb...).out.String(); !strings.Contains(text, note) {
			t.Errorf("%v: %s", verb, text)
		}
	}
	keep.Close()
	first.code()
	r.vix(0, "stop", "--all") // a run ends with its program, its VM a moment later
}

// The same holds while the balloon has taken most of the guest's memory: it comes back as files
// grow, and no program is killed before it has.
func TestVMOutOfMemoryBallooned(t *testing.T) {
	r := newRig(t)
	pressure := r.pressure
	t.Cleanup(func() { os.Remove(pressure) })
	if err := os.WriteFile(pressure, []byte("some avg10=25.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdin, keep := io.Pipe()
	defer keep.Close()
	events := r.start(nil, "status", "--watch", "--json")
	first := r.start(stdin, "run", "--no-gui", "--vm", "t", "sh", "-c",
		`echo up; read x; for f in /tmp/fill /dev/shm/fill $XDG_RUNTIME_DIR/fill; do dd if=/dev/zero of=$f bs=64k 2>&1 | grep -o 'No space left on device' & done; wait; du -cm /tmp/fill /dev/shm/fill $XDG_RUNTIME_DIR/fill | tail -1; read x`)
	first.says("up\n")
	waitEvent(t, events, func(s vm.State) bool { return s.GuestMemory != nil && s.GuestMemory.Size <= 256<<20 })
	fmt.Fprintln(keep)
	first.says("total\n")
	t.Logf("%s", first.out.String())
	if n := strings.Count(first.out.String(), "No space left on device\n"); n != 3 {
		t.Errorf("%d of 3 were full: %s %s", n, first.out.String(), first.err.String())
	}
	if text := r.vix(0, "logs", "t").out.String(); strings.Contains(text, "out of memory") {
		t.Errorf("somebody was killed: %s", text)
	} else {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "memory:") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
	_ = events.Process.Signal(syscall.SIGINT)
	events.code()
	keep.Close()
	first.code()
	r.vix(0, "stop", "--all") // a run ends with its program, its VM a moment later
}
