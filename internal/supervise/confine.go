package supervise

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// A Confine is what the command line of the hidden verb "confine" depends on: it
// confines itself and becomes another program.
type Confine struct {
	Files                        []sandbox.File
	KeepCapabilities, KeepMounts bool
	Network                      bool // the host's stays
	ReportFD                     int
	Argv                         []string // Argv[0] is a path
}

// Args returns the arguments of vix-launcher.
func (c Confine) Args() []string {
	args := []string{"confine", "--report-fd", fmt.Sprint(c.ReportFD)}
	for _, f := range c.Files {
		switch {
		case f.Sockets:
			args = append(args, "--sockets", f.Path)
		case f.Write:
			args = append(args, "--device", f.Path)
		case f.Exec:
			args = append(args, "--exec", f.Path)
		default:
			args = append(args, "--read", f.Path)
		}
	}
	if c.KeepCapabilities {
		args = append(args, "--keep-capabilities")
	}
	if c.KeepMounts {
		args = append(args, "--keep-mounts")
	}
	if c.Network {
		args = append(args, "--network")
	}
	return append(append(args, "--"), c.Argv...)
}

// systemFiles is where programs, libraries and firmware are; nothing in there is
// anybody's own.
var systemFiles = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store", "/etc/ld.so.cache"}

// ProgramFiles are the files that a program of the system's, named by its real path,
// needs to run at all: itself, what it is linked with, and the devices that say
// nothing.
func ProgramFiles(real string) []sandbox.File {
	var files []sandbox.File
	for _, path := range systemFiles {
		// In a store of packages, a program may be a script around itself.
		files = append(files, sandbox.File{Path: path, Exec: strings.HasSuffix(path, "/store")})
	}
	files = append(files, sandbox.File{Path: real, Exec: true})
	if loader := interpreter(real); loader != "" {
		files = append(files, sandbox.File{Path: loader, Exec: true})
	}
	for _, path := range []string{"/dev/null", "/dev/zero", "/dev/urandom"} {
		files = append(files, sandbox.File{Path: path, Write: true})
	}
	return files
}

// qemuFiles are the files that QEMU reaches by name: itself, what it is linked with,
// its firmware, and what it boots.
func qemuFiles(qemu, kernel, initrd, kvm string) ([]sandbox.File, error) {
	real, err := filepath.EvalSymlinks(qemu)
	if err != nil {
		return nil, vm.Failf("%s: cannot be started: %v", qemuChild, err)
	}
	files := ProgramFiles(real)
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

// interpreter returns the real path of the dynamic linker that a program names.
func interpreter(path string) string {
	f, err := elf.Open(path)
	if err != nil {
		return "" // a script, or nothing that can be executed
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b, err := io.ReadAll(p.Open())
		if err != nil {
			return ""
		}
		real, err := filepath.EvalSymlinks(strings.TrimRight(string(b), "\x00"))
		if err != nil {
			return ""
		}
		return real
	}
	return ""
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

// readReport waits for the report of a process that the verb confine or rootview
// started, and closes f.
func (s *supervisor) readReport(name string, c *proc.Child, f *os.File) {
	defer f.Close()
	var r sandbox.Report
	err := json.NewDecoder(io.LimitReader(f, maxReport)).Decode(&r)
	if err != nil {
		if !errors.Is(err, io.EOF) { // it ended before: its death says why
			s.log.Printf("vix", "%s: report: %v", name, err)
		}
		return
	}
	s.confined(name, c.Cmd.Process.Pid, r)
}

const maxReport = 16 << 10

// startConfined starts a command whose program is the verb confine or rootview; its
// report comes through the last descriptor of cmd.files.
func (s *supervisor) startConfined(cmd proc.Command, report *os.File) (*proc.Child, error) {
	c, err := proc.Start(s.nest, s.log, cmd)
	if err != nil {
		report.Close()
		return nil, err
	}
	s.pumps.Go(func() { s.readReport(cmd.Name, c, report) })
	return c, nil
}
