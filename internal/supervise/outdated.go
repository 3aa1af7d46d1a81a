package supervise

import (
	"vix/internal/rootfs"
	"vix/internal/vm"
)

// A VM keeps what it has seen of its root, and the host may upgrade it meanwhile
// (rootfs.Stamp): who starts a program or lists VMs is told.

// programs is what the VM's root was when the VM was started. It does not change once the
// VM runs.
type programs struct {
	root  rootfs.Root
	stamp string // "": not started yet
}

// stampPrograms notes what the root is, before the guest sees of it.
func (s *supervisor) stampPrograms(root rootfs.Root) {
	stamp := rootfs.Stamp(root, s.launch.Parts.System)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.programs = programs{root, stamp}
}

// lookAtPrograms compares, and returns what is to be said; "" if the root is as it was.
func (s *supervisor) lookAtPrograms() string {
	s.mu.Lock()
	was := s.programs
	outdated := s.state.Outdated
	s.mu.Unlock()
	if !outdated && (was.stamp == "" || rootfs.Stamp(was.root, s.launch.Parts.System) == was.stamp) {
		return ""
	}
	text := vm.OutdatedText(s.launch.VM.Name, s.launch.VM.Root)
	if !outdated {
		s.log.Add("vix", text)
		s.update(func(st *vm.State) { st.Outdated = true })
	}
	return text
}
