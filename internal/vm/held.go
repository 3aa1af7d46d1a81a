package vm

import (
	"fmt"
	"os"
	"os/exec"
)

// Vix's own programs may be replaced or removed while VMs run, by an upgrade. A VM goes
// on with those that it began with:
//
//	vix-launcher       is started again as what runs, not by its path
//	vix-waylandproxy   \ are opened at the VM's beginning, and started and read by
//	vix-guest          / these descriptors
//
// The path stays argv[0], so that a list of processes says what they are.

// Running is the path by which a program starts itself again, whatever has become of the
// file that it was started from. (In a new process, it is still the parent's program until
// it executes another.)
const Running = "/proc/self/exe"

// held is what a nest knows of programs that may have been replaced.
type held struct {
	self      string // path of the running program
	proxy     string
	proxyFile *os.File // nil: by path
	guestFile *os.File // read by descriptor; p.Guest names it
}

// holdPrograms opens the programs of p. What cannot be opened, whoever needs it says.
func holdPrograms(p *Parts) held {
	h := held{self: p.Self, proxy: p.Proxy}
	h.proxyFile, _ = os.Open(p.Proxy)
	if f, err := os.Open(p.Guest); err == nil {
		h.guestFile, p.Guest = f, fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	return h
}

// choose has cmd execute what its path named when the VM began.
func (h held) choose(cmd *exec.Cmd) {
	switch {
	case cmd.Path == h.self:
		cmd.Path = Running
	case cmd.Path == h.proxy && h.proxyFile != nil:
		cmd.ExtraFiles = append(cmd.ExtraFiles[:len(cmd.ExtraFiles):len(cmd.ExtraFiles)], h.proxyFile)
		cmd.Path = fmt.Sprintf("/proc/self/fd/%d", 2+len(cmd.ExtraFiles))
	}
}

func (h held) close() { closeFiles([]*os.File{h.proxyFile, h.guestFile}) }
