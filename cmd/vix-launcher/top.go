package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/balloon"
	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/vm"
)

const (
	topPace    = 2 * time.Second // between two views
	topLeast   = 200 * time.Millisecond
	procDir    = "/proc"
	clearView  = "\x1b[H\x1b[2J"
	swatchText = "\x1b[48;2;%d;%d;%dm  \x1b[0m "
)

type topOptions struct {
	once, asJSON bool
	sort         string
	every        time.Duration
	first        time.Duration // that the first view of print is of
}

func topCommand(e *env) *cobra.Command {
	var o topOptions
	c := &cobra.Command{
		Use:   "top [--once] [--json] [--sort cpu|memory|name] [--every DURATION]",
		Short: "show live what each VM uses",
		Long: `Shows what each running VM uses, refreshed every two seconds, until you press q:
CPU, the share of one processor that its processes on the host use; HOST, the
host's memory that it takes; GUEST, the memory that its programs use, and NET, its
network's bytes a second, both as reported by the guest ("-" if there is nothing
to report); windows and programs.

With --once, prints one table, of what was used in 0.2 seconds (or in the time of
--every); with --json, an array a line.`,
		Example: `  vix top
  vix top --sort memory
  vix top --once --json | jq '.[] | {name, cpu}'`,
		ValidArgsFunction: cobra.NoFileCompletions,
		Args: func(c *cobra.Command, a []string) error {
			if !slices.Contains(topSorts, o.sort) {
				return usagef("top: --sort %s: want %s", clip(o.sort), strings.Join(topSorts, ", "))
			}
			if o.every < topLeast {
				return usagef("top: --every %s: want at least %s", o.every, topLeast)
			}
			return args(0, 0, "")(c, a)
		},
		RunE: func(c *cobra.Command, _ []string) error {
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			if o.first = topLeast; o.once && c.Flags().Changed("every") {
				o.first = o.every
			}
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop()
			return o.run(ctx, e, &sampler{reg: reg, sort: o.sort})
		},
	}
	f := c.Flags()
	f.BoolVar(&o.once, "once", false, "print one table and exit")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.StringVar(&o.sort, "sort", "cpu", "sort by this `KEY`: cpu, memory or name")
	f.DurationVar(&o.every, "every", topPace, "refresh at this interval")
	_ = c.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(topSorts, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (o *topOptions) run(ctx context.Context, e *env, s *sampler) error {
	out := ttyOf(e.stdout)
	keys := ttyOf(e.stdin)
	switch {
	case o.once || o.asJSON:
		return o.print(ctx, e.stdout, s)
	case out == nil || keys == nil:
		return usagef("top: needs a terminal; use --once or --json")
	}
	g, err := startGuard(e, keys, nil)
	if err != nil {
		return err
	}
	t, err := lend(keys, g, nil)
	if err != nil {
		g.dismiss()
		return err
	}
	defer func() {
		t.restore()
		fmt.Fprintln(out) // leaves the last view on the screen
	}()
	return o.live(ctx, out, t, s)
}

// print is for scripts. The first sample only starts the measurement, and the second follows
// soon, so that nobody waits.
func (o *topOptions) print(ctx context.Context, w io.Writer, s *sampler) error {
	if _, err := s.sample(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(o.first)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			tick.Reset(o.every)
		case <-ctx.Done():
			return nil
		}
		uses, err := s.sample(ctx)
		if err != nil {
			return err
		}
		if o.asJSON {
			enc := json.NewEncoder(w)
			enc.SetEscapeHTML(false)
			err = enc.Encode(uses)
		} else {
			_, err = io.WriteString(w, strings.Join(topLines(uses), "\n")+"\n")
		}
		if err != nil || o.once {
			return err
		}
	}
}

// live shows views until q is pressed.
func (o *topOptions) live(ctx context.Context, out *os.File, t *terminal, s *sampler) error {
	pressed := make(chan byte)
	go func() { // ends with the process: a read of a terminal cannot be cancelled
		key := make([]byte, 1)
		for {
			if _, err := t.file.Read(key); err != nil {
				close(pressed)
				return
			}
			pressed <- key[0]
		}
	}()
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	size := t.size()
	for {
		uses, err := s.sample(ctx)
		if err != nil {
			return err
		}
		if err := drawTop(out, size, uses, s.host()); err != nil {
			return err
		}
		for waiting := true; waiting; {
			select {
			case key, ok := <-pressed:
				if !ok || key == 'q' || key == 'Q' || key == 3 { // 3 is Ctrl-C in raw mode
					return nil
				}
				waiting = key != ' ' // the space bar updates at once
			case size = <-t.sizes:
				waiting = false
			case <-tick.C:
				waiting = false
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// drawTop writes one view, without lines that wrap.
func drawTop(w io.Writer, size vm.Size, uses []vmUsage, host string) error {
	lines := append([]string{fmt.Sprintf("VMs: %d; %s; q quits", len(uses), host), ""}, topLines(uses)...)
	var b strings.Builder
	b.WriteString(clearView)
	for i, line := range lines[:min(len(lines), int(size.Rows)-1)] {
		swatch := ""
		if row := i - 3; row >= 0 {
			swatch = swatchOf(uses[row].Color)
		} else if i == 2 {
			swatch = "   "
		}
		room := int(size.Cols)
		if swatch != "" {
			room -= 3
		}
		if r := []rune(line); len(r) > room {
			line = string(r[:max(room, 0)])
		}
		b.WriteString(swatch + line + "\r\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// swatchOf returns a piece of a color, as wide as three letters.
func swatchOf(c config.Color) string {
	var r, g, b uint8
	_, _ = fmt.Sscanf(string(c), "#%02x%02x%02x", &r, &g, &b)
	return fmt.Sprintf(swatchText, r, g, b)
}

// A vmUsage is the resource use of one VM.
type vmUsage struct {
	Name     string          `json:"name"`
	State    string          `json:"state"`
	Color    config.Color    `json:"color"`
	CPU      float64         `json:"cpu"`         // % of one processor since the last sample
	Host     uint64          `json:"host_memory"` // bytes
	Memory   uint64          `json:"memory"`      // bytes
	Guest    *vm.GuestMemory `json:"guest_memory"`
	Windows  int             `json:"windows"`
	Net      string          `json:"net"`     // "none" or "nat"
	NetIn    float64         `json:"net_in"`  // bytes per second since the last sample, to the guest
	NetOut   float64         `json:"net_out"` // the same from the guest; both as reported by the guest
	Programs []string        `json:"programs"`
}

// A sampler measures usage; processor use is that between two samples.
type sampler struct {
	reg  *vm.Registry
	sort string
	last map[int]counters // by supervisor, at the last sample
	at   time.Time
}

// counters only grow, unless a part of the VM ends or a guest lies.
type counters struct {
	cpu     time.Duration
	in, out uint64 // bytes of the network
}

// since sets in u the use in the time d between before and c.
func (c counters) since(before counters, u *vmUsage, d time.Duration) {
	if c.cpu > before.cpu {
		u.CPU = 100 * float64(c.cpu-before.cpu) / float64(d)
	}
	if c.in > before.in {
		u.NetIn = float64(c.in-before.in) / d.Seconds()
	}
	if c.out > before.out {
		u.NetOut = float64(c.out-before.out) / d.Seconds()
	}
}

var topSorts = []string{"cpu", "memory", "name"}

func (s *sampler) sample(ctx context.Context) ([]vmUsage, error) {
	states, err := s.reg.List(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	last := map[int]counters{}
	uses := []vmUsage{}
	for _, st := range states {
		id := st.PIDs.Supervisor
		last[id] = counters{processorOf(st.PIDs), st.Net.Received, st.Net.Sent}
		u := usageOf(st)
		if before, ok := s.last[id]; ok {
			last[id].since(before, &u, now.Sub(s.at))
		}
		uses = append(uses, u)
	}
	s.last, s.at = last, now
	slices.SortStableFunc(uses, func(a, b vmUsage) int {
		switch s.sort {
		case "cpu":
			return cmp.Compare(b.CPU, a.CPU)
		case "memory":
			return cmp.Compare(b.Host, a.Host)
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return uses, nil
}

// host returns a line about the machine's own memory.
func (s *sampler) host() string {
	m, err := balloon.OpenHost("", procDir+"/meminfo").Read()
	if err != nil {
		return "host: unknown"
	}
	return fmt.Sprintf("host: %s of memory available of %s", amount(int64(m.Available)), amount(int64(m.Total)))
}

func usageOf(st vm.State) vmUsage {
	u := vmUsage{
		Name: st.Name, State: st.State, Color: st.Color, Memory: st.Memory, Guest: st.GuestMemory, Windows: len(st.Windows),
		Host: residentOf(st.PIDs.QEMU), Net: st.Net.Kind, Programs: []string{},
	}
	for _, p := range st.Programs {
		if p.Exit == nil && len(p.Argv) > 0 {
			u.Programs = append(u.Programs, p.Argv[0])
		}
	}
	return u
}

func processorOf(p vm.PIDs) (sum time.Duration) {
	for _, pid := range []int{p.Supervisor, p.QEMU, p.Display, p.Virtiofsd, p.Network} {
		if pid > 0 {
			t, _ := proc.ProcessorTime(procDir, pid) // 0 for a process that has just ended
			sum += t
		}
	}
	return sum
}

// network formats a VM's traffic per second, in both directions.
func network(u vmUsage) string {
	if u.Net == config.NetNone || u.Net == "" {
		return "-"
	}
	return amount(int64(min(u.NetIn, maxRate))) + "/" + amount(int64(min(u.NetOut, maxRate)))
}

// maxRate is the highest rate that is shown of a guest's report, in bytes per second.
const maxRate = 1e15

// topLines returns the table: a header and a line for each VM. Guest texts contain no
// escapes.
func topLines(uses []vmUsage) []string {
	lines := []string{fmt.Sprintf("%-16s %-12s %6s %9s %19s %17s %4s  %s", "NAME", "STATE", "CPU", "HOST", "GUEST", "NET", "WIN", "PROGRAMS")}
	for _, u := range uses {
		guest := "-"
		if g := u.Guest; g != nil && g.Total > 0 {
			guest = amount(int64(g.Total-min(g.Available, g.Total))) + "/" + amount(int64(g.Size))
		}
		var names []string
		for _, p := range u.Programs {
			names = append(names, plain.Text(p, maxShown, plain.OneLine))
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%-16s %-12s %5.1f%% %9s %19s %17s %4d  %s",
			u.Name, u.State, u.CPU, amount(int64(u.Host)), guest, network(u), u.Windows, strings.Join(names, ", ")), " "))
	}
	return lines
}
