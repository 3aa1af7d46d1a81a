package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"vix/internal/agent"
)

// An account is the user that a program runs as: normally the guest's ordinary user. The
// host may ask for any other user of the guest, root too: the guest is its user's own
// machine, and nothing on the host relies on who does what in it.
type account struct {
	name     string
	uid, gid int
	groups   []uint32
	home     string
	shell    string
	ordinary bool
}

// account finds a user by name or number; "" is the ordinary one.
func (g *guest) account(name string) (account, error) {
	u := g.user
	if name == "" || name == u.Name || name == strconv.Itoa(u.UID) {
		return account{name: u.Name, uid: u.UID, gid: u.GID, home: homeOf(u), shell: loginShell(), ordinary: true}, nil
	}
	a, ok := findAccount(readOr("/etc/passwd", ""), readOr("/etc/group", ""), name)
	if !ok {
		return a, &agent.SpawnError{Code: 125, Text: "the guest has no user " + name + "; its own are " + u.Name + " and root"}
	}
	if !isDir(a.home) {
		a.home = "/"
	}
	if a.uid == 0 && !isProgram(a.shell) {
		a.shell = loginShell()
	}
	return a, nil
}

// findAccount looks a user up in the texts of passwd(5) and group(5).
func findAccount(passwd, group, name string) (a account, ok bool) {
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 || f[0] != name && f[2] != name {
			continue
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 31)
		gid, err2 := strconv.ParseUint(f[3], 10, 31)
		if err1 != nil || err2 != nil {
			continue
		}
		a = account{name: f[0], uid: int(uid), gid: int(gid), home: f[5], shell: f[6]}
		ok = true
		break
	}
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if !ok || len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), a.name) {
			continue
		}
		if gid, err := strconv.ParseUint(f[2], 10, 31); err == nil {
			a.groups = append(a.groups, uint32(gid))
		}
	}
	return a, ok
}

func (a account) credential() *syscall.Credential {
	return &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid), Groups: a.groups}
}

// environment returns the ordinary user's environment, with the account's own values in place
// of his. Any user who can reach the display socket may open windows, so its path is given
// in full.
func (a account) environment(g *guest) []string {
	if a.ordinary {
		return g.env
	}
	env := slices.DeleteFunc(slices.Clone(g.env), func(kv string) bool {
		return strings.HasPrefix(kv, "XDG_RUNTIME_DIR=") || strings.HasPrefix(kv, "DBUS_SESSION_BUS_ADDRESS=")
	})
	if getEnv(env, "WAYLAND_DISPLAY") != "" {
		env = mergeEnv(env, []string{"WAYLAND_DISPLAY=" + filepath.Join(runtimeDirOf(g.user), displayName)})
	}
	return mergeEnv(env, []string{"HOME=" + a.home, "USER=" + a.name, "LOGNAME=" + a.name, "SHELL=" + a.shell})
}

// loginShell returns a shell in the guest's root, one for interactive use if there is one.
func loginShell() string {
	if isProgram("/bin/bash") {
		return "/bin/bash"
	}
	return "/bin/sh"
}

func isProgram(path string) bool { return executable(path) == nil }

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
