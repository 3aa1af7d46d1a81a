package session

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/menu"
	"vix/internal/plain"
	"vix/internal/vm"
)

// Load finds the entries when no menu is shown.
func (s *Session) Load(ctx context.Context) (err error) {
	if s.conf, err = s.Launcher.Config(); err != nil {
		return err
	}
	_, err = s.load(ctx, false)
	return err
}

// load finds the programs of all VMs, the VMs, and their states. With remembered, it uses the
// programs of the last menu if the configuration is the same: reading the roots takes longer
// than a menu may take to open. old reports whether it did.
func (s *Session) load(ctx context.Context, remembered bool) (old bool, err error) {
	s.vms = map[string]menu.VM{}
	reg, err := vm.OpenRegistry(s.Launcher.Dirs.Runtime)
	if err != nil {
		return false, err
	}
	reg.StateDir = s.Launcher.Dirs.State
	s.reg = reg
	if s.running, err = reg.List(ctx); err != nil {
		return false, err
	}
	for _, st := range s.running {
		s.vms[st.Name] = menuVM(st)
	}
	s.recallHistory()
	if old = remembered && s.recall(); !old {
		s.find()
	}
	s.complete()
	return old, nil
}

// find reads the roots of all VMs.
func (s *Session) find() {
	s.programs, s.apps = nil, map[string]desktop.App{}
	s.addPrograms()
}

// complete makes the items for the programs that were found, and for the VMs.
func (s *Session) complete() {
	s.items = slices.Clone(s.programs)
	s.addVMs(s.running)
	now := time.Now()
	for i := range s.items {
		s.items[i].Use = s.history.Use(s.items[i].ID, now)
	}
}

// startStages maps each stage of a start to its progress.
var startStages = map[string]float64{"prepared": 0.08, "qemu": 0.15, "init": 0.45, "root": 0.6, "proxy": 0.8, "ready": 0.9, "window": 1}

func menuVM(st vm.State) menu.VM {
	v := menu.VM{State: st.State, Progress: 0.03}
	for _, stage := range st.Stages {
		v.Progress = max(v.Progress, startStages[stage.Name])
	}
	if st.State != vm.StateStarting {
		v.Progress = 0
	}
	return v
}

// addPrograms reads each root once, however many VMs have it.
func (s *Session) addPrograms() {
	read := map[string][]desktop.App{}
	appsOf := func(v config.VM) []desktop.App {
		key := v.Root + "\x00" + strings.Join(v.Packages, "\x00")
		apps, known := read[key]
		if !known {
			apps = s.rootApps(v)
			read[key] = apps
		}
		return apps
	}
	claims := map[string]bool{} // the host's programs that a VM's configuration names
	for _, name := range slices.Sorted(maps.Keys(s.conf.VMs)) {
		v := s.conf.VMs[name]
		if v.Desktop == nil && v.Root == "host" && len(v.Programs) == 0 || v.Desktop != nil && len(v.Desktop) == 0 {
			continue
		}
		for _, app := range appsOf(v) {
			if app.VM = name; app.Wanted(v) {
				s.addProgram(v, app)
				claims[app.ID] = claims[app.ID] || v.Root == "host"
			}
		}
	}
	host := s.conf.Defaults
	host.Root = "host"
	for _, d := range s.conf.Disabled {
		if d.VM.Root != "host" {
			continue
		}
		for _, app := range appsOf(host) {
			claims[app.ID] = claims[app.ID] || app.Wanted(d.VM) // it would start elsewhere
		}
	}
	for _, app := range appsOf(host) {
		if claims[app.ID] || isOurs(app) {
			continue
		}
		if v, err := s.conf.VMFor(app.Base()); err == nil && v.Root == "host" && !v.NoGUI {
			app.VM = v.Name
			s.addProgram(v, app)
		}
	}
}

// isOurs reports an entry of Vix itself, which would run in a VM what is for the host.
func isOurs(app desktop.App) bool {
	return app.ID == desktop.BusName || app.Base() == "vix" || app.Base() == "vix-launcher"
}

// rootApps reads a root's programs. An unreadable root has none; desktop sync and run report
// why.
func (s *Session) rootApps(v config.VM) []desktop.App {
	root, err := s.Launcher.OpenRoot(v)
	if err != nil {
		return nil
	}
	defer root.Close()
	apps, _, err := desktop.Apps(root, v.Name)
	if err != nil {
		return nil
	}
	return apps
}

func (s *Session) addProgram(v config.VM, app desktop.App) {
	it := menu.Item{
		ID: v.Name + "/" + app.ID, Name: app.Name.In(s.Language), Generic: app.GenericName.In(s.Language),
		Keywords: append(slices.Clone(app.Keywords), app.Program()),
		VM:       v.Name, Tag: v.Tag, Color: string(v.Color),
	}
	if it.Generic == "" {
		it.Generic = app.Comment.In(s.Language)
	}
	if strings.EqualFold(it.Generic, it.Name) {
		it.Generic = ""
	}
	// Icon names of another root are valid only there; desktop sync has written the icon under the
	// entry's name.
	it.Icon = app.EntryName()
	if v.Root == "host" && path.Ext(app.Icon) != ".svgz" {
		it.Icon = app.Icon
	}
	s.programs = append(s.programs, it)
	s.apps[it.ID] = app
}

// addVMs adds the configured and the running VMs.
func (s *Session) addVMs(running []vm.State) {
	type look struct{ tag, color string }
	vms := map[string]look{}
	for name, v := range s.conf.VMs {
		vms[name] = look{v.Tag, string(v.Color)}
	}
	for name, d := range s.conf.Disabled {
		vms[name] = look{d.VM.Tag, string(d.VM.Color)}
	}
	for _, st := range running {
		vms[st.Name] = look{st.Tag, string(st.Color)}
	}
	for _, name := range slices.Sorted(maps.Keys(vms)) {
		what := "Virtual machine"
		if d, ok := s.conf.Disabled[name]; ok {
			what = "Disabled: config.toml, " + plain.Error(errors.New(d.Errors[0].Short()))
		}
		s.items = append(s.items, menu.Item{
			ID: "vm:" + name, Name: name, Generic: what, Keywords: []string{"vm"},
			VM: name, Tag: vms[name].tag, Color: vms[name].color, Machine: true,
		})
	}
}

// An Entry is an item in the output of --json.
type Entry struct {
	menu.Item
	State string   `json:"state"` // state of its VM; "" if it is not running
	Argv  []string `json:"argv,omitempty"`
}

// Entries returns the entries of a menu.
func (s *Session) Entries() []Entry {
	list := []Entry{}
	for _, it := range s.items {
		entry := Entry{Item: it, State: s.vms[it.VM].State}
		if app, ok := s.apps[it.ID]; ok {
			entry.Argv = app.Argv()
		}
		list = append(list, entry)
	}
	return list
}

// maxShown bounds a shown text from a stranger, in bytes.
const maxShown = 1 << 10
