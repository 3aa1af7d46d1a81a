package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/plain"
	"vix/internal/vm"
)

const statusLong = `Shows everything about the running VM NAME: uptime, memory and how much of the
host's it takes, processes, programs and windows. Fails if it is not running.

With --watch, prints a line at each change of the VM, or of every VM, until it is
interrupted; it waits for a VM that is not running. With --json, prints objects as
in list --json; with --watch, one a line: event (state, ended or ready), name, vm.

With --waybar, prints the same for a custom module of waybar; packaging/waybar has
an example.`

const statusExamples = `  vix status web
  vix status --json web | jq .windows
  vix status --watch --json | jq --unbuffered -r '[.event, .name, .vm.state] | @tsv'`

func statusCommand(e *env) *cobra.Command {
	var asJSON, watch, bar bool
	c := &cobra.Command{
		Use:               "status [--json] NAME | status --watch [--json] [NAME] | status --waybar [NAME]",
		Short:             "show everything about a running VM",
		Long:              statusLong,
		Example:           statusExamples,
		ValidArgsFunction: completeFirstName(e),
		Args: func(c *cobra.Command, a []string) error {
			least := 1
			if watch || bar {
				least = 0
			}
			if err := args(least, 1, "NAME")(c, a); err != nil || len(a) == 0 {
				return err
			}
			if err := config.CheckName(a[0]); err != nil {
				return usagef("status: %v", err)
			}
			return nil
		},
		RunE: func(c *cobra.Command, a []string) error {
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			if bar {
				return watchBar(c.Context(), reg, strings.Join(a, ""), e.stdout)
			}
			if watch {
				return watchStatus(c.Context(), reg, strings.Join(a, ""), e.stdout, asJSON)
			}
			st, err := stateOf(c.Context(), reg, a[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(e.stdout, withUse(st))
			}
			return printStatus(e.stdout, withUse(st))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&watch, "watch", false, "print a line at each change, until interrupted")
	c.Flags().BoolVar(&bar, "waybar", false, "like --watch, for a custom module of waybar")
	return c
}

// stateOf returns the state of a running VM.
func stateOf(ctx context.Context, reg *vm.Registry, name string) (vm.State, error) {
	st, err := reg.State(ctx, name)
	switch {
	case errors.Is(err, vm.ErrNotRunning), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, io.EOF):
		return st, fmt.Errorf("VM %s: %w; see vix list", name, vm.ErrNotRunning)
	case err != nil:
		return st, fmt.Errorf("VM %s: its supervisor does not answer: %w; try vix stop --force %s", name, err, name)
	}
	return st, nil
}

// oldVersion notes that another version of Vix started the VM; "" if this one did.
func oldVersion(s vm.State) string {
	switch s.Vix {
	case version:
		return ""
	case "":
		return "started by an older version of Vix; stop it and run it again to use " + version
	}
	return fmt.Sprintf("started by Vix %s; stop it and run it again to use %s", clip(s.Vix), version)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// A vmUse is a VM's state with its use of the host.
type vmUse struct {
	vm.State
	Used uint64 `json:"used"` // bytes of the host's memory; 0 if unknown
}

func withUse(s vm.State) vmUse { return vmUse{s, residentOf(s.PIDs.QEMU)} }

// residentOf returns a process's resident memory, in bytes: for QEMU, the memory that the
// guest has touched plus QEMU's own.
func residentOf(pid int) uint64 {
	if pid <= 0 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	var kib uint64
	_, _ = fmt.Sscan(after, &kib)
	return kib << 10
}

func printStatus(w io.Writer, s vmUse) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, plain.Text(fmt.Sprintf(format, a...), maxShown, plain.OneLine))
	}
	row("name", "%s", s.Name)
	row("state", "%s, for %s", s.State.State, time.Duration(s.Uptime)*time.Second)
	row("memory", "%s, of which %s taken from the host", config.Size(s.Memory), amount(int64(s.Used)))
	if g := s.GuestMemory; g != nil && g.Total > 0 {
		row("guest", "uses %s of %s", amount(int64(g.Total-min(g.Available, g.Total))), amount(int64(g.Size)))
	}
	row("cpus", "%d%s", s.CPUs, map[string]string{"kvm": ", by KVM", "tcg": ", emulated"}[s.Accel])
	row("color", "%s", s.Color)
	row("tag", "%s", s.Tag)
	row("root", "%s%s", s.Root, map[bool]string{true: ", whose programs have changed since the VM started: stop it and run it again"}[s.Outdated])
	if s.Net.By != "" {
		row("network", "%s, by %s: %s in, %s out, as reported by the guest", s.Net.Kind, s.Net.By, amount(int64(s.Net.Received)), amount(int64(s.Net.Sent)))
	}
	if s.Channel.Kind != "" {
		row("channel", "%s, by %s", s.Channel.Kind, s.Channel.By)
	}
	p := s.PIDs
	row("processes", "supervisor %d, qemu %d, display %d, virtiofsd %d", p.Supervisor, p.QEMU, p.Display, p.Virtiofsd)
	for _, prog := range s.Programs {
		if prog.Exit == nil {
			row("program", "%d: %s", prog.ID, strings.Join(prog.Argv, " "))
		}
	}
	for _, win := range s.Windows {
		row("window", "%d: %s (%s)", win.ID, win.Title, win.AppID)
	}
	if old := oldVersion(s.State); old != "" {
		row("note", "%s", old)
	}
	for _, note := range s.Notes {
		row("note", "%s", note)
	}
	return t.Flush()
}
