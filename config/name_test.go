package config

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAppID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := AppID("vm", rapid.StringMatching(`(vix\.|[a-z.]|\PC)*`).Draw(t, "app"))
		if !strings.HasPrefix(s, "vix.vm.") || len(s) > len("vix.vm.")+maxApp || len(s) == len("vix.vm.") {
			t.Fatal(s)
		}
		if strings.Count(s, "vix.") != 1 {
			t.Fatal(s)
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"[]=*/\`, r) }) {
			t.Fatal(s)
		}
	})
}
