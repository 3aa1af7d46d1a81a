package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A filter is classic BPF over struct seccomp_data (linux/seccomp.h):
//
//	0  u32 nr   4  u32 arch   8  u64 instruction_pointer   16 + 8·n  u64 args[n]
//
// The program is written out call by call, in the order of the list:
//
//	if arch is not ours, or x32: kill
//	if nr == A: allow
//	if nr == B: if the arguments pass: allow; else B's verdict
//	…
//	the default verdict
//
// Each call ends in a verdict of its own and never goes on to the next one: the accumulator
// then holds an argument, which must not be compared with a call's number. (That is why we
// do not use the seccomp package that we know of: v1.6.0 of
// github.com/elastic/go-seccomp-bpf does compare it.) Kernels since 5.11 do not even run the
// program for calls that it allows whatever their arguments.

// A verdict is the filter's decision about a call (SECCOMP_RET_*).
type verdict uint32

const (
	allow verdict = unix.SECCOMP_RET_ALLOW
	kill  verdict = unix.SECCOMP_RET_KILL_PROCESS
	trap  verdict = unix.SECCOMP_RET_TRAP
)

func fail(e unix.Errno) verdict { return unix.SECCOMP_RET_ERRNO | verdict(e) }

// A test passes if the argument's bits under mask equal value.
type test struct {
	arg         int
	mask, value uint64
}

// A call is one line of a list. It is allowed if it has no tests, or if all tests of one of
// its groups pass; otherwise it gets the verdict.
type call struct {
	nr      uint32
	tests   [][]test
	verdict verdict // for a call that fails its tests, and for a call without any
}

// A CallList holds the system calls that a process may make.
type CallList struct {
	calls []call
	other verdict
}

// assemble generates the program.
func (l *CallList) assemble() ([]unix.SockFilter, error) {
	const nr, arch = 0, 4
	p := []unix.SockFilter{load(arch), jumpEqual(auditArch, 1, 0), ret(kill), load(nr)}
	if x32 {
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jf: 1, K: x32Bit}, ret(kill))
	}
	for _, c := range l.calls {
		body, err := c.body()
		if err != nil {
			return nil, fmt.Errorf("call %d: %w", c.nr, err)
		}
		p = append(append(p, jumpEqual(c.nr, 0, uint8(len(body)))), body...)
	}
	p = append(p, ret(l.other))
	if len(p) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("%d instructions; at most %d", len(p), unix.BPF_MAXINSNS)
	}
	return p, nil
}

// body generates the instructions for the call.
func (c call) body() ([]unix.SockFilter, error) {
	var p []unix.SockFilter
	for _, all := range c.tests {
		p = append(p, conjunction(all)...)
	}
	p = append(p, ret(c.verdict))
	if len(p) > 255 {
		return nil, errors.New("too many tests for one jump")
	}
	return p, nil
}

// conjunction allows the call if all tests pass, and otherwise continues behind its own
// instructions.
func conjunction(all []test) []unix.SockFilter {
	var p []unix.SockFilter
	var exits []int // jumps to the end
	for _, t := range all {
		for _, half := range []struct {
			offset      uint32
			mask, value uint32
		}{
			{16 + 8*uint32(t.arg) + lowHalf, uint32(t.mask), uint32(t.value)},
			{16 + 8*uint32(t.arg) + 4 - lowHalf, uint32(t.mask >> 32), uint32(t.value >> 32)},
		} {
			if half.mask == 0 {
				continue
			}
			p = append(p, load(half.offset),
				unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: half.mask},
				jumpEqual(half.value, 0, 0))
			exits = append(exits, len(p)-1)
		}
	}
	p = append(p, ret(allow))
	for _, i := range exits {
		p[i].Jf = uint8(len(p) - i - 1)
	}
	return p
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jumpEqual(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func ret(v verdict) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(v)}
}

// loadFilter puts the whole process under p, and so under no_new_privs: the kernel applies
// both to the other threads.
func loadFilter(p []unix.SockFilter) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	switch {
	case e != 0:
		return e
	case r != 0:
		return fmt.Errorf("thread %d has a filter of its own", r)
	}
	return nil
}
