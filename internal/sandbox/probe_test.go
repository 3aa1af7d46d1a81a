package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary doubles as the confined process: "probe OWN PROFILE WHAT [ARG]" applies the
// profile, then tries one thing, and prints the result. It tries what a process of a VM could
// do after a guest has taken it over; so it makes system calls itself wherever a library would
// interfere.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		probe(os.Args[2] == "own", os.Args[3], os.Args[4:])
	}
	if len(os.Args) > 1 && os.Args[1] == "inside" {
		say(try(os.Args[2], os.Args[3:]))
	}
	code := m.Run()
	_ = os.RemoveAll(probeDir)
	os.Exit(code)
}

func probe(own bool, profile string, args []string) {
	switch profile {
	case "display":
		_, _ = time.Now().Zone()
		r := Confine(Profile{Own: own, Calls: DisplayCalls(false, false), OpenFiles: 512, Data: 512 << 20})
		fmt.Println("weaker:", strings.Join(r.Weaker, "; "))
	case "menu":
		r := Confine(Profile{Files: []File{{Path: "/"}}, Calls: MenuCalls()})
		fmt.Println("weaker:", strings.Join(r.Weaker, "; "))
	case "nocalls": // all measures but seccomp, which would hide the rest
		r := Confine(Profile{Own: own})
		fmt.Println("weaker:", strings.Join(r.Weaker, "; "))
	case "exec":
		p := Profile{Own: own}
		if err := json.Unmarshal([]byte(args[0]), &p.Files); err != nil {
			say(err)
		}
		self, err := os.Executable()
		if err != nil {
			say(err)
		}
		say(Exec(p, func(r Report) { fmt.Println("weaker:", strings.Join(r.Weaker, "; ")) },
			append([]string{self, "inside"}, args[1:]...), nil))
	}
	say(try(args[0], args[1:]))
}

// say ends the probe with the result: a word, or the name of an error number.
func say(err error) {
	var e unix.Errno
	switch {
	case err == nil:
		fmt.Println("done")
	case errors.As(err, &e):
		fmt.Println(unix.ErrnoName(e))
	default:
		fmt.Println("error:", err)
	}
	os.Exit(0)
}

func errno(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func syscall3(nr, a, b, c uintptr) error {
	_, _, e := unix.Syscall(nr, a, b, c)
	return errno(e)
}

// try does one thing that some profile forbids.
func try(what string, args []string) error {
	number := func() uintptr {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			say(err)
		}
		return uintptr(n)
	}
	page := make([]byte, 64)
	switch what {
	case "mount options": // statfs(2): nosuid 2, nodev 4, noexec 8, and ro 1
		var st unix.Statfs_t
		if err := unix.Statfs(args[0], &st); err != nil {
			return err
		}
		return fmt.Errorf("%d", st.Flags&15)
	case "read":
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		_, err = f.Read(page)
		return err
	case "write":
		return os.WriteFile(args[0], []byte("x"), 0o600)
	case "exec":
		return unix.Exec(args[0], args, nil)
	case "fork":
		r, _, e := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		if e == 0 && r == 0 {
			unix.Exit(0)
		}
		return errno(e)
	case "connect":
		_, err := net.Dial("unix", args[0])
		return err
	case "listen":
		ln, err := net.Listen("unix", args[0])
		if err != nil {
			return err
		}
		return ln.Close()
	case "tcp":
		_, err := net.Dial("tcp", args[0])
		return err
	case "ptrace":
		return unix.PtraceAttach(int(number()))
	case "kill":
		return unix.Kill(int(number()), unix.SIGTERM)
	case "tgkill":
		return unix.Tgkill(int(number()), int(number()), unix.SIGTERM)
	case "readv":
		_, err := unix.ProcessVMReadv(int(number()), []unix.Iovec{{Base: &page[0], Len: 8}}, []unix.RemoteIovec{{Base: 0x1000, Len: 8}}, 0)
		return err
	case "mmap":
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	case "mprotect":
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
	case "unshare":
		return unix.Unshare(unix.CLONE_NEWUSER)
	case "mount":
		return unix.Mount("x", "/", "tmpfs", 0, "")
	case "dumpable":
		return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	case "limit":
		l := unix.Rlimit{Cur: 64, Max: 64}
		return unix.Prlimit(0, unix.RLIMIT_NOFILE, &l, nil)
	case "owner":
		_, err := unix.FcntlInt(1, unix.F_SETOWN, 1)
		return err
	case "call":
		return syscall3(number(), 0, 0, 0)
	case "files":
		return openMany()
	case "memory":
		b := make([][]byte, 0, 64)
		for range 64 {
			b = append(b, bytes.Repeat([]byte{1}, 16<<20))
		}
		runtime.KeepAlive(b)
		return nil
	case "panic":
		panic("as told")
	case "wait":
		_, _ = os.Stdin.Read(page)
		return nil
	case "work":
		return work()
	}
	return fmt.Errorf("unknown: %s", what)
}

func openMany() error {
	for range 1000 {
		if _, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC); err != nil {
			return err
		}
	}
	return nil
}

// work does what the display process and the runtime do all the time; descriptor 3 is a socket
// to the test, which echoes.
func work() error {
	conn, err := net.FileConn(os.NewFile(3, "peer"))
	if err != nil {
		return err
	}
	u := conn.(*net.UnixConn)
	fd, err := unix.MemfdCreate("work", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, 1<<20); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK); err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	mem[0] = 1
	if err := unix.Munmap(mem); err != nil {
		return err
	}
	if err := echo(u, fd); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	go func() { _, _ = w.Write([]byte("x")); w.Close() }()
	if _, err := io.ReadAll(r); err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		return err
	}
	var threads sync.WaitGroup
	for range 20 { // more threads than exist
		threads.Go(func() {
			runtime.LockOSThread()
			time.Sleep(time.Millisecond)
			_ = bytes.Repeat([]byte{1}, 4<<20)
		})
	}
	threads.Wait()
	pprof.StopCPUProfile()
	debug.FreeOSMemory()
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1)
	if err := unix.Kill(os.Getpid(), unix.SIGUSR1); err != nil {
		return err
	}
	<-c
	return func() (err error) {
		defer func() {
			if recover() == nil {
				err = errors.New("no panic")
			}
		}()
		var p *int
		*p = 1
		return nil
	}()
}

// echo sends a descriptor and gets it back.
func echo(u *net.UnixConn, fd int) error {
	if _, _, err := u.WriteMsgUnix([]byte("x"), unix.UnixRights(fd), nil); err != nil {
		return err
	}
	b, oob := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := u.ReadMsgUnix(b, oob)
	if err == nil && n == 0 {
		err = errors.New("no descriptor came back")
	}
	return err
}

// A result is the outcome of a probe.
type result struct {
	word   string // "done", an error's name, "killed" (SIGSYS by the kernel) or "trapped"
	weaker string
	stderr string
}

// probeBinary is this test built without C, like our programs: the Go runtime cannot confine
// C's threads.
var probeBinary = sync.OnceValues(func() (string, error) {
	if !withC {
		return os.Executable()
	}
	var err error
	if probeDir, err = os.MkdirTemp("", "vixprobe"); err != nil {
		return "", err
	}
	path := filepath.Join(probeDir, "probe")
	cmd := exec.Command("go", "test", "-c", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go test -c: %w: %s", err, out)
	}
	return path, nil
})

var probeDir string // where the probe was built

func probeCommand(t *testing.T, own bool, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath("go"); withC && err != nil {
		t.Skip("lacks: go")
	}
	bin, err := probeBinary()
	if err != nil {
		t.Fatal(err)
	}
	which := "shared"
	if own {
		which = "own"
	}
	cmd := exec.Command(bin, append([]string{"probe", which}, args...)...)
	cmd.Env = []string{}
	if own {
		cmd.SysProcAttr = Attr(os.Getuid(), os.Getgid())
	}
	return cmd
}

func runProbe(t *testing.T, own bool, args ...string) result {
	t.Helper()
	cmd := probeCommand(t, own, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	end := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer end.Stop()
	err := cmd.Run()
	r := result{stderr: stderr.String()}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSpace(line)
		if w, ok := strings.CutPrefix(line, "weaker:"); ok {
			r.weaker = strings.TrimSpace(w)
		} else {
			r.word = line
		}
	}
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee) && ee.Sys().(interface{ Signaled() bool }).Signaled():
		r.word = "signal " + strings.TrimPrefix(ee.Error(), "signal: ")
		if strings.HasPrefix(ee.Error(), "signal: bad system call") {
			r.word = "killed"
		}
	case err != nil && strings.Contains(r.stderr, "SIGSYS: bad system call"):
		r.word = "trapped"
	case err != nil:
		r.word = err.Error()
	}
	return r
}

// canOwn reports whether this machine allows us namespaces.
func canOwn() error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = Attr(os.Getuid(), os.Getgid())
	return cmd.Run()
}
