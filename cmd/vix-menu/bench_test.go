package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// A contender is a measured menu.
type contender struct {
	name  string
	argv  []string
	lines bool // reads the entries on standard input
}

// A figure holds the median measurements of a contender with one number of entries.
type figure struct {
	Menu    string  `json:"menu"`
	Entries int     `json:"entries"`
	First   float64 `json:"first_frame_ms"`  // from exec to the commit of a surface with a buffer
	Redraw  float64 `json:"key_to_frame_ms"` // from a key's arrival to the next commit
	PSS     float64 `json:"pss_mib"`         // of all its processes
	Runs    int     `json:"runs"`
}

// BenchmarkMenus compares the menu with fuzzel, wofi and bemenu in one run, with the same
// entries from 500 and from 5,000 .desktop files (bemenu gets lines). Our menu counts
// both its processes.
func BenchmarkMenus(b *testing.B) {
	if b.N > 1 {
		return // one run is enough, and takes long
	}
	if l := desktoptest.Lacks(); l != "" {
		b.Skip("lacks: " + l)
	}
	vix, err := filepath.Abs("../../build/bin/vix-launcher")
	if _, serr := os.Stat(vix); err != nil || serr != nil {
		b.Skip("lacks: build/bin; run make build")
	}
	d := desktoptest.Start(b, desktoptest.Config{Width: 1280, Height: 800})
	p := newTap(b, filepath.Join(d.Dir, "wayland-tap"), d.Socket, false)
	var figures []figure
	for _, n := range []int{500, 5000} {
		dir := b.TempDir()
		env, lines := benchEntries(b, d, dir, n)
		var taking []contender
		for _, c := range []contender{
			{"vix menu", []string{vix, "menu"}, false},
			{"fuzzel", []string{"fuzzel", "--lines=9"}, false},
			{"bemenu", []string{"bemenu", "--list", "9"}, true},
			{"wofi", []string{"wofi", "--show", "drun", "--allow-images"}, false},
		} {
			if _, err := exec.LookPath(c.argv[0]); err != nil {
				b.Errorf("lacks: %s", c.name)
				continue
			}
			if c.name == "wofi" && n > 500 {
				b.Logf("%-9s %5d entries: not measured: its first frame takes minutes", c.name, n)
				continue
			}
			taking = append(taking, c)
		}
		for _, f := range measure(b, d, p, taking, env, lines) {
			f.Entries = n
			b.Logf("%-9s %5d entries: first frame %6.1f ms, key to frame %6.1f ms, %5.1f MiB", f.Menu, n, f.First, f.Redraw, f.PSS)
			figures = append(figures, f)
		}
	}
	for _, f := range figures {
		key := fmt.Sprintf("%s-%d", strings.ReplaceAll(f.Menu, " ", "-"), f.Entries)
		b.ReportMetric(f.First, "ms-first-"+key)
		b.ReportMetric(f.Redraw, "ms-key-"+key)
		b.ReportMetric(f.PSS, "MiB-"+key)
	}
	if out := os.Getenv("VIX_BENCH_OUT"); out != "" {
		if err := desktoptest.SaveJSON(filepath.Join(out, "menu.json"), figures); err != nil {
			b.Error(err)
		}
	}
}

// benchEntries makes n .desktop files, in three roots of VMs and in one directory for
// the other menus, and the environment in which all menus find them.
func benchEntries(b *testing.B, d *desktoptest.Desktop, dir string, n int) (env []string, lines string) {
	b.Helper()
	icons := []string{"foot", "org.gtk.Demo4", "folder", "text-x-generic", "user-home"}
	var all strings.Builder
	var toml strings.Builder
	for i := range 3 {
		root := filepath.Join(dir, fmt.Sprint("root", i))
		fmt.Fprintf(&toml, "[vm.bench%d]\nroot = %q\n", i, root)
		for _, sub := range []string{"usr/bin", "etc"} {
			must(b, os.MkdirAll(filepath.Join(root, sub), 0o755))
		}
		must(b, os.WriteFile(filepath.Join(root, "usr/bin/true"), []byte("#!/bin/sh\n"), 0o755))
	}
	shared := filepath.Join(dir, "data/applications")
	must(b, os.MkdirAll(shared, 0o755))
	for i := range n {
		text := fmt.Sprintf("[Desktop Entry]\nType=Application\nName=Program %d of many\nName[de]=Programm %d\nGenericName=Something\nComment=It is there to be found\nKeywords=one;two;three;\nIcon=%s\nExec=true %%U\nCategories=Utility;\n", i, i, icons[i%len(icons)])
		apps := filepath.Join(dir, fmt.Sprint("root", i%3), "usr/share/applications")
		must(b, os.MkdirAll(apps, 0o755))
		must(b, os.WriteFile(filepath.Join(apps, fmt.Sprintf("p%d.desktop", i)), []byte(text), 0o644))
		must(b, os.WriteFile(filepath.Join(shared, fmt.Sprintf("p%d.desktop", i)), []byte(text), 0o644))
		fmt.Fprintf(&all, "Program %d of many\n", i)
	}
	must(b, os.MkdirAll(filepath.Join(dir, "config/vix"), 0o755))
	must(b, os.WriteFile(filepath.Join(dir, "config/vix/config.toml"), []byte(toml.String()), 0o644))
	// Icons come from their usual place, entries from dir only.
	for _, name := range []string{"icons", "mime"} {
		must(b, os.Symlink("/usr/share/"+name, filepath.Join(dir, "data", name)))
	}
	for _, v := range d.Env() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "XDG_") && name != "WAYLAND_DISPLAY" && name != "HOME" {
			env = append(env, v)
		}
	}
	return append(env, "WAYLAND_DISPLAY=wayland-tap", "XDG_RUNTIME_DIR="+d.Dir, "HOME="+dir, "XDG_CONFIG_HOME="+dir+"/config",
		"XDG_CACHE_HOME="+dir+"/cache", "XDG_STATE_HOME="+dir+"/state", "XDG_DATA_HOME="+dir+"/none", "XDG_DATA_DIRS="+dir+"/data"), all.String()
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

const benchRuns = 5

// measure runs the menus in turn, several times each, so that the machine's other load
// affects all alike. It does not count the first turn, which fills caches.
func measure(b *testing.B, d *desktoptest.Desktop, p *tap, menus []contender, env []string, lines string) []figure {
	b.Helper()
	first, redraw, pss := make([][]float64, len(menus)), make([][]float64, len(menus)), make([][]float64, len(menus))
	for run := range benchRuns + 1 {
		for i, c := range menus {
			if f := once(b, d, p, c, env, lines); run > 0 {
				first[i], redraw[i], pss[i] = append(first[i], f.First), append(redraw[i], f.Redraw), append(pss[i], f.PSS)
			}
		}
	}
	var figures []figure
	for i, c := range menus {
		figures = append(figures, figure{Menu: c.name, First: median(first[i]), Redraw: median(redraw[i]), PSS: median(pss[i]), Runs: benchRuns})
	}
	return figures
}

// once opens a menu, types three letters and closes it.
func once(b *testing.B, d *desktoptest.Desktop, p *tap, c contender, env []string, lines string) figure {
	b.Helper()
	p.clear()
	cmd := exec.Command(c.argv[0], c.argv[1:]...)
	cmd.Env = env
	if c.lines {
		cmd.Stdin = strings.NewReader(lines)
	}
	begin := time.Now()
	proc, err := desktoptest.Command(b, cmd, nil)
	must(b, err)
	shown := await(b, p.frames, proc)
	quiet(p.frames)
	p.clear()
	var keys []float64
	for _, code := range []uint32{25, 19, 24} { // p, r, o
		d.KeyCode(b, code, true)
		d.KeyCode(b, code, false)
		press := await(b, p.keys, proc)
		keys = append(keys, await(b, p.frames, proc).Sub(press).Seconds()*1e3)
		quiet(p.frames)
		p.clear()
	}
	memory := treePSS(proc.PID)
	d.KeyCode(b, 1, true)
	d.KeyCode(b, 1, false)
	select {
	case <-proc.Done():
	case <-time.After(10 * time.Second):
		proc.Stop()
	}
	return figure{First: shown.Sub(begin).Seconds() * 1e3, Redraw: median(keys), PSS: memory}
}

func await(b *testing.B, from <-chan time.Time, p *desktoptest.Proc) time.Time {
	b.Helper()
	select {
	case at := <-from:
		return at
	case <-p.Done():
		b.Fatalf("it has ended: %s", p.Output())
	case <-time.After(time.Minute):
		b.Fatalf("no frame: %s", p.Output())
	}
	return time.Time{}
}

// quiet waits until no drawing happens for a while: icons come later.
func quiet(frames <-chan time.Time) {
	for {
		select {
		case <-frames:
		case <-time.After(250 * time.Millisecond):
			return
		}
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// treePSS returns the proportional memory of a process and its children, in MiB.
func treePSS(pid int) float64 {
	total := 0.0
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err == nil {
		for line := range strings.Lines(string(b)) {
			var kib float64
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				_, _ = fmt.Sscan(rest, &kib)
				total += kib / 1024
			}
		}
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		children, _ := os.ReadFile(t)
		for child := range strings.FieldsSeq(string(children)) {
			var pid int
			if _, err := fmt.Sscan(child, &pid); err == nil {
				total += treePSS(pid)
			}
		}
	}
	return total
}
