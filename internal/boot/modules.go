package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// neededDrivers lists the modules that a guest needs, by group. Their dependencies
// come from modules.dep.
var neededDrivers = []struct {
	group, name string
	missing     error // a special error for a module that is neither built in nor there
}{
	{GroupBase, "virtio_pci", nil},
	{GroupBase, "virtio_console", nil},
	{GroupRoot, "fuse", nil},
	{GroupRoot, "virtiofs", nil},
	{GroupRoot, "overlay", nil},
	{GroupGPU, "virtio_gpu", ErrNoVirtioGPU},
	{GroupMemory, "virtio_balloon", nil},
	{GroupEntropy, "virtio_rng", nil},
}

// optional lists modules that a guest runs without: then it keeps the memory that it has
// touched, or has only its own sources of random numbers.
var optional = []string{"virtio_balloon", "virtio_rng"}

// disk lists the further modules of a guest whose root is on a disk, as far as the kernel has
// them: the driver, the checksums that ext4 and xfs request from the kernel's cryptography by
// name, and each file system in a group of its own, of which the guest loads one.
var disk = []struct{ group, name string }{
	{GroupDisk, "virtio_blk"}, {GroupDisk, "crc32c_generic"},
	{GroupDisk + "-ext4", "ext4"}, {GroupDisk + "-squashfs", "squashfs"}, {GroupDisk + "-erofs", "erofs"}, {GroupDisk + "-xfs", "xfs"},
}

// card lists the driver of a network card, and the sockets that DHCP uses before there is an
// address; vsockDriver lists the driver of the agent's channel, if that is a vsock
// connection.
var (
	card        = []string{"virtio_net", "af_packet"}
	vsockDriver = []string{"vmw_vsock_virtio_transport"}
)

// A module is one file to load.
type module struct {
	group string
	name  string // canonical, with underscores
	path  string // relative to the modules' directory
}

// A moduleIndex is depmod(8)'s index of a kernel's modules.
type moduleIndex struct {
	file    func(path string, limit int64) ([]byte, error) // below the modules' directory
	whole   bool                                           // the kernel has no modules: all is built in
	path    map[string]string                              // name → file
	deps    map[string][]string                            // name → the files it needs, last first
	builtin map[string]bool
}

// maxIndex bounds modules.dep; Debian's is 700 KiB.
const maxIndex = 16 << 20

// loadModuleIndex reads the index of a kernel's modules.
func loadModuleIndex(k Kernel) (*moduleIndex, error) {
	m := &moduleIndex{path: map[string]string{}, deps: map[string][]string{}, builtin: map[string]bool{}}
	switch {
	case k.Initrd != "":
		b, err := readBounded(k.Initrd, maxInitrd)
		if err != nil {
			return nil, err
		}
		files, err := modulesIn(b, k.Release)
		if err != nil {
			return nil, err
		}
		m.file = func(path string, _ int64) ([]byte, error) {
			if b, ok := files[path]; ok {
				return b, nil
			}
			return nil, &fs.PathError{Op: "open", Path: k.Initrd + ":" + path, Err: fs.ErrNotExist}
		}
	case k.Modules != "":
		m.file = func(path string, limit int64) ([]byte, error) {
			return readBounded(filepath.Join(k.Modules, path), limit)
		}
	default:
		m.whole = true
		return m, nil
	}
	return m, m.load()
}

func (m *moduleIndex) load() error {
	dep, err := m.file("modules.dep", maxIndex)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(dep)) {
		file, deps, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		name := moduleName(file)
		m.path[name] = file
		m.deps[name] = strings.Fields(deps)
	}
	builtin, err := m.file("modules.builtin", maxIndex)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(builtin)) {
		m.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return nil
}

// moduleName is the name the kernel knows: the file's, with underscores.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// plan returns the modules to load, each once, after its dependencies: the modules of every
// guest, and those of the groups with, of GroupDisk, GroupNet and GroupVsock.
func (m *moduleIndex) plan(with ...string) ([]module, error) {
	var list []module
	seen := map[string]bool{}
	add := func(group, file string) {
		if name := moduleName(file); !seen[name] {
			seen[name] = true
			list = append(list, module{group, name, file})
		}
	}
	for _, w := range neededDrivers {
		if m.whole || m.builtin[w.name] {
			continue
		}
		file, ok := m.path[w.name]
		if !ok && slices.Contains(optional, w.name) {
			continue
		}
		if !ok && w.missing != nil {
			return nil, w.missing
		}
		if !ok {
			return nil, fmt.Errorf("the kernel has no %s driver; install a full one (Debian: linux-image-amd64)", w.name)
		}
		// modules.dep lists every dependency, the deepest last.
		deps := m.deps[w.name]
		for i := len(deps) - 1; i >= 0; i-- {
			add(w.group, deps[i])
		}
		add(w.group, file)
	}
	whole := func(group, name, file string) {
		deps := m.deps[name]
		for i := len(deps) - 1; i >= 0; i-- {
			add(group, deps[i])
		}
		add(group, file)
	}
	for _, w := range disk {
		if file, ok := m.path[w.name]; slices.Contains(with, GroupDisk) && ok && !m.builtin[w.name] {
			seen = map[string]bool{} // a group is whole; a module may be in several
			whole(w.group, w.name, file)
		}
	}
	for _, need := range []struct {
		group string
		names []string
		who   string
	}{{GroupNet, card, `net = "nat"`}, {GroupVsock, vsockDriver, "vsock"}} {
		seen = map[string]bool{}
		for _, name := range need.names {
			if !slices.Contains(with, need.group) || m.whole || m.builtin[name] {
				continue
			}
			file, ok := m.path[name]
			if !ok {
				return nil, fmt.Errorf(`the kernel has no %s driver, which %s needs; install a full one (Debian: linux-image-amd64)`, name, need.who)
			}
			whole(need.group, name, file)
		}
	}
	return list, nil
}

// CheckVsock says why a guest of this kernel has no vsock.
func (k Kernel) CheckVsock() error {
	index, err := loadModuleIndex(k)
	if err == nil {
		_, err = index.plan(GroupVsock)
	}
	return err
}

// maxModule bounds one unpacked module.
const maxModule = 64 << 20

// read returns a module's file unchanged, compressed or not.
func (m *moduleIndex) read(mod module) ([]byte, error) {
	if !filepath.IsLocal(mod.path) {
		return nil, fmt.Errorf("modules.dep: %q is outside the modules' directory", mod.path)
	}
	return m.file(mod.path, maxModule)
}

// unpackModule decompresses by the file's content.
func unpackModule(b []byte) ([]byte, error) {
	if bytes.HasPrefix(b, []byte("\x7fELF")) || len(b) < 4 {
		return b, nil
	}
	r, err := decompressor(b)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readAllBounded(r, maxModule)
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := readAllBounded(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func readAllBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return b, err
}
