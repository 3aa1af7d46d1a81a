package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A share shows its folder, and neither what is mounted in it nor, read-only, a place
// to write to.
func TestMountShare(t *testing.T) {
	host, dir, other := t.TempDir(), t.TempDir(), t.TempDir()
	err := errors.Join(os.WriteFile(host+"/file", nil, 0o644), os.Mkdir(host+"/in it", 0o755), os.Mkdir(host+"/plain", 0o755), os.WriteFile(other+"/secret", nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	mounted := false
	if os.Getuid() == 0 {
		if err := unix.Mount(other, host+"/in it", "", unix.MS_BIND, ""); err == nil {
			mounted = true
			t.Cleanup(func() { _ = unix.Unmount(host+"/in it", unix.MNT_DETACH) })
		}
	}
	for _, mode := range []string{"ro", "rw"} {
		for _, uid := range []int{0, 1000} {
			if uid == 0 && os.Getuid() != 0 {
				continue
			}
			c := exec.Command("/proc/self/exe", host, dir, mode)
			c.Env = []string{"VIEW_TEST=share"}
			c.SysProcAttr = ViewAttr(uid, uid)
			if uid != 0 {
				c.SysProcAttr.UidMappings[0].HostID = os.Getuid()
				c.SysProcAttr.GidMappings[0].HostID = os.Getgid()
			}
			var out, errOut bytes.Buffer
			c.Stdout, c.Stderr = &out, &errOut
			if err := c.Run(); err != nil {
				if errors.Is(err, unix.EPERM) || strings.Contains(errOut.String(), "operation not permitted") {
					t.Skipf("lacks: namespaces: %v %s", err, errOut.String())
				}
				t.Fatalf("%v: %s", err, errOut.String())
			}
			lines := strings.Split(out.String(), "\n")
			for line, want := range map[string]bool{
				"path file": true, "path in it": true, "path in it/secret": false,
				"writable plain": mode == "rw", "writable in it": mode == "rw" && !mounted,
			} {
				if slices.Contains(lines, line) != want {
					t.Errorf("%s as %d: %q is there: %v\n%s", mode, uid, line, !want, out.String())
				}
			}
			options := []string{"nosuid", "nodev", "noexec"}
			if mode == "ro" {
				options = append(options, mode)
			}
			checkMounts(t, out.String(), 1, options...)
			_ = os.Remove(host + "/plain/new")
			_ = os.Remove(host + "/new")
		}
	}
	if b, _ := os.ReadFile("/proc/self/mountinfo"); bytes.Contains(b, []byte(filepath.Base(dir)+" ")) && strings.Contains(string(b), dir+" ") {
		t.Error("the share's mount is visible outside its namespace")
	}
}

// A root that is a directory is shown as it is, with what is mounted in it, and gives
// nothing away either.
func TestMountTree(t *testing.T) {
	host, dir, other := tree(t, "usr", "opt"), t.TempDir(), t.TempDir()
	if err := errors.Join(os.WriteFile(host+"/usr/file", nil, 0o644), os.WriteFile(other+"/program", nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	mounts := 1
	if os.Getuid() == 0 && unix.Mount(other, host+"/opt", "", unix.MS_BIND, "") == nil {
		mounts++
		t.Cleanup(func() { _ = unix.Unmount(host+"/opt", unix.MNT_DETACH) })
	}
	c := exec.Command("/proc/self/exe", host, dir)
	c.Env = []string{"VIEW_TEST=tree"}
	c.SysProcAttr = ViewAttr(1000, 1000)
	c.SysProcAttr.UidMappings[0].HostID, c.SysProcAttr.GidMappings[0].HostID = os.Getuid(), os.Getgid()
	out, err := c.CombinedOutput()
	if strings.Contains(string(out), "operation not permitted") || errors.Is(err, unix.EPERM) {
		t.Skipf("lacks: namespaces: %v %s", err, out)
	}
	text := string(out)
	if err != nil || !strings.Contains(text, "path usr/file\n") || strings.Contains(text, "path opt/program\n") != (mounts == 2) || strings.Contains(text, "writable") {
		t.Errorf("%v: %s", err, text)
	}
	checkMounts(t, text, mounts, "ro", "nosuid", "nodev", "noexec")
}

// The folder that was opened is shared, whatever its name leads to by then; one that is
// gone is not.
func TestMountShareOfDescriptor(t *testing.T) {
	root, dir := tree(t, "p/sub", "secret"), t.TempDir()
	if err := errors.Join(os.WriteFile(root+"/p/sub/mine", nil, 0o644), os.WriteFile(root+"/secret/key", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	f := openAt(t, root+"/p/sub", none)
	mount := func() (string, error) {
		c := exec.Command("/proc/self/exe", "/proc/self/fd/3", dir, "ro")
		c.Env = []string{"VIEW_TEST=share"}
		c.ExtraFiles = []*os.File{f.File}
		c.SysProcAttr = ViewAttr(1000, 1000)
		c.SysProcAttr.UidMappings[0].HostID, c.SysProcAttr.GidMappings[0].HostID = os.Getuid(), os.Getgid()
		out, err := c.CombinedOutput()
		if strings.Contains(string(out), "operation not permitted") || errors.Is(err, unix.EPERM) {
			t.Skipf("lacks: namespaces: %v %s", err, out)
		}
		return string(out), err
	}
	if err := errors.Join(os.Rename(root+"/p/sub", root+"/p/away"), os.Symlink(root+"/secret", root+"/p/sub")); err != nil {
		t.Fatal(err)
	}
	if out, err := mount(); err != nil || !strings.Contains(out, "path mine\n") || strings.Contains(out, "key") {
		t.Errorf("%v: %s", err, out)
	}
	if err := os.RemoveAll(root + "/p/away"); err != nil {
		t.Fatal(err)
	}
	if out, err := mount(); err == nil || strings.Contains(out, "path ") {
		t.Errorf("a folder that is gone: %v: %s", err, out)
	}
}

func TestMountsBelow(t *testing.T) {
	const info = `21 1 0:1 / / rw - ext4 /dev/a rw
22 21 0:2 / /s rw - ext4 /dev/b rw
23 22 0:3 / /s/a\040b rw - tmpfs x rw
24 23 0:4 / /s/a\040b/c rw - tmpfs x rw
25 21 0:5 / /sx rw - tmpfs x rw
26 22 0:6 / /s/d rw - tmpfs x rw
short
`
	if got := mountsBelow([]byte(info), "/s"); !slices.Equal(got, []string{"/s/a b", "/s/d"}) {
		t.Errorf("%q", got)
	}
}

// trySetuid prints how each way ends to make a set-user-id file.
func trySetuid(dir string) {
	if err := DenySetuid(); err != nil {
		fmt.Println(err)
		return
	}
	f, err := os.OpenFile(dir+"/plain", os.O_RDWR|os.O_CREATE, 0o755)
	fmt.Println("plain", err)
	fmt.Println("chmod", unix.Fchmodat(unix.AT_FDCWD, dir+"/plain", 0o4755, 0) == unix.EPERM, unix.Fchmodat(unix.AT_FDCWD, dir+"/plain", 0o700, 0))
	fmt.Println("fchmod", unix.Fchmod(int(f.Fd()), 0o2755) == unix.EPERM, unix.Fchmod(int(f.Fd()), 0o1755))
	_, err = unix.Openat(unix.AT_FDCWD, dir+"/new", unix.O_CREAT|unix.O_WRONLY, 0o6755)
	fmt.Println("open", errors.Is(err, unix.EPERM))
	_, err = unix.Openat(unix.AT_FDCWD, dir+"/plain", unix.O_WRONLY, 0o6755)
	fmt.Println("reopen", err)
	fmt.Println("mknod", unix.Mknodat(unix.AT_FDCWD, dir+"/fifo", unix.S_IFIFO|0o4755, 0) == unix.EPERM, unix.Mkdirat(unix.AT_FDCWD, dir+"/dir", 0o755))
}

func TestDenySetuid(t *testing.T) {
	c := exec.Command("/proc/self/exe", t.TempDir())
	c.Env = []string{"VIEW_TEST=setuid"}
	out, err := c.CombinedOutput()
	want := "plain <nil>\nchmod true <nil>\nfchmod true <nil>\nopen true\nreopen <nil>\nmknod true <nil>\n"
	if string(out) != want || err != nil {
		t.Errorf("%s%v, not\n%s", out, err, want)
	}
}
