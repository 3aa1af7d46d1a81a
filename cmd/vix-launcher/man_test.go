package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var option = regexp.MustCompile(`--([a-z-]+)`)

// The man page knows every verb and option, and every verb has an example.
func TestManPage(t *testing.T) {
	b, err := os.ReadFile("../../packaging/man/vix.1.scd")
	if err != nil {
		t.Fatal(err)
	}
	man := string(b)
	for _, c := range command(osEnv()).Commands() {
		if c.Hidden || !c.Runnable() || c.Name() == "help" {
			continue
		}
		if !strings.Contains(man, "\n*"+c.Name()+"*") || c.Example == "" {
			t.Errorf("%s: not in the man page, or without an example", c.Name())
		}
		for _, f := range option.FindAllStringSubmatch(c.LocalFlags().FlagUsages(), -1) {
			if name := f[1]; !strings.Contains(man, "*--"+name+"*") && name != "help" && name != "follow" {
				t.Errorf("%s --%s: not in the man page", c.Name(), name)
			}
		}
	}
}
