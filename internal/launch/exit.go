package launch

import (
	"fmt"

	"vix/internal/plain"
	"vix/internal/vm"
)

// EndedAtOnce says that a program in the background has failed as it started.
func EndedAtOnce(name, program string, exit *vm.Exit) error {
	code := ExitCode(exit)
	if code == 0 {
		return nil
	}
	return &vm.Failure{Code: code, Text: fmt.Sprintf("VM %s: %s ended at once with status %d; see vix logs %s", name, plain.Clip(program), code, name)}
}

// ExitCode is the status of a program that has ended, as a shell has it: 128+n for
// signal n.
func ExitCode(x *vm.Exit) int {
	if x.Signal != 0 {
		return 128 + x.Signal
	}
	return x.Code
}
