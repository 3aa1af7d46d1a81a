package agent

import (
	"errors"
	"fmt"
	"strings"
)

// The bounds of every message, checked before it is sent and after it is received.

func (m Hello) check() error {
	if m.Version < 1 {
		return fmt.Errorf("hello: version %d", m.Version)
	}
	return checkText("hello: kernel", m.Kernel, maxText)
}

func (m Boot) check() error {
	switch {
	case m.Hostname == "" || len(m.Hostname) > 63:
		return fmt.Errorf("boot: hostname of %d bytes, from 1 to 63", len(m.Hostname))
	case !plainName(m.Hostname):
		return fmt.Errorf("boot: hostname %q: only letters, digits, - and _", m.Hostname)
	case m.User.Name == "" || len(m.User.Name) > maxName || !plainName(m.User.Name):
		return fmt.Errorf("boot: user name %q", m.User.Name)
	case m.User.UID <= 0 || m.User.GID <= 0:
		return fmt.Errorf("boot: user %d, group %d: the ordinary user is not root", m.User.UID, m.User.GID)
	case m.User.UID >= 1<<31 || m.User.GID >= 1<<31:
		return fmt.Errorf("boot: user %d, group %d: too large", m.User.UID, m.User.GID)
	}
	for _, domain := range m.Search {
		if domain == "" || len(domain) > maxDomain || !plainName(strings.ReplaceAll(domain, ".", "")) {
			return fmt.Errorf("boot: search list: %.64q", domain)
		}
	}
	for _, mt := range m.Mounts {
		if err := mt.check(); err != nil {
			return fmt.Errorf("boot: %w", err)
		}
	}
	if m.Zone != m.Zone.Valid() {
		return fmt.Errorf("boot: time zone %.256q", m.Zone)
	}
	return checkStrings("boot: environment", m.Env)
}

func (m Stage) check() error {
	if m.Name == "" || len(m.Name) > maxName || !plainName(m.Name) {
		return fmt.Errorf("stage: name %.64q", m.Name)
	}
	if len(m.State) > maxName || !plainName(m.State) {
		return fmt.Errorf("stage: state %.64q", m.State)
	}
	return checkUptime(m.Uptime)
}

func (m Ready) check() error { return checkUptime(m.Uptime) }

func (m Spawn) check() error {
	if err := m.checkKind(); err != nil {
		return err
	}
	if len(m.User) > maxName || !plainName(m.User) {
		return fmt.Errorf("user %.64q: not a name", m.User)
	}
	if err := checkStrings("spawn: argument", m.Argv); err != nil {
		return err
	}
	if err := checkStrings("spawn: environment", m.Env); err != nil {
		return err
	}
	if err := checkStrings("spawn: directory", []string{string(m.Cwd)}); err != nil {
		return err
	}
	if m.Zone != m.Zone.Valid() {
		return fmt.Errorf("spawn: time zone %.256q", m.Zone)
	}
	if len(m.Terminfo) > MaxTerminfo || len(m.Terminfo) > 0 && !m.TTY {
		return fmt.Errorf("spawn: %d bytes of terminfo, at most %d, for a terminal", len(m.Terminfo), MaxTerminfo)
	}
	return checkID(m.ID)
}

// Valid returns the zone with those of its fields that can be sent: a name that leads nowhere
// else than into zoneinfo, and a rule of printable characters.
func (z Zone) Valid() Zone {
	for part := range strings.SplitSeq(z.Name, "/") {
		if len(z.Name) > maxZone || part == "" || !plainName(strings.ReplaceAll(part, "+", "")) {
			z.Name = ""
		}
	}
	// TZ=/FILE and TZ=:FILE would name a file.
	if len(z.Rule) > maxZone || strings.HasPrefix(z.Rule, "/") || strings.HasPrefix(z.Rule, ":") ||
		strings.ContainsFunc(z.Rule, func(r rune) bool { return r <= ' ' || r > '~' }) {
		z.Rule = ""
	}
	return z
}

// checkKind checks the program that the message starts.
func (m Spawn) checkKind() error {
	if (m.Request != nil) != (m.Kind == KindRequest) {
		return fmt.Errorf("spawn: kind %q and a request: one without the other", string(m.Kind))
	}
	switch m.Kind {
	case KindProgram:
		if len(m.Argv) == 0 || m.Argv[0] == "" {
			return errors.New("spawn: no program named")
		}
	case KindShell:
	case KindRequest:
		if len(m.Argv) > 0 || m.TTY {
			return errors.New("spawn: a request with arguments, or on a terminal")
		}
		if m.Request.forRoot() && m.User != "root" {
			return fmt.Errorf("spawn: %s for user %.64q, not root", m.Request.Name(), m.User)
		}
		return m.Request.check()
	default:
		return fmt.Errorf("spawn: unknown kind %.64q", string(m.Kind))
	}
	return nil
}

func (m Spawned) check() error {
	if m.PID <= 1 {
		return fmt.Errorf("spawned: pid %d", m.PID)
	}
	return checkID(m.ID)
}

func (m Kill) check() error {
	if m.Signal < 1 || m.Signal > 64 {
		return fmt.Errorf("kill: signal %d, from 1 to 64", m.Signal)
	}
	return checkID(m.ID)
}

func (m Resize) check() error { return checkID(m.ID) }

func (m Exit) check() error {
	if m.Code < 0 || m.Code > 255 || m.Signal < 0 || m.Signal > 64 {
		return fmt.Errorf("exit: code %d, signal %d", m.Code, m.Signal)
	}
	return checkID(m.ID)
}

func (m Error) check() error {
	if m.Code < 0 || m.Code > 255 {
		return fmt.Errorf("error: code %d", m.Code)
	}
	return checkText("error", m.Text, maxText)
}

// maxTraffic is more than any network card carries in its life, and sums of it do not overflow.
const maxTraffic = 1 << 60

func (m Traffic) check() error {
	if m.Received > maxTraffic || m.Sent > maxTraffic {
		return fmt.Errorf("traffic: %d and %d bytes", m.Received, m.Sent)
	}
	return nil
}

func (m Shortage) check() error {
	if m.Count == 0 {
		return errors.New("shortage: of no program")
	}
	return checkText("shortage: program", m.Program, maxName)
}

// maxPause is longer than any guest waits before it starts another proxy.
const maxPause = 3600_000

func (m WindowLoss) check() error {
	if m.Count == 0 || m.Pause < 0 || m.Pause > maxPause {
		return fmt.Errorf("windowloss: end %d, a pause of %d ms", m.Count, m.Pause)
	}
	return checkText("windowloss", m.How, maxText)
}

func (m PowerOff) check() error {
	if m.Grace < 0 || m.Grace > 3600_000 {
		return fmt.Errorf("poweroff: %d ms of grace, at most an hour", m.Grace)
	}
	return nil
}

func (m Clock) check() error {
	if m.Time <= 0 {
		return fmt.Errorf("clock: %d ns since 1970", m.Time)
	}
	return nil
}

func (m Ping) check() error { return nil }

func (m Pong) check() error { return nil }

func (m Data) check() error {
	if m.Stream > Down || len(m.Bytes) > MaxData {
		return fmt.Errorf("data: %d bytes on stream %d", len(m.Bytes), m.Stream)
	}
	return nil
}

func (m Credit) check() error {
	if m.Stream > Down || m.N == 0 || m.N > Window {
		return fmt.Errorf("credit: %d bytes for stream %d", m.N, m.Stream)
	}
	return nil
}

func (m Hangup) check() error {
	if m.Stream > Down {
		return fmt.Errorf("hangup: stream %d", m.Stream)
	}
	return nil
}

func (m Call) check() error {
	if m.Kind() == "" {
		return errors.New("call: of no kind")
	}
	if err := checkText("call: names", m.Names.Failure, maxText); err != nil {
		return err
	}
	return checkID(m.ID)
}

func (m Accept) check() error { return checkID(m.ID) }

func (m Refuse) check() error {
	if err := checkText("refuse", m.Text, maxText); err != nil {
		return err
	}
	return checkID(m.ID)
}

func (m Over) check() error { return checkID(m.ID) }

func checkID(id uint32) error {
	if id == 0 {
		return errors.New("id 0: ids begin at 1")
	}
	return nil
}

func checkUptime(ms int64) error {
	if ms < 0 || ms > 1<<50 {
		return fmt.Errorf("uptime of %d ms", ms)
	}
	return nil
}

// checkStrings checks strings for a NUL, where a string of an argument vector would end.
func checkStrings(what string, list []string) error {
	for _, s := range list {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("%s %.64q holds a NUL byte", what, s)
		}
	}
	return nil
}

func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s: text of %d bytes, at most %d", what, len(s), limit)
	}
	return nil
}

func plainName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			continue
		}
		return false
	}
	return true
}
