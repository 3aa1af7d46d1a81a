package main

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"vix/internal/agent"
)

// A program's language, time zone and terminal are the host's, as far as the root knows them:
// another root than the host's may lack the locale, the zone's file, or the terminal's entry.
// All is looked up when the program starts, as packages may come and go.

// withHabits returns a program's environment before the variables that its Spawn has: the
// language, if the root has it, and the time zone.
func withHabits(root string, env []string, zone agent.Zone) []string {
	env = fitLocales(root, env)
	if tz := timeZone(root, zone); tz != "" {
		env = mergeEnv([]string{"TZ=" + tz}, env)
	}
	return env
}

// timeZone returns the value of TZ: the zone's name if the root has the file, else its rule.
func timeZone(root string, z agent.Zone) string {
	for _, dir := range []string{"usr/share/zoneinfo", "etc/zoneinfo"} { // the second is NixOS's
		if z.Name != "" && isFile(filepath.Join(root, dir, z.Name)) {
			return z.Name
		}
	}
	return z.Rule
}

// plainLocale is the locale that every root has: glibc has it built in since 2.35, and Debian's
// has it longer.
const plainLocale = "C.UTF-8"

// fitLocales puts plainLocale in the place of locales that the root's glibc lacks, which it
// would take for "C", and perl for a reason to complain. Another libc has no such files, and
// takes any name.
func fitLocales(root string, env []string) []string {
	if musl, _ := filepath.Glob(filepath.Join(root, "lib/ld-musl-*")); len(musl) > 0 {
		return env
	}
	out := make([]string, 0, len(env))
	for _, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		if (key == "LANG" || strings.HasPrefix(key, "LC_")) && value != "" && !hasLocale(root, value) {
			kv = key + "=" + plainLocale
		}
		out = append(out, kv)
	}
	return out
}

// hasLocale reports whether setlocale(3) finds a locale in the root.
func hasLocale(root, name string) bool {
	if strings.Contains(name, "/") || name == "." || name == ".." {
		return false
	}
	names := []string{name, normalLocale(name)}
	if name == "C" || name == "POSIX" || names[1] == "C.utf8" {
		return true
	}
	dir := filepath.Join(root, "usr/lib/locale")
	for _, n := range names {
		if isFile(filepath.Join(dir, n, "LC_CTYPE")) {
			return true
		}
	}
	f, err := os.Open(filepath.Join(dir, "locale-archive"))
	if err != nil {
		return false
	}
	defer f.Close()
	return archiveHas(f, names)
}

// normalLocale writes the character set in a locale's name as glibc does: "en_US.utf8".
func normalLocale(name string) string {
	lang, rest, ok := strings.Cut(name, ".")
	if !ok {
		return name
	}
	charset, modifier, ok := strings.Cut(rest, "@")
	digits := true
	charset = strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
			fallthrough
		case r >= 'a' && r <= 'z':
			digits = false
			return r
		case r >= '0' && r <= '9':
			return r
		}
		return -1
	}, charset)
	if digits {
		charset = "iso" + charset
	}
	if ok {
		modifier = "@" + modifier
	}
	return lang + "." + charset + modifier
}

// The head of glibc's locale-archive (locarchive.h) has numbers of 32 bits in the machine's
// order:
//
//	magic, serial, names: offset, used, size; strings: offset, used, size; …
//
// names is a hash table of (hash, offset of the name, offset of the locale); a free place has
// no locale.
const (
	archiveMagic = 0xde020109
	maxArchive   = 1 << 20 // bytes of the table of names; with all of glibc's locales it has 30 KiB
)

// archiveHas reports whether a locale-archive has a locale of one of the names.
func archiveHas(f io.ReaderAt, names []string) bool {
	head := make([]byte, 20)
	if _, err := f.ReadAt(head, 0); err != nil || binary.LittleEndian.Uint32(head) != archiveMagic {
		return false
	}
	offset, size := binary.LittleEndian.Uint32(head[8:]), binary.LittleEndian.Uint32(head[16:])
	if size > maxArchive/12 {
		return false
	}
	table := make([]byte, size*12)
	if _, err := f.ReadAt(table, int64(offset)); err != nil {
		return false
	}
	for ; len(table) > 0; table = table[12:] {
		at, locale := binary.LittleEndian.Uint32(table[4:]), binary.LittleEndian.Uint32(table[8:])
		for _, name := range names {
			got := make([]byte, len(name)+1)
			if locale == 0 {
				break
			}
			if _, err := f.ReadAt(got, int64(at)); err == nil && string(got) == name+"\x00" {
				return true
			}
		}
	}
	return false
}

// terminfoDir holds the entries that the host has sent.
const terminfoDir = "/run/vix-terminfo"

// fitTerminal returns the environment of a program on a terminal whose TERM the root knows: the
// host's entry is put in dir, for a root that has none, or TERM becomes agent.FallbackTerm,
// which is reported, if the host has none either.
func fitTerminal(root, dir string, env []string, entry []byte) (_ []string, other bool, err error) {
	term := getEnv(env, "TERM")
	if term == "" || hasTerminfo(root, getEnv(env, "HOME"), term) {
		return env, false, nil
	}
	if len(entry) == 0 {
		if !hasTerminfo(root, "", agent.FallbackTerm) {
			return env, false, nil // the other name would be no better
		}
		return mergeEnv(env, []string{"TERM=" + agent.FallbackTerm}), true, nil
	}
	if strings.Contains(term, "/") || term[0] == '.' {
		return env, false, nil
	}
	place := filepath.Join(dir, term[:1])
	if err := errors.Join(os.MkdirAll(place, 0o755), replaceFile(filepath.Join(place, term), string(entry))); err != nil {
		return env, false, err
	}
	// An empty name is the place that the root's own library looks at.
	dirs := dir + ":" + getEnv(env, "TERMINFO_DIRS")
	return mergeEnv(env, []string{"TERMINFO_DIRS=" + dirs}), false, nil
}

// hasTerminfo reports whether the root, or a user's home, has the entry of a terminal.
func hasTerminfo(root, home, term string) bool {
	if strings.Contains(term, "/") || term[0] == '.' {
		return false
	}
	dirs := []string{"etc/terminfo", "lib/terminfo", "usr/lib/terminfo", "usr/share/terminfo"}
	if home != "" {
		dirs = append(dirs, filepath.Join(home, ".terminfo"))
	}
	for _, dir := range dirs {
		if isFile(filepath.Join(root, dir, term[:1], term)) {
			return true
		}
	}
	return false
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
