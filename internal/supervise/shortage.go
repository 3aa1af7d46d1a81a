package supervise

import (
	"context"
	"fmt"
	"time"

	"vix/internal/agent"
	"vix/internal/vm"
)

// A guest's kernel that has no memory left ends a program, which vanishes for its user. So
// Vix names the program: on the terminal of each run, in the VM's log and status, and by a
// notification, as windows have no other place.
//
// It is the guest's word, and a guest may repeat it for ever: see pace.

// A pace bounds how often a user gets one kind of a guest's messages, and how many become
// notes.
type pace struct {
	messages agent.Pace
	notes    int
}

const (
	paceBurst = 4                // messages at once,
	paceStep  = 10 * time.Second // then one in each step
	maxNotes  = 32               // of a kind; later messages are in the log alone
)

// admits reports whether a message may go out now.
func (p *pace) admits(now time.Time) bool {
	p.messages.Burst, p.messages.Step = paceBurst, paceStep
	return p.messages.Admits(now)
}

// tellAt shows the user an admitted message, and reports whether it has become a note.
func (s *guest) tellAt(p *pace, text string) bool {
	if p.notes++; p.notes > maxNotes {
		s.log.Add("vix", text)
		return false
	}
	s.note("%s", text)
	return true
}

// shortages counts the shortages that the user knows of. It is the agent's reader's alone.
type shortages struct {
	pace
	count uint64 // the guest's count in its last message
}

// next returns the message for m; "" for none.
func (t *shortages) next(name string, m agent.Shortage, now time.Time) string {
	if !t.admits(now) {
		return ""
	}
	who := m.Program
	switch others := m.Count - t.count - 1; {
	case m.Count <= t.count || others == 0: // or the guest cannot count
	case others == 1:
		who += " and another program"
	default:
		who += fmt.Sprintf(" and %d other programs", others)
	}
	t.count = m.Count
	return fmt.Sprintf("VM %s: out of memory: its kernel killed %s; give the VM more memory (memory in config.toml, or --memory)", name, who)
}

// onShortage is called by the agent's reader.
func (s *guest) onShortage(m agent.Shortage) {
	text := s.shortages.next(s.launch.VM.Name, m, time.Now())
	if text != "" && s.tellAt(&s.shortages.pace, text) {
		s.notify("Trouble in VM "+s.launch.VM.Name, text)
	}
}

// tellLimit is how long a notification may delay the end of its VM.
const tellLimit = 3 * time.Second

// notify shows a notification if there is a desktop, without waiting for it.
func (s *guest) notify(summary, text string) {
	s.pumps.Go(func() { s.notifyNow(summary, text) })
}

// notifyNow shows a notification if there is a desktop. A VM that ends still gets a word out.
func (s *guest) notifyNow(summary, text string) {
	if s.desktop.Tell == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	defer cancel()
	defer context.AfterFunc(s.ctx, func() { time.AfterFunc(tellLimit, cancel) })()
	if err := s.desktop.Tell(ctx, s.launch, summary, text); err != nil {
		s.log.Printf("vix", "notification: %v", err)
	}
}

// A Desktop has the functions of the user's desktop, of which this package knows nothing.
// Each may be nil.
type Desktop struct {
	Place Place
	// Tell shows a notification about the VM.
	Tell func(ctx context.Context, l vm.Launch, summary, text string) error
	// Await shows that a program starts, which was asked for at asked, until opened is closed
	// or ctx ends. slow is whether the VM is emulated.
	Await func(ctx context.Context, l vm.Launch, program string, slow bool, asked time.Time, opened <-chan struct{}) error
}
