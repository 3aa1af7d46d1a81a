package sandbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// DisplayCalls returns the system calls that the display process may make: to carry bytes
// and descriptors over its sockets, to make and map memory, and whatever the Go runtime
// needs. connect adds making unix sockets; listen adds accepting connections on a socket
// that the process already had.
func DisplayCalls(connect, listen bool) *CallList {
	l := &CallList{other: trap}
	l.add(allow, relayCalls...)
	l.add(allow, runtimeCalls...)
	l.add(allow, runtimeCallsHere...)
	l.addTested()
	unixSocket := []test{equal(0, unix.AF_UNIX)}
	if connect {
		l.calls = append(l.calls, call{unix.SYS_SOCKET, [][]test{unixSocket}, kill})
		l.add(allow, unix.SYS_CONNECT)
	}
	if listen {
		l.add(allow, unix.SYS_ACCEPT4, unix.SYS_UNLINKAT) // the socket is removed with its server
	}
	l.add(fail(unix.EACCES), filesCalls...)
	l.add(fail(unix.EACCES), filesCallsHere...)
	l.add(fail(unix.EPERM), triedCalls...)
	l.add(kill, hostileCalls...)
	l.add(kill, hostileCallsHere...)
	return l
}

// MenuCalls returns the system calls that the menu may make once it is connected: anything
// but another connection, another process or program, and writing to the file system. It
// lists the forbidden calls, because the process also holds the C library, with
// libxkbcommon; and the menu has no Landlock, which a program with C threads cannot apply
// to all of them (errCgo).
func MenuCalls() *CallList {
	l := &CallList{other: allow}
	const writing = unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC
	l.calls = append(l.calls, call{unix.SYS_OPENAT, [][]test{{{arg: 2, mask: writing}}}, fail(unix.EACCES)})
	l.addThreads()
	l.add(fail(unix.EACCES), writingCalls...)
	l.add(fail(unix.EACCES), writingCallsHere...)
	l.add(kill, hostileCalls...)
	l.add(kill, hostileCallsHere...)
	return l
}

// add appends calls with one verdict; a call keeps the verdict of its first mention.
func (l *CallList) add(v verdict, nrs ...uint32) {
	for _, nr := range nrs {
		known := false
		for _, c := range l.calls {
			known = known || c.nr == nr
		}
		if !known {
			l.calls = append(l.calls, call{nr: nr, verdict: v})
		}
	}
}

// relayCalls carry the display; the most frequent come first.
var relayCalls = []uint32{
	unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_EPOLL_PWAIT, unix.SYS_CLOSE,
	unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_LSEEK, unix.SYS_FSTAT,
	unix.SYS_MEMFD_CREATE, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE,
	unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_PPOLL,
	unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
}

// runtimeCalls are the calls of the Go runtime (os_linux.go, sys_linux_*.s,
// netpoll_epoll.go) and, in a build with C, of the C library's threads.
var runtimeCalls = []uint32{
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_SCHED_YIELD,
	unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK, unix.SYS_MSYNC,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RESTART_SYSCALL,
	unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER,
	unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_GETRANDOM, unix.SYS_SCHED_GETAFFINITY,
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_MEMBARRIER,
	unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETRUSAGE,
}

// addTested adds the calls that depend on their arguments.
func (l *CallList) addTested() {
	l.addThreads()
	var fcntl [][]test
	// F_SETOWN and F_SETSIG are left out: by them the kernel signals other processes.
	for _, cmd := range []uint64{
		unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD,
		unix.F_ADD_SEALS, unix.F_GET_SEALS,
	} {
		fcntl = append(fcntl, []test{equal(1, cmd)})
	}
	notExec := [][]test{{{arg: 2, mask: unix.PROT_EXEC}}}
	l.calls = append(l.calls,
		call{unix.SYS_FCNTL, fcntl, trap},
		call{unix.SYS_MMAP, notExec, kill},
		call{unix.SYS_MPROTECT, notExec, kill},
		// The runtime names its mappings, but does not depend on it.
		call{unix.SYS_PRCTL, [][]test{{equal(0, unix.PR_SET_VMA)}}, fail(unix.EPERM)},
		// The runtime and the C library may read their own limits, but not set them.
		call{unix.SYS_PRLIMIT64, [][]test{{equal(0, 0), {arg: 2, mask: ^uint64(0)}}}, fail(unix.EPERM)},
	)
}

// addThreads allows threads, but no processes, and signals to those threads.
func (l *CallList) addThreads() {
	const (
		thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
		spaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	)
	self := [][]test{{equal(0, uint64(os.Getpid()))}}
	l.calls = append(l.calls,
		call{unix.SYS_CLONE, [][]test{{{arg: 0, mask: thread | spaces, value: thread}}}, kill},
		call{unix.SYS_TGKILL, self, kill},
		call{unix.SYS_KILL, self, kill},
	)
	l.add(fail(unix.ENOSYS), unix.SYS_CLONE3) // the C library falls back to clone
}

// equal tests the low 32 bits of an argument: the kernel ignores the rest of an int.
func equal(arg int, value uint64) test { return test{arg, 0xffffffff, value} }

// writingCalls change the file system.
var writingCalls = []uint32{
	unix.SYS_OPENAT2, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT, unix.SYS_TRUNCATE, unix.SYS_UTIMENSAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR,
	unix.SYS_FCHMOD, unix.SYS_FCHOWN, unix.SYS_FSETXATTR, unix.SYS_FREMOVEXATTR,
}

// filesCalls are refused as by Landlock: libraries look for files that they can do without,
// such as a time zone.
var filesCalls = []uint32{
	unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_FSTATFS, unix.SYS_STATX, unix.SYS_READLINKAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
	unix.SYS_GETDENTS64, unix.SYS_GETCWD, unix.SYS_UNLINKAT,
}

// triedCalls are refused with EPERM: our code or a library may try them.
var triedCalls = []uint32{
	unix.SYS_IOCTL, unix.SYS_SETSOCKOPT, unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_GETPPID,
	unix.SYS_SCHED_SETAFFINITY, unix.SYS_SETPRIORITY,
}

// hostileCalls have no purpose in a display: only an attacker in the process makes them.
var hostileCalls = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_KCMP, unix.SYS_TKILL,
	unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO,
	unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEXEC_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_SECCOMP,
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
	unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPSET, unix.SYS_PERSONALITY,
	unix.SYS_MKNODAT, unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_RENAMEAT2, unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT,
}

// countAllowed returns the number of calls that may succeed.
func (l *CallList) countAllowed() int {
	n := 0
	for _, c := range l.calls {
		if c.verdict == allow || len(c.tests) > 0 {
			n++
		}
	}
	return n
}
