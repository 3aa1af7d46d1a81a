package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"vix/config"
	"vix/internal/vm"
)

// launchWithHome is a launch of a VM that keeps its home.
func (b *bench) launchWithHome(name string) vm.Launch {
	l := b.launch(name)
	l.VM.State, l.StateDir = "home", filepath.Join(b.bin, "state")
	return l
}

// with is a run of a VM that is started as l says.
func (b *bench) with(l vm.Launch, argv ...string) *session {
	s := b.start(l.VM.Name, argv...)
	s.run.Launch = func() (vm.Launch, error) { return l, nil }
	return s
}

func (b *bench) now(s *session) *session {
	b.goRun(s)
	<-s.done
	return s
}

func TestStateAndShares(t *testing.T) {
	b := newBench(t)
	l := b.launchWithHome("t")
	folder := t.TempDir()
	l.VM.Shares = []config.Share{{Host: folder, Guest: "/mnt/f", Write: true}, {Write: true}}
	s := b.goRun(b.with(l, "sleep", "1000"))
	st := b.state(s)
	home := filepath.Join(l.StateDir, "vix/vms/t/home")
	if st.Home != home || len(st.Shares) != 2 || st.Shares[0].Host != folder || st.Shares[0].PID == 0 {
		t.Fatalf("%+v", st)
	}
	staging := st.Shares[1]
	if filepath.Dir(staging.Guest) != config.ShareDir || filepath.Base(staging.Host) != "t-"+filepath.Base(staging.Guest) || !staging.Write {
		t.Errorf("staging: %+v", staging)
	}
	for _, dir := range []string{home, staging.Host} {
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, fi, err)
		}
	}
	if len(s.notes) == 0 || !strings.Contains(strings.Join(s.notes, "\n"), staging.Host+" is "+staging.Guest) {
		t.Errorf("notes %q", s.notes)
	}

	// While it runs, nothing of it may be dropped, nor may a disposable run join it.
	store, err := vm.OpenStore(l.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for verb, do := range map[string]func() error{
		"reset":    func() error { return b.reg.Reset(t.Context(), store, "t") },
		"remove":   func() error { return b.reg.Remove(t.Context(), store, "t") },
		"rename":   func() error { return b.reg.Rename(t.Context(), store, "t", "u") },
		"rename u": func() error { return b.reg.Rename(t.Context(), store, "u", "t") },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "VM t: is running; stop it first") {
			t.Errorf("%s: %v", verb, err)
		}
	}
	other := b.with(l, "true")
	other.run.Disposable = true
	failure(t, b.now(other), vm.CodeVix, "is already running, and keeps its home", "--vm t-tmp")
	fresh := b.with(l, "true")
	fresh.run.Fresh, fresh.run.OnTake = true, func() { t.Error("a VM that runs was taken") }
	if s := b.now(fresh); !errors.Is(s.fail, vm.ErrTaken) {
		t.Errorf("a run that is to have a VM of its own: %v, %+v", s.fail, s.exit)
	}
	// Nor may a VM of another session have the same state.
	if _, err := store.Open("t"); err == nil || !strings.Contains(err.Error(), "in use by a VM of another session") {
		t.Errorf("opened twice: %v", err)
	}

	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Fatal(err)
	}
	<-s.done
	if _, err := os.Stat(staging.Host); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("staging is left: %v", err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(home, "x"), nil, 0o600), b.reg.Rename(t.Context(), store, "t", "u")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(l.StateDir, "vix/vms/u/home/x")); err != nil {
		t.Error(err)
	}
	if kept, err := store.Names(); err != nil || strings.Join(kept, " ") != "u" {
		t.Errorf("%q, %v", kept, err)
	}
	if err := errors.Join(b.reg.Reset(t.Context(), store, "u"), b.reg.Remove(t.Context(), store, "u")); err != nil {
		t.Error(err)
	}
}

// Staging folders that killed supervisors left go with the next run of any VM that keeps
// something; those that are in use do not. Of an earlier version's, which says no more than
// a VM's name, those of that VM go.
func TestStagingOfTheDead(t *testing.T) {
	b := newBench(t)
	l := b.launchWithHome("a")
	store, err := vm.OpenStore(l.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	killed, err := vm.OpenStore(l.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	dead, err1 := killed.NewStaging("a", "0123456789")
	other, err2 := killed.NewStaging("b", "0123456789")
	used, err3 := store.NewStaging("a", "abcdefghij")
	if err := errors.Join(err1, err2, err3, killed.Close()); err != nil {
		t.Fatal(err)
	}
	staging := filepath.Dir(dead)
	early, earlyOther := staging+"/a-earlier", staging+"/a-b-earlier"
	if err := errors.Join(os.Mkdir(early, 0o700), os.Mkdir(earlyOther, 0o700), os.WriteFile(dead+"/x", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if s := b.now(b.with(l, "true")); s.fail != nil {
		t.Fatal(s.fail)
	}
	if got := strings.Join(namesIn(t, staging), " "); got != "a-abcdefghij a-abcdefghij.lock a-b-earlier" {
		t.Errorf("%q of %s %s %s %s %s %s", got, dead, other, used, early, earlyOther, staging)
	}
	if err := store.DropStaging("a-abcdefghij"); err != nil {
		t.Error(err)
	}
	if got := strings.Join(namesIn(t, staging), " "); got != "a-b-earlier" {
		t.Error(got)
	}
}

func namesIn(t *testing.T, dir string) (list []string) {
	t.Helper()
	for _, e := range entriesOf(t, dir) {
		list = append(list, e.Name())
	}
	return list
}

// What cannot be kept or shared is one line, and no VM.
func TestBadStateAndShares(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string, l *vm.Launch) error
		text  string
	}{
		"version": {func(dir string, _ *vm.Launch) error {
			return os.WriteFile(dir+"/vix.json", []byte(`{"version":7}`), 0o600)
		}, "version 7, but this Vix knows 1; use a newer Vix, or run with --disposable"},
		"too large": {func(dir string, _ *vm.Launch) error {
			return os.WriteFile(dir+"/vix.json", make([]byte, 8<<10), 0o600)
		}, "vix.json: not one of Vix's files; move the VM's state away"},
		"marker is a link": {func(dir string, _ *vm.Launch) error { return os.Symlink("/etc/passwd", dir+"/vix.json") }, "not one of Vix's files"},
		"lock is a link":   {func(dir string, _ *vm.Launch) error { return os.Symlink("/etc/passwd", dir+"/lock") }, "lock: "},
		"home is a link":   {func(dir string, _ *vm.Launch) error { return os.Symlink("/tmp", dir+"/home") }, "home: not a directory of yours alone"},
		"VM is a link": {func(dir string, _ *vm.Launch) error {
			return errors.Join(os.Remove(dir), os.Symlink("/tmp", dir))
		}, "vms/t: not a directory of yours alone"},
		"others may write": {func(dir string, _ *vm.Launch) error { return os.Chmod(dir, 0o770) }, "yours alone (mode 0700); move it away, or run with --disposable"},
		"not a directory": {func(_ string, l *vm.Launch) error {
			l.StateDir = "/dev/null"
			return nil
		}, "/dev/null/vix: not a directory; run with --disposable"},
		"no share": {func(_ string, l *vm.Launch) error {
			l.VM.Shares = []config.Share{{Host: "/no/such", Guest: "/mnt/x"}}
			return nil
		}, "share /no/such: no such file or directory; create it, or remove it from shares"},
		"share is a file": {func(_ string, l *vm.Launch) error {
			l.VM.Shares = []config.Share{{Host: "/etc/passwd", Guest: "/mnt/x"}}
			return nil
		}, "share /etc/passwd: not a directory"},
		"share is Vix's": {func(_ string, l *vm.Launch) error {
			l.VM.Shares, l.Private = []config.Share{{Host: filepath.Dir(l.StateDir), Guest: "/mnt/x"}}, []string{l.StateDir}
			return nil
		}, "one of Vix's own folders"},
		"share in Vix's": {func(dir string, l *vm.Launch) error {
			l.VM.Shares, l.Private = []config.Share{{Host: dir, Guest: "/mnt/x"}}, []string{l.StateDir}
			return nil
		}, "one of Vix's own folders"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			l := b.launchWithHome("t")
			dir := filepath.Join(l.StateDir, "vix/vms/t")
			if err := errors.Join(os.MkdirAll(dir, 0o700), c.spoil(dir, &l)); err != nil {
				t.Fatal(err)
			}
			failure(t, b.now(b.with(l, "true")), vm.CodeVix, c.text)
		})
	}
}

// Without its home a VM ends; without another share it goes on.
func TestShareDies(t *testing.T) {
	b := newBench(t)
	l := b.launchWithHome("t")
	l.VM.Shares = []config.Share{{Host: t.TempDir(), Guest: "/mnt/f"}}
	s := b.goRun(b.with(l, "sleep", "1000"))
	st := b.state(s)
	p, _ := os.FindProcess(st.Shares[0].PID)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	b.waitFor("the state shows it", func() bool {
		st, err := b.reg.State(t.Context(), "t")
		return err == nil && st.Shares[0].PID == 0 && strings.Contains(strings.Join(st.Notes, ""), "share /mnt/f: virtiofsd ended, and cannot be replaced: QEMU has not set it up yet")
	})
	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Error(err)
	}
	<-s.done
}

// A run is refused for an option that its VM does not meet, by name, and gets the shares that
// the VM did not have before; several at once make a share once.
func TestWanted(t *testing.T) {
	b := newBench(t)
	l := b.launchWithHome("t")
	ports, err := config.ParsePublish("8080:80")
	if err != nil {
		t.Fatal(err)
	}
	first := t.TempDir()
	l.VM.Net, l.VM.Publish = config.NetNAT, []config.Publish{ports}
	l.VM.Shares = []config.Share{{Host: first, Guest: "/mnt/first"}}
	s := b.goRun(b.with(l, "sleep", "1000"))
	b.state(s)
	run := func(w vm.Wanted) *session {
		r := b.with(l, "true")
		r.run.Wants = w
		return b.now(r)
	}
	has := vm.Wanted{Memory: l.VM.Memory, CPUs: l.VM.CPUs, Net: l.VM.Net, NoGUI: l.VM.NoGUI, Publish: []string{ports.String()}, Shares: []string{first + ":/mnt/first:ro"}}
	if s := run(has); s.fail != nil || s.exit == nil || s.exit.Code != 0 {
		t.Errorf("what the VM has: %v, %+v", s.fail, s.exit)
	}
	for want, w := range map[string]vm.Wanted{
		"cannot change: --memory 4G (it has " + l.VM.Memory.String() + "); stop it first (vix stop t), or use another VM": {Memory: 4 << 30},
		"--cpus 7 (it has ":                                    {CPUs: 7},
		"--net none (it has nat)":                              {Net: config.NetNone},
		"--no-gui (it has a display), --publish 127.0.0.1:1:2": {NoGUI: true, Publish: []string{"127.0.0.1:1:2"}},
		"/mnt/first is already a share":                        {Shares: []string{t.TempDir() + ":/mnt/first:ro"}},
		"/no/such: no such file":                               {Shares: []string{"/no/such:/mnt/x:ro"}},
	} {
		failure(t, run(w), vm.CodeVix, want)
	}
	second := t.TempDir()
	var all sync.WaitGroup
	for range 4 {
		r := b.with(l, "true")
		r.run.Wants.Shares = []string{second + ":/mnt/second:rw", config.Staging}
		s := b.goRun(r)
		all.Go(func() { <-s.done })
	}
	all.Wait()
	st, err := b.reg.State(t.Context(), "t")
	if err != nil || len(st.Shares) != 3 || st.Shares[1].Host != second || !st.Shares[1].Write {
		t.Errorf("%+v, %v", st.Shares, err)
	}
	// What the VM has needs no answer of the guest.
	if err := syscall.Kill(st.PIDs.QEMU, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds a VM that is known not to answer
		silent, r := make(chan struct{}, 1), b.with(l, "true")
		r.run.Wants, r.run.OnSilent = has, func() { silent <- struct{}{} }
		s := b.goRun(r)
		select {
		case <-silent:
		case <-s.done:
		}
		all.Go(func() {
			<-s.done
			if s.fail != nil {
				t.Errorf("of a VM that does not answer: %v", s.fail)
			}
		})
	}
	if err := syscall.Kill(st.PIDs.QEMU, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Error(err)
	}
	<-s.done
}

// Shares of a VM that runs come and go.
func TestMount(t *testing.T) {
	b := newBench(t)
	l := b.launchWithHome("t")
	s := b.goRun(b.with(l, "sleep", "1000"))
	b.state(s)
	folder := t.TempDir()
	text := folder + ":/mnt/f:rw"
	for range 3 { // the place is free again each time
		st, err := b.reg.Mount(t.Context(), "t", text)
		if err != nil || st.Host != folder || st.Guest != "/mnt/f" || !st.Write {
			t.Fatalf("%+v, %v", st, err)
		}
		if now, err := b.reg.State(t.Context(), "t"); err != nil || len(now.Shares) != 1 || now.Shares[0] != st {
			t.Fatalf("%+v, %v", now.Shares, err)
		}
		if _, err := b.reg.Mount(t.Context(), "t", text); err == nil || !strings.Contains(err.Error(), "/mnt/f is already a share") {
			t.Errorf("twice: %v", err)
		}
		if err := b.reg.Umount(t.Context(), "t", "/mnt/f", false); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]string{
		"/no/such:/mnt/x":    "share /no/such: no such file or directory",
		"/etc/passwd:/mnt/x": "not a directory",
		"relative":           "want an absolute path",
		folder + ":/proc:rw": "cannot be a share",
	} {
		if _, err := b.reg.Mount(t.Context(), "t", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := b.reg.Umount(t.Context(), "t", "/home/user", true); err == nil || !strings.Contains(err.Error(), "is not a share") {
		t.Errorf("the home: %v", err)
	}
	staging, err := b.reg.Mount(t.Context(), "t", config.Staging)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.reg.Umount(t.Context(), "t", staging.Guest, false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(staging.Host); err == nil {
		t.Error("the staging folder is left")
	}

	// What the guest's mounter says is passed on, as one line; nothing stays behind.
	b.do("mounter", "echo 'no '$'\\033''[31mroom' >&2; exit 1")
	if _, err := b.reg.Mount(t.Context(), "t", text); err == nil || !strings.Contains(err.Error(), "share at /mnt/f: no ") || strings.ContainsAny(err.Error(), "\n\x1b") {
		t.Errorf("%q", err)
	}
	b.do("mounter", "")
	if st, err := b.reg.Mount(t.Context(), "t", text); err != nil {
		t.Error(st, err)
	}
	b.do("mounter", "echo in use >&2; exit 1")
	if err := b.reg.Umount(t.Context(), "t", "/mnt/f", false); err == nil || !strings.Contains(err.Error(), "/mnt/f: in use; end what uses it") {
		t.Error(err)
	}
	if err := b.reg.Umount(t.Context(), "t", "/mnt/f", true); err != nil {
		t.Error(err)
	}
	b.do("mounter", "")
	for i := range config.MaxShares + 1 {
		_, err := b.reg.Mount(t.Context(), "t", folder+":/mnt/"+string(rune('g'+i)))
		if full := i == config.MaxShares; (err != nil) != full || full && !strings.Contains(err.Error(), "the most possible") {
			t.Errorf("share %d: %v", i, err)
		}
	}
	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Error(err)
	}
	<-s.done
	if _, err := b.reg.Mount(t.Context(), "t", text); err == nil || !strings.Contains(err.Error(), "VM t: not running") {
		t.Error(err)
	}
}

// A device that QEMU refuses leaves nothing; one that the guest does not give back is
// without a server all the same.
func TestMountStubborn(t *testing.T) {
	for do, want := range map[string]string{"nodevice": "no such bus", "clings": ""} {
		t.Run(do, func(t *testing.T) {
			b := newBench(t)
			b.do("qemu", do)
			s := b.goRun(b.with(b.launchWithHome("t"), "sleep", "1000"))
			b.state(s)
			st, err := b.reg.Mount(t.Context(), "t", t.TempDir()+":/mnt/f")
			if want != "" && (err == nil || !strings.Contains(err.Error(), want)) || want == "" && err != nil {
				t.Fatal(err)
			}
			if want == "" {
				if err := b.reg.Umount(t.Context(), "t", "/mnt/f", false); err != nil {
					t.Error(err)
				}
				if err := syscall.Kill(st.PID, 0); err == nil {
					t.Error("the server lives")
				}
			}
			now, err := b.reg.State(t.Context(), "t")
			if err != nil || len(now.Shares) != 0 || want == "" && !strings.Contains(strings.Join(now.Notes, ""), "does not release the device") {
				t.Errorf("%+v, %v", now, err)
			}
			if err := b.reg.Stop(t.Context(), "t", false); err != nil {
				t.Error(err)
			}
			<-s.done
		})
	}
}
