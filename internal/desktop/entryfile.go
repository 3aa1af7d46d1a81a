package desktop

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"vix/config"
)

// The actions of an entry, besides running its program. The D-Bus service and
// "desktop launch" know them by these names.
const (
	ActionDisposable = "disposable" // the program in a new VM that keeps nothing
	ActionShell      = "shell"      // a terminal in the VM
	ActionStop       = "stop"       // the end of the VM
)

// Actions are an entry's actions, with their names for people.
var Actions = []Action{
	{ActionDisposable, "In a new disposable VM"},
	{ActionShell, "Terminal in this VM"},
	{ActionStop, "Stop this VM"},
}

// EntryFile has the content of a desktop entry. Every word in Exec is ours: Vix looks up the
// guest's own command when the program starts, and runs it in the VM.
type EntryFile struct {
	App      App
	VM       config.VM
	Launcher string // absolute path of vix-launcher
	Icon     string
	DBus     bool // our service owns its name
}

// Bytes is the file (Desktop Entry Specification 1.5).
func (f EntryFile) Bytes() []byte {
	var b bytes.Buffer
	set := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s\n", key, value)
		}
	}
	vm := f.VM.Name
	exec := func(args ...string) string {
		return quoteExec(append([]string{f.Launcher, "desktop", "launch"}, args...))
	}
	fmt.Fprintf(&b, "%s\n[Desktop Entry]\nVersion=1.5\nType=Application\n", madeBy)
	setTexts(&b, "Name", f.App.Name, " ("+vm+")")
	setTexts(&b, "GenericName", f.App.GenericName, "")
	setTexts(&b, "Comment", f.App.Comment, "")
	set("Icon", f.Icon)
	set("TryExec", escape(f.Launcher))
	types := f.types()
	command := exec(vm, f.App.ID)
	if len(types) > 0 {
		command += " %F"
	}
	set("Exec", command)
	set("Terminal", "false")
	set("StartupNotify", "true")
	set("StartupWMClass", f.App.AppID())
	// Not DBusActivatable, though our service owns its name: a bus that has to start the service
	// drops the call of whoever does not wait for that, such as "gio launch".
	set("Categories", list(categories(f.App.Categories)))
	set("Keywords", list(append([]string{"vix", vm}, f.App.Keywords...)))
	set("MimeType", list(types))
	var keys []string
	for _, a := range Actions {
		keys = append(keys, a.Key)
	}
	set("Actions", list(keys))
	set(keyVM, vm)
	set("X-Vix-App", f.App.ID)
	for _, a := range Actions {
		fmt.Fprintf(&b, "\n[Desktop Action %s]\nName=%s\nExec=%s\n", a.Key, a.Label, exec("--action="+a.Key, vm, f.App.ID))
	}
	return b.Bytes()
}

// madeBy begins every file that Sync writes.
const madeBy = "# Made by vix-launcher desktop sync, which overwrites and removes it."

// keyVM marks a file as ours.
const keyVM = "X-Vix-VM"

func setTexts(b *bytes.Buffer, key string, t Text, suffix string) {
	for _, locale := range slices.Sorted(maps.Keys(t)) {
		k := key
		if locale != "" {
			k += "[" + locale + "]"
		}
		fmt.Fprintf(b, "%s=%s\n", k, escape(t[locale]+suffix))
	}
}

// list makes a value of type string list. A semicolon in a word becomes a space: GLib reads no
// word of a list of localised strings with an escaped one.
func list(words []string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(escape(strings.ReplaceAll(w, ";", " ")) + ";")
	}
	return b.String()
}

// quoteExec makes a value of Exec of literal words.
func quoteExec(words []string) string {
	for i, w := range words {
		w = strings.ReplaceAll(w, "%", "%%")
		if strings.ContainsAny(w, " \t\n\"'\\><~|&;$*?#()`") {
			w = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", "$", `\$`).Replace(w) + `"`
		}
		words[i] = w
	}
	return escape(strings.Join(words, " "))
}

// types are the MIME types that the program opens and the configuration lets it.
func (f EntryFile) types() []string {
	if !f.App.OpensFiles() {
		return nil
	}
	var types []string
	for _, t := range f.App.MimeTypes {
		if mimeType(t) && slices.ContainsFunc(f.VM.MIME, func(pattern string) bool {
			ok, err := path.Match(pattern, t)
			return err == nil && ok
		}) && !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	return types
}

// mimeType reports that a guest's word is a type; schemes (x-scheme-handler/http) are
// none of a file.
func mimeType(t string) bool {
	kind, sub, ok := strings.Cut(t, "/")
	return ok && kind != "" && sub != "" && kind != "x-scheme-handler" &&
		strings.Trim(kind+sub, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._") == ""
}

// mainCategories are the registered ones of the Desktop Menu Specification that menus
// are made of; what else a guest may claim would not pass a check.
var mainCategories = []string{
	"AudioVideo", "Audio", "Video", "Development", "Education", "Game", "Graphics", "Network", "Office", "Science",
	"Settings", "System", "Utility",
}

func categories(words []string) []string {
	var list []string
	for _, m := range mainCategories {
		if slices.Contains(words, m) || m == "AudioVideo" && (slices.Contains(words, "Audio") || slices.Contains(words, "Video")) {
			list = append(list, m)
		}
	}
	return list
}

// serviceFile is the D-Bus service file of a name that our service owns. unit is the
// systemd user unit that it runs as, or "".
func serviceFile(name, launcher, unit, vm string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n# %s=%s\n[D-BUS Service]\nName=%s\nExec=%s dbus-service\n", madeBy, keyVM, vm, name, strings.ReplaceAll(launcher, " ", `\ `))
	if unit != "" {
		fmt.Fprintf(&b, "SystemdService=%s\n", unit)
	}
	return b.Bytes()
}
