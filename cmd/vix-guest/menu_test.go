package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vix/internal/agent"
	"vix/internal/transfer"
)

// TestSendMenu checks that the guest sends the entries, their icons and the names of existing
// programs, and no other content.
func TestSendMenu(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"apps/a.desktop":     "[Desktop Entry]\nIcon=pic.png\nTryExec=prog\nExec=run --now\n",
		"apps/kde/b.desktop": "Icon=" + root + "/own.svg\nTryExec=" + root + "/bin/prog\nTryExec=nothere\n",
		"apps/c.desktop":     "Icon=../../secret\nIcon=/\nIcon=" + root + "/apps\n",
		"apps/e.desktop":     "Exec=\"" + root + "/own dir/it\" x\nExec=\nExec=\"\n",
		"bin/run":            "code", "own dir/it": "code",
		"apps/org.f.desktop": "DBusActivatable=true\n", "bus/org.f.service": "[D-BUS Service]\nExec=svc --gapplication-service\n",
		"bin/svc": "code", "bus/org.g.service": "Exec=secret\n",
		"apps/d.desktop": strings.Repeat("#", maxMenuFile+1),
		"apps/notes":     "x", "pics/pic.svg": "<svg/>", "own.svg": "<svg own/>", "secret": "x", "bin/prog": "code", "bin/foot": "code",
	} {
		at := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(root+"/apps/a.desktop", root+"/apps/link.desktop"); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	menu := agent.Menu{Apps: []string{root + "/apps"}, Icons: []string{root + "/pics/NAME.svg"}, Bins: []string{root + "/bin"}, Programs: []string{"foot"}, Services: []string{root + "/bus"}}
	if err := copyFiles(agent.Request{Menu: &menu}, nil, &stream, nil); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	target, err := transfer.Find(to, true)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Dir.Close()
	if _, err := transfer.Receive(&stream, target, transfer.Receiving{Names: []string{"root"}}); err != nil {
		t.Fatal(err)
	}
	var got []string
	base := filepath.Join(to, "root", root)
	err = filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(base, path)
			b, rerr := os.ReadFile(path)
			got, err = append(got, name+" "+string(b[:min(len(b), 5)])), rerr
			if st, serr := d.Info(); serr != nil || (st.Mode()&0o111 != 0) != (len(b) == 0) {
				t.Errorf("%s: mode %v, %v; a program can be run, and a file cannot", name, st.Mode(), serr)
			}
		}
		return err
	})
	want := []string{"apps/a.desktop [Desk", "apps/c.desktop Icon=", "apps/e.desktop Exec=", "apps/kde/b.desktop Icon=", "apps/link.desktop [Desk", "apps/org.f.desktop DBusA", "bin/foot ", "bin/prog ", "bin/run ", "bin/svc ", "bus/org.f.service [D-BU", "own dir/it ", "own.svg <svg ", "pics/pic.svg <svg/"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v: got\n%q\nwant\n%q", err, got, want)
	}
}
