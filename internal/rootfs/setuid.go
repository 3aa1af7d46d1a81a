package rootfs

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DenySetuid takes the power to set a file's set-user-id or set-group-id bit from this
// process and the program that it becomes. On the host, a share's files belong to the user:
// if a guest set the bit on one, another user who ran it would become him. The calls fail
// with EPERM; no_new_privs, which the kernel requires, is set as well.
func DenySetuid() error {
	const bits = unix.S_ISUID | unix.S_ISGID
	deny := uint32(unix.SECCOMP_RET_ERRNO | unix.EPERM)
	arg := func(i uint32) unix.SockFilter { // the argument's lower half, little endian
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16 + 8*i}
	}
	jump := func(op uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	nr := unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}
	prog := []unix.SockFilter{nr}
	for _, c := range []struct{ nr, mode uint32 }{
		{unix.SYS_FCHMOD, 1}, {unix.SYS_FCHMODAT, 2}, {unix.SYS_FCHMODAT2, 2}, {unix.SYS_MKNODAT, 2},
	} {
		prog = append(prog, jump(unix.BPF_JEQ, c.nr, 0, 4), arg(c.mode), jump(unix.BPF_JSET, bits, 0, 1), ret(deny), ret(unix.SECCOMP_RET_ALLOW))
	}
	// openat has a mode only if it can create a file.
	prog = append(prog, jump(unix.BPF_JEQ, unix.SYS_OPENAT, 0, 4), arg(2), jump(unix.BPF_JSET, unix.O_CREAT, 0, 2), arg(3), jump(unix.BPF_JSET, bits, 1, 0),
		ret(unix.SECCOMP_RET_ALLOW), ret(deny))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	return nil
}
