package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Profile says what a process keeps.
type Profile struct {
	// Own means that the process was started with Attr, in namespaces of its own.
	Own bool
	// Files are the files that the process can still reach by name; none if empty.
	Files []File
	// Calls are the only system calls that the process may make; nil allows all.
	Calls *CallList
	// OpenFiles and Data are limits on descriptors and on bytes of private writable memory.
	// 0 leaves a limit unchanged.
	OpenFiles, Data uint64
	// KeepCapabilities is for a program that needs them to set up a sandbox of its own;
	// KeepMounts likewise, since Landlock forbids every mount.
	KeepCapabilities, KeepMounts bool
	// Network is for a program that uses the host's network: it was started without a network
	// namespace of its own, and may make connections.
	Network bool
}

// A File is a path that stays accessible, with everything below it.
type File struct {
	Path   string `json:"path"`
	Exec   bool   `json:"exec,omitempty"`   // may be executed
	Write  bool   `json:"write,omitempty"`  // may be written, and ioctls are allowed on it: a device
	Remove bool   `json:"remove,omitempty"` // a directory whose files may be removed, and nothing else
}

// A Report describes what Confine did, for a log and for doctor.
type Report struct {
	Measures []string `json:"measures"`
	Weaker   []string `json:"weaker,omitempty"` // what is missing, and why
}

func (r *Report) addMeasure(format string, a ...any) {
	r.Measures = append(r.Measures, fmt.Sprintf(format, a...))
}

func (r *Report) weaker(what string, err error) {
	r.Weaker = append(r.Weaker, fmt.Sprintf("%s: %v", what, err))
}

// String is one line.
func (r Report) String() string {
	s := strings.Join(r.Measures, ", ")
	if len(r.Weaker) > 0 {
		s += "; weaker here: " + strings.Join(r.Weaker, "; ")
	}
	return s
}

// Attr returns the attributes that start a process in namespaces of its own: without network,
// System V IPC, other processes and, once Confine has emptied its root, files. For an
// ordinary user they lie in a user namespace, where that user is root until Confine. If the
// machine forbids this, the start fails; the caller then starts the process without Attr.
func Attr(uid, gid int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID}
	if uid != 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	return a
}

// Confine applies p permanently to all threads of the calling process. It returns no error:
// the report lists measures that failed, and the others are applied.
func Confine(p Profile) Report {
	r := confine(p)
	r.try("not dumpable", SetDumpable(false))
	if p.Calls != nil {
		program, err := p.Calls.assemble()
		if err == nil {
			err = loadFilter(program)
		}
		r.try(fmt.Sprintf("seccomp (%d calls)", p.Calls.countAllowed()), err)
	}
	return r
}

// confine takes the measures that survive an execve.
func confine(p Profile) Report {
	var r Report
	switch {
	case p.KeepMounts:
	case p.Own && p.Network:
		r.addMeasure("own IPC and process namespaces")
	case p.Own:
		r.addMeasure("own network, IPC and process namespaces")
	default:
		r.weaker("namespaces", errors.New("none of its own"))
	}
	if p.Network {
		r.weaker("network", errors.New("the host's, which it uses"))
	}
	switch {
	case !p.Own || p.KeepMounts:
	case len(p.Files) == 0:
		r.try("an empty root", emptyRoot())
	default:
		r.try("a root of its own files", fileRoot(p.Files))
	}
	r.try("limits", setLimits(p))
	if !p.KeepCapabilities {
		r.try("no capabilities", dropCapabilities())
	}
	r.try("no_new_privs", allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1))
	if !p.KeepMounts {
		abi, err := restrictFiles(p.Files, p.Network)
		r.try(fmt.Sprintf("Landlock %d", abi), err)
	}
	return r
}

func (r *Report) try(what string, err error) {
	if err != nil {
		r.weaker(what, err)
	} else {
		r.addMeasure("%s", what)
	}
}

// Exec confines the calling process except for what an execve ends (Calls, and not being
// dumpable), passes the report to tell, and becomes argv[0], a path. Links in the path are
// resolved before, while they still lead somewhere. The new program ends with the caller's
// parent. Exec returns only if it fails.
func Exec(p Profile, tell func(Report), argv, env []string) error {
	path, err := filepath.EvalSymlinks(argv[0])
	if err != nil {
		return err
	}
	// The death signal of the parent belongs to one thread, and this thread is the one that
	// survives the execve.
	runtime.LockOSThread()
	tell(confine(p))
	if err := endWithParent(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, unix.Exec(path, argv, env))
}

// endWithParent restores the death signal that the parent set when it made this process:
// the kernel clears it when credentials change.
func endWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent's death: %w", err)
	}
	return nil
}

// ConfineStarter is for a process that starts others, and so keeps many rights. Neither it
// nor any of its children gains privileges from a set-user-id program, and no core dump
// contains a guest's memory.
func ConfineStarter() Report {
	var r Report
	r.try("limits", setLimits(Profile{}))
	r.try("no_new_privs", allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1))
	r.try("not dumpable", SetDumpable(false))
	return r
}

// SetDumpable(false) keeps processes of the same user from tracing this one and from reading
// its descriptors and memory. A parent must be dumpable to set up a child's user namespace.
func SetDumpable(may bool) error {
	v := 0
	if may {
		v = 1
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(v), 0, 0, 0)
}

// errCgo is the reason for leaving out a measure that each thread must apply to itself: the Go
// runtime does not know the C library's threads. Vix is built without cgo.
var errCgo = errors.New("the program was built with cgo")

// allThreads makes a call on every thread of the process.
func allThreads(nr uintptr, a ...uintptr) error {
	var args [6]uintptr
	copy(args[:], a)
	_, _, e := syscall.AllThreadsSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
	switch e {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return errCgo
	}
	return e
}

// setLimits also forbids core dumps: they would hold the guest's memory.
func setLimits(p Profile) error {
	set := func(resource int, most uint64) error {
		if most == 0 {
			return nil
		}
		var now unix.Rlimit
		if err := unix.Getrlimit(resource, &now); err != nil {
			return err
		}
		most = min(most, now.Max)
		return os.NewSyscallError("setrlimit", unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}))
	}
	return errors.Join(unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
		set(unix.RLIMIT_NOFILE, p.OpenFiles), set(unix.RLIMIT_DATA, p.Data))
}

// dropCapabilities empties all five sets of every thread.
func dropCapabilities() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			break // the kernel knows no further ones
		}
		if held == 0 {
			continue
		}
		// Without CAP_SETPCAP the set stays; no_new_privs makes it mean nothing.
		if err := allThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if err := allThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return capset()
}
