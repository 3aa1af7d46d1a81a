// Package scope puts the processes of a VM into a control group of their own, so that their
// processor share and memory bound can be set, and desktops see a VM as one application.
//
//	session bus ── org.freedesktop.systemd1 ── StartTransientUnit
//	      app-graphical.slice/app-vix-NAME-PID.scope            (Kind "scope")
//	no systemd on the bus: a directory beside our own group     (Kind "group")
//	no writable group: nothing                                  (Kind "none")
//
// The calling process enters the group, and its later children are in it too. The package ends
// no process, and works without root: Weaker lists what it could not have.
package scope

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Kinds of groups.
const (
	KindScope = "scope"
	KindGroup = "group"
	KindNone  = "none"
)

// A Config holds the inputs of Enter.
type Config struct {
	Name   string // of the VM
	Weight int    // cgroup v2's cpu.weight, 1 … 10000
	Memory int64  // memory bound of the group, in bytes (Budget.Max); 0: none
	PID    int    // the process that enters: the caller
	Bus    string // D-Bus address of the session's bus, or ""
	Proc   string // /proc
}

// A Scope is the control group of the VM's processes.
type Scope struct {
	Kind   string   `json:"kind"`
	Name   string   `json:"name,omitempty"`   // name of a unit, or a directory
	Memory int64    `json:"memory,omitempty"` // memory bound at entry, in bytes; 0: none
	Weaker []string `json:"weaker,omitempty"` // what is missing, and why
	home   string   // Kind "group": the process's previous group
	bus    string   // Kind "scope": the bus's address
	pid    int
}

// Enter puts the process into a new group. It always returns a Scope.
func Enter(ctx context.Context, c Config) Scope {
	unit, err := startUnit(ctx, c)
	if err == nil {
		return Scope{Kind: KindScope, Name: unit, Memory: c.Memory, bus: c.Bus}
	}
	s := Scope{Kind: KindNone, Weaker: []string{fmt.Sprintf("no scope: %v", err)}}
	own, err := ownGroup(c.Proc, c.PID)
	if err != nil {
		s.Weaker = append(s.Weaker, fmt.Sprintf("no control group: %v", err))
		return s
	}
	dir, err := makeGroup(own, c)
	if err != nil {
		s.Weaker = append(s.Weaker, fmt.Sprintf("no control group: %v", err))
		return s
	}
	s.Kind, s.Name, s.home, s.pid = KindGroup, dir, own, c.PID
	err = writeGroup(dir, "cpu.weight", strconv.Itoa(c.Weight))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Weaker = append(s.Weaker, "no share of the processors: the cpu controller is not given to "+filepath.Dir(dir))
	case err != nil:
		s.Weaker = append(s.Weaker, fmt.Sprintf("no share of the processors: %v", err))
	}
	if c.Memory > 0 {
		if err := boundGroup(dir, c.Memory); err != nil {
			s.Weaker = append(s.Weaker, err.Error())
		} else {
			s.Memory = c.Memory
		}
	}
	return s
}

// leaveLimit bounds the wait for processes that are ending: they are children of children,
// which this process cannot wait for.
const leaveLimit = 2 * time.Second

// Leave moves the process out and removes the group, whose other processes must have ended.
// A systemd scope ends by itself, with its last process.
func (s Scope) Leave() error {
	if s.Kind != KindGroup {
		return nil
	}
	if err := writeGroup(s.home, "cgroup.procs", strconv.Itoa(s.pid)); err != nil {
		return err
	}
	return removeEmpty(s.Name, time.Now().Add(leaveLimit))
}

// removeEmpty removes a group as soon as it is empty.
func removeEmpty(dir string, deadline time.Time) error {
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		// Any change after this reading ends the wait below.
		if _, err := events.ReadAt(make([]byte, 256), 0); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		err := os.Remove(dir)
		left := time.Until(deadline)
		if !errors.Is(err, unix.EBUSY) || left <= 0 {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// RemoveLeft removes the group of the VM name whose supervisor was killed. The kernel refuses
// with EBUSY while the group contains processes.
func (s Scope) RemoveLeft(name string) error {
	if s.Kind != KindGroup || !isGroupOf(s.Name, name) {
		return nil
	}
	if err := os.Remove(s.Name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// UnitName is the name of a VM's unit, in the desktop's convention
// (systemd.io/DESKTOP_ENVIRONMENTS: app-<launcher>-<name>-<random>.scope).
func UnitName(name string, pid int) string {
	return fmt.Sprintf("app-vix-%s-%d.scope", strings.ReplaceAll(name, "-", `\x2d`), pid)
}

const (
	systemd     = "org.freedesktop.systemd1"
	systemdPath = "/org/freedesktop/systemd1"
	manager     = systemd + ".Manager"
	appSlice    = "app-graphical.slice"
)

var errNoBus = errors.New("no session bus")

// connect joins the session's bus. It accepts only a socket on this machine: desktops use no
// other transport, and one of the others would start a program.
func connect(ctx context.Context, address string) (*dbus.Conn, error) {
	if address == "" {
		return nil, errNoBus
	}
	if !strings.HasPrefix(address, "unix:") {
		return nil, fmt.Errorf("session bus at %q: not a socket of this machine's", address)
	}
	conn, err := dbus.Dial(address, dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("session bus: %w", err)
	}
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("session bus: %w", err), conn.Close())
	}
	return conn, nil
}

// property is a (sv) of StartTransientUnit.
type property struct {
	Name  string
	Value dbus.Variant
}

// aux is a (sa(sv)): units that come with one; there are none.
type aux struct {
	Name       string
	Properties []property
}

// startUnit makes the scope, and returns its name when the process is in it.
func startUnit(ctx context.Context, c Config) (string, error) {
	conn, err := connect(ctx, c.Bus)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(systemd), dbus.WithMatchInterface(manager), dbus.WithMatchMember("JobRemoved")); err != nil {
		return "", fmt.Errorf("session bus: %w", err)
	}
	removed := make(chan *dbus.Signal, 16)
	conn.Signal(removed)
	name := UnitName(c.Name, c.PID)
	properties := []property{
		{"Description", dbus.MakeVariant("Vix: the VM " + c.Name)},
		{"PIDs", dbus.MakeVariant([]uint32{uint32(c.PID)})},
		{"Slice", dbus.MakeVariant(appSlice)},
		{"CPUWeight", dbus.MakeVariant(uint64(c.Weight))},
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")},
	}
	if c.Memory > 0 {
		properties = append(properties, memoryMax(c.Memory))
	}
	var job dbus.ObjectPath
	call := conn.Object(systemd, systemdPath).CallWithContext(ctx, manager+".StartTransientUnit", dbus.FlagNoAutoStart, name, "fail", properties, []aux{})
	if err := call.Store(&job); err != nil {
		return "", fmt.Errorf("systemd of the session: %w", err)
	}
	for {
		select {
		case s, ok := <-removed:
			if !ok {
				return "", errors.New("systemd of the session: the bus is gone")
			}
			// (u id, o job, s unit, s result)
			if len(s.Body) == 4 && s.Body[1] == job {
				if s.Body[3] != "done" {
					return "", fmt.Errorf("systemd of the session: %s: %v", name, s.Body[3])
				}
				return name, nil
			}
		case <-ctx.Done():
			return "", fmt.Errorf("systemd of the session: %w", ctx.Err())
		}
	}
}

// Probe returns, for doctor, the kind of group that VMs get, with missing features in Weaker.
func Probe(ctx context.Context, c Config) Scope {
	s := Scope{Kind: KindNone}
	conn, err := connect(ctx, c.Bus)
	if err == nil {
		defer conn.Close()
		var owned bool
		err = conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, systemd).Store(&owned)
		if err == nil && owned {
			return Scope{Kind: KindScope, Name: appSlice}
		}
		if err == nil {
			err = errors.New("no systemd on the session bus")
		}
	}
	s.Weaker = append(s.Weaker, fmt.Sprintf("no scope: %v", err))
	own, err := ownGroup(c.Proc, c.PID)
	if err == nil {
		dir := parent(own)
		if err = unix.Access(dir, unix.W_OK); err != nil {
			err = fmt.Errorf("%s: %w", dir, err)
		} else {
			s.Kind, s.Name = KindGroup, dir
			list, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
			has := strings.Fields(string(list))
			if !slices.Contains(has, "cpu") {
				s.Weaker = append(s.Weaker, "no share of the processors: no cpu controller in "+dir)
			}
			if !slices.Contains(has, "memory") {
				s.Weaker = append(s.Weaker, "no bound of a VM's memory: no memory controller in "+dir)
			}
		}
	}
	if err != nil {
		s.Weaker = append(s.Weaker, fmt.Sprintf("no control group: %v", err))
	}
	return s
}

// parent returns the directory in which a VM's group is made: beside the process's own group,
// because a group with processes cannot pass its controllers on to groups below it. It is
// the process's own group only at the top, where that is allowed.
func parent(own string) string {
	dir := filepath.Dir(own)
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return own
	}
	return dir
}

// ownGroup returns the directory of a process's control group (version 2).
func ownGroup(proc string, pid int) (string, error) {
	groups, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return "", err
	}
	path, ok := "", false
	for line := range strings.Lines(string(groups)) {
		if p, is := strings.CutPrefix(strings.TrimSpace(line), "0::"); is {
			path, ok = p, true
		}
	}
	if !ok || !filepath.IsAbs(path) {
		return "", errors.New("this machine has no cgroup version 2")
	}
	mounts, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "mountinfo"))
	if err != nil {
		return "", err
	}
	// proc_pid_mountinfo(5): id parent dev root mountpoint options … - type source options
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		for i := range f {
			if f[i] == "-" && i >= 5 && i+1 < len(f) && f[i+1] == "cgroup2" {
				below, err := filepath.Rel(f[3], path)
				if err != nil || below == ".." || strings.HasPrefix(below, "../") {
					return "", fmt.Errorf("our control group %s is not to be seen here", path)
				}
				return filepath.Join(f[4], below), nil
			}
		}
	}
	return "", errors.New("cgroup version 2 is not mounted")
}

// makeGroup makes a group and moves the process there.
func makeGroup(own string, c Config) (string, error) {
	dir := filepath.Join(parent(own), fmt.Sprintf("vix-%s-%d", c.Name, c.PID))
	removeStale(filepath.Dir(dir), c)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if err := writeGroup(dir, "cgroup.procs", strconv.Itoa(c.PID)); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}

// removeStale removes groups of this VM that a killed supervisor left.
func removeStale(dir string, c Config) {
	old, err := filepath.Glob(filepath.Join(dir, "vix-"+c.Name+"-*"))
	if err != nil {
		return
	}
	for _, path := range old {
		if !isGroupOf(path, c.Name) {
			continue // belongs to a VM NAME-SOMETHING
		}
		pid := strings.TrimPrefix(filepath.Base(path), "vix-"+c.Name+"-")
		if _, err := os.Stat(filepath.Join(c.Proc, pid)); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(path) // refused while it contains processes
		}
	}
}

// isGroupOf reports whether path is a group that makeGroup made for that VM.
func isGroupOf(path, name string) bool {
	pid, ok := strings.CutPrefix(filepath.Base(path), "vix-"+name+"-")
	return ok && pid != "" && strings.Trim(pid, "0123456789") == ""
}

// writeGroup writes a number into an existing file of a group.
func writeGroup(dir, file, number string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(number)
	return errors.Join(err, f.Close())
}
