package wayland

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNoRoomForDescriptor(t *testing.T) {
	a, b := pair(t)
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[1])
	if err := a.Send([]byte("12345678"), []Desc{FileDesc(KindOther, pipe[0])}); err != nil {
		t.Fatal(err)
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	_, ds, err := b.Recv(make([]byte, 8), nil)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	CloseAll(ds)
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v", err)
	}
}
