// Command hostile is the guest program of the tests of threats: it knows the render
// node and no proxy.
//
//	hostile [--socket PATH] [--debug] [once] ATTACK [ARG…]
//
// It ends at a signal, or when the attack has.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"vix/internal/hostile"
	"vix/internal/virtwl"
)

const node = "/dev/dri/renderD128"

func main() {
	socket := flag.String("socket", "", "a compositor's socket, instead of the render node")
	debug := flag.Bool("debug", false, "write every event to standard error")
	flag.Parse()
	if flag.NArg() < 1 {
		fmt.Fprintln(os.Stderr, "usage: hostile [--socket PATH] ATTACK [ARG…]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, func() { os.Exit(0) }) // whatever it waits for
	r := &hostile.Run{
		Open: func() (*hostile.Client, error) {
			c, err := open(ctx, *socket)
			if err == nil && *debug {
				c.On = func(id uint32, op uint16, body []byte) { fmt.Fprintf(os.Stderr, "event %d of %d: %x\n", op, id, body) }
			}
			return c, err
		},
		Node: func() (*hostile.Node, error) { return hostile.OpenNode(node) },
		Out:  os.Stdout,
		Args: flag.Args()[1:],
		Hold: func() { select {} },
	}
	name := flag.Arg(0)
	if name == "once" { // end when the attack has nothing more to do
		name, r.Args, r.Hold = flag.Arg(1), flag.Args()[2:], func() {}
	}
	if err := hostile.Do(name, r); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func open(ctx context.Context, socket string) (*hostile.Client, error) {
	if socket != "" {
		return hostile.OverSocket(socket)
	}
	dev, err := virtwl.OpenDevice(node)
	if err != nil {
		return nil, err
	}
	conn, err := dev.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return hostile.OverGPU(conn), nil
}
