package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vix/internal/vm"
)

// Vix is upgraded under a running VM: the new version's verbs work on it, the VM goes on with
// its old programs, and both report what is old.
func TestVMUpgraded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	upgraded := r.bin
	r.bin = filepath.Join(r.dir, "old")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=0.0.9", "-o", filepath.Join(r.bin, "vix-launcher"), "vix/cmd/vix-launcher")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"vix-waylandproxy", "vix-guest"} {
		b, err := os.ReadFile(filepath.Join(upgraded, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(r.bin, name), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	stdin, keep := io.Pipe()
	first := r.start(stdin, "run", "--vm", "t", "sh", "-c", "echo up; read x; echo got $x; exit 7")
	first.says("up\n")

	wrong := filepath.Join(r.dir, "wrong")
	launcher := filepath.Join(r.bin, "vix-launcher")
	for _, err := range []error{
		os.WriteFile(launcher+".new", []byte("#!/bin/sh\necho \"$@\" >>"+wrong+"\nexit 1\n"), 0o755),
		os.Rename(launcher+".new", launcher),
		os.Remove(filepath.Join(r.bin, "vix-waylandproxy")),
		os.Remove(filepath.Join(r.bin, "vix-guest")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r.bin = upgraded

	const note = "started by Vix 0.0.9; stop it and run it again to use devel"
	if p := r.vix(0, "list"); p.err.String() != "VM t: "+note+"\n" || !strings.Contains(p.out.String(), "running") {
		t.Errorf("list: %q %q", p.out.String(), p.err.String())
	}
	p := r.vix(0, "status", "t")
	if !strings.Contains(p.out.String(), note) {
		t.Errorf("status: %s", p.out.String())
	}
	p = r.start(nil, "doctor")
	p.code() // other checks may fail here
	if !strings.Contains(p.out.String(), "version devel; VMs started by another version: t") {
		t.Errorf("doctor: %s", p.out.String())
	}
	var st vm.State
	p = r.vix(0, "status", "--json", "t")
	if err := json.Unmarshal([]byte(p.out.String()), &st); err != nil || st.Vix != "0.0.9" {
		t.Errorf("%q, %v", st.Vix, err)
	}
	for pid, want := range map[int]string{st.PIDs.Supervisor: "vix-launcher", st.PIDs.Display: "vix-waylandproxy"} {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(comm) != (want + "\n")[:min(len(want), 15)]+"\n" {
			t.Errorf("%s is shown as %q, %v", want, comm, err)
		}
	}

	if p := r.vix(3, "exec", "t", "--", "sh", "-c", "echo hi; exit 3"); p.out.String() != "hi\n" {
		t.Errorf("exec: %q", p.out.String())
	}
	if p := r.vix(0, "run", "--vm", "t", "uname", "-n"); p.out.String() != "t\n" {
		t.Errorf("run: %q", p.out.String())
	}
	folder := filepath.Join(r.dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	r.vix(0, "mount", "t", folder+":/mnt/f:rw")
	r.vix(0, "exec", "t", "--", "sh", "-c", "echo from t >/mnt/f/file")
	if b, err := os.ReadFile(filepath.Join(folder, "file")); string(b) != "from t\n" {
		t.Errorf("%q, %v", b, err)
	}
	r.vix(0, "cp", filepath.Join(folder, "file"), "t:copy")
	if p := r.vix(0, "exec", "t", "--", "cat", "copy"); p.out.String() != "from t\n" {
		t.Errorf("cp: %q", p.out.String())
	}
	r.vix(0, "umount", "t", "/mnt/f")
	if p := r.vix(0, "logs", "t"); !strings.Contains(p.out.String(), "ready") {
		t.Errorf("logs: %q", p.out.String())
	}
	r.vix(0, "stop", "t")
	keep.Close()
	first.code() // waits for its end
	if b, err := os.ReadFile(wrong); err == nil {
		t.Errorf("the new version was started for the VM: %s", b)
	}
}
