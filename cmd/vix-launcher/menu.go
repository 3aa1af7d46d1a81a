package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/menu/session"
	"vix/internal/plain"
)

type menuOptions struct {
	dmenu  string
	print  bool
	asJSON bool
	run    string
}

func menuCommand(e *env) *cobra.Command {
	var o menuOptions
	c := &cobra.Command{
		Use:   "menu [--dmenu COMMAND|--print|--json|--run ID]",
		Short: "open a menu of programs and VMs",
		Long: `Opens a menu of the programs of all VMs, and of the VMs; called again, closes it.
Type to filter by name, kind or VM; frequent and recent choices come first. Enter
runs the program in its VM, starting the VM if necessary. Tab, right, or the right
button opens other actions; Escape goes back or closes.

With --dmenu, another menu shows the entries: fuzzel, rofi, wofi, bemenu, tofi, or
anything that reads lines and prints the chosen one. --print lists them, --json
prints them as an array of objects, and --run starts the one with that id. The look
is set under [menu] in config.toml. If that file has errors, the menu opens all the
same, and shows them at its foot.`,
		Example: `  bindsym $mod+d exec vix menu          in sway's configuration
  vix menu --dmenu 'fuzzel --width 60'
  vix menu --json | jq -r '.[].id'
  vix menu --run web/firefox`,
		Args:              args(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			set := 0
			for _, name := range []string{"dmenu", "print", "json", "run"} {
				if c.Flags().Changed(name) {
					set++
				}
			}
			if set > 1 {
				return usagef("menu: one of --dmenu, --print, --json and --run at a time; see vix menu --help")
			}
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop()
			return o.open(ctx, e)
		},
	}
	f := c.Flags()
	f.StringVar(&o.dmenu, "dmenu", "", "show the entries with another menu: a shell `COMMAND`")
	f.BoolVar(&o.print, "print", false, "print the entries as a table")
	f.BoolVar(&o.asJSON, "json", false, "print the entries as JSON")
	f.StringVar(&o.run, "run", "", "run the entry with this `ID`")
	return c
}

func (o *menuOptions) open(ctx context.Context, e *env) error {
	dir, err := e.runtimeDir()
	if err != nil {
		return err
	}
	s := &session.Session{Host: e.menuHost()}
	if o.dmenu == "" && !o.print && !o.asJSON && o.run == "" {
		return e.showMenu(ctx, s, dir)
	}
	if err := e.checkChooser(o.dmenu); err != nil {
		return err
	}
	defer s.Close()
	if err := s.Load(ctx); err != nil {
		return err
	}
	if text := s.Mistakes(); text != "" && o.run == "" {
		fmt.Fprintln(e.stderr, "vix: "+text)
	}
	switch {
	case o.print:
		return printEntries(e.stdout, s.Entries())
	case o.asJSON:
		return printJSON(e.stdout, s.Entries())
	case o.run != "":
		return s.Start(ctx, o.run, "", e.activationToken())
	}
	return s.Dmenu(ctx, o.dmenu, e.activationToken())
}

// showMenu opens the session's only menu, or closes it.
func (e *env) showMenu(ctx context.Context, s *session.Session, runtimeDir string) error {
	unlock, first, err := session.Only(runtimeDir)
	if err != nil || !first {
		return err
	}
	defer unlock()
	defer s.Close()
	err = s.Show(ctx, func() {
		// The setup's memory is not needed again, and the menu may stay open for long.
		debug.SetGCPercent(40)
		debug.FreeOSMemory()
	})
	if errors.Is(err, session.ErrEnded) {
		if words := e.menuWords.Lines(); len(words) > 0 && e.unattended != nil && e.unattended() {
			s.Launcher.NotifyFailure(ctx, "vix menu", errors.New(words[len(words)-1]))
		}
		return &exitError{code: exitFailed} // vix-menu has reported why
	}
	return err
}

func printEntries(w io.Writer, entries []session.Entry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tNAME\tVM\tSTATE")
	for _, it := range entries {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", plain.Text(it.ID, maxShown, plain.OneLine), plain.Text(it.Name, maxShown, plain.OneLine), it.VM, it.State)
	}
	return t.Flush()
}
