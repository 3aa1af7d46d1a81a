package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/menu"
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
		Short: "a menu of programs and VMs, for a key of the compositor",
		Long: `Opens a menu of the programs of all VMs, and of the VMs. Type to filter: by name, by
what it is, or by VM; what was used often and of late comes first. Enter runs the
program in its VM, which is started if it does not run. Called again, it closes.

Which programs: those that a VM of config.toml wants in menus (its keys desktop and
programs), and every other program of this machine in the VM in which
"vix-launcher run" would start it. A tag is filled when the VM runs.

Keys: up and down, page up and page down, home and end choose; Tab or right opens what
else can be done (run in a new disposable VM, a shell, stop, and so on), Escape or left
goes back. Ctrl+Enter runs and leaves the menu open, which shows how the VM starts.
Escape closes. Mouse, wheel and fingers work too: right button or a long press for Tab.
ctrl+n p u k w a e are as in a shell. Layout and compose sequences are the compositor's
and the locale's.

The look is set in the table [menu] of config.toml (see vix-config.toml(5)). Without a
layer shell (Weston, GNOME) the menu is an ordinary window.

--dmenu shows the same entries with another menu: fuzzel, rofi, wofi, bemenu, tofi, or
anything that reads lines and prints the chosen one. --print lists them, --json as
an array of objects {id, name, generic, keywords, icon, vm, tag, color, machine, use,
state, argv}; --run starts the one with that id.`,
		Example: `  bindsym $mod+d exec vix-launcher menu          in sway's configuration
  vix-launcher menu --dmenu 'fuzzel --width 60'
  vix-launcher menu --json | jq -r '.[].id'
  vix-launcher menu --run web/firefox`,
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
				return usagef("menu: one of --dmenu, --print, --json and --run at a time; see vix-launcher menu --help")
			}
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop()
			return o.open(ctx, e)
		},
	}
	f := c.Flags()
	f.StringVar(&o.dmenu, "dmenu", "", "show the entries with another menu, `COMMAND`")
	f.BoolVar(&o.print, "print", false, "print the entries as a table")
	f.BoolVar(&o.asJSON, "json", false, "print the entries as JSON")
	f.StringVar(&o.run, "run", "", "run the entry with this `ID`")
	return c
}

func (o *menuOptions) open(ctx context.Context, e *env) error {
	if o.dmenu == "" && !o.print && !o.asJSON && o.run == "" {
		unlock, first, err := e.onlyMenu()
		if err != nil || !first {
			return err
		}
		defer unlock()
	}
	s := &menuSession{env: e}
	defer s.end()
	if o.dmenu == "" && !o.print && !o.asJSON && o.run == "" {
		return s.show(ctx)
	}
	var err error
	if s.conf, err = e.config(); err != nil {
		return err
	}
	if _, err := s.load(ctx, false); err != nil {
		return err
	}
	switch {
	case o.print:
		return printEntries(e.stdout, s)
	case o.asJSON:
		return printJSON(e.stdout, s.entries())
	case o.run != "":
		return s.start(ctx, o.run, "", e.activationToken())
	}
	return s.dmenu(ctx, o.dmenu)
}

func (s *menuSession) end() {
	if s.reg != nil {
		s.reg.Close()
	}
	if s.state != nil {
		s.state.Close()
	}
}

// onlyMenu takes the lock of the one menu of a session. Where another holds it, that
// one is told to close.
func (e *env) onlyMenu() (unlock func(), first bool, err error) {
	dir, err := e.runtimeDir()
	if err != nil {
		return nil, false, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "vix-menu.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock) == nil {
		return func() { f.Close() }, true, nil
	}
	defer f.Close()
	closeMenu(f)
	return nil, false, nil
}

// closeMenu tells the process that holds f's lock to end; or it has ended by itself just
// now. Its number is looked at again once there is a descriptor of it: so the one that
// is told is the one that holds the lock, and nobody who got the number after it.
func closeMenu(f *os.File) {
	holder := func() int {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK {
			return 0
		}
		return int(lock.Pid)
	}
	pid := holder()
	if pid <= 0 {
		return
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(process)
	if holder() == pid {
		_ = unix.PidfdSendSignal(process, unix.SIGTERM, nil, 0)
	}
}

// A menuEntry is an item in the output of --json.
type menuEntry struct {
	menu.Item
	State string   `json:"state"` // of its VM; "" if it does not run
	Argv  []string `json:"argv,omitempty"`
}

func (s *menuSession) entries() []menuEntry {
	list := []menuEntry{}
	for _, it := range s.items {
		entry := menuEntry{Item: it, State: s.vms[it.VM].State}
		if app, ok := s.apps[it.ID]; ok {
			entry.Argv = app.Argv()
		}
		list = append(list, entry)
	}
	return list
}

func printEntries(w io.Writer, s *menuSession) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tNAME\tVM\tSTATE")
	for _, it := range s.entries() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", plain.Text(it.ID, maxShown, plain.OneLine), plain.Text(it.Name, maxShown, plain.OneLine), it.VM, it.State)
	}
	return t.Flush()
}

// recallHistory takes what was chosen before, once.
func (s *menuSession) recallHistory() {
	if s.history == nil {
		s.state, s.history = s.env.history()
	}
}

// history returns what was chosen before, empty if there is no place for it.
func (e *env) history() (*os.Root, *menu.History) {
	dir, err := e.xdg("XDG_STATE_HOME", ".local/state")
	if err != nil {
		return nil, menu.NewHistory()
	}
	dir = filepath.Join(dir, "vix")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, menu.NewHistory()
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, menu.NewHistory()
	}
	return root, menu.ReadHistory(root)
}

// chose counts a choice. A history that cannot be written is no reason to fail.
func (s *menuSession) chose(id string) {
	if s.state != nil {
		if err := menu.Choose(s.state, id, time.Now()); err != nil {
			fmt.Fprintln(s.env.stderr, "vix-launcher: menu: what was chosen is not remembered: "+plain.Error(err))
		}
	}
}
