package boot

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// A Driver is a kernel module as a guest loads it.
type Driver struct {
	Name      string
	Image     []byte
	Signature []byte // behind the image, for a kernel that insists
}

// beside lists modules by which a driver finds its devices, but which it does not depend on.
var beside = map[string][]string{
	"usbhid":      {"hid_generic", "evdev"},
	"usb_storage": {"sd_mod", "vfat", "exfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8"},
	"uas":         {"usb_storage", "sd_mod", "vfat", "exfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8"},
}

// Drivers returns the modules of kernel k with these names, and for devices of these
// aliases (modules.alias(5)), each after its dependencies. It leaves out modules that the
// kernel has built in, or lacks: programs that need no driver can still use such a device.
func Drivers(k Kernel, names, aliases []string) ([]Driver, error) {
	index, err := loadModuleIndex(k)
	if err != nil || index.whole {
		return nil, err
	}
	more, err := index.byAlias(aliases)
	if err != nil {
		return nil, err
	}
	names = slices.Concat(names, more)
	for _, name := range names {
		names = append(names, beside[name]...)
	}
	var list []Driver
	seen := map[string]bool{}
	for _, name := range names {
		file, ok := index.path[name]
		if !ok || index.builtin[name] {
			continue
		}
		files := slices.Clone(index.deps[name]) // the deepest last
		slices.Reverse(files)
		for _, f := range append(files, file) {
			d, err := index.driver(f)
			if err != nil {
				return nil, err
			}
			if !seen[d.Name] {
				seen[d.Name] = true
				list = append(list, d)
			}
		}
	}
	return list, nil
}

func (m *moduleIndex) driver(file string) (Driver, error) {
	d := Driver{Name: moduleName(file)}
	b, err := m.read(module{name: d.Name, path: file})
	if err == nil {
		b, err = unpackModule(b)
	}
	d.Image, d.Signature = splitSignature(b)
	return d, err
}

// byAlias finds the modules that say they drive devices of these aliases.
func (m *moduleIndex) byAlias(aliases []string) ([]string, error) {
	b, err := m.file("modules.alias", maxIndex)
	if errors.Is(err, fs.ErrNotExist) || len(aliases) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // alias PATTERN MODULE
		if len(f) != 3 || f[0] != "alias" {
			continue
		}
		for _, a := range aliases {
			if ok, _ := path.Match(f[1], a); ok && !slices.Contains(names, f[2]) {
				names = append(names, f[2])
			}
		}
	}
	return names, nil
}
