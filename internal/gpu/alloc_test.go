//go:build !race

package gpu_test

import (
	"testing"

	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
)

// TestDeviceAllocs: a SEND allocates nothing from the ring to the relay.
func TestDeviceAllocs(t *testing.T) {
	r := newRig(t, gpu.Config{Accept: reflect}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	poll := c.Poll()
	send := c.Start(gputest.SendCmd(make([]byte, 400)), -1)
	_, err = send.Wait()
	must(t, err)
	_, err = poll.Wait()
	must(t, err)
	if n := testing.AllocsPerRun(2000, func() {
		poll.Again()
		send.Again()
		_, err1 := send.Wait()
		_, err2 := poll.Wait()
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a SEND, a POLL and a RECEIVE", n)
	}
}
