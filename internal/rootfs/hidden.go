package rootfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A guest does not see these parts of ViewPaths (docs/security.md, "The view of the host"):
//
//	by mode     files that this user may read, as owner or in a group, but others may not
//	by custom   hiddenPaths, and names that mark a file as a secret
//	by content  in etc: private keys, passwords in URLs, values of passwords and tokens
//
// Package directories are searched to the depth that costs nothing at each start (lookDepth):
// files that a package installs deeper in /usr are public, and files that somebody put there
// by hand, for a group alone, are found to that depth. A file that becomes secret while a VM
// runs stays visible.

// hiddenPaths are conventional places of secrets, in trees that are shown whole.
var hiddenPaths = []string{
	// Machine settings outside /etc, of the kind that /etc's allow-list covers.
	"usr/local/etc", "usr/local/var", "usr/local/lib/systemd", "opt/*/etc", "opt/etc",
	// Networks, and systemd's credentials for services.
	"usr/lib/NetworkManager/system-connections", "usr/lib/NetworkManager/conf.d", "usr/lib/credstore", "usr/lib/credstore.encrypted",
	"usr/lib/ssl/private", "usr/share/ssl/private",
	// Keys that sign kernels and modules.
	"usr/src/*/certs/signing_key.*", "usr/lib/modules/*/build/certs/signing_key.*",
	// Browser policies, with the tokens of their managers.
	"etc/firefox*/policies", "etc/chromium*/policies", "etc/chromium.d/apikeys", "etc/thunderbird*/policies",
	"usr/lib*/firefox*/distribution", "usr/lib*/thunderbird*/distribution", "usr/lib/*/firefox*/distribution", "opt/firefox*/distribution", "opt/*/distribution/policies.json",
	"usr/share/firefox*/distribution", "usr/share/chromium/policies",
}

// secretNames matches files and directories, in trees where an administrator puts things.
var secretNames = regexp.MustCompile(`(?i)^(private|secrets?|credentials?|system-connections|wireguard|keytabs?` +
	`|id_(rsa|dsa|ecdsa|ed25519)(_sk)?|\.(netrc|pgpass|htpasswd|git-credentials|npmrc|pypirc|env)|auth\.conf(\.d)?|wpa_supplicant.*\.conf` +
	`|.*\.(key|p12|pfx|keytab|kdbx|pgpass|htpasswd|ovpn|credentials))$`)

// secretContent matches signs of a secret in a file's text: a key, a password in a URL, the
// value of a setting named like a secret, and GNOME's proxy password.
var secretContent = regexp.MustCompile(`PRIVATE KEY-----` +
	`|://[^/\s:@"'<>]+:[^/\s@"'<>$]+@` + // URL
	`|(?im:^[^#;\n]*\b[a-z0-9_.-]*(password|passwd|passphrase|secret|token|api[_-]?key)["']?\s*=\s*["']?[^\s"'$%<>{}()\[\],;]{4,})` + // shell, INI
	`|(?i:["'][a-z0-9_.-]*(password|passwd|passphrase|secret|token|api[_-]?key)["']\s*:\s*["'][^\s"'$%<>{}]{4,}["'])` + // JSON
	`|(?im:^\s*[a-z0-9_.-]*(password|passphrase|secret|token|api[_-]?key)\s*:\s+[^\s"'$%<>{}]{4,}\s*$)` + // YAML
	`|(?im:\b(proxy|proxyauth|userpwd|user)\s*[= ]\s*["']?[^\s:@"'#]+:[^\s@"'/#]+@)` + // a proxy without a scheme
	`|authentication-password`)

var secretWords = [][]byte{
	[]byte("private key"), []byte("://"), []byte("password"), []byte("passwd"), []byte("passphrase"), []byte("secret"), []byte("token"),
	[]byte("api"), []byte("proxy"), []byte("user"),
}

// examples are not secrets: packages install them in files.
var examples = []string{"pass:insta"} // openssl.cnf

const (
	// scanLimit is the largest file of etc that is scanned; larger ones are databases, without
	// text that an administrator wrote.
	scanLimit = 256 << 10
	// lookLimit bounds the entries of one tree in etc or var.
	lookLimit = 5000
)

// lookDepth returns the number of components below the root down to which a path is searched.
func lookDepth(at string) int {
	switch top, _, _ := strings.Cut(at, "/"); {
	case top == "etc", top == "var":
		return 32
	case top == "nix":
		return 0 // public by design
	case top == "opt", strings.HasPrefix(at, "usr/local/"):
		return 5
	}
	return 3
}

// hiddenOf returns the hidden paths among those shown below root, by their real names, sorted.
// It lists nothing below a hidden path.
func hiddenOf(root string, shown []string) ([]string, error) {
	var list []string
	for _, pattern := range hiddenPaths {
		matches, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, m := range matches {
			// The real name: a directory in the path may be a link.
			real, err := filepath.EvalSymlinks(m)
			if err != nil {
				continue // a link to nothing
			}
			if rel, err := filepath.Rel(root, real); err == nil && filepath.IsLocal(rel) {
				list = append(list, rel)
			}
		}
	}
	for _, rel := range shown {
		more, err := lookInto(root, rel)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	slices.Sort(list)
	return topmost(slices.Compact(list)), nil
}

// topmost drops the paths of a sorted list that lie below another.
func topmost(list []string) []string {
	var out []string
	for _, rel := range list {
		if len(out) == 0 || !strings.HasPrefix(rel, out[len(out)-1]+"/") {
			out = append(out, rel)
		}
	}
	return out
}

// lookInto finds the hidden paths in the tree rel, by mode, name and content. A tree that is too
// large to search is hidden whole.
func lookInto(root, rel string) (list []string, err error) {
	if st, err := os.Lstat(filepath.Join(root, rel)); err != nil || st.Mode()&fs.ModeSymlink != 0 {
		return nil, nil // fs.WalkDir would follow it
	}
	looks := 0
	err = fs.WalkDir(os.DirFS(root), rel, func(at string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && at == rel:
			return fs.SkipAll // it has vanished
		case err != nil: // unreadable, or it has vanished
			list = append(list, at)
			return fs.SkipDir
		case strings.Count(at, "/") >= lookDepth(at):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if looks++; looks > lookLimit && isRebuilt(rel) {
			list = []string{rel}
			return fs.SkipAll
		}
		hide, err := isHidden(root, at, d)
		if err != nil || hide {
			list = append(list, at)
			if d.IsDir() {
				return fs.SkipDir
			}
		}
		return nil
	})
	return list, err
}

// isHidden decides about one entry. A link is shown as a link: its target is visible only if
// it is shown itself.
func isHidden(root, at string, d fs.DirEntry) (bool, error) {
	if d.Type()&fs.ModeSymlink != 0 {
		return false, nil
	}
	info, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	others := fs.FileMode(0o004)
	if d.IsDir() {
		others = 0o005
	}
	admins := strings.HasPrefix(at, "etc/") || strings.HasPrefix(at, "opt/") || strings.HasPrefix(at, "usr/local/")
	switch {
	case info.Mode().Perm()&others != others:
		return true, nil
	case admins && secretNames.MatchString(path.Base(at)):
		return true, nil
	case strings.HasPrefix(at, "etc/") && info.Mode().IsRegular() && info.Size() <= scanLimit:
		return hasSecret(filepath.Join(root, at))
	}
	return false, nil
}

// tellsSecret tests only lines with a word that every match needs: the expression alone would
// take longer than the start of a VM may.
func tellsSecret(b []byte) bool {
	for line := range bytes.Lines(b) {
		low := bytes.ToLower(line)
		if !slices.ContainsFunc(secretWords, func(word []byte) bool { return bytes.Contains(low, word) }) {
			continue
		}
		for _, example := range examples {
			line = bytes.ReplaceAll(line, []byte(example), nil)
		}
		if secretContent.Match(line) {
			return true
		}
	}
	return false
}

// hasSecret scans a file. It reports an unreadable file as secret: nothing needs to show it.
func hasSecret(name string) (bool, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return true, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, scanLimit))
	if err != nil {
		return true, err
	}
	if bytes.Contains(b, []byte("BEGIN CERTIFICATE")) && !bytes.Contains(b, []byte("PRIVATE KEY")) {
		return false, nil // base64 contains everything
	}
	return tellsSecret(b), nil
}
