package supervise

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// qemuFiles are the files that QEMU reaches by name: itself, what it is linked with,
// its firmware, and what it boots.
func qemuFiles(qemu, kernel, initrd, kvm string) ([]sandbox.File, error) {
	real, err := filepath.EvalSymlinks(qemu)
	if err != nil {
		return nil, vm.Failf("%s: cannot be started: %v", qemuChild, err)
	}
	files := sandbox.ProgramFiles(real)
	// A QEMU that somebody built himself has its firmware beside it.
	if dir := filepath.Dir(real); filepath.Base(dir) == "bin" && !strings.HasPrefix(dir, "/usr/") && dir != "/bin" {
		files = append(files, sandbox.File{Path: filepath.Join(filepath.Dir(dir), "share")}, sandbox.File{Path: filepath.Join(filepath.Dir(dir), "lib")})
	}
	files = append(files, sandbox.File{Path: kernel}, sandbox.File{Path: initrd})
	if kvm != "" {
		files = append(files, sandbox.File{Path: kvm, Write: true})
	}
	return files, nil
}

// confined notes how a process is confined. What is weaker than it could be is a
// line in the log, once for each process.
func (s *supervisor) confined(name string, pid int, r sandbox.Report) {
	for i, m := range r.Measures {
		r.Measures[i] = plain.Text(m, proc.MaxLogLine, plain.OneLine)
	}
	for i, w := range r.Weaker {
		r.Weaker[i] = plain.Text(w, proc.MaxLogLine, plain.OneLine)
	}
	if len(r.Weaker) > 0 {
		s.log.Printf("vix", "%s is confined less than it could be: %s", name, strings.Join(r.Weaker, "; "))
	}
	s.update(func(st *vm.State) {
		c := map[string]vm.Confinement{name: {PID: pid, Report: r}}
		for k, v := range st.Confinement { // copied: snapshots share the old one
			if k != name {
				c[k] = v
			}
		}
		st.Confinement = c
	})
}

// startConfined starts a process that carries out spec (vix-launcher's verb confine), of
// which cmd says the name, the descriptors, the namespaces and where its output goes; the
// socket that spec comes by is the last descriptor. It closes cmd.Files, also when it fails.
func (s *supervisor) startConfined(cmd proc.Command, spec sandbox.Spec) (*proc.Child, error) {
	ours, theirs, err := spec.Offer()
	if err != nil {
		proc.CloseFiles(cmd.Files)
		return nil, err
	}
	cmd.Files = append(cmd.Files, theirs)
	cmd.Path, cmd.Args = s.launch.Parts.Self, sandbox.Verb(2+len(cmd.Files), false)
	c, err := proc.Start(s.nest, s.log, cmd)
	if err != nil {
		ours.Close()
		return nil, err
	}
	s.pumps.Go(func() { s.readReport(cmd.Name, c, ours) })
	return c, nil
}

// readReport waits for the report of a process that startConfined started, and closes f.
func (s *supervisor) readReport(name string, c *proc.Child, f *os.File) {
	defer f.Close()
	r, err := sandbox.ReadReport(f)
	if err != nil {
		if !errors.Is(err, io.EOF) { // it ended before: its death says why
			s.log.Printf("vix", "%s: report: %v", name, err)
		}
		return
	}
	s.confined(name, c.Cmd.Process.Pid, r)
}
