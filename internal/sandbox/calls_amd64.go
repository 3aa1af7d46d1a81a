package sandbox

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	lowHalf   = 0 // where the low half of an argument is
	x32       = true
	x32Bit    = 0x40000000 // __X32_SYSCALL_BIT: the same AUDIT_ARCH, another table of calls
)

// Calls that exist only here, or that this architecture has under an older name too.
var (
	runtimeCallsHere = []uint32{unix.SYS_POLL, unix.SYS_EPOLL_WAIT, unix.SYS_DUP2}
	filesCallsHere   = []uint32{
		unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_NEWFSTATAT, unix.SYS_READLINK, unix.SYS_ACCESS, unix.SYS_UNLINK,
	}
	writingCallsHere = []uint32{unix.SYS_OPEN, unix.SYS_UNLINK, unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_RENAMEAT, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT}
	hostileCallsHere = []uint32{
		unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_CREAT, unix.SYS_MKNOD, unix.SYS_SYMLINK, unix.SYS_LINK, unix.SYS_RENAME,
		unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_KEXEC_FILE_LOAD,
	}
)
