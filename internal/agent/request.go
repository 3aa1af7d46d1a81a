package agent

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Request is a task that the agent does itself, in a process of its own: exactly one
// field is set. Mount, Unmount and Drivers need root.
type Request struct {
	Mount   *Mount   `json:"mount,omitempty"`
	Unmount *Unmount `json:"unmount,omitempty"`
	Drivers *Drivers `json:"drivers,omitempty"`
	Send    *Send    `json:"send,omitempty"`
	Receive *Receive `json:"receive,omitempty"`
	Menu    *Menu    `json:"menu,omitempty"`
}

type (
	// Mount mounts a shared folder.
	Mount struct {
		Tag      string `json:"tag"`  // virtiofs tag
		Path     string `json:"path"` // absolute; made if it does not exist
		ReadOnly bool   `json:"ro,omitempty"`
	}

	// Unmount unmounts a shared folder.
	Unmount struct {
		Path  string `json:"path"`            // absolute
		Force bool   `json:"force,omitempty"` // even if it is in use
	}

	// Drivers loads kernel modules, which follow each other on standard input.
	Drivers struct {
		Modules []Module `json:"modules"`
	}

	// Module is a kernel module: an image followed by its signature.
	Module struct {
		Image     int `json:"image"`               // bytes
		Signature int `json:"signature,omitempty"` // bytes
	}

	// Send asks for files, as a stream on standard output (package transfer).
	Send struct {
		Paths     Strings `json:"paths"` // absolute, or relative to the user's home
		Recursive bool    `json:"recursive,omitempty"`
	}

	// Receive puts the files of a stream on standard input in place.
	Receive struct {
		Path      Bytes   `json:"path"`                 // absolute, or relative to the user's home
		Directory bool    `json:"directory,omitempty"`  // Path is a directory
		Make      bool    `json:"make,omitempty"`       // Path is made if it does not exist
		FilesOnly bool    `json:"files_only,omitempty"` // no directories, no links
		Names     Strings `json:"names,omitempty"`      // allowed names; "" is a source without a name
		Mode      uint32  `json:"mode,omitempty"`       // permissions of every file; 0: the file's own
	}

	// Menu asks for the files behind a desktop's menu, as a stream on standard output of one
	// directory, "root". It holds the .desktop files among Apps and in the directories among
	// Apps, the icons that they name, and an empty file for each program that exists, among
	// Programs and those of the keys TryExec and Exec; and the D-Bus services that entries name.
	Menu struct {
		Programs []string `json:"programs,omitempty"` // names, or absolute paths
		Apps     []string `json:"apps,omitempty"`     // paths of directories of .desktop files, relative to /
		Bins     []string `json:"bins,omitempty"`     // paths of directories of programs, relative to /
		Icons    []string `json:"icons,omitempty"`    // paths of icons, from /, with NAME for the icon's
		Services []string `json:"services,omitempty"` // paths of directories of D-Bus services, relative to /
	}
)

// Limits of requests.
const (
	// maxPath is the longest path that open(2) takes, without its NUL (PATH_MAX).
	maxPath = 4096 - 1
	// maxFileName is the longest component of a path (NAME_MAX).
	maxFileName = 255
	// maxPaths bounds the files of one copy: a frame holds as many short names.
	maxPaths = 8192
	// maxPlaces bounds each list of a Menu; a desktop has some dozen.
	maxPlaces = 256
	// maxModules bounds the modules for one device: a controller, its device, and their
	// dependencies.
	maxModules = 64
	// maxModule bounds a module's image, as package boot does.
	maxModule = 64 << 20
	// maxSignature bounds a module's signature: one with a certificate takes about 1 KiB.
	maxSignature = 64 << 10
)

// ParseRequest decodes the output of Encode. Every error wraps ErrProtocol.
func ParseRequest(b []byte) (Request, error) {
	var r Request
	if err := decodeJSON("request", b, &r); err != nil {
		return Request{}, err
	}
	if err := r.check(); err != nil {
		return Request{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return r, nil
}

// Encode returns the request as a JSON object.
func (r Request) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return appendJSON(nil, r)
}

// Name is the request's name in messages.
func (r Request) Name() string {
	switch {
	case r.Mount != nil:
		return "mount"
	case r.Unmount != nil:
		return "umount"
	case r.Drivers != nil:
		return "drivers"
	}
	return "copy"
}

// Words describe the request to a person.
func (r Request) Words() []string {
	switch {
	case r.Mount != nil:
		mode := "rw"
		if r.Mount.ReadOnly {
			mode = "ro"
		}
		return []string{"mount", r.Mount.Tag, r.Mount.Path, mode}
	case r.Unmount != nil:
		return []string{"umount", r.Unmount.Path}
	case r.Drivers != nil:
		return []string{"drivers"}
	case r.Send != nil:
		return append([]string{"send"}, r.Send.Paths...)
	case r.Receive != nil:
		return []string{"receive", string(r.Receive.Path)}
	}
	return []string{"menu"}
}

// parts returns the fields that are set.
func (r Request) parts() (set []interface{ check() error }) {
	if r.Mount != nil {
		set = append(set, *r.Mount)
	}
	if r.Unmount != nil {
		set = append(set, *r.Unmount)
	}
	if r.Drivers != nil {
		set = append(set, *r.Drivers)
	}
	if r.Send != nil {
		set = append(set, *r.Send)
	}
	if r.Receive != nil {
		set = append(set, *r.Receive)
	}
	if r.Menu != nil {
		set = append(set, *r.Menu)
	}
	return set
}

func (r Request) check() error {
	set := r.parts()
	if len(set) != 1 {
		return fmt.Errorf("request: for %d things, not 1", len(set))
	}
	return set[0].check()
}

// forRoot reports whether the request needs root.
func (r Request) forRoot() bool { return r.Mount != nil || r.Unmount != nil || r.Drivers != nil }

func (m Mount) check() error {
	if m.Tag == "" || len(m.Tag) > maxName || !plainName(m.Tag) {
		return fmt.Errorf("mount: tag %.64q", m.Tag)
	}
	return checkMountPath("mount", m.Path)
}

func (m Unmount) check() error { return checkMountPath("umount", m.Path) }

// checkMountPath checks that a path leads where it seems to.
func checkMountPath(what, p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
		return fmt.Errorf("%s: path %.64q", what, p)
	}
	if !utf8.ValidString(p) { // the messages about it carry text
		return fmt.Errorf("%s: path %.64q is not UTF-8", what, p)
	}
	return checkPath(what, p)
}

func (m Drivers) check() error {
	if len(m.Modules) == 0 || len(m.Modules) > maxModules {
		return fmt.Errorf("drivers: %d modules, from 1 to %d", len(m.Modules), maxModules)
	}
	for _, d := range m.Modules {
		if d.Image < 1 || d.Image > maxModule || d.Signature < 0 || d.Signature > maxSignature {
			return fmt.Errorf("drivers: a module of %d bytes, with a signature of %d", d.Image, d.Signature)
		}
	}
	return nil
}

func (m Send) check() error {
	if len(m.Paths) == 0 {
		return errors.New("send: no file named")
	}
	return checkPaths("send", m.Paths, maxPaths)
}

func (m Receive) check() error {
	if m.Mode > 0o777 {
		return fmt.Errorf("receive: mode %#o", m.Mode)
	}
	if len(m.Names) > maxPaths {
		return fmt.Errorf("receive: %d names, at most %d", len(m.Names), maxPaths)
	}
	for _, name := range m.Names {
		if len(name) > maxFileName || strings.Contains(name, "/") || name == "." || name == ".." {
			return fmt.Errorf("receive: name %.64q", name)
		}
	}
	if err := checkStrings("receive: name", m.Names); err != nil {
		return err
	}
	return checkPath("receive", string(m.Path))
}

func (m Menu) check() error {
	for _, list := range [][]string{m.Programs, m.Apps, m.Bins, m.Icons, m.Services} {
		if err := checkPaths("menu", list, maxPlaces); err != nil {
			return err
		}
		if i := slices.IndexFunc(list, func(p string) bool { return !utf8.ValidString(p) }); i >= 0 {
			return fmt.Errorf("menu: path %.64q is not UTF-8", list[i])
		}
	}
	return nil
}

func checkPaths(what string, list []string, most int) error {
	if len(list) > most {
		return fmt.Errorf("%s: %d paths, at most %d", what, len(list), most)
	}
	for _, p := range list {
		if err := checkPath(what, p); err != nil {
			return err
		}
	}
	return nil
}

func checkPath(what, p string) error {
	if p == "" || len(p) > maxPath {
		return fmt.Errorf("%s: a path of %d bytes, from 1 to %d", what, len(p), maxPath)
	}
	return checkStrings(what+": path", []string{p})
}
