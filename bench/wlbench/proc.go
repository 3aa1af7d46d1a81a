package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const clockTick = 100 // USER_HZ, the unit of /proc/PID/stat on every Linux

type procStat struct {
	pid, ppid, pgrp int
	comm            string
	cpu             float64 // seconds, with those of waited-for children
	user, sys       float64 // seconds of its own
}

func readStat(pid string) (procStat, bool) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return procStat{}, false
	}
	l, r := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if l < 0 || r < 0 {
		return procStat{}, false
	}
	f := strings.Fields(string(b[r+1:]))
	if len(f) < 15 || f[0] == "Z" {
		return procStat{}, false
	}
	var p procStat
	p.pid, _ = strconv.Atoi(pid)
	p.comm = string(b[l+1 : r])
	p.ppid, _ = strconv.Atoi(f[1])
	p.pgrp, _ = strconv.Atoi(f[2])
	var t [4]float64 // utime, stime, cutime, cstime
	for i := range t {
		v, _ := strconv.ParseFloat(f[11+i], 64)
		t[i] = v / clockTick
		p.cpu += t[i]
	}
	p.user, p.sys = t[0], t[1]
	return p, true
}

// tree is every live process that descends from one of the roots, or is in a
// process group that one of the roots leads; those named in skip are left out.
func tree(roots []int, skip []string) []procStat {
	if len(roots) == 0 {
		return nil
	}
	all := processes()
	var out []procStat
	for _, p := range all {
		if !slices.Contains(skip, p.comm) && (slices.Contains(roots, p.pgrp) || descends(all, p, roots)) {
			out = append(out, p)
		}
	}
	return out
}

// processes is every process of the machine that can be seen, by pid.
func processes() map[int]procStat {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	all := map[int]procStat{}
	for _, d := range dirs {
		if p, ok := readStat(filepath.Base(d)); ok {
			all[p.pid] = p
		}
	}
	return all
}

// maxDepth bounds the way to a process's ancestors, which change while we read.
const maxDepth = 100

func descends(all map[int]procStat, p procStat, roots []int) bool {
	ok := true
	for n := 0; ok && n < maxDepth; n++ {
		if slices.Contains(roots, p.pid) {
			return true
		}
		p, ok = all[p.ppid]
	}
	return false
}

// A cpuTime is what processes of one name used, in seconds.
type cpuTime struct {
	User float64 `json:"user"`
	Sys  float64 `json:"sys"`
}

// kernelWorkers is the name under which cpuByName puts what the kernel does in
// threads of its own, a device's queues among it.
const kernelWorkers = "(kernel)"

// cpuByName sums the CPU time of every process by the name that it was started by.
func cpuByName() map[string]cpuTime {
	m := map[string]cpuTime{}
	for _, p := range processes() {
		name := kernelWorkers
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid)); err != nil {
			name = p.comm
		} else if argv0, _, _ := bytes.Cut(b, []byte{0}); len(argv0) > 0 {
			name = filepath.Base(string(argv0))
		}
		t := m[name]
		m[name] = cpuTime{t.User + p.user, t.Sys + p.sys}
	}
	return m
}

type usage struct {
	cpu      float64 // seconds
	rss, pss float64 // MiB
	procs    int
}

func measure(roots []int, skip []string) (u usage) {
	for _, p := range tree(roots, skip) {
		u.cpu += p.cpu
		u.procs++
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
		for l := range strings.Lines(string(b)) {
			f := strings.Fields(l)
			if len(f) < 3 {
				continue
			}
			v, _ := strconv.ParseFloat(f[1], 64)
			switch f[0] {
			case "Rss:":
				u.rss += v / 1024
			case "Pss:":
				u.pss += v / 1024
			}
		}
	}
	return u
}

// machineBusy is the CPU time, in seconds, that the whole machine has worked.
func machineBusy() float64 {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	var busy float64
	for i, s := range f {
		// cpu user nice system idle iowait irq softirq steal
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		v, _ := strconv.ParseFloat(s, 64)
		busy += v / clockTick
	}
	return busy
}
