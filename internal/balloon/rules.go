package balloon

import "time"

// The numbers of the rules; package comment.
const (
	MiB = 1 << 20

	minKept    = 64 * MiB
	keptPart   = 16 // of the VM's memory
	takePart   = 4
	givePart   = 4
	returnPart = 8
	slackPart  = 16 // as near to its target as this, a guest has done what it was asked for
	hostPart   = 10 // of the host's memory must be available for rule 4

	StartHold = 30 * time.Second
	IdleAfter = 10 * time.Second
	CalmAfter = 30 * time.Second
)

// Stats are a guest's words about its memory, in bytes.
type Stats struct {
	Total     uint64 `json:"total"`
	Available uint64 `json:"available"` // to programs, without swapping
	Free      uint64 `json:"free"`
	Caches    uint64 `json:"caches"` // of files
}

// Clamp returns s within what a guest with max bytes can have.
func (s Stats) Clamp(max uint64) Stats {
	s.Total = min(s.Total, max)
	s.Available = min(s.Available, s.Total)
	s.Free = min(s.Free, s.Total)
	s.Caches = min(s.Caches, s.Total)
	return s
}

// A View is what a decision depends on. Sizes are in bytes.
type View struct {
	Max, Min uint64 // the VM's memory, and what it keeps of it whatever happens
	Size     uint64 // that it may use now, as QEMU says
	Target   uint64 // that was asked for last
	Guest    *Stats // nil where the guest has said nothing lately

	IdleFor  time.Duration // since the VM was last busy
	StartAgo time.Duration // since a program was last started in it

	Short     bool          // the host is short of memory
	CalmFor   time.Duration // since it was last
	Available uint64        // on the host
	Total     uint64        // of the host
}

// keep is what a guest keeps available.
func keep(memory uint64) uint64 { return max(minKept, memory/keptPart) }

// Decide returns the size that the VM is to have, a whole number of MiB from Min to Max,
// and why it is another than Target ("" if it is not).
func Decide(v View) (target uint64, why string) {
	least := min(v.Min, v.Max)
	within := func(n uint64) uint64 { return min(max(n, least), v.Max) &^ (MiB - 1) }
	size := min(v.Size, v.Max)
	kept := keep(v.Max)
	switch {
	case v.Target < v.Max && v.StartAgo < StartHold:
		return within(v.Max), "a program was started"
	case v.Guest != nil && size < v.Max && v.Guest.Available < kept/2:
		// From what it has: it may have taken back more than was offered, or have given
		// back less than was asked for.
		more := max(v.Max/givePart, kept-v.Guest.Available)
		return change(v, max(v.Target, within(size+more)), "the guest has little left")
	case v.Short && v.Guest != nil && v.IdleFor >= IdleAfter && v.StartAgo >= StartHold && size <= v.Target+v.Max/slackPart:
		if v.Guest.Available < kept+MiB {
			break
		}
		more := min(v.Guest.Available-kept, v.Max/takePart, size)
		target = min(within(size-more), size)
		return change(v, target, "the host is short of memory")
	case !v.Short && v.CalmFor >= CalmAfter && v.Target < v.Max:
		step := v.Max / returnPart
		if v.Available < v.Total/hostPart+step {
			break
		}
		return change(v, within(v.Target+step), "the host has room")
	}
	return v.Target, ""
}

func change(v View, target uint64, why string) (uint64, string) {
	if target == v.Target {
		return target, ""
	}
	return target, why
}
