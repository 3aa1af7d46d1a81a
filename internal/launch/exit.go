package launch

import (
	"errors"
	"fmt"
	"path"

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

// noticeOf is the text of err in a notification, the cause first.
func noticeOf(err error) error {
	var ended *EndedError
	if errors.As(err, &ended) {
		return errors.New(vm.EndedText(ended.VM, path.Base(ended.Program), ended.Exit))
	}
	return err
}
