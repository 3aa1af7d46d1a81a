package relay

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// meteredRig is a connection with a meter.
func meteredRig(t *testing.T, m *Meter) *rig {
	t.Helper()
	return newRigOver(t, Config{}, m.Near, m.Far)
}

// TestMeter holds that a meter finds the slow end, and that the stages are the
// whole time.
func TestMeter(t *testing.T) {
	waylandtest.LeakCheck(t)
	var m Meter
	var out bytes.Buffer
	stop, ok := m.Start(&out)
	if !ok {
		t.Fatal("a fresh meter is in use")
	}
	if _, ok := m.Start(&out); ok {
		t.Error("a meter was started twice")
	}
	begin := time.Now()
	r := meteredRig(t, &m)
	const rounds, slow = 5, 10 * time.Millisecond
	for k := range uint32(rounds) {
		r.client.Send(1, wayland.WlDisplayReqSync, 2+k)
		id := r.server.Want(1, wayland.WlDisplayReqSync).Word(0)
		<-time.After(slow) // the server thinks
		m.Pixels(100, time.Microsecond)
		r.server.Send(id, wayland.WlCallbackEvtDone, 0)
		r.client.Want(2+k, wayland.WlCallbackEvtDone)
	}
	r.client.Send(1, wayland.WlDisplayReqSync, 2+rounds) // ends the last round
	r.server.Want(1, wayland.WlDisplayReqSync)
	r.close()
	took := time.Since(begin)
	var l MeterLine
	if err := json.Unmarshal(out.Bytes(), &l); err != nil {
		t.Fatal(err)
	}
	if l.Rounds != rounds || l.Copied != 100 {
		t.Errorf("%d rounds, %d bytes in each", l.Rounds, l.Copied)
	}
	sum := 0.0
	for _, v := range l.Stages {
		sum += v
	}
	if most := float64(took.Microseconds()); sum > most || l.Stages["far"] < float64(slow.Microseconds())/2 || l.Stages["copy"] != 1 {
		t.Errorf("a round takes %.0f µs of %.0f: %v", sum, most, l.Stages)
	}
	stop()
	out.Reset()
	r = meteredRig(t, &m)
	r.client.Send(1, wayland.WlDisplayReqSync, 2)
	r.server.Want(1, wayland.WlDisplayReqSync)
	r.close()
	if out.Len() > 0 {
		t.Errorf("a stopped meter wrote %s", &out)
	}
}
