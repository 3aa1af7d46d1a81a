package supervise

import (
	"context"

	"vix/config"
	"vix/internal/proc"
)

// The selections of a VM's programs go past the supervisor, as a trace does: the
// supervisor passes one end of a socket to the display process, and never sees the
// messages.

const flowChild = "clipboard"

// A flowPart is the process that carries out the VM's clipboard profile.
type flowPart struct {
	passive
	*host
	broker *broker
}

// run runs the process that carries out the VM's profile, one for each session. The VM
// does not depend on it: after its end, nothing flows until the next session.
func (s *flowPart) run(ctx context.Context) {
	l := s.launch
	if l.VM.NoGUI || l.VM.Clipboard == "" || l.VM.Clipboard == config.ClipIsolated {
		return
	}
	for first := true; ctx.Err() == nil; first = false {
		now, renewed := s.broker.now()
		c, err := proc.Start(s.nest, s.log, proc.Command{
			Name: flowChild, Path: l.Parts.Self, Args: []string{"clipboard-flow", l.VM.Name},
			Env: []string{"XDG_RUNTIME_DIR=" + l.RuntimeDir, "WAYLAND_DISPLAY=" + now.Wayland, "SWAYSOCK=" + now.Sway, "XDG_CONFIG_HOME=" + l.ConfigDir},
		})
		switch {
		case err != nil:
			s.note("VM %s: its clipboard is isolated: %v", l.VM.Name, err)
		case !first:
			s.note("VM %s: its clipboard follows the new session", l.VM.Name)
		}
		if err == nil {
			select {
			case <-c.Done:
				if ctx.Err() != nil {
					return
				}
				s.note("VM %s: its clipboard is isolated until there is another session: %s; vix logs tells why", l.VM.Name, c.Status())
			case <-ctx.Done():
				c.Kill()
			}
		}
		select {
		case <-renewed:
		case <-ctx.Done():
		}
	}
}
