package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/vm"
)

// The server of a folder dies, with pending requests and without: callers get an error, nothing
// reads as empty, and the folder comes back.
func TestVMShareServerDies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	folder := filepath.Join(r.dir, "folder")
	err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(folder+"/one", []byte("one\n"), 0o644), os.Mkdir(folder+"/d", 0o755),
		os.WriteFile(folder+"/big", bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	stdin, keep := io.Pipe()
	defer keep.Close()
	first := r.start(stdin, "run", "--no-gui", "--vm", "t", "--share", folder+":/mnt/share:rw", "sh", "-c", "echo up; read x")
	first.says("up\n")
	logs := r.start(nil, "logs", "-f", "t")
	defer func() { _ = logs.Process.Kill() }()

	// servers returns the processes that serve a folder; the last one reads the guest's requests.
	servers := func(guest string) []process {
		t.Helper()
		shares := r.list()[0].Shares
		i := slices.IndexFunc(shares, func(s vm.ShareState) bool { return s.Guest == guest })
		if i < 0 || shares[i].PID == 0 {
			t.Fatalf("%s: %+v", guest, shares)
		}
		list := tree(t, shares[i].PID)
		if len(list) < 2 {
			t.Fatalf("%s: %+v", guest, list)
		}
		return list
	}
	notes := 0
	// kill kills the server of a folder, and waits for the message about it.
	kill := func(guest, want string) {
		t.Helper()
		list := servers(guest)
		list[len(list)-1].signal(unix.SIGKILL)
		for _, p := range list {
			if !p.wait(20 * time.Second) {
				t.Errorf("lives on: %s", p.name)
			}
		}
		for text, more := logs.out.text(); ; text, more = logs.out.text() {
			if len(text) > notes && regexp.MustCompile("share "+guest+want).MatchString(text[notes:]) {
				notes = len(text)
				return
			}
			select {
			case <-more:
			case <-time.After(time.Minute):
				t.Fatalf("nobody says %q: %s", want, text[notes:])
			}
		}
	}
	sh := func(code int, want, script string) {
		t.Helper()
		p := r.start(nil, "exec", "t", "--", "sh", "-c", script)
		if c := p.code(); c != code || p.out.String() != want {
			t.Errorf("%s: %d, %q %s, not %d, %q", script, c, p.out.String(), p.err.String(), code, want)
		}
	}
	// The server's own parent may report its end before it is killed too.
	const fails = `: virtiofsd ended: (signal: killed|exit status 247: .* signal 9); every access fails until you remove it`

	for i, at := range []string{"/mnt/share", "/mnt/more"} {
		if i == 1 {
			r.vix(0, "mount", "t", folder+":/mnt/more:rw")
		}
		sh(0, "one\n", "cat "+at+"/one")
		kill(at, fails)
		sh(2, "", "ls "+at+" 2>/dev/null")
		sh(1, "", "cat "+at+"/one 2>/dev/null")
		sh(2, "", "[ -e "+at+"/new ] || echo x 2>/dev/null >"+at+"/new")
		r.vix(0, "umount", "t", at)
		r.vix(0, "mount", "t", folder+":"+at+":rw")
		sh(0, "big\nd\none\n", "ls "+at)

		// The server dies with an unanswered request and a folder in use.
		in, end := io.Pipe()
		user := r.start(in, "exec", "t", "--", "sh", "-c", "cd "+at+"/d && echo in && read x")
		user.says("in\n")
		began := time.Now()
		for _, p := range servers(at) {
			p.signal(unix.SIGSTOP)
		}
		waits := r.start(nil, "exec", "t", "--", "sh", "-c", "echo waits; ls "+at+"; echo ls $?; cat "+at+"/big; echo cat $?")
		waits.says("waits\n")
		kill(at, fails)
		if waits.code(); waits.out.String() != "waits\nls 2\ncat 1\n" || strings.Count(waits.err.String(), at) < 2 {
			t.Errorf("%q, %q", waits.out.String(), waits.err.String())
		}
		t.Logf("%v after it was stopped: %s", time.Since(began), waits.err.String())
		sh(2, "", "ls "+at+" 2>/dev/null")
		r.vix(1, "umount", "t", at)
		r.vix(0, "umount", "--force", "t", at)
		r.vix(0, "mount", "t", folder+":"+at+":rw")
		sh(0, "big\nd\none\n", "ls "+at)
		end.Close()
		user.code()
	}

	// The failure is reported if it cannot be repaired, and the VM stops.
	for range 3 {
		kill("/mnt/share", fails)
		sh(2, "", "ls /mnt/share 2>/dev/null") // the next server works: its parts exist
	}
	kill("/mnt/share", ": virtiofsd ended, and cannot be replaced: 4 have ended")
	r.vix(0, "stop", "t")
	keep.Close()
	first.code()
}
