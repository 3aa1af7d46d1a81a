// Package sandbox takes from a process what it does not need, so that a guest that takes the
// process over gains little. A Profile says what stays; Confine applies it to the calling
// process, and Exec also becomes another program.
//
// The measures, in their order, each with its requirements:
//
//	namespaces   net, ipc, uts, pid, mount  started so (Attr); as an ordinary user
//	                                        in a user namespace too
//	root         an empty directory, or     a mount namespace of our own
//	             Profile.Files read-only
//	limits       no core dumps; files; data
//	capabilities none, in no set            –
//	no_new_privs                            –
//	Landlock     no file but Profile.Files, Linux ≥ 5.13; TCP ≥ 6.7; devices'
//	             no TCP, no device ioctl,   ioctl ≥ 6.10; signals and abstract
//	             no signal or abstract      sockets ≥ 6.12
//	             socket to the outside
//	not dumpable                            –  (nobody of the same user may trace it)
//	seccomp      Profile.Calls              Linux ≥ 3.17
//
// Each stands for itself: where the machine lacks one, the others are taken and
// the Report says what is weaker. Nothing here can be undone by the process.
//
// # How the display process connects
//
// A Wayland connection is a connect(2) to a path, and a process that may connect
// to any path may ask the user's service manager for anything: Landlock does not
// tell sockets apart before Linux 7.1. So the display process has no connect(2)
// and no socket(2) at all: its supervisor connects and passes the socket
// (internal/supervise, cmd/vix-waylandproxy). Only one that was started by hand, without
// a supervisor, makes connections of its own (Profile.Connect), and says so.
//
// # System calls
//
// The filter (seccomp.go) is an allow-list. A call that is not on it gets, as
// calls.go says: an error, where a library may try it and do without; the end of
// the process by the kernel, where no honest code of ours can mean it (execve,
// ptrace, connect, …); else SIGSYS, of which the Go runtime makes a crash with the
// goroutine's stack and the call's number in rax: a new Go version that needs a
// new call shall be easy to mend. In either case the call is not made.
//
// The menu has a list the other way round, of what it may not ask for (MenuCalls).
//
// Threads are made by clone(2) alone, which must have CLONE_THREAD: RLIMIT_NPROC
// would forbid threads too, and Go's runtime dies without them.
package sandbox
