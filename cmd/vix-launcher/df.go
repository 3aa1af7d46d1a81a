package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/boot"
	"vix/internal/plain"
	"vix/internal/rootfs"
	"vix/internal/vm"
)

func dfCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "df [--json]",
		Short: "show what Vix takes on the disk",
		Long: `Shows what Vix takes on the disk, in allocated blocks: the home that each VM has
kept, built roots and the packages fetched for them, kernels and initramfs of the
cache, other caches, and what killed processes have left; then the sum. What nobody
needs any more is marked with the reason: vix prune removes it. Disk images that
config.toml names are yours: they are listed last, and are not in the sum.

With --json, prints an object: total (bytes), whole (false: there is more than could
be counted), items [{kind, name, path, bytes, whole, vms, unneeded}].`,
		Example: `  vix df
  vix df --json | jq '.items[] | select(.kind == "home") | {name, bytes}'`,
		Args:              args(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.withDisk(c.Context(), func(d *disk) error {
				if asJSON {
					return printJSON(e.stdout, d.report())
				}
				return d.print(e)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// A diskItem is one thing of Vix's on the disk.
type diskItem struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Path string `json:"path"`
	vm.DiskUse
	VMs      []string `json:"vms,omitempty"`
	Unneeded string   `json:"unneeded,omitempty"` // why nobody needs it; "": somebody may

	remove func(context.Context) error // of an unneeded item
}

type diskReport struct {
	Total uint64     `json:"total"`
	Whole bool       `json:"whole"`
	Items []diskItem `json:"items"`
}

// leftBehind is why nobody needs what is half made or half removed.
const leftBehind = "left by a process that was killed"

// A disk is what Vix has on the disk.
type disk struct {
	env     *env
	reg     *vm.Registry
	known   *known
	running []vm.State
	items   []diskItem
	cache   string   // $XDG_CACHE_HOME/vix
	notes   []string // what could not be judged
}

// dfLimit bounds the counting.
const dfLimit = 30 * time.Second

// withDisk calls f with all that Vix has on the disk. It needs config.toml: without it,
// everything would look as if nobody needed it.
func (e *env) withDisk(ctx context.Context, f func(*disk) error) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	k, err := openKnown(e)
	defer k.close()
	if err != nil {
		return err
	}
	cache, err := e.xdg("XDG_CACHE_HOME", ".cache")
	if err != nil {
		return err
	}
	d := &disk{env: e, reg: reg, known: k, cache: filepath.Join(cache, "vix")}
	if d.running, err = reg.List(ctx); err != nil {
		return err
	}
	count, cancel := context.WithTimeout(ctx, dfLimit)
	defer cancel()
	for _, look := range []func(context.Context) error{d.kept, d.roots, d.boot, d.caches, d.images} {
		if err := look(count); err != nil {
			return err
		}
	}
	return f(d)
}

func (d *disk) isRunning(name string) bool {
	return slices.ContainsFunc(d.running, func(st vm.State) bool { return st.Name == name })
}

// kept adds what the store has.
func (d *disk) kept(ctx context.Context) error {
	s := d.known.store
	if s == nil {
		return nil
	}
	for _, name := range d.known.kept {
		it := diskItem{Kind: "home", Name: name, Path: s.HomePath(name), DiskUse: s.Use(ctx, filepath.Join(vm.VMsName, name)), VMs: []string{name}}
		_, named := d.known.conf.VMs[name]
		_, disabled := d.known.conf.Disabled[name]
		if !named && !disabled && !d.isRunning(name) {
			if empty, err := s.HoldsNothing(name); err == nil && empty {
				it.VMs, it.Unneeded = nil, "empty, and config.toml does not name the VM"
				it.remove = func(ctx context.Context) error { return d.reg.RemoveEmpty(ctx, s, name) }
			}
		}
		d.items = append(d.items, it)
	}
	left, err := s.Left()
	if err != nil {
		return err
	}
	for _, name := range left {
		d.items = append(d.items, diskItem{Kind: "left", Name: name, Path: filepath.Join(s.Path(), name), DiskUse: s.Use(ctx, name),
			Unneeded: leftBehind, remove: func(context.Context) error { return s.Sweep() }})
	}
	others, err := s.Entries()
	for _, name := range others {
		d.items = append(d.items, diskItem{Kind: "state", Name: name, Path: filepath.Join(s.Path(), name), DiskUse: s.Use(ctx, name)})
	}
	return err
}

// debians returns the roots that config.toml names, with the VMs of each; those of VMs that
// it does not name are those of [defaults].
func (d *disk) debians(dir string) (keep []rootfs.Debian, users map[string][]string) {
	users = map[string][]string{}
	add := func(v config.VM) {
		if suite, ok := strings.CutPrefix(v.Root, config.RootDebian); ok {
			r := rootfs.Debian{Suite: suite, Packages: v.Packages, CacheDir: dir}
			keep = append(keep, r)
			if base := filepath.Base(r.Dir()); v.Name != "" {
				users[base] = append(users[base], v.Name)
			}
		}
	}
	conf := d.known.conf
	add(conf.Defaults)
	for _, name := range slices.Sorted(maps.Keys(conf.VMs)) {
		add(conf.VMs[name])
	}
	return keep, users
}

// roots adds the roots that were built.
func (d *disk) roots(ctx context.Context) error {
	dir := filepath.Join(d.cache, "roots")
	root, err := openDir(dir)
	if root == nil || err != nil {
		return err
	}
	defer root.Close()
	keep, users := d.debians(dir)
	var inUse []string // with packages that config.toml no longer names, perhaps
	for _, st := range d.running {
		if suite, ok := strings.CutPrefix(st.Root, config.RootDebian); ok {
			inUse = append(inUse, suite)
		}
	}
	unneeded, err := rootfs.Unneeded(dir, keep, inUse)
	if err != nil {
		return err
	}
	if err := d.disabled(); err != nil {
		d.notes = append(d.notes, fmt.Sprintf("roots are left alone: %v", err))
		unneeded = slices.DeleteFunc(unneeded, func(name string) bool { return !strings.HasPrefix(name, ".") })
	}
	return eachEntry(root, func(name string) {
		it := diskItem{Kind: "root", Name: name, Path: filepath.Join(dir, name), DiskUse: vm.MeasureDisk(ctx, root, name), VMs: users[name]}
		if strings.HasPrefix(name, "apt-") {
			it.Kind = "packages"
		}
		if slices.Contains(unneeded, name) {
			it.Unneeded = "no VM of config.toml has it"
			if strings.HasPrefix(name, ".") {
				it.Kind, it.Unneeded = "left", leftBehind
			}
			it.remove = func(context.Context) error { return rootfs.Drop(dir, name) }
		}
		d.items = append(d.items, it)
	})
}

// boot adds the kernels and initramfs of the cache.
func (d *disk) boot(ctx context.Context) error {
	dir := filepath.Join(d.cache, "boot")
	root, err := openDir(dir)
	if root == nil || err != nil {
		return err
	}
	defer root.Close()
	unneeded, err := d.unusedBoot(root)
	if err != nil {
		d.notes = append(d.notes, fmt.Sprintf("kernels and initramfs are left alone: %s", plain.Error(err)))
	}
	return eachEntry(root, func(name string) {
		it := diskItem{Kind: bootKind(name), Name: name, Path: filepath.Join(dir, name), DiskUse: vm.MeasureDisk(ctx, root, name)}
		if slices.Contains(unneeded, name) {
			it.Unneeded = "made of a kernel, or a Vix, that is no longer installed"
			if it.Kind == "left" {
				it.Unneeded = leftBehind
			}
			it.remove = func(context.Context) error {
				root, err := os.OpenRoot(dir)
				if err != nil {
					return err
				}
				defer root.Close()
				return boot.Drop(root, name)
			}
		}
		d.items = append(d.items, it)
	})
}

// bootKind returns the kind of a file of the boot cache.
func bootKind(name string) string {
	switch {
	case strings.HasPrefix(name, "initrd-"):
		return "initramfs"
	case strings.HasPrefix(name, "vmlinux-"), strings.HasPrefix(name, "bzimage-"):
		return "kernel"
	case strings.HasPrefix(name, "."):
		return "left"
	}
	return "cache"
}

// disabled says that nobody knows what the VMs need that an error in config.toml disables.
func (d *disk) disabled() error {
	if len(d.known.conf.Disabled) == 0 {
		return nil
	}
	return fmt.Errorf("%s; see vix config check", consequence(d.known.conf))
}

// unusedBoot returns the entries of the boot cache that no installed and no configured
// kernel makes.
func (d *disk) unusedBoot(cache *os.Root) ([]string, error) {
	if err := d.disabled(); err != nil {
		return nil, err
	}
	guest, err := d.env.siblingPath("vix-guest")
	if err != nil {
		return nil, err
	}
	kernels := boot.Installed("/")
	dirs := d.env.dirs()
	for _, v := range append(slices.Collect(maps.Values(d.known.conf.VMs)), d.known.conf.Defaults) {
		if v.Kernel == "" {
			continue
		}
		image, err1 := dirs.Expand(v.Kernel)
		initrd, err2 := dirs.Expand(v.Initrd)
		k, err := boot.NamedKernel(image, initrd, "/")
		if err := errors.Join(err1, err2, err); err != nil {
			return nil, err
		}
		kernels = append(kernels, k)
	}
	if len(kernels) == 0 {
		return nil, errors.New("no kernel is installed that a guest can use")
	}
	return boot.Unused(cache, kernels, guest)
}

// caches adds what else the cache has: the menu's files, and the like.
func (d *disk) caches(ctx context.Context) error {
	root, err := openDir(d.cache)
	if root == nil || err != nil {
		return err
	}
	defer root.Close()
	return eachEntry(root, func(name string) {
		if name != "boot" && name != "roots" {
			d.items = append(d.items, diskItem{Kind: "cache", Name: name, Path: filepath.Join(d.cache, name), DiskUse: vm.MeasureDisk(ctx, root, name)})
		}
	})
}

// images adds the disk images that config.toml names.
func (d *disk) images(ctx context.Context) error {
	users := map[string][]string{}
	for _, v := range d.known.conf.VMs {
		if path, ok := strings.CutPrefix(v.Root, config.RootImage); ok {
			if path, err := d.env.dirs().Expand(path); err == nil {
				users[path] = append(users[path], v.Name)
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(users)) {
		root, err := openDir(filepath.Dir(path))
		if root == nil || err != nil {
			continue // a start of the VM says what is wrong
		}
		d.items = append(d.items, diskItem{Kind: "image", Name: path, Path: path, DiskUse: vm.MeasureDisk(ctx, root, filepath.Base(path)), VMs: slices.Sorted(slices.Values(users[path]))})
		root.Close()
	}
	return nil
}

// openDir opens a directory; nil if it is not there.
func openDir(path string) (*os.Root, error) {
	root, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return root, err
}

// eachEntry calls f with each name in a directory, but not with locks and links.
func eachEntry(root *os.Root, f func(name string)) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, e := range entries {
		if e.Name() != "lock" && e.Type()&fs.ModeSymlink == 0 {
			f(e.Name())
		}
	}
	return err
}

// report sums up what is Vix's.
func (d *disk) report() diskReport {
	var sum vm.DiskUse
	sum.Whole = true
	items := slices.Clone(d.items)
	if items == nil {
		items = []diskItem{}
	}
	for _, it := range items {
		if it.Kind != "image" {
			sum.Add(it.DiskUse)
		}
	}
	return diskReport{sum.Bytes, sum.Whole, items}
}

func (d *disk) print(e *env) error {
	r := d.report()
	slices.SortStableFunc(r.Items, func(a, b diskItem) int {
		last := func(it diskItem) int { return map[bool]int{true: 1}[it.Kind == "image"] }
		return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(b.Bytes, a.Bytes))
	})
	d.tell()
	t := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	if len(r.Items) > 0 {
		fmt.Fprintln(t, "SIZE\tKIND\tNAME\tVMS")
	}
	could := vm.DiskUse{Whole: true}
	for _, it := range r.Items {
		users := cmp.Or(strings.Join(it.VMs, ", "), "-")
		if it.Unneeded != "" {
			users = "not needed: " + it.Unneeded
			could.Add(it.DiskUse)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", diskText(it.DiskUse), it.Kind, it.shown(), users)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%s in all\n", diskText(vm.DiskUse{Bytes: r.Total, Whole: r.Whole}))
	if could.Bytes > 0 {
		fmt.Fprintf(e.stdout, "%s of it is not needed; vix prune removes that\n", diskText(could))
	}
	return nil
}

// tell says what could not be judged.
func (d *disk) tell() {
	for _, note := range d.notes {
		fmt.Fprintf(d.env.stderr, "vix: %s\n", note)
	}
}

// maxItemName bounds the column of names: those of the cache's entries are sums.
const maxItemName = 40

// shown is the item's name in a table.
func (it *diskItem) shown() string {
	if it.Kind == "image" {
		return plain.Text(it.Name, maxShown, plain.OneLine)
	}
	return short(it.Name, maxItemName)
}
