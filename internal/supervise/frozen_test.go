package supervise

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/vm"
)

// The bytes that state and stop are for ever: of the first versions, of this one, and of one
// that is still to come. Never change them: a VM that was started by a version must be seen
// and stopped by any other.
var frozenRequests = map[string]string{
	"of old":  "\x1a\x00\x00\x00" + `{"version":1,"op":"state"}`,
	"second":  "\x1a\x00\x00\x00" + `{"version":2,"op":"state"}`,
	"third":   "\x1a\x00\x00\x00" + `{"version":3,"op":"state"}`,
	"of now":  "\x1a\x00\x00\x00" + `{"version":4,"op":"state"}`,
	"turned":  "\x41\x00\x00\x00" + `{"argv":[{"hex":"00"}],"how":{"cwd":7},"op":"state","version":99}`,
	"to come": "\x4b\x00\x00\x00" + `{"version":99,"op":"state","how":[7],"argv":"x","size":"3x4","new":{"a":1}}`,
	"stop":    "\x47\x00\x00\x00" + `{"version":99,"op":"stop","force":true,"how":[7],"argv":"x","new":[{}]}`,
}

// askRaw writes bytes to a VM's supervisor, and returns its answer.
func (b *bench) askRaw(name, request string) map[string]json.RawMessage {
	b.t.Helper()
	conn, _, err := b.reg.Dial(name)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		b.t.Fatal(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		b.t.Fatal(err)
	}
	body := make([]byte, binary.LittleEndian.Uint32(head[:]))
	if _, err := io.ReadFull(conn, body); err != nil {
		b.t.Fatal(err)
	}
	answer := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &answer); err != nil {
		b.t.Fatal(err)
	}
	return answer
}

func TestFrozen(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	b.state(s)
	for _, when := range []string{"of old", "second", "third", "of now", "turned", "to come"} {
		var st struct{ Name, State string }
		if err := json.Unmarshal(b.askRaw("t", frozenRequests[when])["state"], &st); err != nil || st.Name != "t" || st.State != vm.StateRunning {
			t.Errorf("%s: %+v, %v", when, st, err)
		}
	}
	run := `{"version":99,"op":"run","argv":["true"]}`
	if fail := b.askRaw("t", string(binary.LittleEndian.AppendUint32(nil, uint32(len(run))))+run)["fail"]; !strings.Contains(string(fail), "started by another version") {
		t.Errorf("a run of another version: %s", fail)
	}
	if done := b.askRaw("t", frozenRequests["stop"])["done"]; string(done) != "true" {
		t.Errorf("stop: %s", done)
	}
	<-s.done
	b.nothingLeft()
}

// What other versions' supervisors answer: a state with members of other types is read as
// far as it goes, and a stop that is refused is told at once.
func TestFrozenAnswers(t *testing.T) {
	b := newBench(t)
	seat, err := b.reg.Take(t.Context(), "t")
	if err != nil || seat == nil {
		t.Fatal(seat, err)
	}
	defer seat.Close()
	answers := []string{
		`{"state":{"name":"t","state":"running","cpus":"many","programs":{},"new":1},"new":[]}`,
		`{"fail":{"text":"VM t: not now","code":125}}`,
	}
	ln := seat.Listener
	served := make(chan error, 1)
	go func() {
		for _, a := range answers {
			fd, _, err := unix.Accept4(int(ln.Fd()), unix.SOCK_CLOEXEC)
			if err != nil {
				served <- err
				return
			}
			f := os.NewFile(uintptr(fd), "client")
			_, _ = f.Read(make([]byte, 4096))
			_, _ = f.WriteString(string(binary.LittleEndian.AppendUint32(nil, uint32(len(a)))) + a)
			f.Close()
		}
		served <- nil
	}()
	if st, err := b.reg.State(t.Context(), "t"); err != nil || st.Name != "t" || st.State != vm.StateRunning {
		t.Errorf("%+v, %v", st, err)
	}
	begin := time.Now()
	if err := b.reg.Stop(t.Context(), "t", false); err == nil || err.Error() != "VM t: not now" {
		t.Errorf("%v", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the refusal was told after %v", d)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A supervisor without a free descriptor refuses clients, each at once and with the reason,
// and goes on.
func TestNoDescriptors(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	pid := b.state(s).PIDs.Supervisor
	var was unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	limit := func(n uint64) {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max}, nil); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		most = max(most, fd)
	}
	// Clients that say nothing take what is left; the last of them are refused.
	limit(uint64(most) + 2)
	var idle []io.Closer
	for range most + 2 {
		conn, _, err := b.reg.Dial("t")
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	for range 5 {
		run := b.exec(vm.How{}, "echo", "hi")
		ctx, cancel := context.WithTimeout(t.Context(), requestLimit)
		_, err := b.reg.Run(ctx, run.run)
		cancel()
		var f *vm.Failure
		if !errors.As(err, &f) || !strings.Contains(f.Text, "cannot take another client: too many open files") {
			t.Errorf("%v", err)
		}
	}
	// Room for the connection, and not for all that comes with it.
	for range 2 {
		idle[0].Close()
		idle = idle[1:]
	}
	run := b.exec(vm.How{}, "echo", "hi")
	_, err = b.reg.Run(t.Context(), run.run)
	if f := (*vm.Failure)(nil); !errors.As(err, &f) || !strings.Contains(f.Text, "too many open files") {
		t.Errorf("with a few descriptors: %v", err)
	}
	for _, c := range idle {
		c.Close()
	}
	limit(was.Cur)
	again := b.goRun(b.exec(vm.How{}, "echo", "hi"))
	<-again.done
	if again.fail != nil || again.out.String() != "hi\n" {
		t.Errorf("with descriptors again: %v, %q", again.fail, again.out.String())
	}
	s.signals <- syscall.SIGTERM
	<-s.done
	if s.fail != nil {
		t.Error(s.fail)
	}
}
