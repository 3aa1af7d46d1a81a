package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/plain"
	"vix/internal/vm"
)

const statusLong = `Shows everything about the VM NAME: uptime, memory and how much of the host's it
takes, processes, programs and windows; and all that it may use, with what takes it
back. A VM that is not running is shown as config.toml describes it, with what it
has kept. Without NAME, shows a few lines for each running VM.

With --watch, prints a line at each change of the VM, or of every VM, until it is
interrupted; it waits for a VM that is not running. With --json, prints objects as
in list --json; with --watch, one a line: event (state, ended or ready), name, vm.

With --waybar, prints the same for a custom module of waybar; packaging/waybar has
an example.`

const statusExamples = `  vix status
  vix status web
  vix status --json web | jq '.may_use[] | select(.kind == "folder")'
  vix status --json web | jq .windows
  vix status --watch --json | jq --unbuffered -r '[.event, .name, .vm.state] | @tsv'`

func statusCommand(e *env) *cobra.Command {
	var asJSON, watch, bar bool
	c := &cobra.Command{
		Use:   "status [--json] [NAME] | status --watch [--json] [NAME] | status --waybar [NAME]",
		Short: "show everything about a VM, and what it may use",
		Long:  statusLong, Example: statusExamples,
		ValidArgsFunction: func(c *cobra.Command, a []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			if len(a) == 0 {
				names = vmNames(c.Context(), e)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		Args: func(c *cobra.Command, a []string) error {
			if err := args(0, 1, "NAME")(c, a); err != nil || len(a) == 0 {
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
			switch {
			case bar:
				return watchBar(c.Context(), reg, strings.Join(a, ""), e.stdout)
			case watch:
				return watchStatus(c.Context(), reg, strings.Join(a, ""), e.stdout, asJSON)
			case len(a) == 0:
				return statusOfAll(c.Context(), e, reg, asJSON)
			}
			entry, err := statusOf(c.Context(), e, reg, a[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(e.stdout, entry)
			}
			return printStatus(e.stdout, entry)
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

// statusOf returns everything about a VM that runs, or that config.toml or the kept data
// knows.
func statusOf(ctx context.Context, e *env, reg *vm.Registry, name string) (vmEntry, error) {
	st, err := stateOf(ctx, reg, name)
	if err != nil && !errors.Is(err, vm.ErrNotRunning) {
		return vmEntry{}, err
	}
	k, kerr := openKnown(e)
	if err == nil {
		if kerr != nil {
			fmt.Fprintf(e.stderr, "vix: %s\n", plain.Error(kerr)) // the VM runs all the same
		}
		defer k.close()
		return k.running(ctx, st), nil
	}
	if kerr != nil {
		return vmEntry{}, kerr
	}
	defer k.close()
	if !slices.Contains(k.names(), name) {
		running, _ := reg.Names(ctx)
		return vmEntry{}, fmt.Errorf("VM %s: not known: it does not run, config.toml does not name it, and it has kept nothing; %s", name, nearName(name, append(running, k.names()...)))
	}
	return k.stopped(ctx, name)
}

// statusOfAll writes a few lines for each running VM.
func statusOfAll(ctx context.Context, e *env, reg *vm.Registry, asJSON bool) error {
	vms, err := reg.List(ctx)
	if err != nil {
		return err
	}
	k, err := openKnown(e)
	if err != nil {
		fmt.Fprintf(e.stderr, "vix: %s\n", plain.Error(err))
	}
	defer k.close()
	list := []vmEntry{}
	for _, st := range vms {
		list = append(list, k.running(ctx, st))
	}
	if asJSON {
		return printJSON(e.stdout, list)
	}
	if len(list) == 0 {
		sayNoneRuns(e)
	}
	for i, v := range list {
		if i > 0 {
			fmt.Fprintln(e.stdout)
		}
		line := fmt.Sprintf("%s: %s, for %s, %s of the host's memory", v.Name, v.State.State, time.Duration(v.Uptime)*time.Second, amount(int64(v.Used)))
		if n := len(v.Windows); n > 0 {
			line += fmt.Sprintf(", %d windows", n)
		}
		if names := programNames(v.Programs); names != "" {
			line += ", " + names
		}
		fmt.Fprintln(e.stdout, plain.Text(line, maxShown, plain.OneLine))
		if err := printGrants(e.stdout, v.grants, true); err != nil {
			return err
		}
	}
	return nil
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

func printStatus(w io.Writer, s vmEntry) error {
	running := s.State.State != vm.StateStopped && s.State.State != vm.StateConfigured
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, plain.Text(fmt.Sprintf(format, a...), maxShown, plain.OneLine))
	}
	row("name", "%s", s.Name)
	switch {
	case running:
		row("state", "%s, for %s", s.State.State, time.Duration(s.Uptime)*time.Second)
		row("memory", "%s, of which %s taken from the host", config.Size(s.Memory), amount(int64(s.Used)))
	case s.State.State == vm.StateConfigured:
		row("state", "not running: config.toml names it, and it has kept nothing; start it with %s", s.start)
	case s.LastUsed.IsZero():
		row("state", "not running; start it with %s", s.start)
	default:
		row("state", "not running since %s; start it with %s", s.LastUsed.Local().Format(shownTime), s.start)
	}
	if !running {
		row("memory", "%s", config.Size(s.Memory))
	}
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
	if p := s.PIDs; running {
		row("processes", "supervisor %d, qemu %d, display %d, virtiofsd %d", p.Supervisor, p.QEMU, p.Display, p.Virtiofsd)
	}
	for _, prog := range s.Programs {
		if prog.Exit == nil {
			row("program", "%d: %s", prog.ID, strings.Join(prog.Argv, " "))
		}
	}
	for _, win := range s.Windows {
		row("window", "%d: %s (%s)", win.ID, win.Title, win.AppID)
	}
	if old := oldVersion(s.State); old != "" && running {
		row("note", "%s", old)
	}
	for _, note := range s.Notes {
		row("note", "%s", note)
	}
	if err := t.Flush(); err != nil || len(s.grants) == 0 {
		return err
	}
	fmt.Fprintln(w, "\nWhat it may use, and what takes it back (keys are those of config.toml, for the next start):")
	return printGrants(w, s.grants, false)
}
