package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

func homeOf(u agent.User) string       { return "/home/" + u.Name }
func runtimeDirOf(u agent.User) string { return "/run/user/" + strconv.Itoa(u.UID) }

// settle applies the host's boot message to the switched root: the user, the name, the
// loopback. All changes go to the overlay.
func settle(b agent.Boot) error {
	if err := unix.Sethostname([]byte(b.Hostname)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	// No program needs more descriptors than systemd's default.
	limit := unix.Rlimit{Cur: 1024, Max: 512 << 10}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	_ = os.Mkdir("/root", 0o700) // the view of the host has no /root; another root may have one
	if err := errors.Join(addUser(b.User), makeRuntimeDir(b.User), writeEtc(b.Hostname)); err != nil {
		return err
	}
	for _, m := range b.Mounts {
		if err := mountShare(m); err != nil {
			return err
		}
	}
	return nil
}

// addUser adds the user to the guest's passwd and group, and drops the people of the shared
// root: a guest has one user, and does not need to know the host's names.
func addUser(u agent.User) error {
	passwd := fmt.Sprintf("%s:x:%d:%d:%s:%s:%s\n", u.Name, u.UID, u.GID, u.Name, homeOf(u), loginShell())
	group := fmt.Sprintf("%s:x:%d:\n", u.Name, u.GID)
	if err := replaceFile("/etc/passwd", withoutPeople(readOr("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), u.Name, u.UID)+passwd); err != nil {
		return err
	}
	if err := replaceFile("/etc/group", withoutPeople(readOr("/etc/group", "root:x:0:\n"), u.Name, u.GID)+group); err != nil {
		return err
	}
	if err := os.MkdirAll("/home", 0o755); err != nil {
		return err
	}
	return ownedDir(homeOf(u), u)
}

// The ids of people begin at 1000; nobody's id is kept.
const (
	firstPerson = 1000
	nobody      = 65534
)

// withoutPeople drops the lines of people, and any line with our name or id.
func withoutPeople(file, name string, id int) string {
	var out strings.Builder
	for line := range strings.Lines(file) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 {
			continue
		}
		n, err := strconv.Atoi(f[2])
		if err != nil || f[0] == name || n == id || n >= firstPerson && n != nobody {
			continue
		}
		out.WriteString(strings.TrimSpace(line) + "\n")
	}
	return out.String()
}

func makeRuntimeDir(u agent.User) error {
	if err := os.MkdirAll("/run/user", 0o755); err != nil {
		return err
	}
	return ownedDir(runtimeDirOf(u), u)
}

func ownedDir(path string, u agent.User) error {
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	return errors.Join(os.Chown(path, u.UID, u.GID), os.Chmod(path, 0o700))
}

// writeEtc names the machine. It gets a new machine-id at each boot: a guest should not be
// recognisable, nor know its host's id.
func writeEtc(hostname string) error {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return errors.Join(
		replaceFile("/etc/hostname", hostname+"\n"),
		replaceFile("/etc/hosts", "127.0.0.1 localhost "+hostname+"\n::1 localhost\n"),
		replaceFile("/etc/machine-id", hex.EncodeToString(id)+"\n"),
	)
}

// replaceFile replaces a file without opening the old one: that may be a link out of the tree,
// and an overlay would copy it up first.
func replaceFile(path, content string) error {
	temp := path + ".vix"
	if err := os.WriteFile(temp, []byte(content), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func readOr(path, fallback string) string {
	if b, err := os.ReadFile(path); err == nil {
		return string(b)
	}
	return fallback
}

// environment returns the environment of every program. The host's values come last.
func environment(b agent.Boot, display, bus bool) []string {
	home, run := homeOf(b.User), runtimeDirOf(b.User)
	env := []string{
		"HOME=" + home,
		"USER=" + b.User.Name,
		"LOGNAME=" + b.User.Name,
		"SHELL=" + loginShell(),
		"PATH=" + agent.UserPath,
		"LANG=C.UTF-8",
		"XDG_RUNTIME_DIR=" + run,
		"NO_AT_BRIDGE=1", "GTK_A11Y=none", // no accessibility bus in a guest
	}
	if display {
		env = append(env,
			"WAYLAND_DISPLAY="+displayName,
			"XDG_SESSION_TYPE=wayland",
			"GDK_BACKEND=wayland",
			"QT_QPA_PLATFORM=wayland",
			"MOZ_ENABLE_WAYLAND=1",
			// The guest has no GPU with drawing support: a toolkit that tries it loses seconds.
			"GSK_RENDERER=cairo",
			"LIBGL_ALWAYS_SOFTWARE=1",
			"QT_QUICK_BACKEND=software",
		)
	}
	if bus {
		env = append(env, "DBUS_SESSION_BUS_ADDRESS=unix:path="+run+"/"+busName)
	}
	return mergeEnv(env, b.Env)
}

// mergeEnv returns base with the K=V of over replacing its own.
func mergeEnv(base, over []string) []string {
	out := slices.Clone(base)
	for _, kv := range over {
		key, _, ok := strings.Cut(kv, "=")
		if !ok || key == "" {
			continue
		}
		out = slices.DeleteFunc(out, func(s string) bool { return strings.HasPrefix(s, key+"=") })
		out = append(out, kv)
	}
	return out
}

func getEnv(env []string, key string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}
