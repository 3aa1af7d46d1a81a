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

// Of what ViewPaths shows, a guest does not see (docs/security.md, "The view of the host"):
//
//	by mode     what others may not read, though this user may: by its owner, or a group
//	by custom   hiddenPaths, and names that say of a file that it is a secret
//	by content  in etc: private keys, passwords in URLs, values of passwords and tokens
//
// Directories of packages are looked into as deep as costs nothing at each start (lookDepth):
// what a package installs deeper in /usr is everybody's, and what somebody has put there by hand,
// for a group alone, is found to that depth. A file that is made secret while a VM runs stays
// to be seen.

// hiddenPaths are where secrets are by custom, in trees that are shown whole.
var hiddenPaths = []string{
	// Settings of the machine, which /etc's allow-list is about, in other places.
	"usr/local/etc", "usr/local/var", "usr/local/lib/systemd", "opt/*/etc", "opt/etc",
	// Networks, and what systemd keeps for services.
	"usr/lib/NetworkManager/system-connections", "usr/lib/NetworkManager/conf.d", "usr/lib/credstore", "usr/lib/credstore.encrypted",
	"usr/lib/ssl/private", "usr/share/ssl/private",
	// Keys that kernels and modules are signed by.
	"usr/src/*/certs/signing_key.*", "usr/lib/modules/*/build/certs/signing_key.*",
	// Policies of browsers, with tokens of whoever manages them.
	"etc/firefox*/policies", "etc/chromium*/policies", "etc/chromium.d/apikeys", "etc/thunderbird*/policies",
	"usr/lib*/firefox*/distribution", "usr/lib*/thunderbird*/distribution", "usr/lib/*/firefox*/distribution", "opt/firefox*/distribution", "opt/*/distribution/policies.json",
	"usr/share/firefox*/distribution", "usr/share/chromium/policies",
}

// secretNames are of files and directories, in trees where an administrator puts things.
var secretNames = regexp.MustCompile(`(?i)^(private|secrets?|credentials?|system-connections|wireguard|keytabs?` +
	`|id_(rsa|dsa|ecdsa|ed25519)(_sk)?|\.(netrc|pgpass|htpasswd|git-credentials|npmrc|pypirc|env)|auth\.conf(\.d)?|wpa_supplicant.*\.conf` +
	`|.*\.(key|p12|pfx|keytab|kdbx|pgpass|htpasswd|ovpn|credentials))$`)

// secretContent are the marks of a secret in a file's text: a key, a password in a URL, a
// value of what is called one, and the proxy's of GNOME.
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

// examples are no secrets: they stand in files as packages install them.
var examples = []string{"pass:insta"} // openssl.cnf

const (
	// scanLimit is the largest file of etc that is looked into; larger ones are databases,
	// which hold no text of an administrator's.
	scanLimit = 256 << 10
	// lookLimit bounds the entries of one tree of etc or var.
	lookLimit = 5000
)

// lookDepth is how many components a path below the root may have to be looked at.
func lookDepth(at string) int {
	switch top, _, _ := strings.Cut(at, "/"); {
	case top == "etc", top == "var":
		return 32
	case top == "nix":
		return 0 // everybody's, by design
	case top == "opt", strings.HasPrefix(at, "usr/local/"):
		return 5
	}
	return 3
}

// hiddenOf returns what is not shown of the paths shown below root, by their own names,
// sorted. Nothing below one of them is named.
func hiddenOf(root string, shown []string) ([]string, error) {
	var list []string
	for _, pattern := range hiddenPaths {
		matches, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, m := range matches {
			// By its own name: a directory on the way may be a link.
			real, err := filepath.EvalSymlinks(m)
			if err != nil {
				continue // leads nowhere
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

// topmost leaves out what lies below another of a sorted list.
func topmost(list []string) []string {
	var out []string
	for _, rel := range list {
		if len(out) == 0 || !strings.HasPrefix(rel, out[len(out)-1]+"/") {
			out = append(out, rel)
		}
	}
	return out
}

// lookInto finds what is hidden of the tree rel, by modes, names and content. Of a tree that has
// too much to be looked into, all is.
func lookInto(root, rel string) (list []string, err error) {
	if st, err := os.Lstat(filepath.Join(root, rel)); err != nil || st.Mode()&fs.ModeSymlink != 0 {
		return nil, nil // fs.WalkDir would follow it
	}
	looks := 0
	err = fs.WalkDir(os.DirFS(root), rel, func(at string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && at == rel:
			return fs.SkipAll // it has gone
		case err != nil: // may not be read, or has gone
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

// isHidden decides about one entry. Links are shown as what they are: what they name is
// there only if it is shown itself.
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

// tellsSecret looks at each line that has one of the words without which there is no
// match: the expression alone would take longer than a VM's start may.
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

// hasSecret looks into a file; who cannot read it need not show it.
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
		return false, nil // base64 has everything in it
	}
	return tellsSecret(b), nil
}
