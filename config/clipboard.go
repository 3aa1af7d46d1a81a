package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Clipboard has the user's rules for data that goes from one VM to another, or between a
// VM and the host:
//
//	[clipboard]
//	ttl     = "30s"     # how long a copy is kept
//	moment  = "500ms"   # no pastes into a window that has had the keyboard for less
//	history = "off"     # "off": asks the host's clipboard managers to keep nothing
//
//	[[clipboard.rule]]  # the first rule that fits applies
//	from   = "work"     # a VM's name, "host", or "*"
//	to     = "host"
//	action = "ask"      # "deny", "ask" or "allow"
//	kinds  = ["text", "html", "image"]
//	limit  = "1M"
//	ttl    = "10s"
//	strip  = false      # leave control characters and escape sequences in text
type Clipboard struct {
	TTL     time.Duration
	Moment  time.Duration
	History bool
	Rules   []ClipRule
}

// A ClipRule says which data may go from one side to another.
type ClipRule struct {
	From, To string // a VM's name, ClipHost or ClipAny
	Action   string // ClipDeny, ClipAsk or ClipAllow
	Kinds    []string
	Limit    int64 // bytes
	TTL      time.Duration
	Strip    bool
}

// Words of a rule.
const (
	ClipHost = "host"
	ClipAny  = "*"

	ClipDeny  = "deny"
	ClipAsk   = "ask"
	ClipAllow = "allow"
)

// Profiles of a VM: which copies flow by themselves, without an act of the user.
const (
	ClipIsolated  = "isolated"   // no copies
	ClipSharedOut = "shared-out" // copies made in the VM, to the host
	ClipSharedIn  = "shared-in"  // copies made on the host, to the VM while it has the focus
	ClipShared    = "shared"     // both
)

// Limits and defaults of the clipboard.
const (
	DefaultClipLimit = 64 << 10
	// DefaultImageLimit applies to a picture as the host encodes it.
	DefaultImageLimit = 4 << 20
	MaxClipLimit      = 64 << 20
	maxClipTTL        = time.Hour
	maxClipRules      = 256
)

// ClipKinds are the kinds of data that a rule can name.
func ClipKinds() []string { return []string{"text", "html", "image"} }

func defaultClipboard() Clipboard {
	return Clipboard{TTL: 30 * time.Second, Moment: 500 * time.Millisecond}
}

// Rule returns the rule between two sides, each a VM's name or ClipHost: the first that
// fits, or else one that needs only the user's own act, for text and pictures.
func (c *Clipboard) Rule(from, to string) ClipRule {
	fits := func(word, side string) bool { return word == ClipAny || word == side }
	for _, r := range c.Rules {
		if fits(r.From, from) && fits(r.To, to) {
			return r
		}
	}
	return ClipRule{From: ClipAny, To: ClipAny, Action: ClipAllow, Kinds: []string{"text", "image"}, TTL: c.TTL, Strip: true}
}

// May returns how much of a kind the rule lets pass, in bytes; 0 is none.
func (r ClipRule) May(kind string) int64 {
	switch {
	case r.Action == ClipDeny || !slices.Contains(r.Kinds, kind):
		return 0
	case r.Limit > 0:
		return r.Limit
	case kind == "image":
		return DefaultImageLimit
	}
	return DefaultClipLimit
}

// Flow returns the rule by which copies on one side go to the other without an act of the
// user. Between a VM and the host, the VM's profile asks for the flow, and a rule with an
// action other than "allow" prevents it. From one VM to another, it needs a rule that
// allows it and names both.
func (c *Config) Flow(from, to string) (rule ClipRule, ok bool) {
	rule = c.Clipboard.Rule(from, to)
	profile := func(name, way string) bool {
		v, err := c.VM(name)
		return err == nil && (v.Clipboard == ClipShared || v.Clipboard == way)
	}
	switch {
	case rule.Action != ClipAllow || from == to:
		return rule, false
	case to == ClipHost:
		return rule, profile(from, ClipSharedOut)
	case from == ClipHost:
		return rule, profile(to, ClipSharedIn)
	}
	return rule, profile(to, ClipSharedIn) && rule.From == from && rule.To == to
}

// A DragRule is the part of a rule about drags, for the process that enforces it.
type DragRule struct {
	From   string           `json:"from"`
	To     string           `json:"to"`
	Limits map[string]int64 `json:"limits,omitempty"` // bytes, by kind; a kind without a limit is refused
	Strip  bool             `json:"strip,omitempty"`
}

// Drags returns the rules about drags to or from a VM, in order; nil where they refuse all.
// A drag needs a rule that allows it: no question is asked.
func (c *Clipboard) Drags(vm string) (rules []DragRule) {
	allowed := false
	for _, r := range c.Rules {
		if !slices.Contains([]string{ClipAny, vm}, r.From) && !slices.Contains([]string{ClipAny, vm}, r.To) {
			continue
		}
		d := DragRule{From: r.From, To: r.To, Strip: r.Strip}
		if r.Action == ClipAllow {
			d.Limits = map[string]int64{}
			for _, kind := range r.Kinds {
				d.Limits[kind] = r.May(kind)
			}
			allowed = true
		}
		rules = append(rules, d)
	}
	if !allowed {
		return nil
	}
	return rules
}

// Most returns how much of a kind any rule lets pass from a side.
func (c *Clipboard) Most(from, kind string) int64 {
	most := c.Rule(from, "\x00").May(kind) // a side that only "*" matches
	for _, r := range c.Rules {
		if r.From == ClipAny || r.From == from {
			most = max(most, r.May(kind))
		}
	}
	return most
}

var clipKeys = []string{"history", "moment", "rule", "ttl"}
var clipRuleKeys = []string{"action", "from", "kinds", "limit", "strip", "to", "ttl"}

// clipboard reads [clipboard].
func (r *reader) clipboard(v any, c *Clipboard) {
	t, ok := v.(map[string]any)
	if !ok {
		r.fail([]string{"clipboard"}, "%v", wantTable("clipboard", v))
		return
	}
	for name, val := range t {
		at := []string{"clipboard", name}
		var err error
		switch name {
		case "ttl":
			c.TTL, err = duration(val, time.Second, maxClipTTL)
		case "moment":
			c.Moment, err = duration(val, 0, time.Minute)
		case "history":
			var word string
			word, err = oneOf(val, "off", "on")
			c.History = word == "on"
		case "rule":
		case "rules":
			err = errors.New("unknown key; each rule is a table of its own: [[clipboard.rule]]")
		default:
			err = fmt.Errorf("unknown key%s", suggest(name, clipKeys))
		}
		if err != nil {
			r.fail(at, "%v", err)
		}
	}
	rules, ok := t["rule"]
	if !ok {
		return
	}
	at := []string{"clipboard", "rule"}
	tables, ok := rules.([]map[string]any)
	switch {
	case !ok:
		r.fail(at, "want tables such as [[clipboard.rule]], in two pairs of brackets, not %s", describe(rules))
	case len(tables) > maxClipRules:
		r.fail(at, "%d rules; at most %d", len(tables), maxClipRules)
	default:
		for k, t := range tables {
			c.Rules = append(c.Rules, r.clipRule(k, t, c.TTL))
		}
	}
}

// clipRule reads the rule with the index k.
func (r *reader) clipRule(k int, t map[string]any, ttl time.Duration) ClipRule {
	rule := ClipRule{Kinds: []string{"text", "image"}, Strip: true, TTL: ttl}
	fail := func(name string, err error) {
		e := r.mistake([]string{"clipboard", "rule"}, "rule %d: %v", k+1, err)
		e.Line = r.lines.of([]string{"clipboard", "rule", strconv.Itoa(k), name})
	}
	for name, v := range t {
		var err error
		switch name {
		case "from":
			rule.From, err = clipSide(v)
		case "to":
			rule.To, err = clipSide(v)
		case "action":
			rule.Action, err = oneOf(v, ClipDeny, ClipAsk, ClipAllow)
		case "kinds":
			rule.Kinds, err = list(v, func(s string) error {
				if !slices.Contains(ClipKinds(), s) {
					return fmt.Errorf("%q is none of %s", clip(s), strings.Join(ClipKinds(), ", "))
				}
				return nil
			})
		case "limit":
			rule.Limit, err = clipSize(v)
		case "ttl":
			rule.TTL, err = duration(v, time.Second, maxClipTTL)
		case "strip":
			var ok bool
			if rule.Strip, ok = v.(bool); !ok {
				err = wantBool(v)
			}
		default:
			err = fmt.Errorf("unknown key%s", suggest(name, clipRuleKeys))
		}
		for _, err := range parts(err) {
			fail(name, fmt.Errorf("%s: %w", name, err))
		}
	}
	for _, name := range []string{"from", "to", "action"} {
		if _, ok := t[name]; !ok {
			fail("", errors.New("from, to and action are required"))
			break
		}
	}
	return rule
}

func clipSide(x any) (string, error) {
	s, ok := x.(string)
	if !ok {
		return "", wantText(x)
	}
	if s == ClipAny || s == ClipHost {
		return s, nil
	}
	return s, CheckName(s)
}

func clipSize(x any) (int64, error) {
	s, ok := x.(string)
	if !ok {
		return 0, fmt.Errorf(`want a size in quotes, with its unit, such as "1M", not %s`, describe(x))
	}
	digits := strings.TrimRight(s, "KM")
	n, err := strconv.ParseInt(digits, 10, 32)
	switch s[len(digits):] {
	case "K":
		n <<= 10
	case "M":
		n <<= 20
	default:
		err = errors.New("no unit")
	}
	if err != nil || n < 1 || n > MaxClipLimit {
		if meant, ok := meantSize(s); ok && err != nil && meant >= 1<<10 && meant <= MaxClipLimit && meant&(1<<10-1) == 0 {
			return 0, fmt.Errorf(`want "%v", not %q`, meant, clip(s))
		}
		return 0, fmt.Errorf(`want a size from "1K" to "%dM", not %q`, MaxClipLimit>>20, clip(s))
	}
	return n, nil
}

// duration reads a text such as "30s" or "500ms".
func duration(x any, low, high time.Duration) (time.Duration, error) {
	s, ok := x.(string)
	if !ok {
		return 0, fmt.Errorf(`want a time in quotes, with its unit, such as "30s", not %s`, describe(x))
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < low || d > high {
		return 0, fmt.Errorf(`want a time from "%s" to "%s", not %q`, short(low), short(high), clip(s))
	}
	return d, nil
}

// short writes a time without what is zero in it: 1h, not 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
