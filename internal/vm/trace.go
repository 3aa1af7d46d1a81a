package vm

import (
	"context"
	"io"
	"os"

	"vix/config"
)

// A trace goes past the supervisor: the client makes a pipe, its far end travels
// with the request to the supervisor and from there to the display process, which
// writes to it until nobody reads it.
//
//	client ──trace + pipe──► supervisor ──packet + pipe──► display
//	       ◄──────────────────── lines ────────────────────────┘

// Trace writes every message between the VM's programs and the compositor to w,
// a line each, until the VM ends or ctx is done. classes is a list as of
// vix-waylandproxy's --trace.
func (r *Registry) Trace(ctx context.Context, name, classes string, w io.Writer) error {
	if err := config.CheckName(name); err != nil {
		return Failf("%v", err)
	}
	conn, _, err := r.Dial(name)
	if err != nil {
		return Failf("VM %s: %v", name, err)
	}
	defer conn.Close()
	lines, far, err := os.Pipe()
	if err != nil {
		return Failf("trace: %v", err)
	}
	defer lines.Close()
	unhook := context.AfterFunc(ctx, func() {
		conn.Close()
		lines.Close()
	})
	defer unhook()
	c := &Control{Conn: conn}
	err = c.Send(Request{Version: ControlVersion, Op: OpTrace, Classes: classes}, far)
	far.Close()
	var rep Reply
	if err == nil {
		err = c.Recv(&rep, MaxFrame)
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return Failf("VM %s: %v", name, err)
	case rep.Fail != nil:
		return rep.Fail
	}
	if _, err = io.Copy(w, lines); ctx.Err() != nil {
		return nil
	}
	return err
}
