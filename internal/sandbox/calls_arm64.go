package sandbox

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	lowHalf   = 0 // where the low half of an argument is
	x32       = false
	x32Bit    = 0
)

// Calls that exist only on this architecture.
var (
	runtimeCallsHere = []uint32{}
	filesCallsHere   = []uint32{unix.SYS_NEWFSTATAT}
	writingCallsHere = []uint32{unix.SYS_RENAMEAT}
	hostileCallsHere = []uint32{unix.SYS_KEXEC_FILE_LOAD}
)
