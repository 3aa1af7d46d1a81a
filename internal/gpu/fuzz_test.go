package gpu_test

import (
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
	"vix/internal/vhost/vhosttest"
	"vix/internal/wayland"
)

// FuzzControl is a guest that puts arbitrary requests, [u16 length][bytes] each, on the
// control queue. Each gets an answer, unless it is a POLL that waits; after a reset
// nothing is left. The corpus has Linux 6.12's commands.
func FuzzControl(f *testing.F) {
	// A process uses one device for all inputs, and resets it between them.
	r := newRig(f, gpu.Config{
		Accept: func(tr wayland.Transport) { _ = serveEcho(tr) },
		Limits: gpu.Limits{Window: 1 << 30, Mappings: 16, BlobBytes: 1 << 30},
	}, gputest.Features)
	runs := 0
	f.Fuzz(func(t *testing.T, in []byte) {
		var parked []*vhosttest.Request
		for n := 0; len(in) > 2 && n < 40; n++ {
			k := min(int(in[0])|int(in[1])<<8, len(in)-2, vhosttest.SlotSize-gputest.AnswerSize)
			req := in[2 : 2+k]
			in = in[2+k:]
			q := r.Control.Submit(req, gputest.AnswerSize)
			if mayWait(req) {
				parked = append(parked, q)
				continue
			}
			select {
			case <-q.Done():
				q.Free()
			case <-time.After(10 * time.Second):
				panic("a request is not answered")
			}
		}
		resetRig(t, r)
		for _, q := range parked {
			select {
			case <-q.Done():
			case <-time.After(10 * time.Second):
				panic("a parked request outlived the reset")
			}
		}
		if runs++; runs%500 == 0 {
			waitFDs(t)
		}
	})
}

// mayWait reports whether the device may hold the request: SUBMIT_3D with a fence on a
// ring.
func mayWait(req []byte) bool {
	return len(req) >= gputest.HeaderSize && binary.LittleEndian.Uint32(req) == gputest.Submit3D && req[4]&3 == 3 && req[20] > 0
}

func resetRig(t *testing.T, r *rig) {
	t.Helper()
	for i, ring := range r.fe.Rings {
		_, err := r.fe.Call(vhosttest.GetVringBase, vhosttest.State(uint32(i), 0))
		must(t, err)
		ring.Forget()
	}
	for _, ring := range r.fe.Rings {
		must(t, ring.Run())
	}
}

// waitFDs waits until the process has no more descriptors than a rig.
func waitFDs(t *testing.T) {
	t.Helper()
	n := 0
	for range 200 {
		if n = countFDs(t); n < 80 {
			return
		}
		time.Sleep(20 * time.Millisecond) // pipes linger for a second
	}
	t.Errorf("%d descriptors are open", n)
}

// TestCorpora: a fuzz target without a corpus tests nothing.
func TestCorpora(t *testing.T) {
	if fs, _ := filepath.Glob(filepath.Join("testdata", "fuzz", "FuzzControl", "*")); len(fs) == 0 {
		t.Error("FuzzControl has no corpus")
	}
}
