package sandbox

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// run interprets a program as the kernel does (seccomp_data is 64 bytes).
func run(t *testing.T, p []unix.SockFilter, data []byte) verdict {
	t.Helper()
	var a uint32
	for i := 0; i < len(p); i++ {
		in := p[i]
		jump := func(yes bool) {
			if yes {
				i += int(in.Jt)
			} else {
				i += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.LittleEndian.Uint32(data[in.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= in.K)
		case unix.BPF_RET | unix.BPF_K:
			return verdict(in.K)
		default:
			t.Fatalf("instruction %d: code %#x", i, in.Code)
		}
	}
	t.Fatal("the program has no end")
	return 0
}

// verdictOf returns the list's verdict on a call.
func (l *CallList) verdictOf(nr uint32, args [6]uint64) verdict {
	for _, c := range l.calls {
		if c.nr != nr {
			continue
		}
		for _, all := range c.tests {
			passed := true
			for _, t := range all {
				passed = passed && args[t.arg]&t.mask == t.value
			}
			if passed {
				return allow
			}
		}
		return c.verdict
	}
	return l.other
}

func seccompData(nr, arch uint32, args [6]uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, nr)
	b = binary.LittleEndian.AppendUint32(b, arch)
	b = binary.LittleEndian.AppendUint64(b, 0)
	for _, a := range args {
		b = binary.LittleEndian.AppendUint64(b, a)
	}
	return b
}

// TestFilterMeansTheList: the program decides like the list, for every call, and for arguments
// close to the tested ones or equal to call numbers.
func TestFilterMeansTheList(t *testing.T) {
	for _, l := range []*CallList{DisplayCalls(false, false), DisplayCalls(true, false), DisplayCalls(true, true), MenuCalls()} {
		p, err := l.assemble()
		if err != nil {
			t.Fatal(err)
		}
		values := []uint64{0, 1, 2, 3, 4, 7, unix.AF_UNIX, unix.AF_INET, ^uint64(0), 1 << 32, 1<<32 | 1, unix.PR_SET_VMA}
		for _, c := range l.calls {
			values = append(values, uint64(c.nr))
			for _, all := range c.tests {
				for _, x := range all {
					values = append(values, x.value, ^x.value, x.value|x.mask, x.value^1, x.value|1<<40)
				}
			}
		}
		r := rand.New(rand.NewPCG(1, 2))
		for nr := range uint32(600) {
			for range 200 {
				var args [6]uint64
				for i := range args {
					args[i] = values[r.IntN(len(values))]
				}
				if got, want := run(t, p, seccompData(nr, auditArch, args)), l.verdictOf(nr, args); got != want {
					t.Fatalf("call %d %#x: %#x, want %#x", nr, args, got, want)
				}
			}
			if got := run(t, p, seccompData(nr, unix.AUDIT_ARCH_I386, [6]uint64{})); got != kill {
				t.Fatalf("call %d of i386: %#x", nr, got)
			}
			if got := run(t, p, seccompData(nr|0x40000000, auditArch, [6]uint64{})); x32 && got != kill {
				t.Fatalf("call %d of x32: %#x", nr, got)
			}
		}
	}
}

// TestNoCallStandsTwice: only the first mention of a call would count.
func TestNoCallStandsTwice(t *testing.T) {
	for _, l := range []*CallList{DisplayCalls(false, false), MenuCalls()} {
		seen := map[uint32]bool{}
		for _, c := range l.calls {
			if seen[c.nr] {
				t.Errorf("call %d", c.nr)
			}
			seen[c.nr] = true
		}
	}
}
