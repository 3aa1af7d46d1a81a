package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// hostileNames are invalid names of VMs.
var hostileNames = map[string]string{
	"dots": "../x", "option": "-rf", "empty": "", "long": strings.Repeat("a", 300), "letters": "wéb",
	"bidi": "a\u202eb", "space": "a b", "slash": "a/b", "case": "Web", "escape": "a\x1b[31m", "line": "a\nb", "dot": ".",
	"this machine": "host", "any": "*",
}

// Every verb with a VM's name refuses each of these in one line, before it does anything. The
// test reads the verbs and their arguments from their usage.
func TestHostileNames(t *testing.T) {
	dir := t.TempDir()
	var out, errs bytes.Buffer
	e := &env{
		getenv: func(name string) string {
			return map[string]string{"HOME": dir, "XDG_RUNTIME_DIR": dir}[name]
		},
		environ: func() []string { return nil }, self: func() (string, error) { return "/vix-launcher", nil },
		stdin: strings.NewReader(""), stdout: &out, stderr: &errs,
	}
	tried := 0
	for _, c := range command(e).Commands() {
		if c.Hidden {
			continue
		}
		for what, name := range hostileNames {
			args, ok := withName(c.Use, name)
			if !ok {
				continue
			}
			tried++
			errs.Reset()
			code := run(args, e)
			text := errs.String()
			if code != exitUsage || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "vix: ") || strings.ContainsAny(text, "\x1b\u202e") {
				t.Errorf("%s: %q: status %d: %q", what, args, code, text)
			}
		}
	}
	if tried < 12*len(hostileNames) {
		t.Errorf("only %d command lines were made of the usages", tried)
	}
	if entries := entriesOf(t, dir); len(entries) > 0 {
		t.Errorf("something was made: %v", entries)
	}
}

// withName makes a command line from a verb's usage, with name as the VM's.
func withName(use, name string) (args []string, ok bool) {
	depth := 0
	for i, word := range strings.Fields(use) {
		depth += strings.Count(word, "[") - strings.Count(word, "]")
		switch {
		case i == 0 && word == "run":
			return []string{"run", "--vm=" + name, "foot"}, true
		case i == 0 && word == "cp":
			return []string{"cp", "--", name + ":x", "/tmp"}, name != "../x" && name != "a/b" // those mean files of the host
		case i == 0:
			args = append(args, word, "--")
		case depth > 0 || strings.HasSuffix(word, "]"):
		case strings.HasPrefix(word, "NAME"), word == "OLD":
			args, ok = append(args, name), true
		case word == "NEW":
			args = append(args, "fine")
		case word != "--":
			args = append(args, "/tmp")
		}
	}
	if ok && args[0] == "exec" {
		args = append([]string{"exec", name, "--"}, "true")
		if strings.HasPrefix(name, "-") {
			return nil, false // an option, refused as such
		}
	}
	return args, ok
}

func entriesOf(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
