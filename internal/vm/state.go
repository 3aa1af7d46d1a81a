package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/balloon"
	"vix/internal/durable"
	"vix/internal/plain"
	"vix/internal/sandbox"
	"vix/internal/scope"
)

// The states of a VM, as list shows them.
const (
	StateStarting = "starting"
	StateRunning  = "running"
	StateStopping = "stopping"
	// StateNotAnswering is a running VM whose guest has not answered for some seconds.
	StateNotAnswering = "not answering"
	// StateUnresponsive is a client's word for a supervisor that holds its
	// lock and does not answer.
	StateUnresponsive = "unresponsive"
	// StateStopped and StateConfigured are a client's words for a VM that does not run: it
	// has kept something, or config.toml alone knows it.
	StateStopped    = "stopped"
	StateConfigured = "configured"
)

// A State is everything that a supervisor reports of its VM.
type State struct {
	Name  string       `json:"name"`
	State string       `json:"state"`
	Vix   string       `json:"vix"` // the version that started it
	Tag   string       `json:"tag"`
	Color config.Color `json:"color"`
	Root  string       `json:"root"`
	// Outdated: the root's programs have changed since the VM was started.
	Outdated bool   `json:"outdated,omitempty"`
	Accel    string `json:"accel,omitempty"` // "kvm" or "tcg", once it is known
	Memory   uint64 `json:"memory"`          // bytes
	CPUs     int    `json:"cpus"`
	// Scope is the control group of the VM's processes; nil until it is known.
	Scope *scope.Scope `json:"scope,omitempty"`
	// GuestMemory is nil until the guest runs.
	GuestMemory *GuestMemory `json:"guest_memory,omitempty"`
	Started     time.Time    `json:"started,omitzero"`
	Uptime      float64      `json:"uptime"` // seconds since Started
	PIDs        PIDs         `json:"pids"`
	Programs    []Program    `json:"programs"`
	Windows     []Window     `json:"windows"`
	Stages      []Stage      `json:"stages"`
	Notes       []string     `json:"notes"`
	Home        string       `json:"home"` // the host directory that is the guest's home; "" if the VM keeps no home
	Shares      []ShareState `json:"shares"`
	Net         NetState     `json:"net"`
	USB         []USBState   `json:"usb"`
	USBRules    []string     `json:"usb_rules"` // the devices that it gets whenever they are there, as config.ParseUSB reads them
	Clipboard   string       `json:"clipboard"` // its profile, one of config's
	Display     DisplayState `json:"display"`
	// Channel is what carries the agent's channel; empty until it is known.
	Channel ChannelState `json:"channel"`
	// Confinement has the processes' own reports: display, qemu, virtiofsd and supervisor.
	Confinement map[string]Confinement `json:"confinement"`
}

// PIDs are the processes of a VM; 0 where there is none (yet).
type PIDs struct {
	Supervisor int `json:"supervisor"`
	QEMU       int `json:"qemu"`
	Display    int `json:"display"`
	Virtiofsd  int `json:"virtiofsd"`
	Network    int `json:"network"` // passt
}

// A ChannelState is the state of the agent's channel.
type ChannelState struct {
	Kind string `json:"kind"` // "serial" or "vsock"
	By   string `json:"by"`   // who carries it: "qemu" or "kernel"
}

// A DisplayState says what a VM was given of the compositor.
type DisplayState struct {
	Kind  string   `json:"kind"`            // "wayland" or "none"; "" of a version that did not say
	Frame string   `json:"frame"`           // "full", "border" or "none"
	Allow []string `json:"allow,omitempty"` // interfaces besides those that every VM has
}

// DisplayOf returns the display that a configuration gives.
func DisplayOf(v config.VM) DisplayState {
	if v.NoGUI {
		return DisplayState{Kind: "none"}
	}
	allow := slices.DeleteFunc(slices.Clone(v.Allow), func(name string) bool { return slices.Contains(v.Deny, name) })
	return DisplayState{Kind: "wayland", Frame: v.Frame, Allow: allow}
}

// NetOf returns the network that a configuration gives, before anything serves it.
func NetOf(v config.VM) NetState {
	st := NetState{Kind: v.Net, Publish: []string{}}
	for _, p := range v.Publish {
		st.Publish = append(st.Publish, p.String())
	}
	return st
}

// USBRulesOf returns the devices that a configuration gives.
func USBRulesOf(v config.VM) []string {
	list := []string{}
	for _, d := range v.USB {
		list = append(list, d.String())
	}
	return list
}

// A NetState is the state of a VM's network.
type NetState struct {
	Kind    string   `json:"kind"`           // "none" or "nat"
	By      string   `json:"by,omitempty"`   // who serves it: "passt" or "qemu"
	Publish []string `json:"publish"`        // as config.ParsePublish reads them
	Down    bool     `json:"down,omitempty"` // its server has ended
	// Received and Sent are the bytes that the guest's network card has carried. They are the
	// guest's words: neither passt nor QEMU counts bytes.
	Received uint64 `json:"received"`
	Sent     uint64 `json:"sent"`
}

// A Program is one program of a VM.
type Program struct {
	ID    int      `json:"id"`
	Argv  []string `json:"argv"`
	State string   `json:"state"` // "running" or "exited"
	Exit  *Exit    `json:"exit,omitempty"`
}

// A Window is a toplevel, as the display process reports it. Title and app id are as
// shown: with the VM's tag, without control characters.
type Window struct {
	ID    uint64 `json:"id"`
	Title string `json:"title"`
	AppID string `json:"app_id"`
}

// A Stage is a step of the start that is done: "prepared" (kernel and
// initramfs), "qemu" (started), then the guest's own "init", "root", "proxy",
// "network" (an address, where there is a network card), then "ready" (programs can be started) and "window" (the first one shown).
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`          // since the supervisor started
	Uptime  float64 `json:"uptime,omitempty"` // the guest's own clock, seconds since its kernel started
}

// Limits of what a VM's state holds, whatever a guest does.
const (
	MaxWindows  = 512
	MaxTitle    = 256 // bytes
	maxArgs     = 32  // of a program
	maxExited   = 32  // ended programs in a state
	MaxVMStages = 32
)

// A savedStateFile is state.json.
type savedStateFile struct {
	Version int `json:"version"`
	State
}

// stateVersion is the version of state.json: change it when an older file would be misread.
const stateVersion = 1

// SaveState writes state.json in one step.
func SaveState(dir *os.Root, s State) error {
	b, err := json.MarshalIndent(savedStateFile{stateVersion, s}, "", "\t")
	if err != nil {
		return err
	}
	return durable.Replace(dir, StateName, 0o600, append(b, '\n'))
}

// LoadState reads the state.json of the VM name. A file of another version counts as if it
// had the name alone.
func LoadState(dir *os.Root, name string) (State, error) {
	b, err := dir.ReadFile(filepath.Join(name, StateName))
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, err
	}
	var file savedStateFile
	if err != nil || json.Unmarshal(b, &file) != nil || file.Version != stateVersion {
		return State{Name: name}, nil
	}
	return file.State, nil
}

// SlowNote begins the note of a VM that is emulated for want of KVM.
const SlowNote = "no KVM, so VM "

// Traffic notes the guest's words about its network.
func (n *NetState) Traffic(t agent.Traffic) { n.Received, n.Sent = t.Received, t.Sent }

// Clone returns a copy that shares nothing that changes.
func (s State) Clone() State {
	s.Programs = slices.Clone(s.Programs)
	s.Windows = slices.Clone(s.Windows)
	s.Stages = slices.Clone(s.Stages)
	s.Notes = slices.Clone(s.Notes)
	s.Uptime = time.Since(s.Started).Seconds()
	return s
}

// ShownArgv returns as much of a command line as a state holds.
func ShownArgv(argv []string) []string {
	list := slices.Clone(argv[:min(len(argv), maxArgs)])
	for i := range list {
		list[i] = plain.Text(list[i], MaxTitle, plain.OneLine)
	}
	return list
}

// AddProgram appends p and forgets the oldest that have ended.
func (s *State) AddProgram(p Program) {
	ended := 0
	for _, q := range s.Programs {
		if q.Exit != nil {
			ended++
		}
	}
	s.Programs = slices.DeleteFunc(s.Programs, func(q Program) bool {
		if q.Exit == nil || ended <= maxExited {
			return false
		}
		ended--
		return true
	})
	s.Programs = append(s.Programs, p)
}

// EndProgram notes how program id ended.
func (s *State) EndProgram(id int, e *Exit) {
	for i := range s.Programs {
		if s.Programs[i].ID == id {
			s.Programs[i].State, s.Programs[i].Exit = "exited", e
		}
	}
}

// A ShareState is the state of a share.
type ShareState struct {
	Host  string `json:"host"`
	Guest string `json:"guest"`
	Write bool   `json:"write"`
	PID   int    `json:"pid"` // of its virtiofsd; 0 if that has ended
}

// A USBState is the state of a device that a VM has.
type USBState struct {
	Port string `json:"port"`
	ID   string `json:"id"`
	Name string `json:"name"`
	Rule bool   `json:"rule"` // by the configuration, not by hand
}

// A GuestMemory describes a guest's memory, in bytes. All but Size are the guest's words.
type GuestMemory struct {
	Size uint64 `json:"size"` // the part of the VM's memory that it may use now
	balloon.Stats
}

// A Confinement is the report of a VM's process about its confinement.
type Confinement struct {
	PID int `json:"pid"`
	sandbox.Report
}

// OutdatedText is the note for the user about a VM whose State is Outdated.
func OutdatedText(name, root string) string {
	return fmt.Sprintf("VM %s: programs of its root %s have changed since it started, and it sees some old and some new; stop it and run it again", name, root)
}
