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

// The holder is the process that has the data of "clipboard copy", in memory that is not
// swapped if possible, until the data is used, replaced, cleared or too old. Requests come
// over $XDG_RUNTIME_DIR/vix/.clipboard, a line of JSON each way:
//
//	copy  ── stdin: {"from":…,"ttl":…,"items":[…]} and the data ──► holder
//	      ◄─ stdout: "ok", once it listens ──
//	paste ── {"op":"status"} ──► holder
//	      ◄─ {"id":…,"from":…,"items":…} ─ paste decides on it, by rules or by asking
//	paste ── {"op":"paste","id":…,"to":…,…} ──► holder ── give ──► the VM's display, or the host
//	      ◄─ {} or {"error":…} ──────────
type request struct {
	Op     string           `json:"op"`
	ID     string           `json:"id,omitempty"` // of the data to paste, from "status"
	To     string           `json:"to,omitempty"`
	Slot   clipboard.Slot   `json:"slot,omitempty"`
	Limits map[string]int64 `json:"limits,omitempty"`
	Strip  bool             `json:"strip,omitempty"`
	Secret bool             `json:"secret,omitempty"`
	Moment time.Duration    `json:"moment,omitempty"`
	TTL    time.Duration    `json:"ttl,omitempty"`
}

// Holding describes the holder's data; From is empty when there is none.
type Holding struct {
	From      string `json:"from,omitempty"`
	Items     []Item `json:"items,omitempty"`
	Seconds   int    `json:"seconds,omitempty"` // until the data is too old
	Recipient string `json:"offered,omitempty"` // the side that the data is offered to
	ID        string `json:"id,omitempty"`      // of the data: another for each copy
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
	holdPatience = 90 * time.Second // for an answer of the holder
)

// Holding asks the holder what it has. Without one it returns ErrNothingHeld.
func (s *Sides) Holding() (Holding, error) { return s.ask(request{Op: "status"}) }

// Clear has the holder, if there is one, forget its data, and take back its offer.
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
		return rep, ErrNothingHeld // the holder's time was over just now
	}
	if rep.Error != "" {
		return rep, fmt.Errorf("clipboard: %s", rep.Error)
	}
	return rep, nil
}

// A Child is the process of a holder, just started: its standard streams, and its end.
// Release gives up waiting for the end.
type Child struct {
	Stdin         io.WriteCloser
	Stdout        io.Reader
	Wait, Release func() error
}

// Ready is the word that a holder's process writes when it takes requests, before it closes
// its standard output.
const Ready = "ok\n"

// Hold hands items to a holder that start starts, in the place of an earlier one, and wipes
// them. Other copies wait meanwhile: of two holders, one could not be reached, and would
// take the other's socket away.
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
	answer, _ := io.ReadAll(io.LimitReader(child.Stdout, maxHoldLine)) // until the end: the holder closes it
	if err != nil || string(answer) != Ready {
		return errors.Join(err, fmt.Errorf("the process that holds it does not start: %s", answer), child.Wait())
	}
	return child.Release()
}

// heldData is the first line of the holder's standard input.
type heldData struct {
	From  string        `json:"from"`
	TTL   time.Duration `json:"ttl"`
	Items []Item        `json:"items"`
}

// A Paste is a request of "clipboard paste".
type Paste struct {
	Slot clipboard.Slot
	// Find returns the side that gets the data, once a holder has some.
	Find func() (side string, err error)
	// Named: the user named that side, so its window needs no focus.
	Named bool
	// Ask asks the user whether text may pass, where a rule says to. An error refuses.
	Ask func(text string) error
}

// Paste has the holder offer its data to another side, and returns a text about it. The
// decision is about the present data: its ID goes with the decision, and the holder refuses
// the decision for anything else.
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

// pass returns the items that a rule lets pass, or why there are none.
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
