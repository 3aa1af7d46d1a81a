package main

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"vix/config"
)

// fillAll fills every place in which a guest's files are in memory, at once.
const fillAll = `
for f in /tmp/fill /dev/shm/fill /run/fill /var/tmp/fill /dev/fill; do
	(dd if=/dev/zero of=$f bs=64k 2>&1 | grep -o 'No space left on device' | sed "s,^,$f: ,") &
done
wait`

// makeFiles makes files without content, as many as there may be.
const makeFiles = `
perl -e 'mkdir "/tmp/d"; for ($i = 0; open(F, ">", "/tmp/d/$i"); $i++) { close F } print "files: $!\n"'`

// Whatever a guest's programs write, it is "no space left" and nobody's end; a program that
// takes more memory than there is, is ended, and the person is told which it was.
func TestVMOutOfMemory(t *testing.T) {
	t.Run("least memory", func(t *testing.T) { outOfMemory(t, config.MinMemory.String(), fillAll+makeFiles, "files") })
	t.Run("default memory", func(t *testing.T) { outOfMemory(t, "512M", fillAll) })
}

func outOfMemory(t *testing.T, memory, fill string, more ...string) {
	r := newRig(t)
	stdin, keep := io.Pipe()
	defer keep.Close()
	first := r.start(stdin, "run", "--no-gui", "--disposable", "--memory", memory, "--vm", "t", "sh", "-c", "echo up; while read x; do echo got $x; done")
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

	const told = "VM t: out of memory: its kernel has ended perl; give the VM more (memory in config.toml, or --memory)"
	hog := r.start(nil, "exec", "t", "--", "perl", "-e", `push @x, "x" x (1 << 20) while 1`)
	if code := hog.code(); code != 137 || !strings.Contains(hog.err.String(), told) {
		t.Errorf("a program that takes all memory: %d: %s", code, hog.err.String())
	}
	fmt.Fprintln(keep, "two")
	first.says("got two\n")
	first.saysOn(&first.err, told)
	for _, verb := range [][]string{{"logs", "t"}, {"status", "t"}} {
		if text := r.vix(0, verb...).out.String(); !strings.Contains(text, told) {
			t.Errorf("%v: %s", verb, text)
		}
	}
	keep.Close()
	first.code()
}
