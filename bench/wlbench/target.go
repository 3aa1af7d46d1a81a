package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A target is one way from the client to the compositor. With no commands it is
// the compositor's own socket. In argv, env, wait and listen these are replaced:
// {self} this program, {dir} a directory of this target's own, {upstream} the
// compositor's socket, {listen} the socket that the last command makes.
type target struct {
	Name     string    `json:"name"`
	Cmds     []command `json:"cmds"`
	Listen   string    `json:"listen"`    // {listen}, if the proxy chooses its name: default "{dir}/in.sock"
	SkipComm []string  `json:"skip_comm"` // helper processes not to be counted
}

type command struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	Wait string   `json:"wait"` // the socket that it makes (default {listen} for the last)
}

// Names of targets that the goals refer to.
const (
	relayName = "relay"
	oursName  = "vix"
)

// ownTargets are the ways that make bench compares. The note is for the user.
func ownTargets(bin string) (ts []target, note string) {
	ts = []target{
		{Name: "direct"},
		{Name: relayName, Cmds: []command{{Argv: []string{"{self}", "relay", "-listen", "{listen}", "-upstream", "{upstream}"}}}},
		{Name: oursName, Cmds: []command{{Argv: localProxy(bin, "{listen}", "{upstream}")}}},
	}
	waypipe, err := exec.LookPath("waypipe")
	if err != nil {
		return ts, "waypipe is left out: it is not on PATH; Debian's package waypipe has it"
	}
	return append(ts, target{Name: "waypipe", SkipComm: []string{"sleep"}, Cmds: []command{
		{Argv: []string{waypipe, "--socket", "{dir}/wp.sock", "client"}, Env: []string{"WAYLAND_DISPLAY={upstream}"}, Wait: "{dir}/wp.sock"},
		{Argv: []string{waypipe, "--socket", "{dir}/wp.sock", "--display", "{listen}", "server", "--", "sleep", "3600"}},
	}}), ""
}

func localProxy(bin, listen, upstream string) []string {
	return []string{filepath.Join(bin, "vix-waylandproxy"), "local",
		"--listen", listen, "--upstream", upstream, "--vm", "bench", "--tag", "bench"}
}

func readTargets(file string) ([]target, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var ts []target
	if err := json.Unmarshal(b, &ts); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return ts, nil
}

// A starter starts programs, and ends them with all that they started.
type starter struct {
	started []process
	log     *os.File // for their output
}

type process struct {
	pid  int
	gone chan struct{} // closed when it has ended
}

// start must be called from a locked thread: the children die with it.
func (s *starter) start(argv, env []string) error {
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), env...)
	c.Stdout, c.Stderr = s.log, s.log
	c.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if err := c.Start(); err != nil {
		return err
	}
	p := process{c.Process.Pid, make(chan struct{})}
	s.started = append(s.started, p)
	go func() {
		_ = c.Wait() // how it ends does not matter
		close(p.gone)
	}()
	return nil
}

func (s *starter) pids() []int {
	pids := make([]int, len(s.started))
	for i, p := range s.started {
		pids[i] = p.pid
	}
	return pids
}

// waitSocket waits until the program that was started last listens at path.
func (s *starter) waitSocket(ctx context.Context, path string) error {
	return waitSocket(ctx, path, s.started[len(s.started)-1].gone)
}

// stopPatience is how long a program may take to end before it is killed.
const stopPatience = 2 * time.Second

// stop ends each program by its process group.
func (s *starter) stop() {
	for _, p := range slices.Backward(s.started) {
		kill := func() { _ = unix.Kill(-p.pid, unix.SIGKILL) } // gone is as good
		if unix.Kill(-p.pid, unix.SIGTERM) != nil {
			kill()
		}
		t := time.AfterFunc(stopPatience, kill)
		<-p.gone
		t.Stop()
		kill() // what is left of the group
	}
	s.started = nil
}

// startPatience is how long a program may take to make its socket.
const startPatience = 5 * time.Second

// waitSocket waits until somebody listens at path, or gone is closed. The kernel's
// table has no event, so it is looked at again and again; a connection would
// already be load.
func waitSocket(ctx context.Context, path string, gone <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for !listening(path) {
		select {
		case <-gone:
			return fmt.Errorf("the program that was to make socket %s has ended", path)
		case <-ctx.Done():
			return fmt.Errorf("socket %s did not appear", path)
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// listening looks into /proc/net/unix (proc_pid_net(5)): of its columns the fourth
// is flags, of which __SO_ACCEPTCON is the only one, and the last the path as it
// was bound: waypipe binds a name in its working directory.
func listening(path string) bool {
	if _, err := os.Lstat(path); err != nil {
		return false
	}
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		if len(f) == 8 && f[3] == "00010000" && (f[7] == path || f[7] == filepath.Base(path)) {
			return true
		}
	}
	return false
}

// A setup is one target, running.
type setup struct {
	t        target
	dir      string
	self     string
	server   starter // the null compositor
	proxy    starter
	upstream string
	listen   string
}

// newSetup makes the target's directory; start and stop may then be called in
// turn. The caller closes it.
func newSetup(t target, self, dir string) (*setup, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	s := &setup{t: t, dir: dir, self: self, upstream: filepath.Join(dir, "up.sock")}
	s.server.log, s.proxy.log = log, log
	s.listen = s.upstream
	if len(t.Cmds) > 0 {
		s.listen = filepath.Join(dir, "in.sock")
		if t.Listen != "" {
			s.listen = strings.ReplaceAll(t.Listen, "{dir}", dir)
		}
	}
	return s, nil
}

func (s *setup) close() {
	s.stop()
	s.server.log.Close()
}

func (s *setup) stop() {
	s.proxy.stop()
	s.server.stop()
}

func (s *setup) start(ctx context.Context) error {
	if err := s.server.start([]string{s.self, "server", "-socket", s.upstream}, nil); err != nil {
		return err
	}
	if err := s.server.waitSocket(ctx, s.upstream); err != nil {
		return err
	}
	rep := strings.NewReplacer("{self}", s.self, "{dir}", s.dir, "{upstream}", s.upstream, "{listen}", s.listen)
	for i, c := range s.t.Cmds {
		if err := s.startProxy(ctx, c, rep, i == len(s.t.Cmds)-1); err != nil {
			return fmt.Errorf("%w%s", err, s.logTail())
		}
	}
	return nil
}

func (s *setup) startProxy(ctx context.Context, c command, rep *strings.Replacer, last bool) error {
	wait := c.Wait
	if wait == "" && last {
		wait = "{listen}"
	}
	if wait = rep.Replace(wait); wait != "" {
		os.Remove(wait) // what an earlier start left
	}
	replaced := func(in []string) (out []string) {
		for _, a := range in {
			out = append(out, rep.Replace(a))
		}
		return out
	}
	if err := s.proxy.start(replaced(c.Argv), replaced(c.Env)); err != nil || wait == "" {
		return err
	}
	return s.proxy.waitSocket(ctx, wait)
}

// logTail is the last that the target's programs said, for an error.
func (s *setup) logTail() string {
	b, err := os.ReadFile(s.server.log.Name())
	b = []byte(strings.TrimSpace(string(b)))
	if err != nil || len(b) == 0 {
		return ""
	}
	const most = 500
	return ": " + string(b[max(0, len(b)-most):])
}
