package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"vix/config"
)

// The errors of config.toml are a line each, however they come, as far as anybody reads; any
// other error is one line.
func TestErrorLines(t *testing.T) {
	c, err := config.Parse("c", []byte("[vm.a]\ncpus = 0\nx = 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, disabled := c.VM("a")
	lines := errorLines(&exitError{code: 125, err: disabled})
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "VM a is disabled: c:2: vm.a.cpus: ") || !strings.HasPrefix(lines[1], "VM a is disabled: c:3: vm.a.x: ") {
		t.Errorf("%q", lines)
	}
	if one := disabled.Error(); !strings.HasSuffix(one, "want 1 to 64 (and one more error; see vix config check)") {
		t.Errorf("%q", one)
	}
	many := "[defaults]\n"
	for i := range 30 {
		many += fmt.Sprintf("x%d = 1\n", i)
	}
	_, err = config.Parse("c", []byte(many))
	if lines := errorLines(err); len(lines) != maxErrorLines+1 || lines[maxErrorLines] != "and 10 more errors; see vix config check" {
		t.Errorf("%q", lines)
	}
	for _, err := range []error{errors.New("a\nb"), config.Errors{{File: "c", Msg: "x"}}} {
		if lines := errorLines(err); len(lines) != 1 || strings.Contains(lines[0], "\n") {
			t.Errorf("%q", lines)
		}
	}
}
