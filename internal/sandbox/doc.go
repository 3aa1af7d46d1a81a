// Package sandbox takes from a process everything that it does not need, so that a guest that
// takes over the process gains little. A Profile lists what stays; Confine applies it to the
// calling process, and Exec also becomes another program.
//
// The measures, in order, each with its requirements:
//
//	namespaces   net, ipc, uts, pid, mount  a start with Attr; for an ordinary user
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
// Each is independent: where the machine lacks one, the others are applied, and the Report
// says what is weaker. The process cannot undo any of them.
//
// # How the display process connects
//
// A Wayland connection is a connect(2) to a path, and a process that may connect to any path
// may ask the user's service manager for anything: Landlock cannot tell sockets apart before
// Linux 7.1. So the display process has no connect(2) and no socket(2) at all: its supervisor
// connects and passes the socket (internal/supervise, cmd/vix-waylandproxy). Only a display
// process that was started by hand, without a supervisor, makes connections of its own
// (Profile.Connect), and says so.
//
// # System calls
//
// The filter (seccomp.go) is an allow-list. The kernel refuses a call that is not on it, in
// one of three ways (calls.go). The call returns an error, where a library may try it and do
// without. The kernel kills the process, where our honest code never makes the call (execve,
// ptrace, connect, …). Any other call raises SIGSYS, and the Go runtime then crashes with the
// goroutine's stack and the call's number in rax: so a new Go version that needs a new call
// is easy to support.
//
// The menu has the opposite list, of forbidden calls (MenuCalls).
//
// Only clone(2) makes threads, and it must have CLONE_THREAD: RLIMIT_NPROC would forbid
// threads too, and Go's runtime dies without them.
package sandbox
