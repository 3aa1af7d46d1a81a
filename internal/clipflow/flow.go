package clipflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"vix/config"
	"vix/internal/clipboard"
	"vix/internal/vm"
)

// A Flow carries out a VM's profile, in a process of its own beside the VM:
//
//	display ── copied, by a program of the VM with the keyboard ──► flow ── give ──► host
//	host    ── copied ──► flow, and when the VM has had the keyboard for a moment
//	                       ── give ──► display, until it loses the keyboard
//
// The rules are read for each copy, so a change of the file takes effect at once. A newer
// copy, wherever it was made, takes the place of one that flowed. Data that the flow put on
// the host bears the VM's name, so that only a rule for that pair lets it into another VM.
type Flow struct {
	sides *Sides
	vm    string
	log   io.Writer
	host  *clipboard.Host // reports copies on the host
	wg    sync.WaitGroup  // offers

	last     clipboard.Status // the VM's last status
	out      *time.Timer      // until the flow looks at the VM's copy
	lastOut  time.Time
	withdraw context.CancelFunc // ends the offer to the host; nil: none

	in            *time.Timer          // until the VM has had the keyboard for a moment
	onHost        clipboard.Selection  // the selection to offer next
	copiedAt      time.Time            // when onHost was copied; zero: nothing to offer
	takeBack      context.CancelFunc   // ends the offer to the VM; nil: none
	displacements chan context.Context // offers to the VM that something else replaced
}

// flowPause is the time between two looks at a VM's copies: of a flood, the last counts.
const flowPause = 250 * time.Millisecond

// NewFlow returns the flow of a VM. log gets a line for each copy that a rule or an error
// kept from flowing.
func NewFlow(sides *Sides, name string, log io.Writer) *Flow {
	return &Flow{sides: sides, vm: name, log: log, out: stopped(), in: stopped(), displacements: make(chan context.Context)}
}

// stopped returns a timer that does not run yet.
func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// Run carries out the profile until ctx, the VM's display or the compositor ends. It
// calls ready when it follows both sides.
func (f *Flow) Run(ctx context.Context, ready func()) (err error) {
	conn, err := f.sides.exchange(ctx, f.vm, vm.FollowSelection)
	if err != nil {
		return err
	}
	if f.host, err = f.sides.host(); err != nil {
		return errors.Join(fmt.Errorf("clipboard: %w", err), conn.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	states, followEnd := make(chan clipboard.Status), make(chan error, 1)
	f.wg.Go(func() { followEnd <- follow(ctx, conn, states) })
	defer func() {
		cancel()
		_ = conn.Close()
		f.wg.Wait()
		_ = f.host.Close()
	}()
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-followEnd:
			return fmt.Errorf("clipboard: VM %s: its display has ended: %w", f.vm, err)
		case <-f.host.Done():
			return errors.New("clipboard: the compositor has ended")
		case st := <-states:
			f.follow(st)
		case <-f.host.Changed():
			f.onHostCopy()
		case offer := <-f.displacements:
			if offer.Err() == nil { // and not by us
				f.forget()
			}
		case <-f.out.C:
			f.say(f.toHost(ctx))
		case <-f.in.C:
			f.say(f.toVM(ctx))
		}
	}
}

// follow asks for changes until conn or ctx ends.
func follow(ctx context.Context, conn net.Conn, states chan<- clipboard.Status) error {
	var st clipboard.Status
	for {
		var err error
		if st, err = clipboard.Follow(conn, st.Seq); err != nil {
			return err
		}
		select {
		case states <- st:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// say writes to the VM's log why something did not flow.
func (f *Flow) say(err error) {
	if err != nil {
		fmt.Fprintln(f.log, "nothing flows:", err)
	}
}

// follow handles a change in the VM.
func (f *Flow) follow(st clipboard.Status) {
	was := f.last
	f.last = st
	switch {
	case st.Copies != was.Copies && was.Seq != 0: // but not the copies before us
		f.forget()
		f.out.Reset(max(0, flowPause-time.Since(f.lastOut)))
	case !st.Has && f.withdraw != nil:
		f.withdraw()
		f.withdraw = nil
	}
	switch {
	case st.Enters == 0:
		f.in.Stop()
		f.takeAway()
	case st.Enters != was.Enters && f.takeBack == nil:
		f.settle()
	}
}

// settle arms the timer that offers the host's copy to the VM, once the VM's window has had
// the keyboard for a moment: the display process insists on that too.
func (f *Flow) settle() {
	if conf, err := f.sides.Config(); err == nil && !f.copiedAt.IsZero() {
		f.in.Reset(conf.Clipboard.Moment + 10*time.Millisecond)
	}
}

// takeAway ends the offer to the VM.
func (f *Flow) takeAway() {
	if f.takeBack != nil {
		f.takeBack()
		f.takeBack = nil
	}
}

// forget drops the host's copy: there is a newer one in the VM.
func (f *Flow) forget() {
	f.takeAway()
	f.in.Stop()
	f.copiedAt = time.Time{}
}

// toHost offers the copy of a program in the VM to the host.
func (f *Flow) toHost(ctx context.Context) error {
	f.lastOut = time.Now()
	conf, err := f.sides.Config()
	if err != nil {
		return err
	}
	rule, ok := conf.Flow(f.vm, config.ClipHost)
	switch {
	case rule.Action != config.ClipAllow:
		return fmt.Errorf("to the host: a rule says %q, and not %q", rule.Action, config.ClipAllow)
	case !ok || !f.last.Has:
		return nil
	}
	conn, err := f.sides.exchange(ctx, f.vm, vm.TakeSelection)
	if err != nil {
		return err
	}
	defer conn.Close()
	before := f.host.Selection(clipboard.Clipboard)
	items, err := clipboard.Take(conn, clipboard.TakeRequest{Limits: limitsOf(rule.May)})
	now := f.host.Selection(clipboard.Clipboard)
	switch {
	case err != nil:
		return fmt.Errorf("to the host: %w", err)
	case !now.Same(before) && clipboard.Origin(now.Types) != f.vm:
		return nil // the program took its time, and the user has copied since
	}
	host, err := f.sides.host()
	if err != nil {
		return err
	}
	offer, withdraw := context.WithTimeout(ctx, rule.TTL)
	done, err := host.Give(offer, clipboard.Clipboard, strip(items, rule), f.vm, !f.sides.keepsHistory(conf))
	if err != nil {
		withdraw()
		return errors.Join(err, host.Close())
	}
	if f.withdraw != nil {
		f.withdraw() // the new one has taken its place
	}
	f.withdraw = withdraw
	f.wg.Go(func() {
		<-done
		withdraw()
		_ = host.Close()
	})
	return nil
}

// strip returns the items as a rule lets them pass.
func strip(items []clipboard.Item, rule config.ClipRule) []clipboard.Item {
	for k, it := range items {
		if it.Kind == clipboard.Text && rule.Strip {
			items[k].Data = clipboard.Strip(it.Data)
		}
	}
	return items
}

// onHostCopy notes a new copy on the host. The flow does not ask for the data before the VM
// may have it.
func (f *Flow) onHostCopy() {
	f.takeAway()
	f.copiedAt = time.Time{}
	f.onHost = f.host.Selection(clipboard.Clipboard)
	if types := f.onHost.Types; len(types) > 0 && clipboard.Origin(types) != f.vm {
		f.copiedAt = time.Now()
	}
	if f.last.Enters != 0 {
		f.settle()
	}
}

// toVM offers the host's copy to the VM, for the rest of its time. The decision is about
// this copy alone: a newer one has its own turn (onHostCopy).
func (f *Flow) toVM(ctx context.Context) error {
	conf, err := f.sides.Config()
	if err != nil {
		return err
	}
	types := f.onHost.Types
	from := clipboard.Origin(types)
	if from == "" {
		from = config.ClipHost
	}
	rule, ok := conf.Flow(from, f.vm)
	left := rule.TTL - time.Since(f.copiedAt)
	switch {
	case rule.Action != config.ClipAllow:
		return fmt.Errorf("to the VM: a rule says %q, and not %q", rule.Action, config.ClipAllow)
	case !ok || left <= 0 || f.last.Enters == 0:
		return nil
	case from == config.ClipHost && clipboard.Secret(types):
		return errors.New("to the VM: it is a password")
	}
	if f.sides.Sway != "" { // a second check, beside the display process's
		if side, err := f.sides.Focused(ctx); err != nil || side != f.vm {
			return err
		}
	}
	items, err := f.host.Take(f.onHost, limitsOf(rule.May))
	switch {
	case errors.Is(err, clipboard.ErrChanged):
		return nil
	case err != nil:
		return fmt.Errorf("to the VM: %w", err)
	}
	conn, err := f.sides.exchange(ctx, f.vm, vm.GiveSelection)
	if err != nil {
		return err
	}
	if err := clipboard.Give(conn, clipboard.GiveRequest{Moment: conf.Clipboard.Moment, Keep: true}, strip(items, rule)); err != nil {
		return errors.Join(err, conn.Close())
	}
	offer, takeBack := context.WithTimeout(ctx, left)
	f.takeBack = takeBack
	f.wg.Go(func() {
		defer takeBack()
		defer conn.Close()
		unhook := context.AfterFunc(offer, func() { _ = conn.Close() })
		defer unhook()
		if clipboard.AwaitEnd(conn) == clipboard.EndReplaced {
			select {
			case f.displacements <- offer:
			case <-ctx.Done():
			}
		}
	})
	return nil
}
