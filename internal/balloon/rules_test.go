package balloon

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const gib = 1 << 30

// base is a VM of 1 GiB that has all of it, is idle, and can give 700 MiB.
func base() View {
	return View{
		Max: gib, Min: 128 * MiB, Size: gib, Target: gib, Guest: &Stats{Total: gib, Available: 700 * MiB, Free: 100 * MiB},
		IdleFor: time.Minute, StartAgo: time.Hour, CalmFor: time.Hour, Available: 4 * gib, Total: 8 * gib,
	}
}

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*View)
		want uint64
	}{
		{"all is well", func(*View) {}, gib},
		{"short: a quarter", func(v *View) { v.Short, v.CalmFor = true, 0 }, 768 * MiB},
		{"short: what is left over", func(v *View) { v.Short, v.Guest.Available = true, 150*MiB }, gib - 86*MiB},
		{"short: and nothing is left over", func(v *View) { v.Short, v.Guest.Available = true, 64*MiB }, gib},
		{"short: but busy", func(v *View) { v.Short, v.IdleFor = true, 9*time.Second }, gib},
		{"short: but just started", func(v *View) { v.Short, v.StartAgo = true, 29*time.Second }, gib},
		{"short: but the guest says nothing", func(v *View) { v.Short, v.Guest = true, nil }, gib},
		{"short: but it is still giving", func(v *View) { v.Short, v.Target, v.Size = true, 512*MiB, 800*MiB }, 512 * MiB},
		{"short: down to memory-min", func(v *View) { v.Short, v.Min = true, 900*MiB }, 900 * MiB},
		{"short: memory-min is all", func(v *View) { v.Short, v.Min = true, 2*gib }, gib},
		{"a program starts", func(v *View) { v.Short, v.Target, v.Size, v.StartAgo = true, 300*MiB, 300*MiB, 0 }, gib},
		{"the guest has little", func(v *View) { v.Short, v.Target, v.Size, v.Guest.Available = true, 300*MiB, 300*MiB, 30*MiB }, 556 * MiB},
		{"the guest has little, and gets it already", func(v *View) { v.Target, v.Size, v.CalmFor, v.Guest.Available = 900*MiB, 300*MiB, 0, 30*MiB }, 900 * MiB},
		{"the guest has little, while giving", func(v *View) { v.Short, v.Target, v.Size, v.Guest.Available = true, 300*MiB, 600*MiB, 30*MiB }, 856 * MiB},
		{"calm: an eighth", func(v *View) { v.Target, v.Size = 300*MiB, 300*MiB }, 428 * MiB},
		{"calm: not for long enough", func(v *View) { v.Target, v.Size, v.CalmFor = 300*MiB, 300*MiB, 29*time.Second }, 300 * MiB},
		{"calm: the host has no room", func(v *View) { v.Target, v.Size, v.Available = 300*MiB, 300*MiB, 900*MiB }, 300 * MiB},
	} {
		v := base()
		tt.set(&v)
		got, why := Decide(v)
		if got != tt.want || (why == "") != (got == v.Target) {
			t.Errorf("%s: %d MiB (%q), want %d", tt.name, got/MiB, why, tt.want/MiB)
		}
	}
}

// Whatever the guest reports and the host suffers, the size stays within its limits. Only a
// short host takes memory, only from an idle VM, and leaves the guest what it should keep.
func TestDecideHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := func(name string, most uint64) uint64 { return rapid.Uint64Range(0, most).Draw(t, name) }
		ago := func(name string) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, name))
		}
		v := View{Max: size("max", 64*1024)*MiB + 128*MiB, Min: size("min", 65*1024) * MiB, Short: rapid.Bool().Draw(t, "short")}
		v.Size, v.Target = size("size", v.Max*2), (min(v.Min, v.Max)+size("target", v.Max-min(v.Min, v.Max)))&^(MiB-1)
		if rapid.Bool().Draw(t, "said") {
			s := Stats{Total: size("total", ^uint64(0)), Available: size("available", ^uint64(0))}.Clamp(v.Max)
			v.Guest = &s
		}
		v.IdleFor, v.StartAgo, v.CalmFor = ago("idle"), ago("start"), ago("calm")
		v.Available, v.Total = size("host available", 1<<45), size("host", 1<<45)
		got, why := Decide(v)
		if got < min(v.Min, v.Max) || got > v.Max || got%MiB != 0 {
			t.Fatalf("%+v: %d", v, got)
		}
		if (why == "") != (got == v.Target) {
			t.Fatalf("%+v: %d, because %q", v, got, why)
		}
		if got >= v.Target {
			return
		}
		if !v.Short || v.IdleFor < IdleAfter || v.StartAgo < StartHold || v.Guest == nil {
			t.Fatalf("%+v: taken down to %d", v, got)
		}
		if taken := min(v.Size, v.Max) - got; v.Guest.Available < taken || v.Guest.Available-taken < min(minKept, keep(v.Max))-MiB {
			t.Fatalf("%+v: %d leaves it too little", v, got)
		}
	})
}

// Under lasting pressure a VM's size settles, and does not oscillate.
func TestDecideComesToRest(t *testing.T) {
	v := base()
	v.Short, v.CalmFor = true, 0
	used := v.Max - v.Guest.Available
	for range 20 {
		target, _ := Decide(v)
		v.Target, v.Size = target, target
		v.Guest = &Stats{Total: v.Max, Available: target - used}
	}
	if target, why := Decide(v); why != "" || v.Guest.Available < keep(v.Max)-MiB || v.Guest.Available > keep(v.Max)+MiB {
		t.Errorf("%d MiB, then %d: %s", v.Target/MiB, target/MiB, why)
	}
}
