// Command wlbench loads and measures what stands between a Wayland client and a
// compositor. It speaks the wire protocol itself (wire.go): no Wayland library,
// no compositor, no display and no GPU are needed.
//
//	client (sync, msgs, events, frames, conns) ⇄ what is measured ⇄ null compositor (server)
//
// The flow of a comparison (compare.go), in each round:
//
//  1. for each way a fresh null compositor is started, then the way's own programs
//     (target.go), until the socket listens; memory is read with 0, 1 and 20 idle
//     connections
//  2. each bench (bench.go) runs on each way in turn, another one first each time;
//     before and after it the CPU time of the way's programs, of the compositor and
//     of the machine is read (proc.go)
//  3. all is ended
//
// Medians, their ratios to the raw relay (relay.go) and the goals (goals.go) are
// printed by report.go. The verb vm (vm.go) runs the same benches inside a VM, and
// profile (profile.go) finds where the proxy's time goes.
//
// The null compositor (server.go) proves the pixels: a frame whose pixels did not
// arrive is an error, not a fast frame. It measures no real compositor, and nothing
// here asserts a figure: they are information.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

const usageText = `usage: wlbench VERB [flags]

  server  -socket PATH                    the null compositor
  relay   -listen PATH -upstream PATH     the cheapest possible proxy, for comparison
  sync    -socket PATH [-n N] [-gap D]    round trips of wl_display.sync
  msgs    -socket PATH [-mix add|churn]   pipelined small requests
  events  -socket PATH                    flood of events (null compositor only)
  frames  -socket PATH [-size WxH] [-damage WxH] [-content flat|text|noise] [-stamp=false]
  copied  -socket PATH [-size WxH] [-damage WxH]  pixels that arrive, against pixels damaged
  conns   -socket PATH                    connect, get_registry, sync, close
  hold    -socket PATH [-n N]             keep N idle connections for the given time
  series  -socket PATH [-n N] [-d D]      what the verb vm measures on each way, a line each
  compare [-bin DIR] [-targets FILE]      all of it, for several ways, interleaved
  vm      -bin DIR                        the benches inside a VM, and where the time goes
  profile -bin DIR -out DIR               CPU and allocation profiles of the local proxy

Each measurement prints one JSON object; compare, vm and profile print tables.
wlbench VERB -h lists the flags of a verb.
`

// errUsage marks mistakes of the command line: exit status 2.
var errUsage = errors.New("usage")

type verb func(ctx context.Context, fs *flag.FlagSet, args []string) error

var verbs = map[string]verb{
	"server":  serverVerb,
	"relay":   relayVerb,
	"sync":    syncVerb,
	"msgs":    msgsVerb,
	"events":  eventsVerb,
	"frames":  framesVerb,
	"copied":  copiedVerb,
	"conns":   connsVerb,
	"hold":    holdVerb,
	"series":  seriesVerb,
	"compare": compareVerb,
	"vm":      vmVerb,
	"profile": profileVerb,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "wlbench: %v\n\n%s", err, usageText)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "wlbench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: a verb is missing", errUsage)
	}
	v, ok := verbs[args[0]]
	if !ok {
		return fmt.Errorf("%w: unknown verb %q", errUsage, args[0])
	}
	return v(ctx, flag.NewFlagSet("wlbench "+args[0], flag.ContinueOnError), args[1:])
}

// parse reads a verb's flags; the named ones must have been given.
func parse(fs *flag.FlagSet, args []string, need ...string) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, fs.Arg(0))
	}
	for _, n := range need {
		if fs.Lookup(n).Value.String() == "" {
			return fmt.Errorf("%w: -%s is missing", errUsage, n)
		}
	}
	return nil
}

// printed writes a measurement as one line of JSON.
func printed(m metrics, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

func serverVerb(ctx context.Context, fs *flag.FlagSet, args []string) error {
	socket := fs.String("socket", "", "socket to make")
	quiet := fs.Bool("quiet", false, "log nothing")
	if err := parse(fs, args, "socket"); err != nil {
		return err
	}
	return serve(ctx, *socket, *quiet)
}

func relayVerb(ctx context.Context, fs *flag.FlagSet, args []string) error {
	listen := fs.String("listen", "", "socket to make")
	upstream := fs.String("upstream", "", "socket to connect to")
	if err := parse(fs, args, "listen", "upstream"); err != nil {
		return err
	}
	return relay(ctx, *listen, *upstream)
}

func syncVerb(_ context.Context, fs *flag.FlagSet, args []string) error {
	socket := fs.String("socket", "", "socket to measure")
	n := fs.Int("n", 10000, "number of round trips")
	gap := fs.Duration("gap", 0, "mean sleep between round trips")
	if err := parse(fs, args, "socket"); err != nil {
		return err
	}
	return printed(benchSync(*socket, *n, *gap))
}

func msgsVerb(_ context.Context, fs *flag.FlagSet, args []string) error {
	socket := fs.String("socket", "", "socket to measure")
	mix := fs.String("mix", "add", "add or churn")
	d := fs.Duration("d", time.Second, "how long to run")
	if err := parse(fs, args, "socket"); err != nil {
		return err
	}
	return printed(benchMsgs(*socket, *mix, *d))
}

func eventsVerb(_ context.Context, fs *flag.FlagSet, args []string) error {
	socket := fs.String("socket", "", "socket to measure")
	d := fs.Duration("d", time.Second, "how long to run")
	if err := parse(fs, args, "socket"); err != nil {
		return err
	}
	return printed(benchEvents(*socket, *d))
}

func framesVerb(_ context.Context, fs *flag.FlagSet, args []string) error {
	o := frameOpts{w: 1920, h: 1080}
	socket := fs.String("socket", "", "socket to measure")
	fs.Var(&o, "size", "buffer size, WxH")
	fs.Var(damageFlag{&o}, "damage", "damaged size, WxH (default: all)")
	fs.StringVar(&o.content, "content", "text", "flat, text or noise")
	fs.BoolVar(&o.stamp, "stamp", true, "check the pixels (the compositor is wlbench server)")
	fs.DurationVar(&o.d, "d", time.Second, "how long to run")
	if err := parse(fs, args, "socket"); err != nil {
		return err
	}
	return printed(benchFrames(*socket, o))
}

func copiedVerb(_ context.Context, fs *flag.FlagSet, args []string) error {
	o := frameOpts{w: 1920, h: 1080, dw: 64, dh: 64}
	socket := fs.String("socket", "", "socket to measure")
	n := fs.Int("n", 20, "number of frames")
	fs.Var(&o, "size", "buffer size, WxH")
	fs.Var(damageFlag{&o}, "damage", "damaged size, WxH")
	if err := parse(fs, args, "socket"); err != nil {
		return err
	}
	return printed(benchCopied(*socket, o, *n))
}

func connsVerb(_ context.Context, fs *flag.FlagSet, args []string) error {
	socket := fs.String("socket", "", "socket to measure")
	d := fs.Duration("d", time.Second, "how long to run")
	if err := parse(fs, args, "socket"); err != nil {
		return err
	}
	return printed(benchConns(*socket, *d))
}

func holdVerb(ctx context.Context, fs *flag.FlagSet, args []string) error {
	socket := fs.String("socket", "", "socket to connect to")
	n := fs.Int("n", 20, "number of connections")
	d := fs.Duration("d", time.Minute, "how long to hold them")
	if err := parse(fs, args, "socket"); err != nil {
		return err
	}
	closeAll, err := hold(*socket, *n)
	if err != nil {
		return err
	}
	defer closeAll()
	select {
	case <-ctx.Done():
	case <-time.After(*d):
	}
	return nil
}
