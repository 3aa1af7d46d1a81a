package supervise

import (
	"context"
	"path/filepath"
	"time"

	"vix/internal/balloon"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/vm"
)

const (
	calmTick  = 5 * time.Second // between two looks at a guest while all is well
	shortTick = 1 * time.Second // while it has less than its memory, or the host is short
	// A VM that uses busyShare of one processor is not idle.
	busyShare = 0.2
	// statsAge is the greatest age of a guest's statistics: the guest is asked once in a tick,
	// and answers when it gets to it.
	statsAge = 15 * time.Second
)

// The memory of a running VM (package balloon has the rules):
//
//	guest's statistics ─ QMP ─┐                        ┌─ QMP balloon ─► guest
//	QEMU's processor time ────┼─► balloon.Decide ──────┤
//	host: PSI, meminfo ───────┘   every tick, and at   └─ state: guest_memory
//	programs that start           each event below
//
// The events are the kernel's report that memory is short (poll on PSI), and the start of a
// program.

// A keeper watches over one VM's memory.
type keeper struct {
	*memoryPart
	of  *balloon.Host
	max uint64
	min uint64

	target    uint64
	tick      time.Duration // the interval that the guest has, in seconds
	busyAt    time.Time
	cpu       time.Duration // of QEMU, at the last look
	cpuAt     time.Time
	startAt   time.Time // of the last program that the keeper knows of
	lastID    int
	shortAt   time.Time
	triggered time.Time
	failed    bool // the log has a line that QEMU does not answer
}

// A memoryPart is the balloon, and decides its size.
type memoryPart struct {
	passive
	*host
	machine *machine
}

func (s *memoryPart) devices() []qemu.Device { return []qemu.Device{qemu.Balloon()} }

// run runs until ctx ends.
func (s *memoryPart) run(ctx context.Context) {
	p := s.launch.Parts
	k := &keeper{
		memoryPart: s, of: balloon.OpenHost(p.Pressure, filepath.Join(p.Proc, "meminfo")),
		max: uint64(s.launch.VM.Memory), min: uint64(s.launch.VM.MemoryMin), target: uint64(s.launch.VM.Memory),
		busyAt: time.Now(), startAt: time.Now(),
	}
	defer k.of.Close()
	pressure := make(chan struct{}, 1)
	s.pumps.Go(func() {
		err := k.of.Watch(ctx, func() {
			select {
			case pressure <- struct{}{}:
			default:
			}
		})
		if err != nil {
			s.log.Printf("vix", "memory: %v", err)
		}
	})
	k.keep(ctx, pressure)
}

func (k *keeper) keep(ctx context.Context, pressure <-chan struct{}) {
	for {
		tick := k.look(time.Now())
		_, changed := k.watchState()
		t := time.NewTimer(tick)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
				waiting = false
			case <-pressure:
				k.triggered = time.Now()
				waiting = tick == shortTick // else not before the next look
			case <-changed:
				// The state may change a thousand times a second, by a title; only a program counts.
				var last int
				last, changed = k.lastProgram()
				waiting = last == k.lastID
			}
		}
		t.Stop()
	}
}

// look decides once, and returns the time until the next look.
func (k *keeper) look(now time.Time) time.Duration {
	if last, _ := k.lastProgram(); last != k.lastID {
		k.lastID, k.startAt = last, now
	}
	k.lookAtCPU(now)
	size, stats, err := k.guestMemory(k.max, now)
	if err != nil {
		if !k.failed && k.ctx.Err() == nil {
			k.log.Printf("vix", "memory: %v", err)
		}
		k.failed = true
		return calmTick
	}
	k.failed = false
	k.show(size, stats)
	v := balloon.View{
		Max: k.max, Min: k.min, Size: size, Target: k.target, Guest: stats,
		IdleFor: now.Sub(k.busyAt), StartAgo: now.Sub(k.startAt),
	}
	k.lookAtHost(&v, now)
	target, why := balloon.Decide(v)
	if target != k.target {
		k.log.Printf("vix", "memory: %d MiB of %d: %s", target/balloon.MiB, k.max/balloon.MiB, why)
		if err := k.machine.monitor.Execute("balloon", map[string]uint64{"value": target}, nil); err != nil {
			k.log.Printf("vix", "memory: %v", err)
		} else {
			k.target = target
		}
	}
	tick := calmTick
	if v.Short || k.target < k.max {
		tick = shortTick
	}
	k.setTick(tick)
	return tick
}

// lookAtHost fills in v's fields about the host.
func (k *keeper) lookAtHost(v *balloon.View, now time.Time) {
	mem, err := k.of.Read()
	if err != nil {
		if k.shortAt.IsZero() {
			k.log.Printf("vix", "memory: %v", err)
			k.shortAt = now
		}
		return
	}
	v.Available, v.Total = mem.Available, mem.Total
	v.Short = mem.Short() || !k.triggered.IsZero() && now.Sub(k.triggered) < balloon.TriggerHold
	if v.Short || k.shortAt.IsZero() {
		k.shortAt = now
	}
	v.CalmFor = now.Sub(k.shortAt)
}

// lookAtCPU notes whether QEMU has been busy since the last look.
func (k *keeper) lookAtCPU(now time.Time) {
	cpu, err := proc.ProcessorTime(k.launch.Parts.Proc, k.machine.child.Cmd.Process.Pid)
	if err != nil {
		k.busyAt = now
		return
	}
	if !k.cpuAt.IsZero() && float64(cpu-k.cpu) > busyShare*float64(now.Sub(k.cpuAt)) {
		k.busyAt = now
	}
	k.cpu, k.cpuAt = cpu, now
}

// show puts the guest's memory into the state. A new size wakes those who watch the state;
// they get the rest with the next change.
func (k *keeper) show(size uint64, stats *balloon.Stats) {
	m := vm.GuestMemory{Size: size}
	if stats != nil {
		m.Stats = *stats
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.state.GuestMemory
	k.state.GuestMemory = &m
	if was == nil || was.Size != size {
		k.changedLocked()
	}
}

// setTick sets the interval at which the guest's driver reports its statistics.
func (k *keeper) setTick(tick time.Duration) {
	if tick == k.tick {
		return
	}
	args := map[string]any{"path": qemu.BalloonPath, "property": "guest-stats-polling-interval", "value": int(tick / time.Second)}
	if err := k.machine.monitor.Execute("qom-set", args, nil); err != nil {
		k.log.Printf("vix", "memory: %v", err)
		return
	}
	k.tick = tick
}

// guestMemory asks QEMU how many of max bytes the guest may use, and for the guest's last
// statistics: nil if there are none, or old ones.
func (s *memoryPart) guestMemory(max uint64, now time.Time) (size uint64, stats *balloon.Stats, err error) {
	var b struct {
		Actual uint64 `json:"actual"`
	}
	if err := s.machine.monitor.Execute("query-balloon", nil, &b); err != nil {
		return 0, nil, err
	}
	var g guestStats
	args := map[string]string{"path": qemu.BalloonPath, "property": "guest-stats"}
	if err := s.machine.monitor.Execute("qom-get", args, &g); err != nil {
		return 0, nil, err
	}
	return min(b.Actual, max), g.stats(max, now), nil
}

// guestStats is the balloon's property guest-stats (QEMU docs/interop/virtio-balloon-stats).
// A value that the guest leaves out is 2^64-1; but a guest may send anything.
type guestStats struct {
	Stats struct {
		Total     uint64 `json:"stat-total-memory"`
		Available uint64 `json:"stat-available-memory"`
		Free      uint64 `json:"stat-free-memory"`
		Caches    uint64 `json:"stat-disk-caches"`
	} `json:"stats"`
	LastUpdate int64 `json:"last-update"` // seconds of the host's clock; 0: never
}

func (g guestStats) stats(max uint64, now time.Time) *balloon.Stats {
	const unknown = 1<<64 - 1
	age := now.Sub(time.Unix(g.LastUpdate, 0))
	if g.LastUpdate <= 0 || age > statsAge || age < -statsAge || g.Stats.Total == unknown || g.Stats.Available == unknown {
		return nil
	}
	s := balloon.Stats{Total: g.Stats.Total, Available: g.Stats.Available, Free: g.Stats.Free, Caches: g.Stats.Caches}.Clamp(max)
	return &s
}
