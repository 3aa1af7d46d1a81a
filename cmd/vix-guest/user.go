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

// settle makes the switched root a home for the host's boot message: the
// user, the name, the loopback. All of it goes to the overlay.
func settle(b agent.Boot) error {
	if err := unix.Sethostname([]byte(b.Hostname)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	// Nothing needs the descriptors more than systemd's default.
	limit := unix.Rlimit{Cur: 1024, Max: 512 << 10}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	_ = os.Mkdir("/root", 0o700) // the view of the host has none, and it may be there
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

// addUser enters the user into the guest's passwd and group, where those of
// the shared root's own people are dropped: a guest has one user, and the
// host's names are none of its business.
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

// People's ids begin at 1000; nobody's is kept.
const (
	firstPerson = 1000
	nobody      = 65534
)

// withoutPeople drops the lines of people, and of a name or id that is ours.
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

// writeEtc names the machine. A new machine-id each boot: a guest is not to be
// recognised, nor to know its host's.
func writeEtc(hostname string) error {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return errors.Join(
		replaceFile("/etc/hostname", hostname+"\n"),
		replaceFile("/etc/hosts", "127.0.0.1 localhost "+hostname+"\n::1 localhost\n"),
		replaceFile("/etc/machine-id", hex.EncodeToString(id)+"\n"),
	)
}

// replaceFile puts a new file in place of an old one without opening that: it
// may be a link out of the tree, and an overlay would copy it up first.
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

// environment is what every program gets. The host's words come last.
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
			// The guest has no GPU that draws: a toolkit that tries one loses seconds.
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

// mergeEnv returns base with the K=V of over in place of its own.
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
