package launch

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"vix/internal/desktop"
	"vix/internal/plain"
	"vix/internal/vm"
)

// An EndedError says that a program in the background has failed as it started.
type EndedError struct {
	VM, Program string
	Exit        *vm.Exit
}

func (e *EndedError) Error() string {
	words := ""
	if e.Exit.Words != "" {
		words = ": " + e.Exit.Words
	}
	return fmt.Sprintf("VM %s: %s ended at once with status %d%s; see vix logs %s", e.VM, plain.Clip(e.Program), e.Exit.Status(), words, e.VM)
}

// Unwrap gives run its exit status.
func (e *EndedError) Unwrap() error { return &vm.Failure{Code: e.Exit.Status(), Text: e.Error()} }

// EndedAtOnce returns an EndedError, or nil for a program that has succeeded.
func EndedAtOnce(name, program string, exit *vm.Exit) error {
	if exit.Status() == 0 {
		return nil
	}
	return &EndedError{name, program, exit}
}

// A toldError is one that a notification has shown.
type toldError struct{ error }

func (e *toldError) Unwrap() error { return e.error }

// Told returns err, which a notification or the menu has shown.
func Told(err error) error {
	if err == nil {
		return nil
	}
	return &toldError{err}
}

// IsTold reports whether an error has been shown.
func IsTold(err error) bool {
	var told *toldError
	return errors.As(err, &told)
}

// noticeLimit is how long whoever has failed waits for the notification of it.
const noticeLimit = 3 * time.Second

// NotifyFailure shows that what, such as "vix run foot", has failed, if there is a session bus.
func (l *Launcher) NotifyFailure(ctx context.Context, what string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noticeLimit)
	defer cancel()
	conn, derr := l.DialBus(ctx)
	if derr != nil {
		return
	}
	defer conn.Close()
	_, _ = desktop.NewNotifier(conn).Show(ctx, desktop.Note{
		Summary: what + " failed", Body: noticeOf(err).Error(), Icon: "dialog-error", Category: "device.error",
	})
}

// noticeOf is the text of err in a notification, the cause first.
func noticeOf(err error) error {
	var ended *EndedError
	if errors.As(err, &ended) {
		return errors.New(vm.EndedText(ended.VM, path.Base(ended.Program), ended.Exit))
	}
	return err
}
