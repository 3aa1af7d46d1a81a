package vhost

import (
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A lack of descriptors is not the front end's mistake; too many of them are.
func TestNoRoomForDescriptor(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files uint64 // limit of descriptors; 0: none free
		send  int
		full  bool // want EMFILE
	}{{"no room", 0, 1, true}, {"too many", 1 << 10, maxMessageFDs + 3, false}} {
		t.Run(tt.name, func(t *testing.T) {
			var ends [2]*net.UnixConn
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			for i, fd := range fds {
				f := os.NewFile(uintptr(fd), "end")
				c, err := net.FileConn(f)
				f.Close()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				ends[i] = c.(*net.UnixConn)
			}
			rights := make([]int, tt.send) // of standard input
			if _, _, err := ends[0].WriteMsgUnix(make([]byte, headerSize), unix.UnixRights(rights...), nil); err != nil {
				t.Fatal(err)
			}
			var was unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
				t.Fatal(err)
			}
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: tt.files, Max: was.Max}); err != nil {
				t.Fatal(err)
			}
			m, err := readMessage(ends[1], make([]byte, maxPayload), oobSpace())
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
				t.Fatal(err)
			}
			m.closeFDs()
			if err == nil || errors.Is(err, unix.EMFILE) != tt.full {
				t.Errorf("%v", err)
			}
		})
	}
}
