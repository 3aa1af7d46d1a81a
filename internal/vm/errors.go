package vm

import (
	"errors"
	"fmt"
)

// Exit statuses of "run" that are not the program's own; as in a shell.
const (
	CodeVix      = 125 // Vix itself failed
	CodeNotExec  = 126
	CodeNotFound = 127
)

// A Failure is an error with the exit status that stands for it. Its text is
// one line: the object, the cause, the next step.
type Failure struct {
	Code int
	Text string
}

func (f *Failure) Error() string { return f.Text }

func Failf(format string, args ...any) *Failure {
	return &Failure{CodeVix, fmt.Sprintf(format, args...)}
}

// ErrNotRunning is returned for a VM that does not run.
var ErrNotRunning = errors.New("not running")
