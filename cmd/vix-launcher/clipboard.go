package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/clipboard"
	"vix/internal/clipflow"
	"vix/internal/desktop"
	"vix/internal/vm"
)

func clipboardCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "clipboard copy|paste|status|clear|history",
		Short: "carry the clipboard between VMs and the host",
		Long: `Each VM has a clipboard of its own, which neither another VM nor the host sees. To
carry its contents elsewhere takes two steps: "copy" takes the selection of the
focused window's VM, or of the host, and "paste" offers it to the VM of the window
focused then, or to the host. After that, paste in the program as always.

A separate process holds the copy in memory until it is used, replaced, cleared, or
its time is over. Text and pictures pass, and HTML if a rule says so; for files use
vix cp. [[clipboard.rule]] in config.toml says what may go from where to where.`,
		Example: `  vix clipboard copy             from the focused window's VM, or the host
  vix clipboard paste            to the VM of the window that is focused now
  vix clipboard copy --vm work   by name
  vix clipboard paste --host
  vix clipboard status
  vix clipboard clear`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("clipboard: unknown verb %q; see %s --help", clip(args[0]), c.CommandPath())
			}
			return usagef("clipboard: want copy, paste, status, clear or history; see %s --help", c.CommandPath())
		},
	}
	c.AddCommand(clipCopyCommand(e), clipPasteCommand(e), clipStatusCommand(e), clipClearCommand(e), clipHistoryCommand(e))
	return c
}

// A clipSide is the user's choice of one side: by a flag, or by the focus.
type clipSide struct {
	vm      string
	host    bool
	primary bool
}

func (s *clipSide) register(c *cobra.Command, e *env) {
	f := c.Flags()
	f.StringVar(&s.vm, "vm", "", "the VM `NAME`, whichever window has the focus")
	f.BoolVar(&s.host, "host", false, "the host, whichever window has the focus")
	f.BoolVar(&s.primary, "primary", false, "the primary selection (the middle button's) instead of the clipboard")
	_ = c.RegisterFlagCompletionFunc("vm", completeNames(e))
}

func (s *clipSide) slot() clipboard.Slot {
	if s.primary {
		return clipboard.Primary
	}
	return clipboard.Clipboard
}

// find returns the side: a VM's name, or config.ClipHost.
func (s *clipSide) find(ctx context.Context, e *env) (side string, err error) {
	switch {
	case s.vm != "" && s.host:
		return "", usagef("clipboard: use either --vm or --host")
	case s.vm != "":
		if err := config.CheckName(s.vm); err != nil {
			return "", usagef("clipboard: --vm: %v", err)
		}
		return s.vm, nil
	case s.host:
		return config.ClipHost, nil
	}
	sides, err := e.sides()
	if err != nil {
		return "", err
	}
	return sides.Focused(ctx)
}

func (s *clipSide) isNamed() bool { return s.vm != "" || s.host }

func clipCopyCommand(e *env) *cobra.Command {
	var side clipSide
	c := &cobra.Command{
		Use:     "copy",
		Short:   "copy the selection of the focused window's VM, or of the host",
		Example: "  vix clipboard copy\n  vix clipboard copy --vm work",
		Args:    args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := e.config()
			if err != nil {
				return err
			}
			from, err := side.find(c.Context(), e)
			if err != nil {
				return err
			}
			sides, err := e.sides()
			if err != nil {
				return err
			}
			items, err := sides.Take(c.Context(), conf, from, side.slot())
			if err != nil {
				if failure := (*vm.Failure)(nil); !errors.As(err, &failure) { // such a failure names the VM
					err = fmt.Errorf("%s: %w", clipflow.SideName(from), err)
				}
				err = fmt.Errorf("clipboard: %w", err)
				e.notify(c.Context(), "Nothing copied", err.Error())
				return err
			}
			if err := sides.Hold(from, conf.Clipboard.TTL, items, e.startHolder); err != nil {
				return fmt.Errorf("clipboard: %w", err)
			}
			text := fmt.Sprintf("%s from %s, for %v", clipflow.Describe(clipflow.ItemsOf(items)), clipflow.SideName(from), conf.Clipboard.TTL)
			fmt.Fprintln(e.stdout, "copied "+text)
			e.notify(c.Context(), "Copied from "+clipflow.SideName(from), text)
			return nil
		},
	}
	side.register(c, e)
	return c
}

func clipPasteCommand(e *env) *cobra.Command {
	var side clipSide
	c := &cobra.Command{
		Use:     "paste",
		Short:   "offer the copy to the focused window's VM, or to the host",
		Example: "  vix clipboard paste\n  vix clipboard paste --host",
		Args:    args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := e.paste(c.Context(), &side)
			if err != nil {
				e.notify(c.Context(), "Not pasted", err.Error())
				return err
			}
			fmt.Fprintln(e.stdout, "pasted "+text)
			e.notify(c.Context(), "Ready to paste", text)
			return nil
		},
	}
	side.register(c, e)
	return c
}

// askLimit is the time that a question about a paste stays open.
const askLimit = 20 * time.Second

// paste performs the second act, and returns a description of what moved.
func (e *env) paste(ctx context.Context, side *clipSide) (string, error) {
	sides, err := e.sides()
	if err != nil {
		return "", err
	}
	return sides.Paste(clipflow.Paste{
		Slot:  side.slot(),
		Find:  func() (string, error) { return side.find(ctx, e) },
		Named: side.isNamed(),
		Ask:   func(text string) error { return e.askUser(ctx, text) },
	})
}

func clipStatusCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "show what is held, where it is from, and for how long",
		Example: "  vix clipboard status --json",
		Args:    args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			sides, err := e.sides()
			if err != nil {
				return err
			}
			holding, err := sides.Holding()
			if err != nil && !errors.Is(err, clipflow.ErrNothingHeld) {
				return err
			}
			if asJSON {
				return json.NewEncoder(e.stdout).Encode(holding)
			}
			fmt.Fprintln(e.stdout, holding.String())
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func clipClearCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "clear",
		Short:   "forget the copy, and withdraw a paste that is not used yet",
		Example: "  vix clipboard clear",
		Args:    args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			sides, err := e.sides()
			if err != nil {
				return err
			}
			return sides.Clear()
		},
	}
}

func clipHistoryCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "history off|on",
		Short: "say whether the host's clipboard managers may keep what is pasted",
		Long: `Vix keeps no history of copies, but a clipboard manager on the host may. "off" asks
it not to, for this session, with the hint that passwords have
(x-kde-passwordManagerHint). That is also the default; "history" under [clipboard]
in config.toml changes it.`,
		Example:   "  vix clipboard history off",
		Args:      args(1, 1, "off or on"),
		ValidArgs: []string{"off", "on"},
		RunE: func(_ *cobra.Command, words []string) error {
			if words[0] != "on" && words[0] != "off" {
				return usagef("clipboard history: want off or on, not %q", clip(words[0]))
			}
			sides, err := e.sides()
			if err != nil {
				return err
			}
			return sides.KeepHistory(words[0] == "on")
		},
	}
}

// notifier connects to the session bus.
func (e *env) notifier(ctx context.Context) (*desktop.Notifier, func(), error) {
	address := e.getenv("DBUS_SESSION_BUS_ADDRESS")
	if address == "" {
		return nil, nil, errors.New("no session bus (DBUS_SESSION_BUS_ADDRESS is not set)")
	}
	conn, err := desktop.DialBus(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	return desktop.NewNotifier(conn), func() { _ = conn.Close() }, nil
}

// notify tells the user what moved, if there is a notification service. Standard output has
// the text in any case.
func (e *env) notify(ctx context.Context, summary, body string) {
	n, done, err := e.notifier(ctx)
	if err != nil {
		return
	}
	defer done()
	_, _ = n.Show(ctx, desktop.Note{Summary: summary, Body: body, Category: "transfer", Expire: 4 * time.Second})
}

// askUser asks by a notification with buttons. If the user cannot be asked, the answer is no.
func (e *env) askUser(ctx context.Context, text string) error {
	n, done, err := e.notifier(ctx)
	if err != nil {
		return fmt.Errorf("a rule says to ask you, but that is not possible: %w", err)
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	key, err := n.Ask(ctx, desktop.Note{
		Summary: "Let this pass?", Body: text, Urgency: desktop.Critical, Expire: askLimit,
		Actions: []desktop.Action{{Key: "allow", Label: "Allow once"}, {Key: "refuse", Label: "Refuse"}},
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, desktop.ErrDismissed):
		return errors.New("refused: you did not answer")
	case err != nil:
		return fmt.Errorf("a rule says to ask you, but that is not possible: %w", err)
	case key != "allow":
		return errors.New("refused")
	}
	return nil
}
