package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/display"
	"vix/internal/filter"
	"vix/internal/gpu"
	"vix/internal/ledger"
	"vix/internal/sandbox"
	"vix/internal/vhost"
	"vix/internal/wayland"
)

func hostCommand() *cobra.Command {
	var o hostOptions
	c := &cobra.Command{
		Use:   "host --vm NAME --vhost-fd N --control-fd N",
		Short: "on the host: the display of one VM",
		Long: `Serves one VM's virtio-gpu device as a vhost-user back end, and filters what the
VM's programs say to the compositor. The launcher starts it. It ends, with
status 0, when QEMU closes the socket.`,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&o.vm, "vm", "", "VM name in app ids")
	f.StringVar(&o.wayland, "wayland", "", "the compositor's socket (default: what WAYLAND_DISPLAY names)")
	f.IntVar(&o.vhostFD, "vhost-fd", -1, "descriptor of the connected vhost-user socket")
	f.IntVar(&o.eventsFD, "events-fd", -1, "descriptor that gets a JSON line for each event")
	f.IntVar(&o.controlFD, "control-fd", -1, "descriptor of a seqpacket socket for requests, of which the first is the policy")
	f.IntVar(&o.brokerFD, "broker-fd", -1, "descriptor of a seqpacket socket that passes connections to the compositor")
	f.BoolVar(&o.own, "own-namespaces", false, "started in namespaces of its own, to be emptied")
	_ = f.MarkHidden("own-namespaces")
	f.BoolVar(&o.debug, "debug", false, "log every connection")
	o.trace.register(f)
	return c
}

type hostOptions struct {
	vm, wayland       string
	vhostFD, eventsFD int
	controlFD         int
	brokerFD          int
	own               bool
	debug             bool
	trace             traceFlags
}

func (o hostOptions) run(ctx context.Context) error {
	if o.vm == "" {
		return usagef("host: --vm is missing")
	}
	if err := config.CheckName(o.vm); err != nil {
		return usagef("host: --vm: %v", err)
	}
	conn, err := inherited(o.vhostFD, "vhost-user")
	if err != nil {
		return usagef("host: --vhost-fd %d: %v", o.vhostFD, err)
	}
	requests, err := inherited(o.controlFD, "control")
	if err != nil {
		return usagef("host: --control-fd %d: %v", o.controlFD, err)
	}
	policy, limits, err := o.settings(requests)
	if err != nil {
		return fmt.Errorf("host: policy: %w", err)
	}
	log := logger(o.debug)
	up, err := o.way(log)
	if err != nil {
		return err
	}
	defer up.close()
	tr, err := o.trace.start()
	if err != nil {
		return err
	}
	ev := newEvents(o.eventsFD)
	defer ev.close()
	policy.Dial, policy.Tap, policy.Log = tr.meteredDial(up.dial), tr.Switch, log
	policy.Event = func(e filter.Event) { ev.send(e) }
	held := limits.Ledger()
	held.Shown = policy.Limits.Of(display.Memory)
	policy.Ledger = ledger.New(held)
	flt := filter.New(policy)
	defer newControl(requests, tr, flt.Selections(), flt.Activate, log).close()
	var conns sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dev, err := gpu.New(gpu.Config{
		Accept: func(t wayland.Transport) {
			conns.Go(func() { tr.broken(flt.Serve(ctx, tr.meter.Near(t))) }) // the filter has logged why
		},
		Limits: limits,
		Ledger: policy.Ledger,
		Log:    log.With("vm", o.vm),
	})
	if err != nil {
		return err
	}
	o.confine(ev, log)
	ev.send(map[string]string{"event": "ready"})
	err = vhost.Serve(ctx, conn, dev)
	cancel()
	conns.Wait()
	flt.Wait()
	return errors.Join(err, tr.close())
}

// settings reads the policy, the first request.
func (o *hostOptions) settings(requests *net.UnixConn) (c filter.Config, limits gpu.Limits, err error) {
	p, err := receivePolicy(requests)
	if err != nil {
		return c, limits, err
	}
	c.VM = o.vm
	if err := apply(p, &c, &limits); err != nil {
		return c, limits, err
	}
	if c.Frame == "full" {
		c.Font = hostFont(fonts)
	}
	return c, limits, nil
}

// way returns the way to the compositor.
func (o *hostOptions) way(log *slog.Logger) (way, error) {
	if o.brokerFD >= 0 {
		b, err := newBroker(o.brokerFD)
		if err != nil {
			return way{}, usagef("host: --broker-fd %d: %v", o.brokerFD, err)
		}
		return wayThrough(b, &filter.ContextDialer{VM: o.vm, Log: log}), nil
	}
	path, err := compositor(o.wayland)
	return way{dial: dialer(path), close: func() {}}, err
}

// Limits of the display process. It holds two descriptors per connection, one
// per piece of a guest's shared memory (gpu.Limits), and some hundred bytes of heap
// per object of the compositor's (filter.Limits).
const (
	displayFiles = 8192
	displayData  = 2 << 30
)

// confine drops every right that serving does not need: afterwards the process opens no
// file and, with a broker, makes no connection.
func (o *hostOptions) confine(ev *events, log *slog.Logger) {
	_, _ = time.Now().Zone() // the log's times need the zone's file
	r := sandbox.Confine(sandbox.Profile{
		Own:       o.own,
		Calls:     sandbox.DisplayCalls(o.brokerFD < 0, false),
		OpenFiles: displayFiles, Data: displayData,
	})
	if o.brokerFD < 0 {
		r.Weaker = append(r.Weaker, "connections: made by the process itself, for want of --broker-fd")
	}
	ev.send(struct {
		Event string `json:"event"`
		sandbox.Report
	}{"confined", r})
	if o.eventsFD < 0 && len(r.Weaker) > 0 {
		log.Warn("confined less than it could be", "vm", o.vm, "weaker", r.Weaker)
	}
}

// inherited returns a connection of a descriptor that the parent left open.
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

// events writes JSON lines. A slow reader loses lines: nothing on
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
			_, _ = f.Write(b) // a reader that is gone needs no line
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
