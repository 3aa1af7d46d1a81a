package desktop

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/plain"
)

// An App is a program with a .desktop file in a VM's root. All of it is the guest's word,
// bounded and plain: Vix shows it, and never runs it on the host.
type App struct {
	VM string
	// ID is the desktop file's id in the root, such as "org.gnome.Maps".
	ID          string
	Name        Text
	GenericName Text
	Comment     Text
	Keywords    []string
	Categories  []string
	// Icon is a name of the root's icon theme, or a path in it; "" is none.
	Icon string
	// Class is the app id of its windows in the guest, as far as it is known.
	Class string
	// MimeTypes are the types of files that it opens.
	MimeTypes []string
	// Terminal: it runs in a terminal, which is a program of the VM too.
	Terminal bool
	// Dir is where the program runs, an absolute path; "" is the home.
	Dir     string
	exec    command
	base    string // the name of what exec runs, without the terminal around it
	program string // base, if exec runs that alone
}

// Limits of what one root may list.
const (
	maxApps    = 2000
	maxRootDir = 8192 // names that are read of one directory, and files of a directory of entries
	maxNotes   = 100  // about entries that cannot be used
)

// appDirs are the directories of a root's .desktop files, the most important first (XDG base
// directories; those in a home are the guest's state, and no part of its root).
var appDirs = []string{"usr/local/share/applications", "usr/share/applications"}

// A Menu says what a tree is made of that has all of a root that Apps and Icon look at.
type Menu struct {
	Programs []string // names
	Apps     []string // directories of .desktop files
	Bins     []string // directories of programs
	Icons    []string // paths of icons, with NAME for the icon's
	Services []string // directories of D-Bus services
}

// MenuOfRoot is the Menu of any root.
func MenuOfRoot() Menu {
	return Menu{Programs: []string{terminal}, Apps: appDirs, Bins: binDirs, Icons: iconPlaces, Services: servicesDirs}
}

// binDirs are the directories of a root's programs.
var binDirs = []string{"usr/local/bin", "usr/bin", "bin", "usr/games", "usr/sbin"}

// terminal runs programs that need a terminal.
const terminal = "foot"

// EntryName is the name of the App's own desktop entry and D-Bus name.
func (a App) EntryName() string { return EntryName(a.VM, a.ID) }

// AppID is the app id that the compositor sees of its windows.
func (a App) AppID() string { return config.AppID(a.VM, a.Class) }

// Argv returns the command to run in the VM.
func (a App) Argv() []string { return a.exec.runs(nil)[0] }

// Runs returns the commands that open files, by their paths in the guest: a program that takes
// one file runs once for each.
func (a App) Runs(files ...string) [][]string { return a.exec.runs(files) }

// Program returns the base name of the program, "" for one with arguments: "foot --server"
// is another program than "foot".
func (a App) Program() string { return a.program }

// Base returns the base name of the program, whatever its arguments.
func (a App) Base() string { return a.base }

// OpensFiles reports that its command has a place for files.
func (a App) OpensFiles() bool { return a.exec.takesFiles() }

// Wanted reports whether v's configuration asks for the App: by its id or a pattern
// of ids in "desktop"; without that key, those of "programs"; without either, every
// program of a root of the VM's own, and none of the host's, which has hundreds. A VM without
// a display can show none.
func (a App) Wanted(v config.VM) bool {
	if v.NoGUI {
		return false
	}
	if v.Desktop == nil {
		isNamed := slices.Contains(v.Programs, a.ID) || slices.Contains(v.Programs, a.Program())
		return isNamed || len(v.Programs) == 0 && v.Root != config.RootHost
	}
	return slices.ContainsFunc(v.Desktop, func(pattern string) bool {
		ok, err := path.Match(pattern, a.ID)
		return err == nil && ok || pattern == a.Program()
	})
}

// Apps returns the programs of a root that are meant for a menu, by id. notes say
// which of its .desktop files could not be used, and why. What the root holds is
// hostile: links lead nowhere out of it, and everything is bounded.
func Apps(root *os.Root, vm string) (apps []App, notes []string, err error) {
	seen := map[string]bool{}
	unnamed := 0 // more notes than are told
	for _, dir := range appDirs {
		files, err := entryFiles(root, dir)
		if err != nil {
			return nil, nil, fmt.Errorf("VM %s: /%s: %w", vm, dir, err)
		}
		for _, f := range files {
			id := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(f, dir+"/"), ".desktop"), "/", "-")
			if seen[id] {
				continue
			}
			seen[id] = true
			a, err := readApp(root, f, vm, id)
			switch {
			case errors.Is(err, errNotShown):
			case err != nil && len(notes) == maxNotes:
				unnamed++
			case err != nil:
				notes = append(notes, fmt.Sprintf("VM %s: %s: %v", vm, plain.Text(f, maxComment, plain.OneLine), err))
			case len(apps) == maxApps:
				return apps, append(notes, fmt.Sprintf("VM %s: more than %d programs: the rest is left out", vm, maxApps)), nil
			default:
				apps = append(apps, a)
			}
		}
	}
	if unnamed > 0 {
		notes = append(notes, fmt.Sprintf("VM %s: %d more entries cannot be used", vm, unnamed))
	}
	slices.SortFunc(apps, func(a, b App) int { return cmp.Compare(a.ID, b.ID) })
	return apps, notes, nil
}

// entryFiles lists the .desktop files of a directory and of those in it, one deep.
func entryFiles(root *os.Root, dir string) ([]string, error) {
	var files []string
	names, err := dirNames(root, dir)
	for _, n := range names {
		if len(files) >= maxRootDir {
			break
		}
		if strings.HasSuffix(n.Name(), ".desktop") {
			files = append(files, path.Join(dir, n.Name()))
			continue
		}
		if n.IsDir() {
			below, err := dirNames(root, path.Join(dir, n.Name()))
			if err != nil {
				continue
			}
			for _, m := range below {
				if strings.HasSuffix(m.Name(), ".desktop") {
					files = append(files, path.Join(dir, n.Name(), m.Name()))
				}
			}
		}
	}
	slices.Sort(files)
	return files, err
}

// dirNames reads a directory; a missing one counts as empty.
func dirNames(root *os.Root, dir string) ([]fs.DirEntry, error) {
	real, err := resolve(root, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := root.Open(real)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	names, err := f.ReadDir(maxRootDir)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, cause(err)
}

// plainName: an id, or an icon's name, becomes a file's name and a part of an app id.
// No regular expression, because every verb would compile it at its start.
func plainName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
		case i > 0 && (c == '.' || c == '+' || c == '-'):
		default:
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// errNotShown: an entry that is not for a menu.
var errNotShown = errors.New("not shown")

func readApp(root *os.Root, file, vm, id string) (App, error) {
	if !plainName(id) || len(encodeID(id)) > maxEncoded {
		return App{}, errors.New("not a usable name")
	}
	b, err := readIn(root, file, maxEntry)
	if err != nil {
		return App{}, err
	}
	e, err := parseEntry(b)
	if err != nil {
		return App{}, err
	}
	_, only := unescape(e["OnlyShowIn"], true)
	if _, has := e["OnlyShowIn"]; e.value("Type") != "Application" || e.is("NoDisplay") || e.is("Hidden") || has && only || !isInstalled(root, e.value("TryExec")) {
		return App{}, errNotShown
	}
	a := App{
		VM: vm, ID: id,
		Name:        e.texts("Name", maxName),
		GenericName: e.texts("GenericName", maxName), Comment: e.texts("Comment", maxComment),
		Keywords: e.words("Keywords"), Categories: e.words("Categories"),
		Icon: e.text("Icon", maxComment), Class: e.text("StartupWMClass", maxName),
		MimeTypes: e.words("MimeType"),
		Dir:       e.value("Path"),
	}
	if a.Name[""] == "" {
		return App{}, errors.New("no Name")
	}
	if a.Dir != "" && (!path.IsAbs(a.Dir) || len(a.Dir) > maxComment) {
		return App{}, errors.New("the key Path: not an absolute path")
	}
	// Without a class, a program's app id is its entry's id.
	if a.Class == "" {
		a.Class = id
	}
	a.exec = command{icon: a.Icon, name: a.Name[""], file: "/" + file}
	if a.exec.words, err = execOf(root, e, id); err != nil {
		return App{}, err
	}
	program := a.exec.program()
	if program == "" {
		return App{}, errors.New("the key Exec: no program")
	}
	if strings.Contains(program, "/") && !path.IsAbs(program) || !isInstalled(root, program) {
		return App{}, fmt.Errorf("the key Exec: the root has no program %s", plain.Clip(plain.Text(program, maxComment, plain.OneLine)))
	}
	a.base = path.Base(program)
	if len(a.Argv()) == 1 {
		a.program = a.base
	}
	if e.is("Terminal") {
		if !isInstalled(root, terminal) {
			return App{}, errors.New("needs a terminal, and the root has no " + terminal)
		}
		a.Terminal = true
		a.exec.words = append(literal(terminal, "--app-id="+id, "--"), a.exec.words...)
		a.Class = id
	}
	return a, nil
}

// servicesDirs are the directories of a root's D-Bus services, the most important first.
var servicesDirs = []string{"usr/local/share/dbus-1/services", "usr/share/dbus-1/services"}

// execOf returns an entry's command. One that is started by D-Bus may have none: then it is
// that of its service, as a program and not as a service (GApplication), with files behind.
func execOf(root *os.Root, e entry, id string) ([]execWord, error) {
	if exec := e.value("Exec"); exec != "" || !e.is("DBusActivatable") {
		if exec == "" && e["Exec"] != "" {
			return nil, errors.New("the key Exec: an unknown escape, or not text")
		}
		return parseExec(exec)
	}
	for _, dir := range servicesDirs {
		b, err := readIn(root, path.Join(dir, id+".service"), maxEntry)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("its D-Bus service: %w", err)
		}
		s, err := parseKeyFile(b, "D-BUS Service")
		if err != nil {
			return nil, errors.New("its D-Bus service: not a service file")
		}
		words, err := parseExec(s.value("Exec"))
		words = slices.DeleteFunc(words, func(w execWord) bool {
			return len(w.parts) == 1 && w.parts[0].text == "--gapplication-service"
		})
		return append(words, execWord{parts: []execPart{{code: 'U'}}}), err
	}
	return nil, errors.New("no Exec, and the root has no D-Bus service of its name")
}

// isInstalled reports whether a program is in the root; "" always is.
func isInstalled(root *os.Root, program string) bool {
	if program == "" {
		return true
	}
	places := binDirs
	if strings.HasPrefix(program, "/") {
		places = []string{""}
	}
	return slices.ContainsFunc(places, func(dir string) bool {
		real, err := resolve(root, path.Join(dir, program))
		if err != nil {
			return false
		}
		st, err := root.Stat(real)
		return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
	})
}

const (
	maxLinks = 40  // Linux's own limit of links in a path
	maxSteps = 128 // of a path and its links, each a look at the root
)

// resolve follows the links of a path as a process with the root directory root does.
// os.Root refuses absolute links, which roots are full of.
func resolve(root *os.Root, name string) (string, error) {
	rest := strings.Split(path.Clean("/" + name)[1:], "/")
	done, links := "", 0
	for steps := 0; len(rest) > 0; steps++ {
		if steps == maxSteps {
			return "", errors.New("too long a way, through links")
		}
		next := rest[0]
		rest = rest[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			if done = path.Dir(done); done == "." {
				done = ""
			}
			continue
		}
		at := path.Join(done, next)
		st, err := root.Lstat(at)
		if err != nil {
			return "", cause(err)
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			done = at
			continue
		}
		if links++; links > maxLinks {
			return "", errors.New("too many links")
		}
		target, err := root.Readlink(at)
		if err != nil {
			return "", cause(err)
		}
		if path.IsAbs(target) {
			done = ""
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	if done == "" {
		done = "."
	}
	return done, nil
}

// readIn reads a regular file of at most limit bytes.
func readIn(root *os.Root, name string, limit int64) ([]byte, error) {
	real, err := resolve(root, name)
	if err != nil {
		return nil, err
	}
	// Not blocking: it may be a pipe.
	f, err := root.OpenFile(real, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, cause(err)
	case !st.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case st.Size() > limit:
		return nil, fmt.Errorf("larger than %d KiB", limit>>10)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// cause is err without the path that a message already names.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
