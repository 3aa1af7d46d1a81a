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

// The test binary doubles as the child that calls MountView, and as the
// program that it becomes.
func TestMain(m *testing.M) {
	switch os.Getenv("VIEW_TEST") {
	case "serve":
		err := MountView(os.Args[1], os.Args[2])
		if err == nil {
			err = unix.Exec("/proc/self/exe", append([]string{"/proc/self/exe"}, os.Args[1:]...), []string{"VIEW_TEST=look"})
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case "share":
		if err := MountShare(os.Args[1], os.Args[2], os.Args[3] == "rw"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		look(os.Args[2])
		os.Exit(0)
	case "tree":
		if err := MountTree(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		look(os.Args[2])
		os.Exit(0)
	case "setuid":
		trySetuid(os.Args[1])
		os.Exit(0)
	case "look":
		look(os.Args[2])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// look prints every path of the view outside usr, and tries to change it.
func look(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err != nil {
			return nil
		}
		fmt.Println("path", rel)
		if d.Type().IsRegular() {
			if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
				fmt.Println("read", rel)
			}
		}
		if d.IsDir() {
			if f, err := os.Create(filepath.Join(path, "new")); err == nil {
				_ = f.Close()
				fmt.Println("writable", rel)
			} else if !errors.Is(err, unix.EROFS) {
				fmt.Println("not read-only:", rel, err)
			}
		}
		return nil
	})
	b, _ := os.ReadFile(filepath.Join(dir, "etc/passwd"))
	fmt.Printf("passwd %q\n", b)
	// Each mount at dir and below it, with its own options (proc_pid_mountinfo(5)).
	info, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 5 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			fmt.Println("mount", f[4], f[5])
		}
	}
}

// checkMounts makes sure that every mount that look told of has these options.
func checkMounts(t *testing.T, out string, least int, options ...string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "mount" {
			continue
		}
		n++
		has := strings.Split(f[2], ",")
		for _, o := range options {
			if !slices.Contains(has, o) {
				t.Errorf("%s: not %s: %s", f[1], o, f[2])
			}
		}
	}
	if n < least {
		t.Errorf("%d mounts, not %d:\n%s", n, least, out)
	}
}

// makeHost makes a tree like a host's, with secrets.
func makeHost(t *testing.T) string {
	root := t.TempDir()
	for path, content := range map[string]string{
		"usr/bin/prog":           "prog",
		"usr/lib/libc.so":        "libc",
		"opt/app/app":            "app",
		"etc/passwd":             "root:x:0:0::/root:/bin/sh\nalice:secret:1000:1000:Alice:/home/alice:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
		"etc/group":              "root:x:0:\nvideo:x:44:alice\nalice:x:1000:\n",
		"etc/shadow":             "root:hash",
		"etc/machine-id":         "0123",
		"etc/ssh/ssh_host_key":   "key",
		"etc/ssl/certs/ca.pem":   "cert",
		"etc/ssl/private/my.key": "key",
		"etc/fonts/fonts.conf":   "fonts",
		"etc/java-17/x":          "java",
		"home/alice/.ssh/id":     "key",
		"root/secret":            "s",
		"var/lib/mysql/data":     "d",
		"var/cache/fontconfig/c": "c",
		"run/secrets/token":      "t",
	} {
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"bin": "usr/bin", "lib": "usr/lib", "etc/localtime": "/usr/share/zoneinfo/UTC", "etc/xdg": "../home/alice"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func view(t *testing.T, uid int) string {
	t.Helper()
	return viewOf(t, makeHost(t), uid)
}

func viewOf(t *testing.T, root string, uid int) string {
	t.Helper()
	dir := t.TempDir()
	c := exec.Command("/proc/self/exe", root, dir)
	c.Env = []string{"VIEW_TEST=serve"}
	c.SysProcAttr = ViewAttr(uid, uid)
	if uid != 0 {
		// As an ordinary user: this process itself may be root.
		c.SysProcAttr.UidMappings[0].HostID = os.Getuid()
		c.SysProcAttr.GidMappings[0].HostID = os.Getgid()
	}
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || strings.Contains(errOut.String(), "operation not permitted") {
			t.Skipf("lacks: namespaces: %v %s", err, errOut.String())
		}
		t.Fatalf("%v: %s", err, errOut.String())
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Error("the view's mounts are visible outside its namespace")
	}
	return out.String()
}

func TestView(t *testing.T) {
	for name, uid := range map[string]int{"root": 0, "user": 1000} {
		t.Run(name, func(t *testing.T) {
			if uid == 0 && os.Getuid() != 0 {
				t.Skip("needs root")
			}
			out := view(t, uid)
			lines := strings.Split(out, "\n")
			for _, want := range []string{"usr/bin/prog", "opt/app/app", "bin", "etc/localtime", "etc/xdg", "etc/ssl/certs/ca.pem", "etc/fonts/fonts.conf", "etc/java-17/x", "var/cache/fontconfig/c", "home", "tmp"} {
				if !slices.Contains(lines, "path "+want) {
					t.Errorf("%s is missing", want)
				}
			}
			for _, secret := range []string{"shadow", "machine-id", "ssh", "private", "alice", "secret", "mysql", "token", "writable", "not read-only"} {
				if strings.Contains(out, secret) {
					t.Errorf("%s is in the view", secret)
				}
			}
			checkMounts(t, out, 5, "ro", "nosuid", "nodev", "noexec")
			if want := `passwd "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"`; !slices.Contains(lines, want) {
				t.Errorf("passwd is not %s", want)
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

func TestViewPathsHoldNoSecrets(t *testing.T) {
	for _, p := range ViewPaths {
		for _, bad := range []string{"etc", "etc/ssl", "var", "home", "root", "run", "etc/shadow", "etc/ssh"} {
			if ok, err := filepath.Match(p, bad); ok || err != nil {
				t.Errorf("%s allows %s (%v)", p, bad, err)
			}
		}
	}
}
