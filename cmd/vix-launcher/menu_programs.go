package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"vix/internal/menu/session"
)

// The programs of a menu, and the other parts of this machine and its user that it needs
// (package session).

// menuHost returns the parts of this machine that a menu uses.
func (e *env) menuHost() session.Host {
	return session.Host{
		Launcher: e.launcher(),
		Locale:   cmp.Or(e.getenv("LC_ALL"), e.getenv("LC_CTYPE"), e.getenv("LANG"), "C"), // as setlocale(3) finds it
		Language: cmp.Or(e.getenv("LC_ALL"), e.getenv("LC_MESSAGES"), e.getenv("LANG"), "C"),
		DataDirs: e.dataDirs(),
		Log:      e.stderr,
		Programs: session.Programs{
			Menu: e.startMenu, Chooser: e.choose, Verb: e.verb, Shell: e.openShell, Font: e.fontFile, Rasterise: e.rasterise,
		},
	}
}

// startMenu starts vix-menu. When it is asked to end, it closes its window by itself; earlier
// choices are still carried out.
func (e *env) startMenu(ctx context.Context) (*session.Child, error) {
	path, err := e.siblingPath("vix-menu")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = io.MultiWriter(e.stderr, &e.menuWords) // may contain names that a guest chose
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &session.Child{Stdin: in, Stdout: out, Wait: cmd.Wait}, nil
}

// checkChooser checks that the menu in a --dmenu command exists, if the command names one.
func (e *env) checkChooser(command string) error {
	if command == "" {
		return nil
	}
	words := strings.Fields(command)
	if len(words) == 0 {
		return usagef("menu: --dmenu: COMMAND is empty; try --dmenu fuzzel")
	}
	if _, err := e.look(filepath.Base(words[0])); err != nil && !filepath.IsAbs(words[0]) {
		return fmt.Errorf("menu: --dmenu %s: %w", clip(words[0]), err)
	}
	return nil
}

// choose runs another menu. A shell parses the command, as in sway's configuration.
func (e *env) choose(ctx context.Context, command string, args []string, lines []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", "exec " + command + ` "$@"`, "sh"}, args...)...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(lines), e.stderr
	cmd.Env = e.environ()
	return cmd.Output()
}

// verb runs another verb and returns its output; an error contains the verb's own message.
func (e *env) verb(ctx context.Context, args ...string) ([]byte, error) {
	cmd, err := e.again(ctx, args...)
	if err != nil {
		return nil, err
	}
	var words bytes.Buffer
	cmd.Env, cmd.Stderr = e.environ(), &words
	out, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(words.String()), "\n")
		if last := strings.TrimPrefix(lines[len(lines)-1], "vix: "); last != "" {
			return nil, errors.New(last)
		}
		return nil, fmt.Errorf("vix %s: %w", args[0], err)
	}
	return out, nil
}

// fontFile returns the file of the best matching font; "" if it is unknown.
func (e *env) fontFile(ctx context.Context, pattern string) string {
	tool, err := e.look("fc-match")
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, tool, "-f", "%{file}", pattern).Output()
	if err != nil || bytes.ContainsRune(out, '\n') {
		return ""
	}
	return string(out)
}

// terminals are programs that run a command in a window, in order of preference.
var terminals = [][]string{
	{"xdg-terminal-exec"}, {"foot"}, {"alacritty", "-e"}, {"kitty"}, {"ghostty", "-e"}, {"wezterm", "start"},
	{"konsole", "-e"}, {"gnome-terminal", "--"}, {"xterm", "-e"},
}

// openShell opens a terminal with a shell of the VM, which outlives the menu.
func (e *env) openShell(name, token string) error {
	argv, err := e.terminalArgv()
	if err != nil {
		return err
	}
	self, err := e.self()
	if err != nil {
		return err
	}
	cmd := exec.Command(argv[0], append(argv[1:], self, "shell", name)...)
	cmd.Env = e.environ()
	if token != "" {
		cmd.Env = append(cmd.Env, "XDG_ACTIVATION_TOKEN="+token)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

func (e *env) terminalArgv() ([]string, error) {
	if t := e.getenv("TERMINAL"); t != "" {
		if path, err := e.look(t); err == nil {
			i := slices.IndexFunc(terminals, func(known []string) bool { return known[0] == filepath.Base(t) })
			if i >= 0 {
				return append([]string{path}, terminals[i][1:]...), nil
			}
			return []string{path, "-e"}, nil
		}
	}
	for _, t := range terminals {
		if path, err := e.look(t[0]); err == nil {
			return append([]string{path}, t[1:]...), nil
		}
	}
	return nil, errors.New("no terminal is installed; install foot, or set TERMINAL")
}

// dataDirs returns the directories of the XDG base directory specification, the user's first.
func (e *env) dataDirs() []string {
	var dirs []string
	if home, err := e.xdg("XDG_DATA_HOME", ".local/share"); err == nil {
		dirs = append(dirs, home)
	}
	for _, d := range filepath.SplitList(cmp.Or(e.getenv("XDG_DATA_DIRS"), "/usr/local/share:/usr/share")) {
		if filepath.IsAbs(d) && !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}
