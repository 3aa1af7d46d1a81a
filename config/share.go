package config

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Staging requests a new share for each run: an empty host folder at an unguessable path in
// the guest.
const Staging = "staging"

// ShareDir is the guest's directory for shares without a path of their own.
const ShareDir = "/mnt"

// A Share is a host folder that a VM sees.
type Share struct {
	Host  string `json:"host"`  // an absolute path, or one that begins with "~/"; empty for staging
	Guest string `json:"guest"` // an absolute path; empty for staging
	Write bool   `json:"write"`
}

// String returns the form that ParseShare reads.
func (s Share) String() string {
	if s.Host == "" {
		return Staging
	}
	mode := "ro"
	if s.Write {
		mode = "rw"
	}
	return s.Host + ":" + s.Guest + ":" + mode
}

// guestOwn holds the paths that a guest needs unchanged.
var guestOwn = []string{"/proc", "/sys", "/dev", "/run"}

// ParseShare reads HOSTDIR[:GUESTPATH][:ro|rw], or "staging". A share is read-only by
// default, and its default path is ShareDir/NAME, where NAME is HOSTDIR's base name.
func ParseShare(text string) (Share, error) {
	if text == Staging {
		return Share{Write: true}, nil
	}
	if !utf8.ValidString(text) {
		return Share{}, fmt.Errorf("%q is not UTF-8, as the paths of shares have to be; rename what is not, or share the folder above", clip(text))
	}
	if len(text) > 2*MaxRoot || !printable(text) {
		return Share{}, errors.New("not a usable path")
	}
	parts := strings.Split(text, ":")
	s := Share{Host: parts[0]}
	if n := len(parts); n > 1 && (parts[n-1] == "ro" || parts[n-1] == "rw") {
		s.Write = parts[n-1] == "rw"
		parts = parts[:n-1]
	}
	if len(parts) > 2 {
		return Share{}, fmt.Errorf("want HOSTDIR[:GUESTPATH][:ro|rw], not %q (a path with a colon cannot be shared)", clip(text))
	}
	if s.Host != "~" && !strings.HasPrefix(s.Host, "~/") && !filepath.IsAbs(s.Host) {
		return Share{}, fmt.Errorf(`want an absolute path on the host, one that begins with "~/", or "staging", not %q`, clip(s.Host))
	}
	if s.Host = filepath.Clean(s.Host); s.Host == "/" {
		return Share{}, errors.New("/ cannot be a share: it would show the VM every file of this machine; name a folder")
	}
	if len(parts) == 2 {
		s.Guest = parts[1]
	} else {
		s.Guest = path.Join(ShareDir, path.Base(s.Host))
	}
	return s, s.checkGuest()
}

func (s *Share) checkGuest() error {
	if !path.IsAbs(s.Guest) {
		return fmt.Errorf("want an absolute path in the guest, not %q", clip(s.Guest))
	}
	s.Guest = path.Clean(s.Guest)
	if s.Guest == "/" || s.Guest == ShareDir {
		return fmt.Errorf("%s in the guest cannot be a share; want a path below it", s.Guest)
	}
	for _, p := range guestOwn {
		if s.Guest == p || strings.HasPrefix(s.Guest, p+"/") {
			return fmt.Errorf("%s in the guest cannot be a share: the guest needs its own %s", clip(s.Guest), p)
		}
	}
	return nil
}

// shares reads a list of shares with distinct paths.
func shares(x any) ([]Share, error) {
	texts, err := list(x, func(s string) error {
		_, err := ParseShare(s)
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []Share
	for _, t := range texts {
		s, err := ParseShare(t)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, CheckShares(out)
}

// MaxShares bounds the shares of one VM: each takes a process on the host and a slot on the
// guest's bus.
const MaxShares = 8

// CheckShares checks shares for conflicts with one another.
func CheckShares(list []Share) error {
	if len(list) > MaxShares {
		return fmt.Errorf("%d shares; at most %d", len(list), MaxShares)
	}
	at := map[string]bool{}
	for _, s := range list {
		if s.Guest != "" && at[s.Guest] {
			return fmt.Errorf("two shares at %s in the guest", s.Guest)
		}
		at[s.Guest] = true
	}
	for i, a := range list {
		for _, b := range list[i+1:] {
			if err := Apart(a, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// Apart refuses two shares if one lies in the other and either is writable: the guest could
// replace the inner one by a link, and the next start would share the link's target. Apart
// compares names; the process that opens them compares the folders.
func Apart(a, b Share) error {
	if a.Host == "" || b.Host == "" || a.Host == b.Host || !a.Write && !b.Write {
		return nil
	}
	if strings.HasPrefix(a.Host, b.Host+"/") {
		a, b = b, a
	}
	if strings.HasPrefix(b.Host, a.Host+"/") {
		return fmt.Errorf("%s lies in %s, and one of the two is writable: the guest could replace the other; share separate folders", b.Host, a.Host)
	}
	return nil
}
