package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// A VM outlives the version of Vix that started it, whose files are replaced or removed,
// and the desktop on which it began: new windows, the clipboard and the workspace are the
// next desktop's, under whatever name.
func TestSessionsPass(t *testing.T) {
	old := filepath.Join(t.TempDir(), "bin")
	if err := os.CopyFS(old, os.DirFS("../build/bin")); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, Config{Bin: old, TOML: "[vm.s]\nclipboard = \"shared-out\"\nworkspace = \"3\"\n"})
	on := r.Desktop
	try := func(args ...string) Result {
		t.Helper()
		cmd := r.Command(append([]string{r.Launcher()}, args...)...)
		cmd.Env = append(cmd.Env, "WAYLAND_DISPLAY="+on.Socket, "SWAYSOCK="+on.IPC)
		return r.Run(cmd)
	}
	vix := func(args ...string) string {
		t.Helper()
		res := try(args...)
		if res.Code != 0 {
			t.Fatalf("vix-launcher %q: %v", args, res)
		}
		return res.Stdout + res.Stderr
	}
	foot := desktoptest.ByAppID("vix.s.foot")
	vix("run", "--vm", "s", "--background", "sleep", "100000")
	vix("run", "--vm", "s", "--background", "foot")
	on.WaitWindow(t, foot)

	// The upgrade.
	wrong := filepath.Join(old, "wrong")
	for _, name := range []string{"vix-launcher", "vix-waylandproxy", "vix-guest", "vix-menu"} {
		path := filepath.Join(old, name)
		err := errors.Join(os.WriteFile(path+".new", []byte("#!/bin/sh\necho \"$0 $@\" >>"+wrong+"\nexit 1\n"), 0o755), os.Rename(path+".new", path))
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if r.bin, err = filepath.Abs("../build/bin"); err != nil {
		t.Fatal(err)
	}
	vix("exec", "s", "--", "sh", "-c", "foot </dev/null >/dev/null 2>&1 &")
	on.WaitWindows(t, 2, foot)
	folder := t.TempDir()
	vix("mount", "s", folder+":/mnt/f:rw")
	vix("exec", "s", "--", "sh", "-c", "echo hi >/mnt/f/file")
	if b, err := os.ReadFile(filepath.Join(folder, "file")); string(b) != "hi\n" {
		t.Errorf("%q, %v", b, err)
	}
	vix("umount", "s", "/mnt/f")
	copies := func(text string) {
		t.Helper()
		on.Focus(t, on.WaitWindow(t, foot))
		var res Result
		for limit := time.Now().Add(2 * time.Minute); time.Now().Before(limit); {
			// Again, as a user would: on a busy machine nothing flows from a program that stalls.
			vix("exec", "s", "--", "sh", "-c", "printf '"+text+"' | wl-copy >/dev/null 2>&1")
			for range 20 {
				cmd := r.Command("timeout", "20", "wl-paste", "--no-newline")
				cmd.Env = append(cmd.Env, "WAYLAND_DISPLAY="+on.Socket)
				if res = r.Run(cmd); res.Stdout == text {
					return
				}
				time.Sleep(200 * time.Millisecond) // what is offered has no event here
			}
		}
		t.Fatalf("pasted %q: %v; log:\n%s", text, res, vix("logs", "s"))
	}
	copies("on the first")

	// The desktop ends.
	on.Sway.Signal(syscall.SIGTERM)
	on.Sway.Wait()
	// That the clipboard's process has ended too is told to whoever runs a program meanwhile.
	const isolated = "its clipboard is isolated until there is another session"
	watch := r.Command("timeout", "60", "bash", "-c", "grep -qm1 '"+isolated+"' < <("+r.Launcher()+" status --watch --json 2>/dev/null)")
	if res := r.Run(watch); res.Code != 0 {
		t.Fatalf("the clipboard's process outlives its session: %v", res)
	}
	if res := try("exec", "s", "--", "echo", "hi"); res.Stdout != "hi\n" || res.Code != 0 || res.Stderr != "" {
		t.Errorf("exec without a desktop: %v", res)
	}
	if out := vix("run", "--vm", "s", "true"); !strings.Contains(out, "VM s: no compositor at "+on.Socket) {
		t.Errorf("run without a desktop: %s", out)
	}
	// Another begins, and one more beside it.
	on = desktoptest.Start(t, desktoptest.Config{})
	if out := vix("run", "--vm", "s", "--background", "foot"); strings.Contains(out, "compositor") {
		t.Errorf("run on the next desktop: %s", out)
	}
	w := on.WaitWindow(t, foot)
	on.WaitTree(t, "the window on workspace 3", func(root *desktoptest.Node) bool {
		return workspaceOf(root, w.ID) == "3"
	})
	copies("on the second")
	second := on
	on = desktoptest.Start(t, desktoptest.Config{})
	if out := vix("run", "--vm", "s", "--background", "foot"); !strings.Contains(out, "VM s: its windows are shown at "+second.Socket+", whose compositor still runs, not at "+on.Socket) {
		t.Errorf("run on a third desktop: %s", out)
	}
	second.WaitWindows(t, 2, foot)
	if list := on.Windows(t, foot); len(list) > 0 {
		t.Errorf("windows on the third desktop: %v", list)
	}
	vix("stop", "s")
	second.WaitNoWindow(t, foot)
	if b, err := os.ReadFile(wrong); err == nil {
		t.Errorf("a new file was started for an old VM: %s", b)
	}
}

// workspaceOf is the name of the workspace that a window is on.
func workspaceOf(n *desktoptest.Node, id int64) (name string) {
	if n.Type == "workspace" && slices.ContainsFunc(n.Windows(), func(w *desktoptest.Node) bool { return w.ID == id }) {
		return n.Name
	}
	for _, c := range n.Nodes {
		if name = workspaceOf(c, id); name != "" {
			break
		}
	}
	return name
}
