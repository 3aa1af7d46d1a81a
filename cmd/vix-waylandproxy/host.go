package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/filter"
	"vix/internal/gpu"
	"vix/internal/vhost"
	"vix/internal/wayland"
)

func hostCommand() *cobra.Command {
	var o hostOptions
	c := &cobra.Command{
		Use:   "host --vm NAME --vhost-fd N",
		Short: "on the host: the display of one VM",
		Long: `Serves one VM's virtio-gpu device as a vhost-user back end, and filters what the
VM's programs say to the compositor. The launcher starts it. It ends, with
status 0, when QEMU closes the socket.`,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&o.vm, "vm", "", "VM name in app ids")
	f.StringVar(&o.tag, "tag", "", "text in front of titles (default: the VM's name)")
	f.StringVar(&o.wayland, "wayland", "", "the compositor's socket (default: what WAYLAND_DISPLAY names)")
	f.IntVar(&o.vhostFD, "vhost-fd", -1, "descriptor of the connected vhost-user socket")
	f.IntVar(&o.eventsFD, "events-fd", -1, "descriptor that gets a JSON line for each event")
	f.IntVar(&o.controlFD, "control-fd", -1, "descriptor of a seqpacket socket for requests, such as a trace")
	f.BoolVar(&o.debug, "debug", false, "log every connection")
	o.policy.register(f, true)
	o.trace.register(f)
	return c
}

type hostOptions struct {
	vm, tag, wayland  string
	vhostFD, eventsFD int
	controlFD         int
	debug             bool
	policy            policyFlags
	trace             traceFlags
}

func (o hostOptions) run(ctx context.Context) error {
	if o.vm == "" {
		return usagef("host: --vm is missing")
	}
	if err := config.CheckName(o.vm); err != nil {
		return usagef("host: --vm: %v", err)
	}
	if o.tag == "" {
		o.tag = o.vm
	}
	policy := filter.Config{VM: o.vm, Tag: o.tag}
	var limits gpu.Limits
	if err := o.policy.apply(&policy, &limits); err != nil {
		return usagef("host: %v", err)
	}
	up, err := compositor(o.wayland)
	if err != nil {
		return err
	}
	conn, err := inherited(o.vhostFD, "vhost-user")
	if err != nil {
		return usagef("host: --vhost-fd %d: %v", o.vhostFD, err)
	}
	tr, err := o.trace.start()
	if err != nil {
		return err
	}
	log := logger(o.debug)
	ev := newEvents(o.eventsFD)
	defer ev.close()
	policy.Dial, policy.Tap, policy.Log = tr.meteredDial(dialer(up)), tr.Switch, log
	policy.Event = func(e filter.Event) { ev.send(e) }
	flt := filter.New(policy)
	ctl, err := newControl(o.controlFD, tr, log)
	if err != nil {
		return usagef("host: --control-fd %d: %v", o.controlFD, err)
	}
	defer ctl.close()
	var conns sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dev, err := gpu.New(gpu.Config{
		Accept: func(t wayland.Transport) {
			conns.Go(func() { tr.broken(flt.Serve(ctx, tr.meter.Near(t))) }) // the filter has logged why
		},
		Limits: limits,
		Log:    log.With("vm", o.vm),
	})
	if err != nil {
		return err
	}
	ev.send(map[string]string{"event": "ready"})
	err = vhost.Serve(ctx, conn, dev)
	cancel()
	conns.Wait()
	return errors.Join(err, tr.close())
}

// inherited makes a connection of a descriptor that the parent left open.
func inherited(fd int, name string) (*net.UnixConn, error) {
	if fd < 0 {
		return nil, fmt.Errorf("missing; the launcher passes it")
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // FileConn makes a copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("not a unix socket")
	}
	return u, nil
}

// events writes JSON lines. A reader that is too slow loses lines: nothing on
// the display's path may wait for it.
type events struct {
	lines chan []byte
	done  chan struct{}
}

const maxEvents = 256 // lines ahead of the reader

func newEvents(fd int) *events {
	e := &events{lines: make(chan []byte, maxEvents), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		if fd < 0 {
			for range e.lines {
			}
			return
		}
		f := os.NewFile(uintptr(fd), "events")
		defer f.Close()
		for b := range e.lines {
			_, _ = f.Write(b) // a reader that is gone wants nothing
		}
	}()
	return e
}

func (e *events) send(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	select {
	case e.lines <- append(b, '\n'):
	default:
	}
}

func (e *events) close() {
	close(e.lines)
	<-e.done
}
