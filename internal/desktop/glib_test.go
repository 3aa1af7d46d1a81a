package desktop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"
)

// GLib reads .desktop files for most launchers and for gio. A process of its own (this test's
// program again) loads it, so that its threads are none of the test's.
const (
	glibRole = "VIX_TEST_GLIB"             // set: be that process
	launched = "GIO_LAUNCHED_DESKTOP_FILE" // set by GLib for what it launches
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(launched) != "":
		b, _ := json.Marshal(glibRun{filepath.Base(os.Getenv(launched)), os.Args})
		fmt.Printf("%s\n", b) // in one write: lines of several processes do not mix
	case os.Getenv(glibRole) != "":
		if err := glibMain(os.Getenv(glibRole)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(m.Run())
	}
}

// A glibRun is what GLib ran of an entry.
type glibRun struct {
	File string
	Argv []string
}

// An asked entry: the files to open with it, and the locale to name it in.
type asked struct {
	File   string
	Files  []string
	Locale string
}

// A read entry: what a launcher shows, and would run.
type read struct {
	Shown                               bool       `json:",omitempty"`
	Name, Generic, Comment, Icon, Class string     `json:",omitempty"`
	Keywords, Categories, Types         []string   `json:",omitempty"`
	Runs                                [][]string `json:",omitempty"`
}

// glibMain reads a JSON list of asked from standard input. It writes a list of read to the
// file out, and what it launches writes to standard output.
func glibMain(out string) error {
	var list []asked
	if err := json.NewDecoder(os.Stdin).Decode(&list); err != nil {
		return err
	}
	g, err := loadGLib()
	if err != nil {
		return err
	}
	answers := make([]read, len(list))
	for i, a := range list {
		answers[i] = g.read(a)
	}
	b, err := json.Marshal(answers)
	if err != nil {
		return err
	}
	return os.WriteFile(out, b, 0o600)
}

// A glib has functions of the library, by their names without "g_".
type glib struct {
	appNew                                    func(file string) uintptr
	shouldShow, hidden                        func(app uintptr) bool
	name, generic, comment, class, categories func(app uintptr) string
	keywords, types                           func(app uintptr) uintptr
	text                                      func(app uintptr, key string) string
	launch                                    func(app, uris, context uintptr, flags uint32, setup, data, pid, pidData, err uintptr) bool
	append                                    func(list uintptr, data unsafe.Pointer) uintptr
	fileNew                                   func() uintptr
	load                                      func(file uintptr, path string, flags uint32, err uintptr) bool
	localeText                                func(file uintptr, group, key, locale string, err uintptr) string
}

func loadGLib() (*glib, error) {
	lib, err := purego.Dlopen("libgio-2.0.so.0", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, err
	}
	g := &glib{}
	for name, f := range map[string]any{
		"g_desktop_app_info_new_from_filename": &g.appNew, "g_app_info_should_show": &g.shouldShow, "g_desktop_app_info_get_is_hidden": &g.hidden,
		"g_app_info_get_name": &g.name, "g_desktop_app_info_get_generic_name": &g.generic, "g_app_info_get_description": &g.comment,
		"g_desktop_app_info_get_startup_wm_class": &g.class, "g_desktop_app_info_get_categories": &g.categories,
		"g_desktop_app_info_get_keywords": &g.keywords, "g_app_info_get_supported_types": &g.types, "g_desktop_app_info_get_string": &g.text,
		"g_desktop_app_info_launch_uris_as_manager": &g.launch, "g_list_append": &g.append,
		"g_key_file_new": &g.fileNew, "g_key_file_load_from_file": &g.load, "g_key_file_get_locale_string": &g.localeText,
	} {
		purego.RegisterLibFunc(f, lib, name)
	}
	return g, nil
}

// strings of a list that ends with NULL.
func stringsAt(at uintptr) (list []string) {
	if at == 0 {
		return nil
	}
	for p := *(**unsafe.Pointer)(unsafe.Pointer(&at)); *p != nil; p = (*unsafe.Pointer)(unsafe.Add(unsafe.Pointer(p), unsafe.Sizeof(at))) {
		n := 0
		for *(*byte)(unsafe.Add(*p, n)) != 0 {
			n++
		}
		list = append(list, string(unsafe.Slice((*byte)(*p), n)))
	}
	return list
}

func (g *glib) read(a asked) (r read) {
	app := g.appNew(a.File)
	if app == 0 || g.hidden(app) || !g.shouldShow(app) {
		return r
	}
	r = read{
		Shown: true, Name: g.name(app), Generic: g.generic(app), Comment: g.comment(app), Icon: g.text(app, "Icon"), Class: g.class(app),
		Keywords: stringsAt(g.keywords(app)), Types: stringsAt(g.types(app)),
	}
	for c := range strings.SplitSeq(g.categories(app), ";") { // GLib leaves them as they stand
		if c != "" {
			r.Categories = append(r.Categories, c)
		}
	}
	if a.Locale != "" {
		const keepTranslations = 2
		f := g.fileNew()
		g.load(f, a.File, keepTranslations, 0)
		r.Name = g.localeText(f, "Desktop Entry", "Name", a.Locale, 0)
	}
	var uris uintptr
	for _, f := range a.Files {
		uris = g.append(uris, unsafe.Pointer(unsafe.StringData(f+"\x00")))
	}
	const searchPath = 4
	g.launch(app, uris, 0, searchPath, 0, 0, 0, 0, 0)
	return r
}

// askGLib asks GLib about cases, with the same programs in the path.
func askGLib(t *testing.T, cases []glibCase) []read {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin, apps := filepath.Join(dir, "usr/bin"), filepath.Join(dir, "usr/share/applications")
	write := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write(errors.Join(os.MkdirAll(bin, 0o755), os.MkdirAll(apps, 0o755), os.WriteFile(dir+"/usr/share/data", []byte("x"), 0o644)))
	for name, target := range map[string]string{"prog": self, "a b": self, "link": self, "sh": "/bin/sh", "env": "/usr/bin/env"} {
		write(os.Symlink(target, filepath.Join(bin, name)))
	}
	var list []asked
	for _, c := range cases {
		a := asked{File: filepath.Join(apps, c.name+".desktop"), Locale: c.locale}
		for _, f := range c.files {
			a.Files = append(a.Files, uri(f))
		}
		write(os.WriteFile(a.File, []byte(strings.ReplaceAll(c.text, "@/", dir+"/")), 0o644))
		list = append(list, a)
	}
	in, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "answers")
	cmd := exec.Command(self)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	cmd.Env = []string{glibRole + "=" + out, "PATH=" + bin, "LC_ALL=C.UTF-8", "HOME=" + dir, "DBUS_SESSION_BUS_ADDRESS=disabled:"}
	// Output returns when all that was launched has ended too.
	runs, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var answers []read
	if err := json.Unmarshal(b, &answers); err != nil || len(answers) != len(list) {
		t.Fatalf("%d answers: %v", len(answers), err)
	}
	for l := range bytes.Lines(runs) {
		var r glibRun
		if err := json.Unmarshal(l, &r); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		i := slices.IndexFunc(list, func(a asked) bool { return filepath.Base(a.File) == r.File })
		for k, word := range r.Argv {
			if r.Argv[k] = strings.ReplaceAll(word, dir, ""); k == 0 {
				r.Argv[k] = path.Base(word) // GLib has looked for it
			}
		}
		answers[i].Runs = append(answers[i].Runs, r.Argv)
	}
	for _, a := range answers {
		slices.SortFunc(a.Runs, slices.Compare) // they ran at once
	}
	return answers
}

// uri is the URL of a file, as a launcher passes it.
func uri(file string) string { return (&url.URL{Scheme: "file", Path: file}).String() }

// leastGLib is the second number of the first version of GLib 2 that answers as glibCases say.
const leastGLib = 84

// glibMinor returns the second number of the version of GLib that is here.
func glibMinor() uint32 {
	lib, err := purego.Dlopen("libglib-2.0.so.0", purego.RTLD_NOW)
	if err != nil {
		return 0
	}
	minor, err := purego.Dlsym(lib, "glib_minor_version")
	if err != nil {
		return 0
	}
	return **(**uint32)(unsafe.Pointer(&minor))
}

// TestEntriesAsGLib reads each of glibCases by Vix and by GLib. An entry that is read otherwise
// than by GLib has a reason, and one with a reason is.
func TestEntriesAsGLib(t *testing.T) {
	if _, err := purego.Dlopen("libgio-2.0.so.0", purego.RTLD_NOW); err != nil {
		t.Skip("lacks: libgio-2.0.so.0")
	}
	if v := glibMinor(); v < leastGLib {
		t.Skipf("lacks: GLib 2.%d, whose answers these are; here is 2.%d", leastGLib, v)
	}
	const apps, services = "usr/share/applications/", "usr/share/dbus-1/services/"
	files := map[string]string{
		"usr/bin/prog": "", "usr/bin/a b": "", "usr/bin/foot": "", "usr/bin/sh": "", "usr/bin/env": "", "usr/bin/link": "->/usr/bin/prog",
		"usr/share/data":                   "x",
		services + "org.x.Service.service": "[D-BUS Service]\nName=org.x.Service\nExec=/usr/bin/prog --gapplication-service\n",
		services + "org.x.BadFile.service": "Exec=/usr/bin/prog\n",
		services + "org.x.NoSuch.service":  "[D-BUS Service]\nExec=/usr/bin/nothere\n",
	}
	for _, c := range glibCases {
		files[apps+c.name+".desktop"] = strings.ReplaceAll(c.text, "@/", "/")
	}
	root := tree(t, files)
	if err := os.Chmod(filepath.Join(root.Name(), "usr/share/data"), 0o644); err != nil {
		t.Fatal(err)
	}
	found, notes, err := Apps(root, "v")
	if err != nil {
		t.Fatal(err)
	}
	theirs := askGLib(t, glibCases)
	for i, c := range glibCases {
		var r read
		if at := slices.IndexFunc(found, func(a App) bool { return a.ID == c.name }); at >= 0 {
			r = readByVix(found[at], c)
		}
		ours, _ := json.Marshal(r)
		glibs, _ := json.Marshal(theirs[i])
		if same := bytes.Equal(ours, glibs); same != (c.why == "") {
			t.Errorf("%s: why: %q\n%s\nVix  %s\nGLib %s\n%s", c.name, c.why, c.text, ours, glibs,
				strings.Join(slices.DeleteFunc(slices.Clone(notes), func(n string) bool { return !strings.Contains(n, "/"+c.name+".desktop") }), "\n"))
		}
	}
}

func readByVix(a App, c glibCase) read {
	r := read{
		Shown: true, Name: a.Name.In(c.locale), Generic: a.GenericName[""], Comment: a.Comment[""], Icon: a.Icon,
		Keywords: a.Keywords, Categories: a.Categories, Types: a.MimeTypes, Runs: a.Runs(c.files...),
	}
	if a.Class != a.ID { // what it is without the key
		r.Class = a.Class
	}
	for _, argv := range r.Runs {
		argv[0] = path.Base(argv[0])
	}
	slices.SortFunc(r.Runs, slices.Compare)
	return r
}
