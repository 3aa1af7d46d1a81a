package desktop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vix/internal/desktop"
	"vix/internal/desktoptest"
	"vix/internal/rootfs"
)

// reader is a program that says in its window's title what it could read, what else is
// there, and whether it could write.
const (
	reader = `#!/bin/sh
(echo x >>"$1") 2>/dev/null && w=could || w="could not"
printf '\033]2;read %s of %s, %s write\007' "$(cat "$1")" "$(ls -A "${1%/*}")" "$w"
read x
`
	readerEntry = `[Desktop Entry]
Type=Application
Name=Reader
TryExec=reader
Exec=foot --app-id=reader reader %f
StartupWMClass=reader
Icon=reader
MimeType=text/plain;application/x-none;
`
)

// image makes a disk image of a small system with foot, a shell and entries.
func (d *desk) image(path string, entries map[string]string) {
	d.t.Helper()
	tree := d.t.TempDir()
	put := func(to string, b []byte, mode fs.FileMode) {
		d.t.Helper()
		to = filepath.Join(tree, to)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, mode)); err != nil {
			d.t.Fatal(err)
		}
	}
	for _, at := range []string{"/bin/sh", "/usr/bin/cat", "/usr/bin/ls", "/usr/bin/foot"} {
		files := []string{at}
		for _, m := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(d.must("ldd", at), -1) {
			files = append(files, m[1])
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				d.t.Fatal(err)
			}
			put(f, b, 0o755)
		}
	}
	put("/usr/bin/reader", []byte(reader), 0o755)
	for _, dir := range []string{"/etc/fonts", "/usr/lib/locale/C.utf8", "/usr/share/fontconfig", "/usr/share/fonts/truetype/dejavu"} {
		if err := os.CopyFS(filepath.Join(tree, dir), os.DirFS(dir)); err != nil {
			d.t.Fatal(err)
		}
	}
	for name, text := range entries {
		put("usr/share/applications/"+name, []byte(text), 0o644)
	}
	put("usr/share/pixmaps/reader.svg", []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16"><rect width="16" height="16" fill="#08f"/></svg>`), 0o644)
	d.must("mkfs.erofs", "--quiet", path, tree)
}

// synced runs desktop sync and returns what it said, and a VM's programs with entries.
func (d *desk) synced(vm string) (stderr string, programs []string) {
	d.t.Helper()
	r := d.Run(d.command(d.Launcher(), "desktop", "sync"))
	if r.Code != 0 {
		d.t.Fatalf("desktop sync: %v", r)
	}
	var list []desktop.InstalledEntry
	if err := json.Unmarshal([]byte(d.must(d.Launcher(), "desktop", "list", "--json")), &list); err != nil {
		d.t.Fatal(err)
	}
	for _, i := range list {
		if i.VM == vm {
			programs = append(programs, i.App)
		}
	}
	return r.Stderr, programs
}

// testImage: a disk image's programs are read by a VM of its own, once, and have entries
// that open files of the chosen types: of those the VM sees what its programs have open.
func (d *desk) testImage() {
	if _, err := exec.LookPath("mkfs.erofs"); err != nil {
		d.t.Skip("lacks: mkfs.erofs")
	}
	image := filepath.Join(d.data, "box.erofs")
	d.image(image, map[string]string{
		"reader.desktop": readerEntry,
		"sh.desktop":     "[Desktop Entry]\nType=Application\nName=Shell\nTerminal=true\nExec=sh\n",
		"gone.desktop":   "[Desktop Entry]\nType=Application\nName=Gone\nTryExec=nothere\nExec=foot\n",
	})
	boxed := conf + fmt.Sprintf("[vm.boxed]\nroot = \"image:%s\"\nmime = [\"text/plain\"]\nmemory = \"256M\"\n", image)
	if err := d.SetConfig(boxed); err != nil {
		d.t.Fatal(err)
	}
	said, entries := d.synced("boxed")
	if !strings.Contains(said, "VM boxed: starting its image in a VM without display, network and home") || strings.Count(said, "\n") != 1 {
		d.t.Errorf("said %q", said)
	}
	if !slices.Equal(entries, []string{"reader", "sh"}) {
		d.t.Fatalf("entries %q", entries)
	}
	entry := filepath.Join(d.data, "applications/dev.vix.boxed.reader.desktop")
	d.must("desktop-file-validate", entry)
	text, err := os.ReadFile(entry)
	if err != nil || !strings.Contains(string(text), "\nMimeType=text/plain;\n") || strings.Contains(string(text), "foot") {
		d.t.Errorf("%v: %s", err, text)
	}
	if _, err := os.Stat(filepath.Join(d.data, "icons/hicolor/48x48/apps/dev.vix.boxed.reader.png")); err != nil {
		d.t.Error(err)
	}
	if said, _ := d.synced("boxed"); said != "" {
		d.t.Errorf("a second sync said %q", said)
	}
	if vms := d.List(); len(vms) > 0 {
		d.t.Errorf("VMs: %+v", vms)
	}
	if items := d.must(d.Launcher(), "menu", "--json"); !strings.Contains(items, `"boxed/reader"`) || strings.Contains(items, `"boxed/gone"`) {
		d.t.Errorf("the menu: %s", items)
	}
	d.readFiles(entry)
	d.Must("stop", "--all")

	// Another image in its place, without the program.
	d.image(image, map[string]string{"sh.desktop": "[Desktop Entry]\nType=Application\nName=Shell\nTerminal=true\nExec=sh\n"})
	if said, entries := d.synced("boxed"); !slices.Equal(entries, []string{"sh"}) || !strings.Contains(said, "starting its image") {
		d.t.Errorf("of another image: %q, said %q", entries, said)
	}
}

// readFiles opens files with the program, in each way that a desktop has.
func (d *desk) readFiles(entry string) {
	d.t.Helper()
	dir := filepath.Join(d.data, "letters")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		d.t.Fatal(err)
	}
	for _, name := range []string{"one.txt", "two.txt", "three.txt", "secret.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("words of "+name), 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
	d.must("gio", "mime", "text/plain", filepath.Base(entry))
	d.must("gio", "open", filepath.Join(dir, "one.txt"))
	d.must("gtk-launch", strings.TrimSuffix(filepath.Base(entry), ".desktop"), filepath.Join(dir, "two.txt"))
	// As launchers without D-Bus do: the Exec of the entry. It lasts as long as the program.
	launched := d.StartCommand(d.command(d.Launcher(), "desktop", "launch", "boxed", "reader", filepath.Join(dir, "three.txt")))
	for _, name := range []string{"one.txt", "two.txt", "three.txt"} {
		// It reads its own of the files that the VM's programs have open, and no other.
		w := d.WaitWindow(d.t, func(n *desktoptest.Node) bool {
			_, listed, ok := strings.Cut(n.Name, "read words of "+name+" of ")
			return ok && strings.Contains(listed, name) && strings.HasSuffix(listed, ", could not write") && !strings.Contains(listed, "secret")
		})
		if w.AppID != "vix.boxed.reader" {
			d.t.Errorf("%s: app id %s", name, w.AppID)
		}
	}
	d.save("desktop-files.png", d.Screenshot(d.t))
	d.Desktop.Command(d.t, `[title="read words of three\.txt"] kill`)
	if code := launched.Wait(); code != 0 {
		d.t.Errorf("desktop launch: status %d: %s", code, launched.Output())
	}
	for _, name := range []string{"one.txt", "two.txt", "three.txt"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "words of "+name {
			d.t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// testDebian: the programs of a root that was built, a real Debian's: the system root
// that the tests run in.
func (d *desk) testDebian() {
	tree := os.Getenv("VIX_IN_ROOT")
	if tree == "" || os.Getuid() != 0 {
		d.t.Skip("there is no system root here that could be mounted as a built one")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		d.t.Fatal(err)
	}
	built := rootfs.Debian{Suite: "trixie", CacheDir: filepath.Join(cache, "vix/roots"), Packages: []string{"vix-e2e-desktop"}}
	if err := os.MkdirAll(built.Dir(), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := unix.Mount(tree, built.Dir(), "", unix.MS_BIND, ""); err != nil {
		d.t.Fatal(err)
	}
	defer func() {
		d.Must("stop", "--all")
		if err := unix.Unmount(built.Dir(), unix.MNT_DETACH); err != nil {
			d.t.Error(err)
		}
		_ = os.Remove(built.Dir())
	}()
	if err := d.SetConfig(conf + "[vm.deb]\nroot = \"debian:trixie\"\npackages = [\"vix-e2e-desktop\"]\nprograms = [\"foot\"]\n"); err != nil {
		d.t.Fatal(err)
	}
	if _, entries := d.synced("deb"); !slices.Equal(entries, []string{"foot"}) {
		d.t.Errorf("entries %q, want those of programs alone", entries)
	}
	d.must("gio", "launch", filepath.Join(d.data, "applications/dev.vix.deb.foot.desktop"))
	d.WaitWindow(d.t, desktoptest.ByAppID("vix.deb.foot"))
}
