package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"vix/internal/desktop"
	"vix/internal/vm"
)

// A watchLine is a line of status --watch --json.
type watchLine struct {
	Event string `json:"event"`
	Name  string `json:"name,omitempty"`
	VM    *vmUse `json:"vm,omitempty"`
}

// watchStatus writes a line for each change, of the VM called name or of all.
func watchStatus(ctx context.Context, reg *vm.Registry, name string, w io.Writer, asJSON bool) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return watchInto(ctx, reg, name, w, func(e vm.Event) error {
		line := watchLine{Event: e.Event, Name: e.Name}
		if e.State != nil {
			use := withUse(*e.State)
			line.VM = &use
		}
		if asJSON {
			return enc.Encode(line)
		}
		return printEvent(w, line)
	})
}

// watchBar writes a line for waybar when its content changes.
func watchBar(ctx context.Context, reg *vm.Registry, name string, w io.Writer) error {
	var bar desktop.Bar
	var last []byte
	ready := false
	return watchInto(ctx, reg, name, w, func(e vm.Event) error {
		bar.Update(e)
		ready = ready || e.Event == vm.EventReady
		line := bar.Line()
		if !ready || bytes.Equal(line, last) {
			return nil
		}
		last = line
		_, err := w.Write(line)
		return err
	})
}

// watchInto calls each, which writes to w, as VMs change, until an interrupt or until w has no
// reader any more.
func watchInto(ctx context.Context, reg *vm.Registry, name string, w io.Writer, each func(vm.Event) error) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	// The loss of the bar is no error, and is noticed before the next change.
	signal.Ignore(unix.SIGPIPE)
	defer signal.Reset(unix.SIGPIPE)
	ctx, unread, err := untilUnread(ctx, w)
	if err != nil {
		return err
	}
	defer unread()
	err = reg.Watch(ctx, name, each)
	if errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

func printEvent(w io.Writer, e watchLine) error {
	var err error
	switch {
	case e.VM != nil:
		_, err = fmt.Fprintf(w, "%s  %s  %d windows  %s\n", e.Name, e.VM.State.State, len(e.VM.Windows), programNames(e.VM.Programs))
	case e.Event == vm.EventEnded:
		_, err = fmt.Fprintf(w, "%s  ended\n", e.Name)
	}
	return err
}

// untilUnread returns a context that ends when the pipe w has no reader any more. The
// function frees its resources.
func untilUnread(ctx context.Context, w io.Writer) (context.Context, func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	out := fileOf(w)
	if out == nil {
		return ctx, cancel, nil
	}
	wake, end, err := os.Pipe()
	if err != nil {
		cancel()
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// For the first, poll reports only errors: POLLERR means a pipe without a reader.
		fds := []unix.PollFd{{Fd: int32(out.Fd())}, {Fd: int32(wake.Fd()), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(fds, -1); !errors.Is(err, unix.EINTR) {
				cancel()
				return
			}
		}
	}()
	return ctx, func() {
		end.Close()
		<-done
		wake.Close()
		cancel()
	}, nil
}
