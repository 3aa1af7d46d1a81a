package supervise

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/proc"
)

// fsEnds are the two ends of a connection.
func fsEnds(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	near, far, err := proc.Socketpair("test")
	if err != nil {
		t.Fatal(err)
	}
	a, err = proc.UnixConn(near)
	if err != nil {
		t.Fatal(err)
	}
	b, err = proc.UnixConn(far)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// A server is told what the one before was told, that queues go on where their answers end,
// and is kicked when it has taken it all.
func TestTakeover(t *testing.T) {
	le := binary.LittleEndian
	qemu, far := fsEnds(t)
	first, firstEnd := fsEnds(t)
	second, secondEnd := fsEnds(t)
	tk := newTakeover(far, firstEnd, func() (*net.UnixConn, error) { return secondEnd, nil })
	done := make(chan error, 2)
	go func() { done <- tk.fromQEMU() }()
	go func() { done <- tk.fromServer() }()

	mem, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	kick, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	memory, event := os.NewFile(uintptr(mem), "memory"), os.NewFile(uintptr(kick), "kick")
	defer memory.Close()
	defer event.Close()
	if _, err := memory.WriteAt([]byte{0, 0, 7, 1}, 0x3000); err != nil { // the used ring: flags, index
		t.Fatal(err)
	}
	words := func(list ...uint64) (b []byte) {
		for _, w := range list {
			b = le.AppendUint64(b, w)
		}
		return b
	}
	// The second region lies at 0x10000 of QEMU's, and at 0x2000 of the file.
	messages := []fsMessage{
		{req: fsSetOwner},
		{req: fsSetProtocolFeatures, payload: words(fsMemSlots)},
		{req: fsSetFeatures, payload: words(1 << 30)},
		{req: fsAddMemReg, payload: words(0, 0x90000, 0x1000, 0x90000, 0), fds: []int{mem}},
		{req: fsRemMemReg, payload: words(0, 0x90000, 0x1000, 0x90000, 0)},
		{req: fsAddMemReg, payload: words(0, 0x50000, 0x2000, 0x10000, 0x2000), fds: []int{mem}},
		{req: fsSetVringNum, payload: words(1 | 128<<32)},
		{req: fsSetVringBase, payload: words(1)},
		{req: fsSetVringAddr, payload: words(1, 0x10000, 0x11000, 0x10800, 0)},
		{req: fsSetVringKick, payload: words(1), fds: []int{kick}},
		{req: fsSetVringCall, payload: words(1), fds: []int{kick}},
		{req: fsSetVringEnable, payload: words(1 | 1<<32)},
	}
	take := func(from *net.UnixConn, want uint32) fsMessage {
		t.Helper()
		m, err := readFS(from)
		if err != nil || m.req != want {
			t.Fatalf("message %d, %v; want %d", m.req, err, want)
		}
		t.Cleanup(m.close)
		return m
	}
	for _, m := range messages {
		m.flags = fsVersion
		if err := writeFS(qemu, m); err != nil {
			t.Fatal(err)
		}
		if got := take(first, m.req); string(got.payload) != string(m.payload) || len(got.fds) != len(m.fds) {
			t.Errorf("message %d: %v with %d descriptors", m.req, got.payload, len(got.fds))
		}
	}
	first.Close()
	answer := func(req uint32) {
		t.Helper()
		take(second, req)
		if err := writeFS(second, fsMessage{req: req, flags: fsVersion | 1<<2, payload: words(1 << 30)}); err != nil {
			t.Fatal(err)
		}
	}
	// All questions come before their answers are read.
	answer(fsGetFeatures)
	take(second, fsSetOwner)
	answer(fsGetProtocolFeatures)
	take(second, fsSetProtocolFeatures)
	answer(fsGetQueueNum)
	take(second, fsSetFeatures)
	if m := take(second, fsAddMemReg); le.Uint64(m.payload[8:]) != 0x50000 || len(m.fds) != 1 {
		t.Errorf("memory: %v", m.payload)
	}
	take(second, fsSetVringNum)
	if m := take(second, fsSetVringBase); string(m.payload) != string(words(1|0x107<<32)) {
		t.Errorf("the queue goes on at %v", m.payload)
	}
	take(second, fsSetVringAddr)
	take(second, fsSetVringKick)
	take(second, fsSetVringCall)
	take(second, fsSetVringEnable)
	var count [8]byte
	if _, err := unix.Read(kick, count[:]); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("kicked too early: %v", err)
	}
	answer(fsGetFeatures)
	// What QEMU says goes to the second now, and its answers come.
	if err := writeFS(qemu, fsMessage{req: fsGetMaxMemSlots, flags: fsVersion}); err != nil {
		t.Fatal(err)
	}
	answer(fsGetMaxMemSlots)
	take(qemu, fsGetMaxMemSlots)
	if n, err := unix.Read(kick, count[:]); n != 8 || err != nil {
		t.Errorf("not kicked: %v", err)
	}
	qemu.Close()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if _, err := readFS(second); err == nil {
		t.Error("the server is not told that QEMU has gone")
	}
}

// What is not of the protocol ends it, and is not kept.
// TestTakeoverOfTheHung holds that a next server that answers nothing, as one that is
// stopped, does not keep the takeover from ending.
func TestTakeoverOfTheHung(t *testing.T) {
	qemu, far := fsEnds(t)
	first, firstEnd := fsEnds(t)
	_, mute := fsEnds(t)
	renewing, tries := make(chan struct{}), 0
	tk := newTakeover(far, firstEnd, func() (*net.UnixConn, error) {
		if tries++; tries > 1 {
			return nil, errors.New("one is enough")
		}
		close(renewing)
		return mute, nil
	})
	for _, req := range []uint32{fsSetFeatures, fsSetProtocolFeatures} {
		if err := tk.forward(fsMessage{req: req, flags: fsVersion, payload: make([]byte, 8)}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- tk.fromServer() }()
	first.Close()
	<-renewing
	tk.close() // waits for whoever holds the lock
	if err := <-done; err == nil || tries != 2 {
		t.Errorf("%d tries, %v: it goes on with a server that says nothing", tries, err)
	}
	_ = qemu.Close()
}

func FuzzTakeoverSetup(f *testing.F) {
	for _, req := range []uint32{fsSetMemTable, fsAddMemReg, fsRemMemReg, fsSetVringAddr, fsSetVringKick, fsSetVringNum} {
		f.Add(req, make([]byte, 8))
		f.Add(req, make([]byte, 40))
		f.Add(req, []byte{255, 255, 255, 255})
	}
	f.Fuzz(func(_ *testing.T, req uint32, payload []byte) {
		var setup fsSetup
		defer setup.forget()
		for range 2 {
			_ = setup.note(&fsMessage{req: req, flags: fsVersion, payload: payload})
		}
		for _, ring := range setup.rings {
			_, _ = setup.usedIndex(ring)
		}
	})
}
