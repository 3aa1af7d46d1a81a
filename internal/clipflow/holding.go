package clipflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/clipboard"
)

// The holder is the process that has what "clipboard copy" took, in memory that is
// not swapped where that can be had, until it is used, replaced, cleared or too old.
// It is asked over $XDG_RUNTIME_DIR/vix/.clipboard, a line of JSON each way:
//
//	copy  ── stdin: {"from":…,"ttl":…,"items":[…]} and the data ──► holder
//	      ◄─ stdout: "ok", once it listens ──
//	paste ── {"op":"status"} ──► holder
//	      ◄─ {"id":…,"from":…,"items":…} ─ on which paste decides, by rules or by asking
//	paste ── {"op":"paste","id":…,"to":…,…} ──► holder ── give ──► the VM's display, or the host
//	      ◄─ {} or {"error":…} ──────────
type request struct {
	Op     string           `json:"op"`
	ID     string           `json:"id,omitempty"` // of what is pasted, as "status" told
	To     string           `json:"to,omitempty"`
	Slot   clipboard.Slot   `json:"slot,omitempty"`
	Limits map[string]int64 `json:"limits,omitempty"`
	Strip  bool             `json:"strip,omitempty"`
	Secret bool             `json:"secret,omitempty"`
	Moment time.Duration    `json:"moment,omitempty"`
	TTL    time.Duration    `json:"ttl,omitempty"`
}

// Holding is what a holder says it has; From is empty when that is nothing.
type Holding struct {
	From      string `json:"from,omitempty"`
	Items     []Item `json:"items,omitempty"`
	Seconds   int    `json:"seconds,omitempty"` // left
	Recipient string `json:"offered,omitempty"` // to whom
	ID        string `json:"id,omitempty"`      // of what is held: another for each copy
	Error     string `json:"error,omitempty"`
}

func (r Holding) String() string {
	if r.From == "" {
		return "nothing is held"
	}
	s := fmt.Sprintf("%s from %s, for %d s more", Describe(r.Items), SideName(r.From), r.Seconds)
	if r.Recipient != "" {
		s += ", offered to " + SideName(r.Recipient)
	}
	return s
}

// ErrNothingHeld: there is no holder.
var ErrNothingHeld = errors.New("clipboard: nothing was copied; select something and use clipboard copy first")

const (
	maxHoldLine  = 4096
	holdPatience = 90 * time.Second // of a question to the holder
)

// Holding asks the holder what it has. Without one it returns ErrNothingHeld.
func (s *Sides) Holding() (Holding, error) { return s.ask(request{Op: "status"}) }

// Clear has the holder, if there is one, forget what it has, and take back what is
// offered.
func (s *Sides) Clear() error {
	_, err := s.ask(request{Op: "clear"})
	if errors.Is(err, ErrNothingHeld) {
		return nil
	}
	return err
}

// ask asks the holder, if there is one.
func (s *Sides) ask(req request) (Holding, error) {
	var rep Holding
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(s.RuntimeDir, "vix", holderName), Net: "unix"})
	if err != nil {
		return rep, ErrNothingHeld
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(holdPatience))
	err = json.NewEncoder(conn).Encode(req)
	if err == nil {
		err = json.NewDecoder(conn).Decode(&rep)
	}
	if err != nil {
		if req.Op == "clear" {
			return rep, nil
		}
		return rep, ErrNothingHeld // its time was over just now
	}
	if rep.Error != "" {
		return rep, fmt.Errorf("clipboard: %s", rep.Error)
	}
	return rep, nil
}

// A Child is the process of a holder, just started: what it reads and writes, and its
// end. Release gives up waiting for that.
type Child struct {
	Stdin         io.WriteCloser
	Stdout        io.Reader
	Wait, Release func() error
}

// Ready is what a holder's process writes, before it closes its standard output, when it
// can be asked.
const Ready = "ok\n"

// Hold hands items to a holder that start starts, in the place of the one there may be,
// and wipes them. Whoever else copies now waits: of two holders, one could not be
// reached, and would take the other's socket away.
func (s *Sides) Hold(from string, ttl time.Duration, items []clipboard.Item, start func() (*Child, error)) error {
	path, err := s.dir()
	if err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := s.Clear(); err != nil {
		return err
	}
	child, err := start()
	if err != nil {
		return fmt.Errorf("the process that holds it: %w", err)
	}
	err = json.NewEncoder(child.Stdin).Encode(heldData{From: from, TTL: ttl, Items: ItemsOf(items)})
	for _, it := range items {
		if err == nil {
			_, err = child.Stdin.Write(it.Data)
		}
		clear(it.Data)
	}
	_ = child.Stdin.Close()
	answer, _ := io.ReadAll(io.LimitReader(child.Stdout, maxHoldLine)) // to its end: the holder closes it
	if err != nil || string(answer) != Ready {
		return errors.Join(err, fmt.Errorf("the process that holds it does not start: %s", answer), child.Wait())
	}
	return child.Release()
}

// heldData is what the holder is started with.
type heldData struct {
	From  string        `json:"from"`
	TTL   time.Duration `json:"ttl"`
	Items []Item        `json:"items"`
}

// A Paste is what "clipboard paste" asks for.
type Paste struct {
	Slot clipboard.Slot
	// Find finds the side that gets it, once something is held.
	Find func() (side string, err error)
	// Named: the user named that side, so its window needs no focus.
	Named bool
	// Ask asks the user whether text may pass, where a rule says to. An error refuses.
	Ask func(text string) error
}

// Paste has the holder offer what it has to another side, and says what moves. What is
// decided is about what is held now: its ID goes with the decision, and the holder
// refuses it for anything else.
func (s *Sides) Paste(p Paste) (string, error) {
	conf, err := s.Config()
	if err != nil {
		return "", err
	}
	holding, err := s.Holding()
	if err != nil {
		return "", err
	}
	to, err := p.Find()
	if err != nil {
		return "", err
	}
	rule := conf.Clipboard.Rule(holding.From, to)
	limits, items, err := pass(rule, holding, to)
	if err != nil {
		return "", fmt.Errorf("clipboard: %w", err)
	}
	text := fmt.Sprintf("%s from %s to %s", Describe(items), SideName(holding.From), SideName(to))
	if rule.Action == config.ClipAsk {
		if err := p.Ask(text); err != nil {
			return "", fmt.Errorf("clipboard: %s: %w", text, err)
		}
	}
	req := request{
		Op: "paste", ID: holding.ID, To: to, Slot: p.Slot, Limits: limits, Strip: rule.Strip,
		TTL: rule.TTL, Secret: !s.keepsHistory(conf), Moment: conf.Clipboard.Moment,
	}
	if p.Named {
		req.Moment = -1
	}
	if _, err := s.ask(req); err != nil {
		return "", err
	}
	return text, nil
}

// pass says what of the items a rule lets pass, or why nothing.
func pass(rule config.ClipRule, holding Holding, to string) (limits map[string]int64, items []Item, err error) {
	if rule.Action == config.ClipDeny {
		return nil, nil, fmt.Errorf("a rule denies what goes from %s to %s; see [[clipboard.rule]] in config.toml", SideName(holding.From), SideName(to))
	}
	limits = map[string]int64{}
	var why []string
	for _, it := range holding.Items {
		switch most := rule.May(it.Kind); {
		case most == 0:
			why = append(why, fmt.Sprintf("no %s may go from %s to %s", it.Kind, SideName(holding.From), SideName(to)))
		case it.Size > most:
			why = append(why, fmt.Sprintf("%d bytes of %s, and at most %d may go from %s to %s", it.Size, it.Kind, most, SideName(holding.From), SideName(to)))
		default:
			limits[it.Kind] = most
			items = append(items, it)
		}
	}
	if len(items) == 0 {
		return nil, nil, fmt.Errorf("%s; a [[clipboard.rule]] in config.toml can allow it", strings.Join(why, ", "))
	}
	return limits, items, nil
}
