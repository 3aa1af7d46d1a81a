package proc

import (
	"fmt"
	"os"
	"os/exec"
)

// An upgrade may replace or remove Vix's own programs while VMs run. A VM goes on with the
// programs that it began with:
//
//	vix-launcher       starts again as what runs, not by its path
//	vix-waylandproxy   starts by a descriptor that was opened when the VM began
//	vix-guest          is read by such a descriptor (supervisor.guestFile)
//
// The path stays argv[0], so that a list of processes says what they are.

// Running is the path by which a program starts itself again, whatever has become of its
// file. (In a new process, the path still means the parent's program until the process
// executes another.)
const Running = "/proc/self/exe"

// programFiles are the programs that a nest does not start by their paths.
type programFiles struct {
	self   string // path of the running program
	others map[string]*os.File
}

// openPrograms opens the others. A program that cannot be opened is started by its path,
// which fails with the reason.
func openPrograms(self string, others []string) programFiles {
	p := programFiles{self: self, others: map[string]*os.File{}}
	for _, path := range others {
		if f, err := os.Open(path); err == nil {
			p.others[path] = f
		}
	}
	return p
}

// choose has cmd execute the program that its path named when the VM began.
func (p programFiles) choose(cmd *exec.Cmd) {
	file := p.others[cmd.Path]
	switch {
	case cmd.Path == p.self:
		cmd.Path = Running
	case file != nil:
		cmd.ExtraFiles = append(cmd.ExtraFiles[:len(cmd.ExtraFiles):len(cmd.ExtraFiles)], file)
		cmd.Path = fmt.Sprintf("/proc/self/fd/%d", 2+len(cmd.ExtraFiles))
	}
}

func (p programFiles) close() {
	for _, f := range p.others {
		f.Close()
	}
}
