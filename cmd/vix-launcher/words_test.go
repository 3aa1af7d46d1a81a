package main

import (
	"slices"
	"strings"
	"testing"
)

// A suggestion is near to what was typed, or there is none.
func TestNearVerbs(t *testing.T) {
	root := command(osEnv())
	for typed, want := range map[string]string{
		"lits": `"list"`, "stauts": `"status"`, "sotp": `"stop"`, "doc": `"doctor"`, "st": `"status" "stop"`, "laucnh": `"run"`,
		"stats": `"top"`, "unmount": `"umount"`, "supervise": "", "web": "", "xyzzy": "", "x": "", "r": "", "firefox": "",
		strings.Repeat("run", 1000): "",
	} {
		if got := strings.Join(nearVerbs(root, typed), " "); got != want {
			t.Errorf("%.20s: %s, want %s", typed, got, want)
		}
	}
}

// An alias is the name of no other verb, and is not suggested in place of what it means.
func TestVerbWords(t *testing.T) {
	root := command(osEnv())
	seen := map[string]bool{}
	for _, c := range root.Commands() {
		for _, w := range slices.Concat([]string{c.Name()}, c.Aliases, c.SuggestFor) {
			if seen[w] {
				t.Errorf("%s: twice", w)
			}
			seen[w] = true
		}
	}
	for _, words := range []map[string][]string{verbAliases, verbMeant} {
		for verb := range words {
			if !seen[verb] {
				t.Errorf("%s: not a verb", verb)
			}
		}
	}
}

// Of what a guest answers, only whole names of programs go to the user's shell.
func TestProgramWords(t *testing.T) {
	const guest = "bash\nbash\nbase64\nba$(reboot)\nba\x1b[31m\nba;x\nba x\nsh\n-ba\nbanner"
	if got := strings.Join(programWords(guest, "ba"), " "); got != "base64 bash" {
		t.Errorf("%q", got)
	}
	var many strings.Builder
	for i := range 10 * maxGuestPrograms {
		many.WriteString("p" + strings.Repeat("q", i%50) + string(rune('a'+i%26)) + string(rune('a'+i/100)) + "\n")
	}
	if n := len(programWords(many.String(), "p")); n != maxGuestPrograms {
		t.Errorf("%d programs", n)
	}
	var b boundedBuffer
	for range 3 {
		if n, err := b.Write(make([]byte, maxGuestOutput/2+1)); n != maxGuestOutput/2+1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if b.Len() != maxGuestOutput {
		t.Errorf("%d bytes are kept", b.Len())
	}
}
