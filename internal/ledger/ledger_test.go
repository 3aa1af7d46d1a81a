package ledger

import (
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func memfd(t testing.TB, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("ledger", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd
}

// full fails the test unless err says that a limit is reached.
func full(t testing.TB, err error, name string, value int64) {
	t.Helper()
	var f Full
	if !errors.As(err, &f) || f != (Full{name, value}) {
		t.Errorf("%v, want %d %s", err, value, name)
	}
}

// TestSameFile: descriptors of one file are one memory, whoever opened them, until
// the last holder has gone; and then it may be charged anew.
func TestSameFile(t *testing.T) {
	l := New(Limits{Bytes: 10 << 10, Shown: 6 << 10})
	fd := memfd(t, 4096)
	made, err := l.Charge(4096)
	if err != nil || made.Is(fd) != nil {
		t.Fatal(err)
	}
	dup, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	found, err := l.Of(dup)
	if err != nil || found != made || l.Use() != (Use{Bytes: 4096, Files: 1}) {
		t.Fatalf("%v, %+v", err, l.Use())
	}
	if err := errors.Join(found.Show(), found.Show()); err != nil || l.Use().Shown != 4096 {
		t.Fatalf("%v, %+v", err, l.Use())
	}
	made.Release()
	found.Release()
	found.Hide()
	if l.Use() != (Use{Bytes: 4096, Files: 1, Shown: 4096}) {
		t.Errorf("%+v with the compositor as the last", l.Use())
	}
	found.Hide()
	if l.Use() != (Use{}) {
		t.Errorf("%+v at the end", l.Use())
	}
	again, err := l.Of(fd)
	if err != nil || again == made || l.Use().Bytes != 4096 {
		t.Fatalf("%v, %+v", err, l.Use())
	}
	again.Release()
}

// TestGrown: a file that nobody has sealed may grow, and is charged for that.
func TestGrown(t *testing.T) {
	l := New(Limits{Bytes: 20 << 10, Shown: 10 << 10})
	fd := memfd(t, 4096)
	m, err := l.Of(fd)
	if err != nil || m.Show() != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{8192, 4096} { // what shrinks stays charged
		if err := unix.Ftruncate(fd, size); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Of(fd); err != nil || m.Size() != 8192 || l.Use().Shown != 8192 {
			t.Errorf("%v, %+v", err, l.Use())
		}
	}
	if err := unix.Ftruncate(fd, 16<<10); err != nil {
		t.Fatal(err)
	}
	_, err = l.Of(fd)
	full(t, err, NameShown, 10<<10)
	if err := unix.Ftruncate(fd, 32<<10); err != nil {
		t.Fatal(err)
	}
	_, err = l.Of(fd)
	full(t, err, NameBytes, 20<<10)
	if _, err := l.Of(1 << 20); err == nil {
		t.Error("no file is a memory")
	}
}

// TestLimits: one below each is fine, the next is refused and changes nothing.
func TestLimits(t *testing.T) {
	l := New(Limits{Bytes: 100, Files: 3, Shown: 50, Descriptors: 2, Queued: 10})
	a, err := l.Charge(60)
	if err != nil {
		t.Fatal(err)
	}
	full(t, a.Show(), NameShown, 50)
	_, err = l.Charge(41)
	full(t, err, NameBytes, 100)
	for _, n := range []int64{-1, 1<<63 - 1} {
		if _, err := l.Charge(n); err == nil {
			t.Errorf("%d bytes", n)
		}
	}
	b, _ := l.Charge(40)
	c, _ := l.Charge(0)
	_, err = l.Charge(0)
	full(t, err, NameFiles, 3)
	var ds []*Descriptor
	for range 2 {
		a.Hold()
		d, err := l.Descriptor(a)
		if err != nil || d.Memory() != a {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	_, err = l.Descriptor(nil)
	full(t, err, NameDescriptors, 2)
	if err := l.Queue(10); err != nil {
		t.Error(err)
	}
	full(t, l.Queue(1), NameQueued, 10)
	if l.Use() != (Use{Bytes: 100, Files: 3, Descriptors: 2, Queued: 10}) {
		t.Errorf("%+v", l.Use())
	}
	l.Unqueue(10)
	for _, d := range append(ds, ds...) { // a second time does nothing
		d.Release()
	}
	for _, m := range []*Memory{a, b, c} {
		m.Release()
	}
	if l.Use() != (Use{}) {
		t.Errorf("%+v at the end", l.Use())
	}
}

// TestRandom drives holders of a few files at random, and counts itself.
func TestRandom(t *testing.T) {
	fds := []int{memfd(t, 10), memfd(t, 20), memfd(t, 30)}
	rapid.Check(t, func(t *rapid.T) {
		l := New(Limits{Bytes: 45, Shown: 25, Descriptors: 4})
		type holder struct {
			file int
			mem  *Memory
			show bool
			desc *Descriptor
		}
		var hs []holder
		draw := func() int { return rapid.IntRange(0, len(hs)-1).Draw(t, "holder") }
		t.Repeat(map[string]func(*rapid.T){
			"of": func(t *rapid.T) {
				k := rapid.IntRange(0, 2).Draw(t, "file")
				if m, err := l.Of(fds[k]); err == nil {
					hs = append(hs, holder{file: k, mem: m})
				}
			},
			"show": func(t *rapid.T) {
				if len(hs) == 0 {
					t.Skip("nobody holds anything")
				}
				if h := hs[draw()]; h.mem.Show() == nil {
					hs = append(hs, holder{file: h.file, mem: h.mem, show: true})
				}
			},
			"descriptor": func(t *rapid.T) {
				if len(hs) == 0 {
					t.Skip("nobody holds anything")
				}
				h := hs[draw()]
				h.mem.Hold()
				if d, err := l.Descriptor(h.mem); err == nil {
					hs = append(hs, holder{file: h.file, mem: h.mem, desc: d})
				} else {
					h.mem.Release()
				}
			},
			"let go": func(t *rapid.T) {
				if len(hs) == 0 {
					t.Skip("nobody holds anything")
				}
				k := draw()
				switch h := hs[k]; {
				case h.show:
					h.mem.Hide()
				case h.desc != nil:
					h.desc.Release()
				default:
					h.mem.Release()
				}
				hs = append(hs[:k:k], hs[k+1:]...)
			},
			"": func(t *rapid.T) {
				var want Use
				var held, shown [3]bool
				for _, h := range hs {
					held[h.file] = true
					shown[h.file] = shown[h.file] || h.show
					if h.desc != nil {
						want.Descriptors++
					}
				}
				for k, size := range []int64{10, 20, 30} {
					if held[k] {
						want.Files++
						want.Bytes += size
					}
					if shown[k] {
						want.Shown += size
					}
				}
				if got := l.Use(); got != want || got.Bytes > 45 || got.Shown > 25 || got.Descriptors > 4 {
					t.Fatalf("%+v, want %+v", got, want)
				}
			},
		})
	})
}

// TestTogether: many goroutines hold and let go of the same memory.
func TestTogether(t *testing.T) {
	l := New(Limits{Bytes: 4096, Descriptors: 1000, Queued: 1000})
	fd := memfd(t, 4096)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				m, err := l.Of(fd)
				if err != nil {
					t.Error(err)
					return
				}
				d, err := l.Descriptor(m)
				if err != nil || m.Show() != nil || l.Queue(1) != nil {
					t.Error(err)
					return
				}
				d.Release()
				m.Hide()
				l.Unqueue(1)
			}
		})
	}
	wg.Wait()
	if l.Use() != (Use{}) {
		t.Errorf("%+v at the end", l.Use())
	}
}
