package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"vix/internal/agent"
)

// compiled is a terminfo entry with a string of size bytes.
func compiled(names string, magic, size int) []byte {
	var b []byte
	for _, n := range []int{magic, len(names) + 1, 3, 2, 1, size} {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	b = append(append(b, names...), 0, 1, 0, 1)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	number := 2
	if magic == 0o1036 {
		number = 4
	}
	return append(b, make([]byte, 2*number+2+size)...)
}

// The entry is found where ncurses finds it, and sent only if it is one.
func TestTerminfo(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, b []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kitty, own, other := compiled("xterm-kitty|KovIdTTY", 0o1036, 900), compiled("my-own|mine", 0o432, 7), compiled("my-own", 0o432, 9)
	put("kitty/x/xterm-kitty", kitty)
	put("home/.terminfo/m/my-own", own)
	put("more/m/my-own", other)
	put("more/l/large", compiled("large", 0o432, agent.MaxTerminfo))
	put("more/n/named", compiled("other", 0o432, 7))
	put("more/c/cut", compiled("cut", 0o432, 7)[:30])
	put("more/t/text", []byte("text|of the same name, and no entry"))
	put("more/e/empty", nil)
	e := &env{getenv: func(name string) string {
		return map[string]string{"TERMINFO": dir + "/kitty", "HOME": dir + "/home", "TERMINFO_DIRS": ":relative:" + dir + "/more"}[name]
	}}
	for _, c := range []struct {
		environ []string
		want    []byte
	}{
		{[]string{"TERM=xterm-kitty"}, kitty},
		{[]string{"TERM=xterm-kitty", "A=b", "TERM=my-own"}, own},
		{[]string{"A=b"}, nil},
		{[]string{"TERM=large"}, nil},
		{[]string{"TERM=named"}, nil},
		{[]string{"TERM=cut"}, nil},
		{[]string{"TERM=text"}, nil},
		{[]string{"TERM=empty"}, nil},
		{[]string{"TERM=none-such-terminal"}, nil},
		{[]string{"TERM=../home/.terminfo/m/my-own"}, nil},
		{[]string{"TERM=."}, nil},
	} {
		if got := e.terminfo(c.environ); !bytes.Equal(got, c.want) {
			t.Errorf("%q: %q", c.environ, got)
		}
	}
	for n := range len(own) {
		if isTerminfo(own[:n], "my-own") {
			t.Errorf("%d bytes of %d are an entry", n, len(own))
		}
	}
	if !isTerminfo(own, "mine") || isTerminfo(own, "") {
		t.Error("names")
	}
}
