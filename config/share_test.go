package config

import (
	"strings"
	"testing"
)

func TestParseShare(t *testing.T) {
	for text, want := range map[string]Share{
		"/srv/music":             {"/srv/music", "/mnt/music", false},
		"/srv/music/:rw":         {"/srv/music", "/mnt/music", true},
		"~/Downloads:ro":         {"~/Downloads", "/mnt/Downloads", false},
		"~/x:/home/user/x":       {"~/x", "/home/user/x", false},
		"/srv/../srv/a:/b//c:rw": {"/srv/a", "/b/c", true},
		"/ro:/rw:ro":             {"/ro", "/rw", false},
		"staging":                {"", "", true},
	} {
		got, err := ParseShare(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := ParseShare(got.String()); err != nil || again != got {
			t.Errorf("%s: again %+v, %v", got, again, err)
		}
	}
	for text, want := range map[string]string{
		"":                              "want an absolute path on the host",
		"ro":                            "want an absolute path on the host",
		"-rf":                           "want an absolute path on the host",
		"/":                             "cannot be a share",
		"/a:b":                          `want an absolute path in the guest, not "b"`,
		"/a:/b:rx":                      "a path with a colon",
		"/a:":                           "want an absolute path in the guest",
		"/a:/":                          "cannot be a share",
		"/a:/mnt":                       "cannot be a share",
		"/a:/x/../proc":                 "needs its own /proc",
		"/a:/dev/shm":                   "needs its own /dev",
		"/a:/run/user:rw":               "needs its own /run",
		"/a\nb":                         "not a usable path",
		"/a\xff":                        `"/a\xff" is not UTF-8`,
		"/a:/b\xc3:rw":                  "is not UTF-8",
		"/" + strings.Repeat("a", 3000): "not a usable path",
	} {
		if s, err := ParseShare(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

// A guest that can write to a folder could replace a share in it by a link.
func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		shares  []string
		overlap bool
	}{
		{[]string{"/home/u/p:/p:rw", "/home/u/p/sub:/s"}, true},
		{[]string{"/home/u/p/sub:/s", "/home/u/p:/p:rw"}, true},
		{[]string{"/home/u/p:/p", "/home/u/p/sub:/s:rw"}, true},
		{[]string{"~/p:/p:rw", "~/p/a/../b//c/:/s:rw"}, true},
		{[]string{"~:/h:rw", "~/p:/p"}, true},
		{[]string{"/home/u/p:/p", "/home/u/p/sub:/s"}, false},
		{[]string{"/home/u/p:/p:rw", "/home/u/pp:/s:rw"}, false},
		{[]string{"/home/u/p:/p:rw", "/home/u/p:/s"}, false},
		{[]string{"staging", "/home/u/p:/p:rw"}, false},
	} {
		var list []Share
		for _, text := range c.shares {
			s, err := ParseShare(text)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, s)
		}
		err := CheckShares(list)
		if (err != nil) != c.overlap || err != nil && (!strings.Contains(err.Error(), " lies in ") || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q: %v", c.shares, err)
		}
		if got := mistakes("[vm.a]\nshares = [\"" + strings.Join(c.shares, "\", \"") + "\"]\n"); (len(got) > 0) != c.overlap {
			t.Errorf("%q: config: %v", c.shares, got)
		}
	}
}
