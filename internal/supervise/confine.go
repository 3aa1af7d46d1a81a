package supervise

import (
	"debug/elf"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"vix/internal/sandbox"
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
