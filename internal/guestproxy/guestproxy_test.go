package guestproxy

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// TestStats holds that a connection is measured while the file is there, that it is
// served as ever when it is not, and that a file which nobody reads harms nothing.
func TestStats(t *testing.T) {
	waylandtest.LeakCheck(t)
	file := filepath.Join(t.TempDir(), "stats")
	s := &server{cfg: Config{Stats: file}}
	serve := func() {
		t.Helper()
		cn, cf := waylandtest.Pair(t)
		sn, sf := waylandtest.Pair(t)
		client, host := &waylandtest.Peer{T: t, Tr: cn}, &waylandtest.Peer{T: t, Tr: sn}
		meter, done := s.meter()
		ended := make(chan error, 1)
		go func() {
			ended <- Relay(context.Background(), Client{Blobs: &waylandtest.Memfds{}, Meter: meter, Log: slog.New(slog.DiscardHandler)}, cf, sf)
		}()
		for k := range uint32(2) { // a round ends when the next one begins
			client.Send(1, wayland.WlDisplayReqSync, 2+k)
			id := host.Want(1, wayland.WlDisplayReqSync).Word(0)
			host.Send(id, wayland.WlCallbackEvtDone, 0)
			client.Want(2+k, wayland.WlCallbackEvtDone)
		}
		_ = cn.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = sn.Close()
		done()
	}
	lines := func() int {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(b, []byte("\n"))
	}
	serve()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file was made: %v", err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	serve()
	serve()
	if n := lines(); n != 2 {
		t.Errorf("%d lines of two connections", n)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	serve()
}
