package sandbox

import (
	"encoding/json"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ReadSpec returns exactly what Offer sent. The test spells out the JSON, so that a change of
// it is noticed.
func TestSpec(t *testing.T) {
	for want, s := range map[string]Spec{
		`{"files":[{"path":"/usr"},{"path":"/usr/bin/qemu","exec":true},{"path":"/dev/kvm","write":true},{"path":"/run/x","remove":true}],"network":true,"argv":["/usr/bin/qemu","-version"]}`: {
			Files:   []File{{Path: "/usr"}, {Path: "/usr/bin/qemu", Exec: true}, {Path: "/dev/kvm", Write: true}, {Path: "/run/x", Remove: true}},
			Network: true, Argv: []string{"/usr/bin/qemu", "-version"},
		},
		`{"tree":{"dir":"/run/vix/t/root","host":"/"},"keep_capabilities":true,"keep_mounts":true,"argv":["/usr/libexec/virtiofsd","--fd=3"]}`: {
			Tree: &Tree{Dir: "/run/vix/t/root", Host: "/"}, KeepCapabilities: true, KeepMounts: true, Argv: []string{"/usr/libexec/virtiofsd", "--fd=3"},
		},
		`{"tree":{"dir":"/d","host":"/h","folder":4,"write":true,"whole":true},"argv":["/p"]}`: {
			Tree: &Tree{Dir: "/d", Host: "/h", Folder: 4, Write: true, Whole: true}, Argv: []string{"/p"},
		},
	} {
		if b, err := json.Marshal(s); err != nil || string(b) != want {
			t.Errorf("%s, %v, not %s", b, err, want)
		}
		ours, theirs, err := s.Offer()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadSpec(theirs)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%+v, %v, not %+v", got, err, s)
		}
		report := Report{Measures: []string{"no_new_privs"}}
		if err := json.NewEncoder(theirs).Encode(report); err != nil {
			t.Error(err)
		}
		_ = theirs.Close()
		if r, err := ReadReport(ours); err != nil || !reflect.DeepEqual(r, report) {
			t.Errorf("%+v, %v", r, err)
		}
		_ = ours.Close()
		if p := s.Profile(true); !p.Own || !reflect.DeepEqual(p.Files, s.Files) || p.KeepCapabilities != s.KeepCapabilities || p.KeepMounts != s.KeepMounts || p.Network != s.Network {
			t.Errorf("%+v of %+v", p, s)
		}
	}
}

// An incomplete specification, or one with unknown fields, confines no process.
func TestSpecRefused(t *testing.T) {
	if _, _, err := (Spec{Argv: []string{strings.Repeat("x", maxSpec)}}).Offer(); err == nil {
		t.Error("a specification without an end was offered")
	}
	if ours, theirs, err := (Spec{Argv: []string{strings.Repeat("x", maxSpec-100)}}).Offer(); err != nil {
		t.Errorf("the socket does not hold the largest: %v", err)
	} else {
		_, _ = ours.Close(), theirs.Close()
	}
	for _, text := range []string{
		``, `{}`, `{"argv":[]}`, `{"argv":["/bin/true"]`, `{"argv":["/bin/true"],"keep_everything":true}`, `{"files":"/","argv":["/bin/true"]}`,
		`{"argv":["` + strings.Repeat("x", maxSpec) + `"]}`,
	} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
		go func() {
			_, _ = io.WriteString(ours, text)
			_ = ours.Close()
		}()
		if s, err := ReadSpec(theirs); err == nil {
			t.Errorf("%.60s: %+v", text, s)
		}
		_ = theirs.Close()
	}
}
