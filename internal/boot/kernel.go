package boot

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Kernel is an image with the directory of its modules.
type Kernel struct {
	Release string // uname -r
	Image   string // path of the bzImage
	Modules string // path of lib/modules/RELEASE; "" if Initrd holds them, or it has none
	Initrd  string // path of an initrd of the kernel's own; "" if there is none
}

// minRelease is the first kernel with virtio-gpu's CONTEXT_INIT.
const minRelease = "5.16"

// imagePatterns says where distributions put a kernel's image: Debian, Ubuntu, SUSE and, as
// vmlinuz-linux, Arch; Fedora and Arch, where /boot may hold none; NixOS.
var imagePatterns = []string{
	"boot/vmlinuz-*",
	"usr/lib/modules/*/vmlinuz",
	"lib/modules/*/vmlinuz",
	"run/booted-system/kernel",
	"run/current-system/kernel",
}

// modulePatterns says where a release's modules are.
var modulePatterns = []string{
	"usr/lib/modules/%s",
	"lib/modules/%s",
	"run/booted-system/kernel-modules/lib/modules/%s",
	"run/current-system/kernel-modules/lib/modules/%s",
}

// FindKernel returns the newest kernel under root (normally "/") that a guest can use:
// readable, at least 5.16, with its modules and virtio-gpu. If there is none, the error says
// why the newest kernel is not: it wraps ErrNoKernel, ErrNoVirtioGPU, or says what to change.
func FindKernel(root string) (Kernel, error) {
	var good []Kernel
	var bad []badKernel
	seen := map[string]bool{}
	for _, pattern := range imagePatterns {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return Kernel{}, err
		}
		for _, path := range paths {
			k, err := inspect(root, path)
			if err != nil {
				bad = append(bad, badKernel{k.Release, err})
			} else if !seen[k.Release] {
				seen[k.Release] = true
				good = append(good, k)
			}
		}
	}
	if len(good) > 0 {
		return slices.MaxFunc(good, func(a, b Kernel) int { return compareReleases(a.Release, b.Release) }), nil
	}
	if len(bad) > 0 {
		newest := slices.MaxFunc(bad, func(a, b badKernel) int { return compareReleases(a.release, b.release) })
		return Kernel{}, newest.err
	}
	return Kernel{}, fmt.Errorf("%s: %w", filepath.Join(root, "boot"), ErrNoKernel)
}

type badKernel struct {
	release string
	err     error
}

// inspect returns the kernel of an image, or why a guest cannot use it.
func inspect(root, path string) (Kernel, error) {
	k, err := inspectImage(path)
	if err != nil {
		return k, err
	}
	k.Modules = findModules(k.Release, root)
	if k.Modules == "" {
		return k, fmt.Errorf("kernel %s: its modules are missing (lib/modules/%s); reinstall the kernel's package", k.Release, k.Release)
	}
	return k, k.checkModules()
}

// NamedKernel returns the kernel image at the user's path. Its modules are in the initrd, if
// one is named; otherwise in the directory lib/modules beside the image or above it, or of
// the tree root (normally "/"); otherwise it has none, and must have everything that a guest
// needs built in.
func NamedKernel(image, initrd, root string) (Kernel, error) {
	k, err := inspectImage(image)
	if err != nil {
		return k, err
	}
	if k.Initrd = initrd; initrd == "" {
		dir := filepath.Dir(image)
		k.Modules = findModules(k.Release, dir, filepath.Dir(dir), root)
	}
	return k, k.checkModules()
}

func findModules(release string, roots ...string) string {
	for _, root := range roots {
		for _, p := range modulePatterns {
			dir := filepath.Join(root, fmt.Sprintf(p, release))
			if _, err := os.Stat(filepath.Join(dir, "modules.dep")); err == nil {
				return dir
			}
		}
	}
	return ""
}

func (k Kernel) checkModules() error {
	m, err := loadModuleIndex(k)
	if err == nil {
		_, err = m.plan()
	}
	switch {
	case err != nil && k.Initrd != "":
		return fmt.Errorf("initrd %s: %w", k.Initrd, err)
	case err != nil:
		return fmt.Errorf("kernel %s: %w", k.Release, err)
	}
	return nil
}

// inspectImage looks at the image alone.
func inspectImage(path string) (Kernel, error) {
	k := Kernel{Image: path, Release: strings.TrimPrefix(filepath.Base(path), "vmlinuz-")}
	release, err := readRelease(path)
	if errors.Is(err, fs.ErrPermission) {
		return k, fmt.Errorf("%s: not readable; run: sudo chmod a+r %s", path, path)
	}
	if err != nil {
		return k, fmt.Errorf("%s: %w", path, err)
	}
	k.Release = release
	if compareReleases(release, minRelease) < 0 {
		return k, fmt.Errorf("kernel %s: older than %s, the first that can be a guest; install a newer one", release, minRelease)
	}
	return k, nil
}

// The x86 boot protocol's setup header (Documentation/arch/x86/boot.rst).
const (
	setupSectsAt    = 0x1f1 // u8: size of the setup code in sectors, less the boot sector
	setupMagicAt    = 0x202 // "HdrS"
	setupVersionAt  = 0x206 // u16
	kernelVersionAt = 0x20e // u16: where the version string is, less 0x200
	payloadOffAt    = 0x248 // u32: from the end of the setup code; protocol ≥ 2.08
	payloadLenAt    = 0x24c // u32
	setupHeaderEnd  = 0x250
)

var errNotBzImage = errors.New("not an x86 Linux kernel image (bzImage)")

// setupHeader checks head, the first bytes of an image.
func setupHeader(head []byte) error {
	if len(head) < setupHeaderEnd || string(head[setupMagicAt:setupMagicAt+4]) != "HdrS" {
		return errNotBzImage
	}
	if v := binary.LittleEndian.Uint16(head[setupVersionAt:]); v < 0x208 {
		return fmt.Errorf("%w: boot protocol %d.%02d is too old", errNotBzImage, v>>8, v&0xff)
	}
	return nil
}

// readRelease returns the release in an image itself.
func readRelease(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// The version string lies within the setup code, at most 64 sectors.
	head, err := io.ReadAll(io.LimitReader(f, 64*512+0x200))
	if err != nil {
		return "", err
	}
	if err := setupHeader(head); err != nil {
		return "", err
	}
	at := int(binary.LittleEndian.Uint16(head[kernelVersionAt:])) + 0x200
	if at >= len(head) {
		return "", fmt.Errorf("%w: no version", errNotBzImage)
	}
	text, _, _ := bytes.Cut(head[at:], []byte{0})
	release, _, _ := strings.Cut(string(text), " ")
	if release == "" || len(release) > 128 || strings.ContainsAny(release, "/\\*?[") || !isDigit(release[0]) {
		return "", fmt.Errorf("%w: version %.40q", errNotBzImage, release)
	}
	return release, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// compareReleases orders by runs of digits as numbers, the rest as text.
func compareReleases(a, b string) int {
	for a != "" && b != "" {
		na, ra := leadingNumber(a)
		nb, rb := leadingNumber(b)
		if na >= 0 && nb >= 0 {
			if c := cmp.Compare(na, nb); c != 0 {
				return c
			}
			a, b = ra, rb
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingNumber(s string) (n int, rest string) {
	i := 0
	for i < len(s) && i < 9 && isDigit(s[i]) {
		i++
	}
	if i == 0 {
		return -1, s
	}
	n, _ = strconv.Atoi(s[:i])
	return n, s[i:]
}
