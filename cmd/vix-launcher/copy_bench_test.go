package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkVMCopy compares cp with cat and tar over the same channel, in one VM and
// alternating. It reports medians of the rounds' ratios (VIX_BENCH_ROUNDS, 5), which other
// load on the machine changes less than the rates.
func BenchmarkVMCopy(b *testing.B) {
	if b.N > 1 {
		return // it takes longer than the default -benchtime
	}
	r := newRig(b)
	mib, files, rounds := 64, 2000, 5
	_, _ = fmt.Sscan(os.Getenv("VIX_BENCH_MIB"), &mib)
	_, _ = fmt.Sscan(os.Getenv("VIX_BENCH_FILES"), &files)
	_, _ = fmt.Sscan(os.Getenv("VIX_BENCH_ROUNDS"), &rounds)
	stdin, keep := io.Pipe()
	p := r.start(stdin, "run", "--vm", "t", "--no-gui", "--memory", fmt.Sprintf("%dM", max(512, 8*mib+512)), "sh", "-c", "echo up; read x")
	p.says("up\n")
	makeFile(b, filepath.Join(r.dir, "file"), mib)
	makeTree(b, filepath.Join(r.dir, "tree"), files)
	compare := func(unit string, n float64, pairs ...string) { // name, line, name, line: a ratio of the first to the second
		var ratios, costs []float64
		rates := map[string][]float64{}
		for range rounds {
			var took, cpu [2]float64
			for i := range 2 {
				start, used := time.Now(), cpuSeconds(b, r, "t")
				r.shell(b, pairs[2*i+1])
				cpu[i] = cpuSeconds(b, r, "t") - used
				took[i] = n / time.Since(start).Seconds()
				rates[pairs[2*i]] = append(rates[pairs[2*i]], took[i])
			}
			ratios = append(ratios, took[0]/took[1])
			costs = append(costs, cpu[0]/cpu[1])
		}
		for name, list := range rates {
			slices.Sort(list)
			metric(b, list[len(list)/2], unit+"-"+name)
		}
		slices.Sort(ratios)
		slices.Sort(costs)
		metric(b, ratios[len(ratios)/2], pairs[0]+"/"+pairs[2])
		metric(b, costs[len(costs)/2], "cpu-"+pairs[0]+"/"+pairs[2])
	}
	mb := float64(int64(mib)<<20) / 1e6
	compare("MB/s", mb, "cp-up", "$VIX cp $D/file t:/tmp/file", "cat-up", "$VIX exec t -- sh -c 'cat >/tmp/cat' <$D/file")
	compare("MB/s", mb, "cp-down", "$VIX cp t:/tmp/file $D/cp", "cat-down", "$VIX exec t -- cat /tmp/file >$D/cat")
	r.shell(b, "cmp $D/file $D/cp && cmp $D/file $D/cat && $VIX exec t -- rm /tmp/file /tmp/cat")
	n := float64(files)
	// Each copy has a new target, so none includes the removal of the last.
	compare("files/s", n, "cp-r-up", "$VIX cp -r $D/tree t:/tmp/cp.$$", "tar-up", "tar -C $D -c tree | $VIX exec t -- sh -c 'mkdir /tmp/tar.'$$' && tar -C /tmp/tar.'$$' -x'")
	r.shell(b, "$VIX exec t -- sh -c 'mv $(ls -d /tmp/cp.* | head -n 1) /tmp/tree'")
	compare("files/s", n, "cp-r-down", "$VIX cp -r t:/tmp/tree $D/cp.$$", "tar-down", "mkdir $D/tar.$$ && $VIX exec t -- tar -C /tmp -c tree | tar -C $D/tar.$$ -x")
	r.shell(b, "for i in $D/cp.* $D/tar.*/tree; do diff -r $D/tree $i || exit; done")
	fmt.Fprintln(keep, "done")
	keep.Close()
	p.code()
}

// cpuSeconds returns the processor time used by a VM's processes and by the waited-for
// children of this one.
func cpuSeconds(b *testing.B, r *rig, name string) float64 {
	b.Helper()
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &own); err != nil {
		b.Fatal(err)
	}
	sum := time.Duration(own.Utime.Nano() + own.Stime.Nano()).Seconds()
	for _, st := range r.list() {
		if st.Name != name {
			continue
		}
		for _, pid := range []int{st.PIDs.Supervisor, st.PIDs.QEMU} {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				b.Fatal(err)
			}
			var user, system float64 // fields 14 and 15, in 1/100 s (USER_HZ)
			_, after, _ := strings.Cut(string(stat), ") ")
			fields := strings.Fields(after)
			_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
			if err != nil {
				b.Fatal(err)
			}
			sum += (user + system) / 100
		}
	}
	return sum
}

func makeFile(b *testing.B, path string, mib int) {
	b.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = io.CopyN(f, rand.Reader, int64(mib)<<20)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		b.Fatal(err)
	}
}

func makeTree(b *testing.B, path string, files int) {
	b.Helper()
	for i := range files {
		dir := filepath.Join(path, fmt.Sprint(i/100))
		content := []byte(strings.Repeat(fmt.Sprintf("line %d\n", i), 1+i%100))
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), content, 0o644)); err != nil {
			b.Fatal(err)
		}
	}
}
