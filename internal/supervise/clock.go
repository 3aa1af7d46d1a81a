package supervise

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchClock calls jumped whenever the host's wall clock has jumped, until ctx ends: after
// somebody has set it, and after the host's sleep, which stops the clock that a guest goes
// by. The kernel reports both by cancelling a timer (timerfd_create(2),
// TFD_TIMER_CANCEL_ON_SET): nothing polls. It is a variable because tests do not set the
// machine's clock.
var watchClock = func(ctx context.Context, jumped func()) error {
	return watchTimer(ctx, clockEnd, jumped)
}

// clockEnd is the last second that the kernel's clocks can hold, in 2262. A timer for that
// second does not fire; a timer for a second in the past fires for ever.
const clockEnd = math.MaxInt64 / int64(time.Second)

// watchTimer is watchClock by a timer for the second end. It fails if the timer fires.
func watchTimer(ctx context.Context, end int64, jumped func()) error {
	at := unix.ItimerSpec{Value: unix.Timespec{Sec: end}}
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	timer := os.NewFile(uintptr(fd), "clock")
	defer timer.Close()
	stop := context.AfterFunc(ctx, func() { timer.Close() })
	defer stop()
	conn, err := timer.SyscallConn()
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		var armErr error
		err := conn.Control(func(fd uintptr) {
			armErr = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &at, nil)
		})
		if err = errors.Join(err, armErr); err != nil && !errors.Is(err, unix.ECANCELED) {
			return err
		}
		switch _, err = timer.Read(make([]byte, 8)); {
		case errors.Is(err, unix.ECANCELED):
			jumped()
		case err == nil:
			return fmt.Errorf("the clock is past %v", time.Unix(end, 0).UTC())
		default:
			return err
		}
	}
	return nil
}

// keepClock sets the guest's clock whenever the host's has jumped.
func (s *guest) keepClock(ctx context.Context) {
	err := watchClock(ctx, func() {
		s.log.Add("vix", "the host's clock has jumped: the guest's is set anew")
		if err := s.agent.SetClock(); err != nil {
			s.log.Printf("vix", "clock: %v", err)
		}
	})
	if err != nil && ctx.Err() == nil {
		s.note("VM %s: cannot watch the host's clock, so the guest's may be wrong after a suspend: %v", s.launch.VM.Name, err)
	}
}
