package sandbox

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Spec says how a process confines itself and what it becomes: QEMU, virtiofsd, passt,
// or a tool that reads a guest's output. It travels as JSON over a socket to the hidden
// verb "confine" of vix-launcher; the Report returns the same way.
//
//	the starter  ── Spec ──► vix-launcher confine FD: mounts Tree, confines itself,
//	              ◄─ Report ─ closes the socket, becomes Argv
type Spec struct {
	Tree  *Tree  `json:"tree,omitempty"` // mounted first; nil for none
	Files []File `json:"files,omitempty"`

	KeepCapabilities bool `json:"keep_capabilities,omitempty"`
	KeepMounts       bool `json:"keep_mounts,omitempty"`
	Network          bool `json:"network,omitempty"`

	Argv []string `json:"argv"` // Argv[0] is a path
}

// A Tree is mounted by the process at Dir, in a mount namespace of its own.
type Tree struct {
	Dir string `json:"dir"`
	// Host is the root that an allow-listed view shows or, with Folder, the folder's name in
	// messages.
	Host   string `json:"host"`
	Folder int    `json:"folder,omitempty"` // descriptor of a host folder; 0 for a view
	Write  bool   `json:"write,omitempty"`  // the folder may be written to
	Whole  bool   `json:"whole,omitempty"`  // the folder is a root: read-only, including the mounts in it
}

// Limits of messages on the socket, in bytes. QEMU's Spec takes about 5 KiB; the socket holds
// it until it is read.
const (
	maxSpec   = 64 << 10
	maxReport = 16 << 10
)

// Profile returns what the process keeps; own means that it was started with Attr.
func (s Spec) Profile(own bool) Profile {
	return Profile{Own: own, Files: s.Files, KeepCapabilities: s.KeepCapabilities, KeepMounts: s.KeepMounts, Network: s.Network}
}

// Offer makes the socket of a process that carries out s. theirs already holds s, and becomes
// a descriptor of that process; ours yields its Report (ReadReport).
func (s Spec) Offer() (ours, theirs *os.File, err error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, nil, err
	}
	if len(b) > maxSpec {
		return nil, nil, fmt.Errorf("a specification of %d bytes: at most %d", len(b), maxSpec)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	n, err := unix.SendmsgN(fds[0], b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err == nil && n < len(b) {
		err = unix.EMSGSIZE
	}
	if err = errors.Join(err, unix.SetNonblock(fds[0], true)); err != nil { // allows a deadline for the reader
		return nil, nil, errors.Join(os.NewSyscallError("sendmsg", err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "report"), os.NewFile(uintptr(fds[1]), "specification"), nil
}

// OwnNamespaces is the argument, after the verb, which says that the process was started
// with Attr.
const OwnNamespaces = "--own-namespaces"

// Verb returns the arguments that make vix-launcher carry out the Spec on descriptor fd; own
// means that it is started with Attr.
func Verb(fd int, own bool) []string {
	if own {
		return []string{"confine", OwnNamespaces, strconv.Itoa(fd)}
	}
	return []string{"confine", strconv.Itoa(fd)}
}

// ReadSpec reads the Spec that Offer wrote.
func ReadSpec(f *os.File) (s Spec, err error) {
	d := json.NewDecoder(io.LimitReader(f, maxSpec))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("specification: %w", err)
	}
	if len(s.Argv) == 0 {
		return s, errors.New("specification: no program")
	}
	return s, nil
}

// ReadReport reads the Report of a process that carries out a Spec; io.EOF means that the
// process ended before.
func ReadReport(ours io.Reader) (r Report, err error) {
	return r, json.NewDecoder(io.LimitReader(ours, maxReport)).Decode(&r)
}

// systemFiles holds the directories of programs, libraries and firmware; they contain no
// user's own files.
var systemFiles = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store", "/etc/ld.so.cache"}

// ProgramFiles returns the files that a system program, named by its real path, needs to run
// at all: itself, its libraries, and harmless devices.
func ProgramFiles(real string) []File {
	var files []File
	for _, path := range systemFiles {
		// In a package store, a program may be a script that wraps the real one.
		files = append(files, File{Path: path, Exec: strings.HasSuffix(path, "/store")})
	}
	files = append(files, File{Path: real, Exec: true})
	if loader := interpreter(real); loader != "" {
		files = append(files, File{Path: loader, Exec: true})
	}
	for _, path := range []string{"/dev/null", "/dev/zero", "/dev/urandom"} {
		files = append(files, File{Path: path, Write: true})
	}
	return files
}

// interpreter returns the real path of a program's dynamic linker.
func interpreter(path string) string {
	f, err := elf.Open(path)
	if err != nil {
		return "" // a script, or no executable
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
