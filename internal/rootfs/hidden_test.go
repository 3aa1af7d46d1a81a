package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// secretsOf are files of a host: some that nobody else may read, and others beside them that
// are shown.
var secretsOf = []struct {
	path, content string
	mode          os.FileMode
	shown         bool
}{
	// Hidden by mode, even from a process that may read it: here the file is the user's own.
	{"etc/profile.d/group.sh", "export A=b\n", 0o640, false},
	{"etc/xdg/closed/inner/file", "x", 0o644, false}, // in a directory of mode 0750
	{"usr/share/group-only", "x", 0o640, false},
	{"usr/local/share/app/group-only", "x", 0o600, false},
	{"opt/app/licence", "x", 0o640, false},
	{"var/cache/fontconfig/own", "x", 0o600, false},
	// Hidden by custom.
	{"etc/ssl/certs/server.key", "x", 0o644, false},
	{"etc/firefox/policies/policies.json", "{}", 0o644, false},
	{"etc/chromium/policies/managed/a.json", "{}", 0o644, false},
	{"etc/chromium.d/apikeys", "x", 0o644, false},
	{"etc/xdg/app/credentials", "x", 0o644, false},
	{"etc/skel/.netrc", "x", 0o644, false},
	{"etc/skel/.ssh/id_ed25519", "x", 0o644, false},
	{"usr/local/etc/app.conf", "x", 0o644, false},
	{"usr/lib/NetworkManager/system-connections/home.nmconnection", "x", 0o644, false},
	{"usr/lib/credstore/x", "x", 0o644, false},
	{"usr/lib/firefox-esr/distribution/policies.json", "{}", 0o644, false},
	{"usr/local/share/x/tls.key", "x", 0o644, false},
	// Not in the allow-list.
	{"etc/environment", "http_proxy=http://u:p@proxy\n", 0o644, false},
	{"etc/apt/auth.conf.d/x", "machine a login b password c\n", 0o644, false},
	{"etc/NetworkManager/system-connections/x", "psk=abc\n", 0o644, false},
	{"etc/wireguard/wg0.conf", "x", 0o644, false},
	{"etc/cron.d/x", "x", 0o644, false},
	{"etc/krb5.keytab", "x", 0o644, false},
	{"etc/sssd/sssd.conf", "x", 0o644, false},
	{"etc/ppp/chap-secrets", "x", 0o644, false},
	{"etc/cups/printers.conf", "x", 0o644, false},
	{"etc/gshadow-", "x", 0o644, false},
	// Hidden by content.
	{"etc/profile.d/proxy.sh", "# the proxy\nexport http_proxy=\"http://alice:hunter2@proxy.example:3128/\"\n", 0o644, false},
	{"etc/profile.d/token.sh", "export GITHUB_TOKEN=ghp_0123456789 # of the build\n", 0o644, false},
	{"etc/profile.d/key.sh", "x\n-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", 0o644, false},
	{"etc/xdg/app/app.ini", "[server]\nuser = a\npassword = hunter2\n", 0o644, false},
	{"etc/firefox/syspref.json", "{\"ExtensionSettings\": {\"EnrollmentToken\": \"abcd-efgh\"}}", 0o644, false},
	{"etc/libreoffice/soffice.yaml", "ldap:\n  bind-password: hunter2\n", 0o644, false},
	{"etc/dconf/db/local", "gvdb\x00authentication-password\x00hunter2", 0o644, false},
	// Shown: files that programs need, and files that only resemble secrets.
	{"etc/profile.d/vte.sh", "export PROMPT_COMMAND=\"__vte\"\n", 0o644, true},
	{"etc/profile.d/bash_completion.sh", "# shellcheck shell=sh\n. /usr/share/bash-completion/bash_completion\n", 0o644, true},
	{"etc/profile.d/noproxy.sh", "export http_proxy=http://proxy.example:3128/\nexport no_proxy=localhost\n", 0o644, true},
	{"etc/nsswitch.conf", "passwd:         files systemd\ngroup: files\n", 0o644, true},
	{"etc/ssl/openssl.cnf", "# input_password = secret\nchallengePassword\t\t= A challenge password\nchallengePassword_min\t\t= 4\nsecret = pass:insta # can be used\nsecret = $insta::secret\n", 0o644, true},
	{"etc/ssl/certs/own.pem", "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n", 0o644, true},
	{"etc/login.defs", "# Password aging controls:\nPASS_MAX_DAYS\t99999\n", 0o644, true},
	{"etc/xdg/app/plain.ini", "[a]\ntokens=\nsecret = ${SECRET}\nurl=https://example.org/a:b@c\n", 0o644, true},
	{"etc/firefox/firefox.js", "pref(\"browser.startup.homepage\", \"about:blank\");\n", 0o644, true},
	{"usr/share/private/header.h", "x", 0o644, true},
	{"usr/local/bin/tool", "#!/bin/sh\npassword=\"$1\"\n", 0o755, true},
	{"opt/app/program", "x", 0o755, true},
}

// secretHost makes a tree of those files.
func secretHost(t *testing.T) string {
	t.Helper()
	root := tree(t)
	for _, f := range secretsOf {
		at := filepath.Join(root, f.path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(f.content), 0o644), os.Chmod(at, f.mode)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(root+"/etc/xdg/closed", 0o750), os.Symlink("/etc/shadow", root+"/etc/xdg/link"), os.Symlink("lib", root+"/usr/lib64")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestViewHidesSecrets(t *testing.T) {
	root := secretHost(t)
	for name, uid := range map[string]int{"root": 0, "user": 1000} {
		if uid == 0 && os.Getuid() != 0 {
			continue
		}
		out := viewOf(t, root, uid)
		lines := strings.Split(out, "\n")
		for _, f := range secretsOf {
			// In a tree that is bound whole, the name of a covered file is visible, and nothing more.
			if there := slices.Contains(lines, "path "+f.path); there != f.shown && isRebuilt(f.path) {
				t.Errorf("%s: %s is in the view: %v", name, f.path, there)
			}
			if read := slices.Contains(lines, "read "+f.path); read != f.shown {
				t.Errorf("%s: %s can be read: %v", name, f.path, read)
			}
		}
		if !slices.Contains(lines, "path etc/xdg/link") {
			t.Errorf("%s: a link is missing", name)
		}
		checkMounts(t, out, 15, "ro", "nosuid", "nodev", "noexec")
		if t.Failed() {
			t.Log(out)
		}
	}
}

func TestHidden(t *testing.T) {
	root := secretHost(t)
	hidden, err := Hidden(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"etc/firefox/policies", "etc/xdg/closed", "etc/profile.d/proxy.sh", "usr/local/etc", "usr/share/group-only"} {
		if !slices.Contains(hidden, h) {
			t.Errorf("%s is not told of: %q", h, hidden)
		}
	}
	for _, f := range secretsOf {
		below := slices.ContainsFunc(hidden, func(h string) bool { return f.path == h || strings.HasPrefix(f.path, h+"/") })
		if f.shown && below {
			t.Errorf("%s is hidden", f.path)
		}
	}
	// A tree of etc that is too large to search is not shown at all.
	if err := os.Mkdir(root+"/etc/gimp", 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range lookLimit + 1 {
		if err := os.Symlink("x", filepath.Join(root, "etc/gimp", strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if hidden, err = Hidden(root); err != nil || !slices.Contains(hidden, "etc/gimp") {
		t.Errorf("%v, %q", err, hidden)
	}
}
