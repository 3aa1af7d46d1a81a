package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

// The agent does its own tasks in a process of their own: this binary, started by one of these
// names, with the host's request as its only argument. Only the copier runs as another user
// than root.
const (
	copyName    = "vix-copy"
	driversName = "vix-drivers"
	mountName   = "vix-mount"
)

// ownCommand returns the command line that carries out a request.
func ownCommand(r agent.Request) ([]string, error) {
	text, err := r.Encode()
	if err != nil {
		return nil, err
	}
	name := copyName
	switch {
	case r.Mount != nil, r.Unmount != nil:
		name = mountName
	case r.Drivers != nil:
		name = driversName
	}
	return []string{name, string(text)}, nil
}

// ownMain carries out the request in its argument.
func ownMain(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "one request is carried out")
		return 2
	}
	r, err := agent.ParseRequest([]byte(args[0]))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	switch {
	case r.Mount != nil:
		err = mountDevice(*r.Mount)
	case r.Unmount != nil:
		err = unmount(*r.Unmount)
	case r.Drivers != nil:
		err = loadDrivers(*r.Drivers, os.Stdin)
	default:
		_ = os.WriteFile("/proc/self/comm", []byte(copyName), 0) // the name in ps
		// A receiver learns of its peer's end by the end of the stream, and then has files to remove.
		signal.Ignore(unix.SIGHUP, unix.SIGINT)
		err = copyFiles(r, os.Stdin, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
