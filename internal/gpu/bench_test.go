package gpu_test

import (
	"testing"

	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
	"vix/internal/vhost"
	"vix/internal/virtwl"
	"vix/internal/wayland"
)

// reflect is the shortest possible relay: it sends back what it receives.
func reflect(tr wayland.Transport) {
	defer tr.Close()
	buf, ds := make([]byte, 4096), make([]wayland.Desc, 0, wayland.MaxDescs)
	for {
		n, _, err := tr.Recv(buf, ds)
		if err != nil || tr.Send(buf[:n], nil) != nil {
			return
		}
	}
}

func sink(tr wayland.Transport) {
	defer tr.Close()
	buf, ds := make([]byte, 64<<10), make([]wayland.Desc, 0, wayland.MaxDescs)
	for {
		if _, _, err := tr.Recv(buf, ds); err != nil {
			return
		}
	}
}

// BenchmarkDevice runs everything except QEMU: rings, eventfds, device, context
// and relay. BenchmarkRequest of package vhost measures the front end's share.
func BenchmarkDevice(b *testing.B) {
	const features = gputest.Features | vhost.FeatureEventIdx
	b.Run("send-400", func(b *testing.B) {
		r := newRig(b, gpu.Config{Accept: sink}, features)
		c, err := r.Connect(nil)
		must(b, err)
		q := c.Start(gputest.SendCmd(make([]byte, 400)), -1)
		_, err = q.Wait()
		must(b, err)
		b.ReportAllocs()
		for b.Loop() {
			q.Again()
			if _, err := q.Wait(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("round-trip-12", func(b *testing.B) {
		r := newRig(b, gpu.Config{Accept: reflect}, features)
		c, err := r.Connect(nil)
		must(b, err)
		poll := c.Poll()
		send := c.Start(gputest.SendCmd(make([]byte, 12)), -1) // the size of wl_display.sync
		_, err = send.Wait()
		must(b, err)
		_, err = poll.Wait()
		must(b, err)
		b.ReportAllocs()
		for b.Loop() {
			poll.Again()
			send.Again()
			_, err1 := send.Wait()
			_, err2 := poll.Wait()
			if err1 != nil || err2 != nil || c.Channel[0] != virtwl.CmdReceive {
				b.Fatal(err1, err2)
			}
		}
	})
	b.Run("connect", func(b *testing.B) {
		r := newRig(b, gpu.Config{Accept: sink}, features)
		var again *gputest.Conn
		b.ReportAllocs()
		for b.Loop() {
			c, err := r.Connect(again)
			must(b, err)
			must(b, c.Close())
			again = c
		}
	})
	b.Run("blob-1MiB", func(b *testing.B) {
		r := newRig(b, gpu.Config{Accept: sink}, features)
		c, err := r.Connect(nil)
		must(b, err)
		b.ReportAllocs()
		for b.Loop() {
			res, _, err := c.Blob(1 << 20)
			must(b, err)
			must(b, r.Drop(res))
		}
	})
}
