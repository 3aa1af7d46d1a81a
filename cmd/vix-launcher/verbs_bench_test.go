package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkVMVerbs measures, on two VMs and once, the cost of exec and cp, and checks that no
// data is lost: VIX_BENCH_MIB is the size of the file (1024), and of a program's output to a
// slow reader; VIX_BENCH_FILES is the number of files in the tree (20000). It also writes each
// figure to standard error at once.
func BenchmarkVMVerbs(b *testing.B) {
	if b.N > 1 {
		return // it takes longer than the default -benchtime
	}
	r := newRig(b)
	mib, files := 1024, 20000
	_, _ = fmt.Sscan(os.Getenv("VIX_BENCH_MIB"), &mib)
	_, _ = fmt.Sscan(os.Getenv("VIX_BENCH_FILES"), &files)
	if err := os.Mkdir(filepath.Join(r.dir, "share"), 0o755); err != nil {
		b.Fatal(err)
	}
	stdin, keep := io.Pipe()
	memory := fmt.Sprintf("%dM", max(512, 2*mib+512)) // files take half of it
	var vms []*launched
	for _, name := range []string{"t", "u"} {
		p := r.start(stdin, "run", "--vm", name, "--no-gui", "--memory", memory, "--share", filepath.Join(r.dir, "share")+":/srv:rw", "sh", "-c", "echo up; read x")
		p.says("up\n")
		vms = append(vms, p)
		benchMemory(b, r, name)
	}
	benchExec(b, r)
	slowReader(b, r, mib)
	benchFile(b, r, mib)
	benchTree(b, r, files)
	for range vms {
		fmt.Fprintln(keep, "done")
	}
	keep.Close()
	for _, p := range vms {
		p.code()
	}
}

// benchMemory reports a VM's use of the host beyond the guest's own memory: the private memory
// of its processes, for QEMU without the guest's.
func benchMemory(b *testing.B, r *rig, name string) {
	for _, st := range r.list() {
		if st.Name != name {
			continue
		}
		for what, pid := range map[string]int{"supervisor": st.PIDs.Supervisor, "qemu": st.PIDs.QEMU, "virtiofsd": st.PIDs.Virtiofsd} {
			metric(b, float64(rss(b, pid))/1024, "MiB-"+what)
		}
	}
}

func benchExec(b *testing.B, r *rig) {
	const sequential, parallel = 500, 50
	var took []time.Duration
	for i := range sequential {
		start := time.Now()
		if p := r.start(nil, "exec", "t", "--", "sh", "-c", fmt.Sprintf("exit %d", i%100)); p.code() != i%100 {
			b.Errorf("exec %d: status %d, %s", i, p.code(), p.err.String())
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	metric(b, took[sequential/2].Seconds(), "s/exec")
	var all []*launched
	start := time.Now()
	for i := range parallel {
		all = append(all, r.start(nil, "exec", "t", "--", "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i)))
	}
	for i, p := range all {
		if p.code() != i || p.out.String() != fmt.Sprintf("%d\n", i) {
			b.Errorf("exec %d of %d at once: status %d, %q, %s", i, parallel, p.code(), p.out.String(), p.err.String())
		}
	}
	metric(b, time.Since(start).Seconds(), "s/50-exec")
}

// metric reports a figure.
func metric(b *testing.B, n float64, unit string) {
	b.ReportMetric(n, unit)
	fmt.Fprintf(os.Stderr, "%12.3f %s\n", n, unit)
}

// rate reports bytes over time.
func rate(b *testing.B, what string, bytes int64, f func()) {
	start := time.Now()
	f()
	metric(b, float64(bytes)/1e6/time.Since(start).Seconds(), "MB/s-"+what)
}

func (r *rig) shell(b *testing.B, line string) string {
	b.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = append(r.env, "VIX="+filepath.Join(r.bin, "vix-launcher"), "D="+r.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Errorf("%s: %v: %s", line, err, out)
	}
	return strings.TrimSpace(string(out))
}

func benchFile(b *testing.B, r *rig, mib int) {
	makeFile(b, filepath.Join(r.dir, "file"), mib)
	n := int64(mib) << 20
	rate(b, "cat-up", n, func() { r.shell(b, "$VIX exec t -- sh -c 'cat >/tmp/file' <$D/file") })
	rate(b, "cat-down", n, func() { r.shell(b, "$VIX exec t -- cat /tmp/file >$D/cat") })
	r.shell(b, "cmp $D/file $D/cat && rm $D/cat; $VIX exec t -- rm /tmp/file")
	rate(b, "cp-up", n, func() { r.shell(b, "$VIX cp $D/file t:/tmp/file") })
	rate(b, "cp-down", n, func() { r.shell(b, "$VIX cp t:/tmp/file $D/cp") })
	r.shell(b, "cmp $D/file $D/cp && rm $D/cp")
	rate(b, "cp-vm-to-vm", n, func() { r.shell(b, "$VIX cp t:/tmp/file u:/tmp/file") })
	sum := r.shell(b, "sha256sum <$D/file")
	for _, vm := range []string{"t", "u"} {
		if got := r.shell(b, "$VIX exec "+vm+" -- sh -c 'sha256sum </tmp/file'"); got != sum {
			b.Errorf("VM %s has %s, not %s", vm, got, sum)
		}
	}
	r.shell(b, "$VIX exec u -- rm /tmp/file")
	rate(b, "virtiofs-down", n, func() { r.shell(b, "$VIX exec t -- cp /tmp/file /srv/file") })
	r.shell(b, "cmp $D/file $D/share/file; $VIX exec t -- rm /tmp/file")
	rate(b, "virtiofs-up", n, func() { r.shell(b, "$VIX exec t -- cp /srv/file /tmp/file") })
	r.shell(b, "rm $D/file $D/share/file; $VIX exec t -- rm /tmp/file")
}

func benchTree(b *testing.B, r *rig, files int) {
	makeTree(b, filepath.Join(r.dir, "tree"), files)
	per := func(what string, f func()) {
		start := time.Now()
		f()
		metric(b, float64(files)/time.Since(start).Seconds(), "files/s-"+what)
	}
	r.shell(b, "$VIX exec t -- mkdir /tmp/tar")
	per("cp-up", func() { r.shell(b, "$VIX cp -r $D/tree t:/tmp/tree") })
	per("tar-up", func() { r.shell(b, "tar -C $D -c tree | $VIX exec t -- tar -C /tmp/tar -x") })
	per("cp-down", func() { r.shell(b, "$VIX cp -r t:/tmp/tree $D/back") })
	per("tar-down", func() { r.shell(b, "mkdir $D/tarback; $VIX exec t -- tar -C /tmp/tar -c tree | tar -C $D/tarback -x") })
	per("cp-vm-to-vm", func() { r.shell(b, "$VIX cp -r t:/tmp/tree u:/tmp/tree") })
	r.shell(b, "$VIX cp -r u:/tmp/tree $D/other && diff -r $D/tree $D/other")
	// virtiofsd holds a descriptor for each file that the guest knows, up to the process's limit:
	// so the test uses a part of the tree.
	some := min(files, 5000)
	r.shell(b, fmt.Sprintf("$VIX exec t -- sh -c 'mkdir /tmp/some && cd /tmp/tree && mv $(seq 0 %d) ../some'", some/100-1))
	files = some
	per("virtiofs-down", func() { r.shell(b, "$VIX exec t -- cp -r /tmp/some /srv/some") })
	r.shell(b, "for i in $(ls $D/share/some); do diff -r $D/tree/$i $D/share/some/$i || exit; done; $VIX exec t -- sh -c 'mv /tmp/some/* /tmp/tree'")
	r.shell(b, "diff -r $D/tree $D/back && diff -r $D/tree $D/tarback/tree; $VIX exec t -- rm -r /tmp/tree /tmp/tar")
}
