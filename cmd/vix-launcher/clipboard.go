package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/clipboard"
	"vix/internal/desktop"
	"vix/internal/durable"
	"vix/internal/vm"
	"vix/internal/wayland"
)

func clipboardCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "clipboard copy|paste|status|clear|history",
		Short: "carry the clipboard from one VM to another, or between a VM and the host",
		Long: `Each VM has a clipboard of its own, which no other VM and nobody on the host sees.
Two steps carry what is in it: "copy" takes what the focused window's VM, or the
host, has selected, and "paste" offers it to the VM of the window that is focused
then, or to the host. After that you paste in the program as always.

What was copied is held in memory by a process of its own until it is used,
replaced, cleared, or its time is over. Text and pictures pass, and HTML where a
rule says so; files do not (see cp). [[clipboard.rule]] in config.toml says what may
go from where to where.`,
		Example: `  vix-launcher clipboard copy             from the focused window's VM, or the host
  vix-launcher clipboard paste            to the VM of the window that is focused now
  vix-launcher clipboard copy --vm work   by name
  vix-launcher clipboard paste --host
  vix-launcher clipboard status
  vix-launcher clipboard clear`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("clipboard: unknown act %q; see %s --help", clip(args[0]), c.CommandPath())
			}
			return usagef("clipboard: copy, paste, status, clear or history is missing; see %s --help", c.CommandPath())
		},
	}
	c.AddCommand(clipCopyCommand(e), clipPasteCommand(e), clipStatusCommand(e), clipClearCommand(e), clipHistoryCommand(e))
	return c
}

// A clipSide is how the user names one side: by a flag, or by the focus.
type clipSide struct {
	vm      string
	host    bool
	primary bool
}

func (s *clipSide) register(c *cobra.Command, e *env) {
	f := c.Flags()
	f.StringVar(&s.vm, "vm", "", "this VM, whatever window has the focus")
	f.BoolVar(&s.host, "host", false, "the host, whatever window has the focus")
	f.BoolVar(&s.primary, "primary", false, "the primary selection (the middle button's), not the clipboard")
	_ = c.RegisterFlagCompletionFunc("vm", completeNames(e))
}

func (s *clipSide) slot() clipboard.Slot {
	if s.primary {
		return clipboard.Primary
	}
	return clipboard.Clipboard
}

// find returns the VM's name, or config.ClipHost.
func (s *clipSide) find(ctx context.Context, e *env) (side string, err error) {
	switch {
	case s.vm != "" && s.host:
		return "", usagef("clipboard: --vm and --host exclude each other")
	case s.vm != "":
		if err := config.CheckName(s.vm); err != nil {
			return "", usagef("clipboard: --vm: %v", err)
		}
		return s.vm, nil
	case s.host:
		return config.ClipHost, nil
	}
	socket := e.getenv("SWAYSOCK")
	if socket == "" {
		return "", errors.New("clipboard: which window has the focus is only known on sway (SWAYSOCK is not set); name the side with --vm NAME or --host")
	}
	w, err := desktop.Sway{Socket: socket}.Focused(ctx)
	switch {
	case errors.Is(err, desktop.ErrNoFocus):
		return "", errors.New("clipboard: no window has the focus; focus one, or name the side with --vm NAME or --host")
	case err != nil:
		return "", fmt.Errorf("clipboard: %w; name the side with --vm NAME or --host", err)
	}
	if name, _, ok := w.VM(); ok {
		return name, nil
	}
	return config.ClipHost, nil
}

func (s *clipSide) named() bool { return s.vm != "" || s.host }

func sideName(side string) string {
	if side == config.ClipHost {
		return "the host"
	}
	return "VM " + side
}

func clipCopyCommand(e *env) *cobra.Command {
	var side clipSide
	c := &cobra.Command{
		Use:     "copy",
		Short:   "take what is selected in the focused window's VM, or on the host",
		Example: "  vix-launcher clipboard copy\n  vix-launcher clipboard copy --vm work",
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
			items, err := e.take(c.Context(), conf, from, side.slot())
			if err != nil {
				if failure := (*vm.Failure)(nil); !errors.As(err, &failure) { // one names the VM
					err = fmt.Errorf("%s: %w", sideName(from), err)
				}
				err = fmt.Errorf("clipboard: %w", err)
				e.notify(c.Context(), "Nothing copied", err.Error())
				return err
			}
			if err := e.hold(from, conf.Clipboard.TTL, items); err != nil {
				return fmt.Errorf("clipboard: %w", err)
			}
			text := fmt.Sprintf("%s from %s, for %v", describe(headers(items)), sideName(from), conf.Clipboard.TTL)
			fmt.Fprintln(e.stdout, "copied "+text)
			e.notify(c.Context(), "Copied from "+sideName(from), text)
			return nil
		},
	}
	side.register(c, e)
	return c
}

// take asks a side for what is selected there, as far as any rule would let it pass.
func (e *env) take(ctx context.Context, conf *config.Config, from string, slot clipboard.Slot) ([]clipboard.Item, error) {
	limits := clipLimits(func(kind string) int64 { return conf.Clipboard.Most(from, kind) })
	if len(limits) == 0 {
		return nil, errors.New("no rule of [[clipboard.rule]] lets anything leave it")
	}
	if from == config.ClipHost {
		h, err := e.hostClipboard()
		if err != nil {
			return nil, err
		}
		defer h.Close()
		return h.Take(h.Selection(slot), limits)
	}
	conn, err := e.exchange(ctx, from, vm.TakeSelection)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return clipboard.Take(conn, clipboard.TakeRequest{Slot: slot, Limits: limits})
}

// clipLimits are the most bytes of each kind that may pass at all.
func clipLimits(most func(kind string) int64) map[string]int64 {
	limits := map[string]int64{}
	for _, kind := range clipboard.Kinds() {
		if n := most(kind); n > 0 {
			limits[kind] = n
		}
	}
	return limits
}

// exchange connects to a VM's display process.
func (e *env) exchange(ctx context.Context, name string, what vm.Exchange) (net.Conn, error) {
	reg, err := e.registry()
	if err != nil {
		return nil, err
	}
	defer reg.Close()
	return reg.Exchange(ctx, name, what)
}

// hostClipboard connects to the compositor's own selection.
func (e *env) hostClipboard() (*clipboard.Host, error) {
	path, err := e.wayland()
	if err != nil {
		return nil, err
	}
	t, err := wayland.Dial(path)
	if err != nil {
		return nil, fmt.Errorf("compositor: %w", err)
	}
	return clipboard.DialHost(t)
}

func clipPasteCommand(e *env) *cobra.Command {
	var side clipSide
	c := &cobra.Command{
		Use:     "paste",
		Short:   "offer what was copied to the focused window's VM, or to the host",
		Example: "  vix-launcher clipboard paste\n  vix-launcher clipboard paste --host",
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

// askLimit is how long a question about a paste stands.
const askLimit = 20 * time.Second

// paste carries out the second act, and says what moved. What is decided is about what is
// held now: its ID goes with the decision, and the holder refuses it for anything else.
func (e *env) paste(ctx context.Context, side *clipSide) (string, error) {
	conf, err := e.config()
	if err != nil {
		return "", err
	}
	held, err := e.askHolder(holdRequest{Op: "status"})
	if err != nil {
		return "", err
	}
	to, err := side.find(ctx, e)
	if err != nil {
		return "", err
	}
	rule := conf.Clipboard.Rule(held.From, to)
	limits, moved, err := pass(rule, held, to)
	if err != nil {
		return "", fmt.Errorf("clipboard: %w", err)
	}
	text := fmt.Sprintf("%s from %s to %s", describe(moved), sideName(held.From), sideName(to))
	if rule.Action == config.ClipAsk {
		if err := e.askUser(ctx, text); err != nil {
			return "", fmt.Errorf("clipboard: %s: %w", text, err)
		}
	}
	req := holdRequest{
		Op: "paste", ID: held.ID, To: to, Slot: side.slot(), Limits: limits, Strip: rule.Strip,
		TTL: rule.TTL, Secret: !e.keepsHistory(conf), Moment: conf.Clipboard.Moment,
	}
	if side.named() {
		req.Moment = -1
	}
	if _, err := e.askHolder(req); err != nil {
		return "", err
	}
	return text, nil
}

// pass says what of the items a rule lets pass, or why nothing.
func pass(rule config.ClipRule, held holdReply, to string) (limits map[string]int64, moved []holdItem, err error) {
	if rule.Action == config.ClipDeny {
		return nil, nil, fmt.Errorf("a rule denies what goes from %s to %s; see [[clipboard.rule]] in config.toml", sideName(held.From), sideName(to))
	}
	limits = map[string]int64{}
	var why []string
	for _, it := range held.Items {
		switch most := rule.May(it.Kind); {
		case most == 0:
			why = append(why, fmt.Sprintf("no %s may go from %s to %s", it.Kind, sideName(held.From), sideName(to)))
		case it.Size > most:
			why = append(why, fmt.Sprintf("%d bytes of %s, and at most %d may go from %s to %s", it.Size, it.Kind, most, sideName(held.From), sideName(to)))
		default:
			limits[it.Kind] = most
			moved = append(moved, it)
		}
	}
	if len(moved) == 0 {
		return nil, nil, fmt.Errorf("%s; a [[clipboard.rule]] in config.toml can allow it", strings.Join(why, ", "))
	}
	return limits, moved, nil
}

func clipStatusCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "what is held, where it is from, and for how long",
		Example: "  vix-launcher clipboard status --json",
		Args:    args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			held, err := e.askHolder(holdRequest{Op: "status"})
			if err != nil && !errors.Is(err, errNothingHeld) {
				return err
			}
			if asJSON {
				return json.NewEncoder(e.stdout).Encode(held)
			}
			fmt.Fprintln(e.stdout, held.String())
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as one JSON object")
	return c
}

func clipClearCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "clear",
		Short:   "forget what was copied, and take back what was pasted and is not used yet",
		Example: "  vix-launcher clipboard clear",
		Args:    args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			_, err := e.askHolder(holdRequest{Op: "clear"})
			if errors.Is(err, errNothingHeld) {
				return nil
			}
			return err
		},
	}
}

func clipHistoryCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "history off|on",
		Short: "whether the host's clipboard managers may keep what is pasted to the host",
		Long: `Vix keeps no history of what was copied. A clipboard manager on the host may: "off"
asks it not to, for this session, by the hint that passwords have
(x-kde-passwordManagerHint). That is also the default; "history" under [clipboard]
in config.toml changes it.`,
		Example:   "  vix-launcher clipboard history off",
		Args:      args(1, 1, "off or on"),
		ValidArgs: []string{"off", "on"},
		RunE: func(_ *cobra.Command, words []string) error {
			if words[0] != "on" && words[0] != "off" {
				return usagef("clipboard history: want off or on, not %q", clip(words[0]))
			}
			dir, err := e.vixDir()
			if err != nil {
				return err
			}
			return durable.ReplaceFile(filepath.Join(dir, historyName), 0o600, []byte(words[0]+"\n"))
		},
	}
}

// Files of $XDG_RUNTIME_DIR/vix that are no VM's.
const (
	historyName = ".clipboard-history"
	holderName  = ".clipboard"
)

// vixDir is where the VMs' directories are; the registry makes it.
func (e *env) vixDir() (string, error) {
	reg, err := e.registry()
	if err != nil {
		return "", err
	}
	dir, err := e.runtimeDir()
	return filepath.Join(dir, "vix"), errors.Join(err, reg.Close())
}

// keepsHistory tells whether the host's clipboard managers may keep what is pasted.
func (e *env) keepsHistory(conf *config.Config) bool {
	dir, err := e.runtimeDir()
	if err != nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join(dir, "vix", historyName))
	if errors.Is(err, fs.ErrNotExist) {
		return conf.Clipboard.History
	}
	return err == nil && string(b) == "on\n"
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

// notify tells the user what moved, where there is something to tell it with. The
// words are on standard output anyway.
func (e *env) notify(ctx context.Context, summary, body string) {
	n, done, err := e.notifier(ctx)
	if err != nil {
		return
	}
	defer done()
	_, _ = n.Show(ctx, desktop.Note{Summary: summary, Body: body, Category: "transfer", Expire: 4 * time.Second})
}

// askUser asks by a notification with buttons. Whoever cannot be asked has refused.
func (e *env) askUser(ctx context.Context, text string) error {
	n, done, err := e.notifier(ctx)
	if err != nil {
		return fmt.Errorf("a rule says to ask you, and nobody can: %w", err)
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
		return fmt.Errorf("a rule says to ask you, and nobody can: %w", err)
	case key != "allow":
		return errors.New("refused")
	}
	return nil
}

func headers(items []clipboard.Item) []holdItem {
	var list []holdItem
	for _, it := range items {
		list = append(list, holdItem{it.Kind, int64(len(it.Data))})
	}
	return list
}

// describe names kinds and sizes, never the content.
func describe(items []holdItem) string {
	var parts []string
	for _, it := range items {
		parts = append(parts, fmt.Sprintf("%s (%d bytes)", it.Kind, it.Size))
	}
	return strings.Join(parts, ", ")
}
