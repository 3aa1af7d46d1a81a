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
	// Own tells that the process was started with Attr, in namespaces of its own.
	Own bool
	// Files are what the process may still reach by name; none if empty.
	Files []File
	// Calls are the only system calls that it may make; nil: any.
	Calls *CallList
	// OpenFiles and Data are limits: of descriptors, and of bytes of private
	// writable memory. 0: as they are.
	OpenFiles, Data uint64
	// KeepCapabilities is for a program that sets up a sandbox of its own with them;
	// the same goes for KeepMounts, as Landlock forbids every mount.
	KeepCapabilities, KeepMounts bool
	// Network is for a program that uses the host's network: it was started without a
	// network namespace of its own, and may make connections.
	Network bool
}

// A File is a path that a profile leaves, with all that is below it.
type File struct {
	Path   string `json:"path"`
	Exec   bool   `json:"exec,omitempty"`   // may be executed
	Write  bool   `json:"write,omitempty"`  // may be written, and asked by ioctl: a device
	Remove bool   `json:"remove,omitempty"` // files in it may be removed, and nothing else: a directory
}

// A Report is what Confine did, in words for a log and for doctor.
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

// Attr returns how a process is started in namespaces of its own: without network,
// System V IPC, other processes and, once Confine has emptied its root, files. As an
// ordinary user they lie in a user namespace, in which he is root until Confine.
// Where the machine forbids it, starting fails; start without it then.
func Attr(uid, gid int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID}
	if uid != 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	return a
}

// Confine applies p to all threads of the calling process, for good. It has no
// error: what cannot be had is in the report, and the rest is done.
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

// confine takes the measures that an execve leaves in force.
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

// Exec confines the calling process but for what does not outlive an execve
// (Calls, and that it is not dumpable), gives the report to tell, and becomes argv[0],
// a path. Links in it are followed before, where they still lead somewhere. What it
// becomes ends with the caller's parent. It returns only if that fails.
func Exec(p Profile, tell func(Report), argv, env []string) error {
	path, err := filepath.EvalSymlinks(argv[0])
	if err != nil {
		return err
	}
	// The signal that a parent's death sends is one thread's own, and this thread is
	// the one that stays.
	runtime.LockOSThread()
	tell(confine(p))
	if err := endWithParent(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, unix.Exec(path, argv, env))
}

// endWithParent asks again for the signal that the parent asked for when it made
// this process: the kernel forgets it when credentials change.
func endWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent's death: %w", err)
	}
	return nil
}

// ConfineStarter is for a process that starts others, and so keeps much: neither it
// nor any of them gains privileges by executing a set-user-id program, and what a
// guest has in memory is in no core dump.
func ConfineStarter() Report {
	var r Report
	r.try("limits", setLimits(Profile{}))
	r.try("no_new_privs", allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1))
	r.try("not dumpable", SetDumpable(false))
	return r
}

// SetDumpable(false) keeps processes of the same user from tracing this one and from
// looking at its descriptors and memory. The user namespace of a child can only be
// set up by a parent that is dumpable.
func SetDumpable(may bool) error {
	v := 0
	if may {
		v = 1
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(v), 0, 0, 0)
}

// errCgo is why a measure that each thread has to take for itself is not taken: the
// Go runtime does not know the C library's threads. Vix is built without cgo.
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
			break // the kernel knows no more of them
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
