package clipboard

import (
	"bufio"
	"context"
	"net"
	"time"
)

// To follow a VM is the third exchange, in steps, so that no answer is older than its
// question and a flood of changes is one:
//
//	{"after":0}  ─►
//	             ◄─ {"seq":7,"copies":3,"has":true,"enters":12}   once seq is not "after"

// A Status is what a process of the user's may know of a VM's clipboard at any time.
type Status struct {
	Seq    uint64 `json:"seq"`    // counts changes of anything
	Copies uint64 `json:"copies"` // counts selections that programs made while the VM had the keyboard
	Has    bool   `json:"has"`    // a program has a selection
	Enters uint64 `json:"enters"` // counts windows that got the keyboard; 0 while none has it
}

type followRequest struct {
	After uint64 `json:"after"`
}

// Follow is the user's side: it waits for a Status with another Seq than after, the
// first with 0. It returns an error when conn is closed, or the VM has gone.
func Follow(conn net.Conn, after uint64) (st Status, err error) {
	if err := writeLine(conn, followRequest{after}); err != nil {
		return st, err
	}
	return st, readLine(bufio.NewReaderSize(conn, maxLine), &st)
}

// ServeFollow is the display process's side: it returns when conn is closed.
func (w *World) ServeFollow(ctx context.Context, conn net.Conn) {
	unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer unhook()
	asks := make(chan uint64)
	go func() {
		defer close(asks)
		r := bufio.NewReaderSize(conn, maxLine)
		for {
			var q followRequest
			if readLine(r, &q) != nil {
				return
			}
			asks <- q.After
		}
	}()
	defer func() {
		_ = conn.Close()
		for range asks { // up to its end
		}
	}()
	bell := make(chan struct{}, 1)
	w.mu.Lock()
	w.bells[bell] = struct{}{}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.bells, bell)
	}()
	for after := range asks {
		st := w.status()
		for ; st.Seq == after; st = w.status() {
			select {
			case <-bell:
			case <-asks: // it has gone, or asks before it was answered
				return
			}
		}
		_ = conn.SetWriteDeadline(time.Now().Add(stall))
		if writeLine(conn, st) != nil {
			return
		}
	}
}

func (w *World) status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := Status{Seq: w.seq, Copies: w.copies, Has: w.slots[Clipboard].own != nil}
	if w.focus != nil {
		st.Enters = w.enters
	}
	return st
}

// ring wakes the followers. Its caller holds the lock.
func (w *World) ring() {
	w.seq++
	for bell := range w.bells {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
}
