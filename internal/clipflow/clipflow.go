// Package clipflow carries copied data from one side to another, as far as the rules of
// config.toml permit it. A side is a VM or the host.
//
// Two processes of vix-launcher, and the clipboard's verbs, are made of it:
//
//	Flow    ("clipboard-flow", beside a VM whose profile lets something flow)
//	        VM's display ── copied ──► Flow ── give ──► host, and the other way round
//
//	Take ─► Holder ("clipboard-hold", one for a session) ─► Paste
//	        a side's data waits there until it goes to another side
//
// Package clipboard knows how to speak with a display process and the host's compositor;
// package vm knows which connection leads to a VM's display. This package shows the user
// nothing, and starts no process: the caller hands in functions that ask the user, or start
// a holder.
package clipflow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"vix/config"
	"vix/internal/clipboard"
	"vix/internal/desktop"
	"vix/internal/durable"
	"vix/internal/vm"
	"vix/internal/wayland"
)

// Sides finds both sides of a copy, and knows what may pass between them.
type Sides struct {
	RuntimeDir string // $XDG_RUNTIME_DIR, that holds vix/
	Wayland    string // the path of the compositor's socket
	Sway       string // sway's IPC socket; "" with another compositor
	// Config reads config.toml. It is called for each copy, so that a change of the rules
	// takes effect at once.
	Config func() (*config.Config, error)
}

// Files of $XDG_RUNTIME_DIR/vix that belong to no VM.
const (
	historyName = ".clipboard-history"
	holderName  = ".clipboard"
)

// dir returns the directory of the VMs' directories; the registry makes it.
func (s *Sides) dir() (string, error) {
	reg, err := vm.OpenRegistry(s.RuntimeDir)
	if err != nil {
		return "", err
	}
	return filepath.Join(s.RuntimeDir, "vix"), reg.Close()
}

// exchange connects to a VM's display process.
func (s *Sides) exchange(ctx context.Context, name string, what vm.Exchange) (net.Conn, error) {
	reg, err := vm.OpenRegistry(s.RuntimeDir)
	if err != nil {
		return nil, err
	}
	defer reg.Close()
	return reg.Exchange(ctx, name, what)
}

// host connects to the compositor's own selection.
func (s *Sides) host() (*clipboard.Host, error) {
	t, err := wayland.Dial(s.Wayland)
	if err != nil {
		return nil, fmt.Errorf("compositor: %w", err)
	}
	return clipboard.DialHost(t)
}

// Focused returns the side whose window has the focus: a VM's name, or config.ClipHost.
func (s *Sides) Focused(ctx context.Context) (side string, err error) {
	if s.Sway == "" {
		return "", errors.New("clipboard: which window has the focus is only known on sway (SWAYSOCK is not set); name the side with --vm NAME or --host")
	}
	w, err := desktop.Sway{Socket: s.Sway}.Focused(ctx)
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

// Take asks a side for its selection, as far as any rule would let it pass.
func (s *Sides) Take(ctx context.Context, conf *config.Config, from string, slot clipboard.Slot) ([]clipboard.Item, error) {
	limits := limitsOf(func(kind string) int64 { return conf.Clipboard.Most(from, kind) })
	if len(limits) == 0 {
		return nil, errors.New("no rule of [[clipboard.rule]] lets anything leave it")
	}
	if from == config.ClipHost {
		h, err := s.host()
		if err != nil {
			return nil, err
		}
		defer h.Close()
		return h.Take(h.Selection(slot), limits)
	}
	conn, err := s.exchange(ctx, from, vm.TakeSelection)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return clipboard.Take(conn, clipboard.TakeRequest{Slot: slot, Limits: limits})
}

// limitsOf returns the most bytes of each kind that may pass at all.
func limitsOf(most func(kind string) int64) map[string]int64 {
	limits := map[string]int64{}
	for _, kind := range clipboard.Kinds() {
		if n := most(kind); n > 0 {
			limits[kind] = n
		}
	}
	return limits
}

// KeepHistory sets, for this session, whether the host's clipboard managers may keep data
// that is pasted to the host.
func (s *Sides) KeepHistory(keep bool) error {
	dir, err := s.dir()
	if err != nil {
		return err
	}
	word := "off\n"
	if keep {
		word = "on\n"
	}
	return durable.ReplaceFile(filepath.Join(dir, historyName), 0o600, []byte(word))
}

// keepsHistory reports whether the host's clipboard managers may keep pasted data: as
// KeepHistory set it, or else as the configuration says.
func (s *Sides) keepsHistory(conf *config.Config) bool {
	b, err := os.ReadFile(filepath.Join(s.RuntimeDir, "vix", historyName))
	if errors.Is(err, fs.ErrNotExist) {
		return conf.Clipboard.History
	}
	return err == nil && string(b) == "on\n"
}

// SideName returns a side's name for a message.
func SideName(side string) string {
	if side == config.ClipHost {
		return "the host"
	}
	return "VM " + side
}

// An Item is the part of an item that may be shown: never its content.
type Item struct {
	Kind string `json:"kind"`
	Size int64  `json:"size"`
}

// ItemsOf returns the parts of items that may be shown.
func ItemsOf(items []clipboard.Item) []Item {
	var list []Item
	for _, it := range items {
		list = append(list, Item{it.Kind, int64(len(it.Data))})
	}
	return list
}

// Describe names kinds and sizes.
func Describe(items []Item) string {
	var parts []string
	for _, it := range items {
		parts = append(parts, fmt.Sprintf("%s (%d bytes)", it.Kind, it.Size))
	}
	return strings.Join(parts, ", ")
}
