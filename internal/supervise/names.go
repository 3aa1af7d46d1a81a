package supervise

import (
	"errors"
	"path/filepath"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/names"
)

// resolvConf says whom the host asks for names (resolv.conf(5)).
const resolvConf = "etc/resolv.conf"

// startNames has the guest's questions for names answered by whom the host asks at the
// time, for as long as the guest runs; package names says how. A guest without a network
// is not asked for any.
func (s *supervisor) startNames() {
	if s.launch.VM.Net != config.NetNAT {
		return
	}
	s.pumps.Go(func() {
		p, err := s.guest.Spawn(s.ctx, agent.Spawn{Kind: agent.KindNames, Argv: []string{"names"}})
		if err == nil {
			f := &names.Forwarder{File: filepath.Join(s.launch.Parts.System, resolvConf)}
			if err = f.Serve(s.ctx, p.Stdout, p.Stdin); err == nil {
				err = errors.New("its name server has ended")
			}
			_, _, _ = p.Stdin.Close(), p.Stdout.Close(), p.Stderr.Close()
		}
		if s.ctx.Err() == nil {
			s.note("VM %s: its guest does not resolve names any more: %v; stop the VM and run it again", s.launch.VM.Name, err)
		}
	})
}
