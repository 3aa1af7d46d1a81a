package desktop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/config"
	"vix/internal/plain"
	"vix/internal/vm"
)

// Names of our service.
const (
	BusName          = "dev.vix.Launcher"
	managerPath      = dbus.ObjectPath("/dev/vix/Launcher")
	managerInterface = "dev.vix.Manager1"
	appInterface     = "org.freedesktop.Application"
	propsInterface   = "org.freedesktop.DBus.Properties"
	inspectInterface = "org.freedesktop.DBus.Introspectable"
	errorPrefix      = "dev.vix.Error."
)

// Limits of a caller's requests.
const (
	maxRunWords = 256
	maxRunBytes = 64 << 10
)

// A Start is a program that a caller wants to run.
type Start struct {
	VM         string
	App        string   // the id of a desktop file in the VM, or "" with Argv
	Argv       []string //
	Action     string   // one of Actions, or ""
	Files      []string // paths or file: URIs of the host
	Token      string   // xdg-activation
	Disposable bool
}

// A Service is the D-Bus service dev.vix.Launcher. It holds no state of VMs: each call
// asks the supervisors, and they live on when it ends.
//
//	bus ──call──► check the caller's user ──► handler, in a goroutine of its own
//	vm.Registry.Watch ──► VMChanged, VMEnded, PropertiesChanged
//	no call, no launch, nobody who watches, for Idle ──► names given up, calls that
//	    came meanwhile answered, end
type Service struct {
	Conn     *dbus.Conn
	Registry *vm.Registry
	Version  string
	// Start runs a program and tells the user. It returns when the program runs or cannot; with
	// files, when the program has ended.
	Start func(context.Context, Start) error
	// Entries are the desktop entries that exist; each is a name of the bus.
	Entries func() ([]InstalledEntry, error)
	Idle    time.Duration
	Log     *slog.Logger

	ctx context.Context

	mu       sync.Mutex
	busy     int
	uses     chan struct{} // a signal that busy or watchers has changed
	watchers map[string]bool
	vms      map[string]map[string]dbus.Variant
	entries  map[string]InstalledEntry // by name
	running  sync.WaitGroup            // launches
}

// Run serves until it is idle or ctx ends. It returns when everything that it started has
// ended, except the callers' programs, which run on.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.running.Wait()
	defer cancel()
	s.ctx = ctx
	s.uses = make(chan struct{}, 1)
	s.watchers, s.vms, s.entries = map[string]bool{}, map[string]map[string]dbus.Variant{}, map[string]InstalledEntry{}

	ready := make(chan struct{})
	watched := make(chan error, 1)
	go func() {
		var once sync.Once
		watched <- s.Registry.Watch(ctx, "", func(e vm.Event) error {
			if e.Event == vm.EventReady {
				once.Do(func() { close(ready) })
			}
			s.event(e)
			return nil
		})
	}()
	select {
	case <-ready: // properties are complete before anybody can ask
	case err := <-watched:
		return err
	}
	if err := s.export(); err != nil {
		return err
	}
	reply, err := s.Conn.RequestName(BusName, dbus.NameFlagDoNotQueue)
	if err != nil {
		return fmt.Errorf("session bus: %s: %w", BusName, err)
	}
	names, err := s.reload()
	if err != nil {
		return err
	}
	if reply != dbus.RequestNameReplyPrimaryOwner && names == 0 {
		return fmt.Errorf("%s: runs already", BusName)
	}
	if err := s.untilIdle(ctx, watched); err != nil {
		return err
	}
	s.giveUp()
	return nil
}

// untilIdle returns when nobody has needed the service for Idle.
func (s *Service) untilIdle(ctx context.Context, watched <-chan error) error {
	gone := make(chan *dbus.Signal, 64)
	s.Conn.Signal(gone)
	defer s.Conn.RemoveSignal(gone)
	if err := s.Conn.AddMatchSignalContext(ctx, dbus.WithMatchSender("org.freedesktop.DBus"),
		dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged")); err != nil {
		return err
	}
	idle := time.NewTimer(s.Idle)
	defer idle.Stop()
	for {
		select {
		case <-s.uses:
			idle.Reset(s.Idle)
		case <-idle.C:
			if s.idle() {
				return nil
			}
			idle.Reset(s.Idle)
		case n, ok := <-gone:
			if !ok {
				return nil // the bus has gone, and with it all callers
			}
			var name, old, next string
			if n.Sender == "org.freedesktop.DBus" && dbus.Store(n.Body, &name, &old, &next) == nil && next == "" {
				s.unwatch(name)
			}
		case err := <-watched:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy == 0 && len(s.watchers) == 0
}

// giveUp releases our names: later calls start another process. It answers calls that were
// already on their way.
func (s *Service) giveUp() {
	s.mu.Lock()
	names := append(slices.Collect(maps.Keys(s.entries)), BusName)
	s.mu.Unlock()
	for _, n := range names {
		_, _ = s.Conn.ReleaseName(n)
	}
	// Its answer comes after every call that was sent to us by name, so that those are
	// counted by now.
	_ = s.Conn.BusObject().CallWithContext(s.ctx, "org.freedesktop.DBus.GetId", 0).Err
	for !s.idle() {
		select {
		case <-s.uses:
		case <-s.ctx.Done():
			return
		}
	}
}

// enter counts a call in, and out with what it returns.
func (s *Service) enter() func() {
	s.mu.Lock()
	s.busy++
	s.mu.Unlock()
	s.poke()
	return func() {
		s.mu.Lock()
		s.busy--
		s.mu.Unlock()
		s.poke()
	}
}

func (s *Service) poke() {
	select {
	case s.uses <- struct{}{}:
	default:
	}
}

func (s *Service) unwatch(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers[name] {
		delete(s.watchers, name)
		s.poke()
	}
}

// allow refuses a caller that is not a process of this user.
func (s *Service) allow(sender dbus.Sender) *dbus.Error {
	var uid uint32
	err := s.Conn.BusObject().CallWithContext(s.ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, string(sender)).Store(&uid)
	if err != nil || int(uid) != os.Getuid() {
		s.Log.Warn("D-Bus call refused", "sender", string(sender), "uid", uid, "err", err)
		return errorOf("Denied", "this service is for user %d alone", os.Getuid())
	}
	return nil
}

// errorOf makes a typed error.
func errorOf(kind, format string, a ...any) *dbus.Error {
	return dbus.NewError(errorPrefix+kind, []any{plain.Text(fmt.Sprintf(format, a...), maxBody, plain.OneLine)})
}

// errorTyped finds an error's type.
func errorTyped(err error) *dbus.Error {
	var f *vm.Failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f) && f.Code == vm.CodeNotFound:
		return errorOf("ProgramNotFound", "%v", err)
	case errors.As(err, &f) && f.Code == vm.CodeNotExec:
		return errorOf("ProgramNotExecutable", "%v", err)
	}
	return errorOf("Failed", "%v", err)
}

func (s *Service) export() error {
	return errors.Join(
		s.Conn.ExportMethodTable(map[string]any{
			"List": s.list, "Run": s.run, "Stop": s.stop, "Watch": s.watch, "Reload": s.reloadCall,
		}, managerPath, managerInterface),
		s.Conn.ExportMethodTable(map[string]any{
			"Get": s.get, "GetAll": s.getAll, "Set": s.refuseSet,
		}, managerPath, propsInterface),
		s.introspectable(managerPath, managerNode()),
	)
}

func (s *Service) list(sender dbus.Sender) ([]map[string]dbus.Variant, *dbus.Error) {
	defer s.enter()()
	if err := s.allow(sender); err != nil {
		return nil, err
	}
	all, err := s.Registry.List(s.ctx)
	if err != nil {
		return nil, errorTyped(err)
	}
	list := []map[string]dbus.Variant{}
	for _, v := range all {
		list = append(list, describe(v))
	}
	return list, nil
}

func (s *Service) run(sender dbus.Sender, name string, argv []string, options map[string]dbus.Variant) *dbus.Error {
	defer s.enter()()
	if err := s.allow(sender); err != nil {
		return err
	}
	size := 0
	for _, a := range argv {
		size += len(a)
		if strings.ContainsRune(a, 0) {
			return errorOf("InvalidArgs", "an argument with a null byte")
		}
	}
	if err := config.CheckName(name); err != nil {
		return errorOf("InvalidArgs", "%v", err)
	}
	if len(argv) == 0 || argv[0] == "" || len(argv) > maxRunWords || size > maxRunBytes {
		return errorOf("InvalidArgs", "want a program and at most %d words of %d bytes", maxRunWords, maxRunBytes)
	}
	start := Start{VM: name, Argv: argv, Token: token(options)}
	for key, v := range options {
		switch key {
		case "disposable":
			if v.Store(&start.Disposable) != nil {
				return errorOf("InvalidArgs", "disposable: want a boolean")
			}
		case "activation-token", "desktop-startup-id":
		default:
			return errorOf("InvalidArgs", "unknown option %q", plain.Text(key, maxLabel, plain.OneLine))
		}
	}
	return errorTyped(s.Start(s.ctx, start))
}

// token is the activation token of a caller's platform data.
func token(data map[string]dbus.Variant) string {
	for _, key := range []string{"activation-token", "desktop-startup-id"} {
		var t string
		if v, ok := data[key]; ok && v.Store(&t) == nil && t != "" {
			return t
		}
	}
	return ""
}

func (s *Service) stop(sender dbus.Sender, name string, force bool) *dbus.Error {
	defer s.enter()()
	if err := s.allow(sender); err != nil {
		return err
	}
	if err := config.CheckName(name); err != nil {
		return errorOf("InvalidArgs", "%v", err)
	}
	running, err := s.Registry.Names(s.ctx)
	if err != nil {
		return errorTyped(err)
	}
	if !slices.Contains(running, name) {
		return errorOf("NotRunning", "VM %s: not running", name)
	}
	return errorTyped(s.Registry.Stop(s.ctx, name, force))
}

func (s *Service) watch(sender dbus.Sender) *dbus.Error {
	defer s.enter()()
	if err := s.allow(sender); err != nil {
		return err
	}
	s.mu.Lock()
	s.watchers[string(sender)] = true
	s.mu.Unlock()
	// It may have gone before it was noted: then nobody will tell of it again.
	var there bool
	if err := s.Conn.BusObject().CallWithContext(s.ctx, "org.freedesktop.DBus.NameHasOwner", 0, string(sender)).Store(&there); err != nil || !there {
		s.unwatch(string(sender))
	}
	return nil
}

func (s *Service) reloadCall(sender dbus.Sender) *dbus.Error {
	defer s.enter()()
	if err := s.allow(sender); err != nil {
		return err
	}
	_, err := s.reload()
	return errorTyped(err)
}

// reload takes the names of the entries that exist and gives up the others. It returns
// how many it owns.
func (s *Service) reload() (int, error) {
	list, err := s.Entries()
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]InstalledEntry{}
	for _, i := range list {
		found[i.Entry] = i
	}
	for name := range s.entries {
		if _, ok := found[name]; !ok {
			if err := s.offer(name, false); err != nil {
				return 0, err
			}
			delete(s.entries, name)
		}
	}
	for name, i := range found {
		if _, ok := s.entries[name]; !ok {
			if err := s.offer(name, true); err != nil {
				s.Log.Warn("no D-Bus name for an entry", "name", name, "err", err)
				continue
			}
		}
		s.entries[name] = i
	}
	return len(s.entries), nil
}

// offer takes or gives up a name of the bus, with its object.
func (s *Service) offer(name string, take bool) error {
	at := objectPath(name)
	if !take {
		_, err := s.Conn.ReleaseName(name)
		return errors.Join(err, s.Conn.ExportMethodTable(nil, at, appInterface), s.Conn.ExportMethodTable(nil, at, inspectInterface))
	}
	if err := errors.Join(s.Conn.ExportMethodTable(map[string]any{
		"Activate": func(sender dbus.Sender, data map[string]dbus.Variant) *dbus.Error {
			return s.activate(sender, name, "", nil, data)
		},
		"Open": func(sender dbus.Sender, uris []string, data map[string]dbus.Variant) *dbus.Error {
			return s.activate(sender, name, "", uris, data)
		},
		"ActivateAction": func(sender dbus.Sender, action string, _ []dbus.Variant, data map[string]dbus.Variant) *dbus.Error {
			return s.activate(sender, name, action, nil, data)
		},
	}, at, appInterface), s.introspectable(at, appNode())); err != nil {
		return err
	}
	reply, err := s.Conn.RequestName(name, dbus.NameFlagDoNotQueue)
	if err == nil && reply != dbus.RequestNameReplyPrimaryOwner && reply != dbus.RequestNameReplyAlreadyOwner {
		err = errors.New("somebody else has it")
	}
	return err
}

// objectPath is where a name's application object is (Desktop Entry Specification,
// "D-Bus Activation"; name.go).
func objectPath(name string) dbus.ObjectPath {
	return dbus.ObjectPath("/" + strings.NewReplacer(".", "/", "-", "_").Replace(name))
}

// activate begins to start an entry's program, and answers at once: callers wait 25
// seconds at most, and the user sees how it goes.
func (s *Service) activate(sender dbus.Sender, name, action string, files []string, data map[string]dbus.Variant) *dbus.Error {
	defer s.enter()()
	if err := s.allow(sender); err != nil {
		return err
	}
	s.mu.Lock()
	i, ok := s.entries[name]
	s.mu.Unlock()
	switch {
	case !ok:
		return errorOf("NotFound", "%s: no such entry", name)
	case action != "" && !slices.ContainsFunc(Actions, func(a Action) bool { return a.Key == action }):
		return errorOf("InvalidArgs", "unknown action %q", plain.Text(action, maxLabel, plain.OneLine))
	}
	for k, f := range files {
		path, err := LocalPath(f)
		if err != nil {
			return errorOf("InvalidArgs", "%v", err)
		}
		files[k] = path
	}
	leave := s.enter()
	s.running.Go(func() {
		defer leave()
		if err := s.Start(s.ctx, Start{VM: i.VM, App: i.App, Action: action, Files: files, Token: token(data)}); err != nil {
			s.Log.Warn("not started", "entry", name, "err", err)
		}
	})
	return nil
}

// event notes a VM's event, and signals it to listeners.
func (s *Service) event(e vm.Event) {
	s.mu.Lock()
	before := s.names()
	var now map[string]dbus.Variant
	known := s.vms[e.Name]
	switch {
	case e.Event == vm.EventState && e.State != nil:
		now = describe(*e.State)
		s.vms[e.Name] = now
	case e.Event == vm.EventEnded:
		delete(s.vms, e.Name)
	default:
		s.mu.Unlock()
		return
	}
	after := s.names()
	s.mu.Unlock()
	// Emitted only to be heard by chance: nobody depends on it.
	switch {
	case now == nil:
		_ = s.Conn.Emit(managerPath, managerInterface+".VMEnded", e.Name)
	case !reflect.DeepEqual(known, now):
		_ = s.Conn.Emit(managerPath, managerInterface+".VMChanged", e.Name, e.State.State, now)
	}
	if !slices.Equal(before, after) {
		_ = s.Conn.Emit(managerPath, propsInterface+".PropertiesChanged", managerInterface,
			map[string]dbus.Variant{"VMs": dbus.MakeVariant(after)}, []string{})
	}
}

// names are those of the VMs that run. s.mu is held.
func (s *Service) names() []string {
	names := slices.Sorted(maps.Keys(s.vms))
	if names == nil {
		names = []string{}
	}
	return names
}

// describe returns a VM's state for a caller.
func describe(v vm.State) map[string]dbus.Variant {
	programs := []string{}
	for _, p := range v.Programs {
		if p.Exit == nil && len(p.Argv) > 0 {
			programs = append(programs, plain.Text(p.Argv[0], maxName, plain.OneLine))
		}
	}
	return map[string]dbus.Variant{
		"name": dbus.MakeVariant(v.Name), "state": dbus.MakeVariant(v.State), "tag": dbus.MakeVariant(v.Tag),
		"color": dbus.MakeVariant(string(v.Color)), "root": dbus.MakeVariant(v.Root),
		"memory": dbus.MakeVariant(v.Memory), "cpus": dbus.MakeVariant(uint32(v.CPUs)),
		"started":  dbus.MakeVariant(v.Started.Unix()),
		"programs": dbus.MakeVariant(programs), "windows": dbus.MakeVariant(uint32(len(v.Windows))),
	}
}

func (s *Service) properties() map[string]dbus.Variant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]dbus.Variant{"Version": dbus.MakeVariant(s.Version), "VMs": dbus.MakeVariant(s.names())}
}

func (s *Service) get(sender dbus.Sender, iface, name string) (dbus.Variant, *dbus.Error) {
	all, err := s.getAll(sender, iface)
	if err != nil {
		return dbus.Variant{}, err
	}
	v, ok := all[name]
	if !ok {
		return v, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{plain.Text(name, maxLabel, plain.OneLine)})
	}
	return v, nil
}

func (s *Service) getAll(sender dbus.Sender, iface string) (map[string]dbus.Variant, *dbus.Error) {
	defer s.enter()()
	if err := s.allow(sender); err != nil {
		return nil, err
	}
	if iface != managerInterface && iface != "" {
		return nil, dbus.NewError("org.freedesktop.DBus.Error.UnknownInterface", []any{plain.Text(iface, maxLabel, plain.OneLine)})
	}
	return s.properties(), nil
}

func (s *Service) refuseSet(sender dbus.Sender, _, name string, _ dbus.Variant) *dbus.Error {
	defer s.enter()()
	if err := s.allow(sender); err != nil {
		return err
	}
	return dbus.NewError("org.freedesktop.DBus.Error.PropertyReadOnly", []any{plain.Text(name, maxLabel, plain.OneLine)})
}
