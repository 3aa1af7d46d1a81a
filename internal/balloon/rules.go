package balloon

import "time"

// The numbers of the rules; see the package comment.
const (
	MiB = 1 << 20

	minKept    = 64 * MiB
	keptPart   = 16 // of the VM's memory
	takePart   = 4
	givePart   = 4
	returnPart = 8
	slackPart  = 16 // a guest this close to its target has done what it was asked to do
	hostPart   = 10 // of the host's memory must be available for rule 4

	StartHold = 30 * time.Second
	IdleAfter = 10 * time.Second
	CalmAfter = 30 * time.Second
)

// Stats are a guest's reports about its memory, in bytes.
type Stats struct {
	Total     uint64 `json:"total"`
	Available uint64 `json:"available"` // for programs, without swapping
	Free      uint64 `json:"free"`
	Caches    uint64 `json:"caches"` // file cache
}

// Clamp limits s to values that a guest with max bytes can have.
func (s Stats) Clamp(max uint64) Stats {
	s.Total = min(s.Total, max)
	s.Available = min(s.Available, s.Total)
	s.Free = min(s.Free, s.Total)
	s.Caches = min(s.Caches, s.Total)
	return s
}

// A View holds the inputs of a decision. Sizes are in bytes.
type View struct {
	Max, Min uint64 // the VM's memory, and the part that it always keeps
	Size     uint64 // what it may use now, according to QEMU
	Target   uint64 // the last requested size
	Guest    *Stats // nil without a recent report of the guest

	IdleFor  time.Duration // time since the VM was last busy
	StartAgo time.Duration // time since a program last started in it

	Short     bool          // the host is short of memory
	CalmFor   time.Duration // time since the host was last short
	Available uint64        // on the host
	Total     uint64        // of the host
}

// keep returns how much memory a guest should keep available.
func keep(memory uint64) uint64 { return max(minKept, memory/keptPart) }

// Decide returns the VM's new size, a whole number of MiB from Min to Max, and the reason
// for a change from Target ("" if there is none).
func Decide(v View) (target uint64, why string) {
	least := min(v.Min, v.Max)
	within := func(n uint64) uint64 { return min(max(n, least), v.Max) &^ (MiB - 1) }
	size := min(v.Size, v.Max)
	kept := keep(v.Max)
	switch {
	case v.Target < v.Max && v.StartAgo < StartHold:
		return within(v.Max), "a program was started"
	case v.Guest != nil && size < v.Max && v.Guest.Available < kept/2:
		// The step starts at the present size: the guest may have taken back more than was offered,
		// or given back less than was asked for.
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
