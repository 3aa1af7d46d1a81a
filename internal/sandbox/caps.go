package sandbox

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capset empties the effective, permitted and inheritable sets (capset(2)) of every thread.
// The header's pid 0 means the calling thread.
func capset() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])))
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&none)
	return err
}
