package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vix/internal/transfer"
	"vix/internal/vm"
)

// A copier is a guest's end of a copy: it returns its exit status.
type copier func(t *testing.T, run vm.Run) int

// honest is the guest's own copier, in a directory of the test.
func honest(dir string) copier {
	return func(t *testing.T, run vm.Run) int {
		var err error
		if send := run.How.Request.Send; send != nil {
			var sources []transfer.Source
			if sources, err = transfer.Sources([]string{filepath.Join(dir, send.Paths[len(send.Paths)-1])}, true); err == nil {
				err = transfer.Send(run.Stdout, sources, transfer.Sending{Recursive: true, Skipped: func(string, string) {}})
				transfer.CloseSources(sources)
			}
		} else {
			var to transfer.Target
			if to, err = transfer.Find(filepath.Join(dir, string(run.How.Request.Receive.Path)), false); err == nil {
				_, err = transfer.Receive(run.Stdin, to, transfer.Receiving{})
				to.Dir.Close()
			}
		}
		if err != nil {
			fmt.Fprintln(run.Stderr, err)
			return 1
		}
		return 0
	}
}

// says sends a stream unchanged.
func says(stream []byte, words string, code int) copier {
	return func(t *testing.T, run vm.Run) int {
		_, _ = run.Stdout.Write(stream)
		_, _ = io.WriteString(run.Stderr, words)
		return code
	}
}

// takes takes n bytes.
func takes(n int64, words string, code int) copier {
	return func(t *testing.T, run vm.Run) int {
		_, _ = io.CopyN(io.Discard, run.Stdin, n)
		_, _ = io.WriteString(run.Stderr, words)
		return code
	}
}

// fakeCopyJob makes a cp between fake guests, by name.
func fakeCopyJob(t *testing.T, recursive bool, guests map[string]copier, args ...string) (*copyJob, *bytes.Buffer) {
	t.Helper()
	var stderr bytes.Buffer
	c, err := newCopyJob(&env{stderr: &stderr}, args, recursive, "128M")
	if err != nil {
		t.Fatal(err)
	}
	c.spawn = func(ctx context.Context, run vm.Run) (*vm.Exit, error) {
		done := make(chan int, 1)
		go func() { done <- guests[run.VM](t, run) }()
		select {
		case code := <-done:
			return &vm.Exit{Code: code}, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return c, &stderr
}

func streamOf(t *testing.T, paths ...string) []byte {
	t.Helper()
	sources, err := transfer.Sources(paths, true)
	if err != nil {
		t.Fatal(err)
	}
	defer transfer.CloseSources(sources)
	var b bytes.Buffer
	if err := transfer.Send(&b, sources, transfer.Sending{Recursive: true, Skipped: func(string, string) {}}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// cp reports in one line what the guest's end did, and leaves no unfinished file.
func TestCopyEnds(t *testing.T) {
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	err := errors.Join(os.Mkdir(at("guest"), 0o755), os.Mkdir(at("other"), 0o755), os.WriteFile(at("guest/f"), []byte("content"), 0o644),
		os.Mkdir(at("guest/d"), 0o755), os.Symlink("/etc/passwd", at("guest/d/out")), os.WriteFile(at("guest/.bashrc"), []byte("evil"), 0o644),
		os.Mkdir(at("host"), 0o755), os.WriteFile(at("host/.bashrc"), []byte("mine"), 0o644), os.WriteFile(at("h"), bytes.Repeat([]byte("h"), 1<<20), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	whole := streamOf(t, at("guest/f"))
	evil := streamOf(t, at("guest/.bashrc"))
	host := at("host")
	for name, c := range map[string]struct {
		web, mail copier
		args      string
		want      string // "" is success
		stderr    string
	}{
		"down":                  {web: honest(at("guest")), args: "web:f " + host},
		"down, a tree":          {web: honest(at("guest")), args: "-r web:d " + host, stderr: "1 symbolic links lead out"},
		"up":                    {web: honest(at("guest")), args: at("h") + " web:up"},
		"across":                {web: honest(at("guest")), mail: honest(at("other")), args: "web:f mail:f"},
		"down, not there":       {web: honest(at("guest")), args: "web:none " + host, want: "VM web: "},
		"down, unasked":         {web: says(evil, "", 0), args: "web:f " + host, want: `VM web: ".bashrc" was not asked for`},
		"down, a tree unasked":  {web: says(evil, "", 0), args: "-r web:d " + host, want: `".bashrc" was not asked for`},
		"down, link for file":   {web: says(streamOf(t, at("guest/d/out")), "", 0), args: "web:out " + host, want: "is not a file, which was asked for"},
		"down, cut":             {web: says(whole[:20], "", 0), args: "web:f " + host, want: "VM web: the stream of files was cut off"},
		"down, cut with reason": {web: says(whole[:20], "first\nf: \x1b[2Jno such file\n", 1), args: "web:f " + host, want: "VM web: f: [2Jno such file"},
		"down, without words":   {web: says(nil, "", 137), args: "web:f " + host, want: "VM web: its end of the copy failed (status 137)"},
		"down, more after":      {web: says(append(whole[:len(whole):len(whole)], bytes.Repeat([]byte("x"), 1<<20)...), "", 0), args: "web:f " + host},
		"down, fails after all": {web: says(whole, "too late\n", 1), args: "web:f " + host, want: "VM web: too late"},
		"down, notes":           {web: says(whole, "pipe: left out: \x07\n", 0), args: "web:f " + host, stderr: "vix: VM web: pipe: left out: \n"},
		"down, garbage":         {web: says([]byte("\x7fELF and so on"), "", 0), args: "web:f " + host, want: "malformed stream of files"},
		"up, took a part":       {web: takes(1000, "", 0), args: at("h") + " web:", want: "the guest took only part of it"},
		"up, full":              {web: takes(1000, "h: no space left on device\n", 1), args: at("h") + " web:", want: "VM web: h: no space left on device"},
		"up, a directory":       {web: takes(1<<30, "cut\n", 1), args: at("guest") + " web:", want: "guest: is a directory; copy it with -r"},
		"across, first fails":   {web: says(whole[:20], "f: gone\n", 1), mail: honest(at("other")), args: "web:f mail:f2", want: "VM web: f: gone"},
		"across, second fails":  {web: honest(at("guest")), mail: takes(5, "full\n", 1), args: "web:f mail:f2", want: "VM mail: full"},
	} {
		args := strings.Fields(c.args)
		recursive := args[0] == "-r"
		if recursive {
			args = args[1:]
		}
		cp, stderr := fakeCopyJob(t, recursive, map[string]copier{"web": c.web, "mail": c.mail}, args...)
		err := cp.copy(t.Context())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x1b\x07") || !strings.Contains(stderr.String(), c.stderr) || strings.ContainsAny(stderr.String(), "\x1b\x07") {
			t.Errorf("%s: %q, said %q", name, err, stderr.String())
		}
	}
	if b, _ := os.ReadFile(at("host/.bashrc")); string(b) != "mine" {
		t.Errorf(".bashrc: %q", b)
	}
	for path, want := range map[string]string{"host/f": "content", "guest/up": strings.Repeat("h", 1<<20), "other/f": "content"} {
		if b, err := os.ReadFile(at(path)); string(b) != want {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	half, _ := filepath.Glob(dir + "/*/.vix-new-*")
	if more, _ := filepath.Glob(at("other/f2")); len(half)+len(more) > 0 {
		t.Errorf("left: %v %v", half, more)
	}
}

// A guest sends without end: the limit, or Ctrl-C, ends the copy.
func TestCopyWithoutEnd(t *testing.T) {
	dir := t.TempDir()
	_ = os.WriteFile(filepath.Join(dir, "f"), []byte("content"), 0o644)
	begun := streamOf(t, filepath.Join(dir, "f"))
	begun = begun[:len(begun)-10] // inside the file
	endless := func(t *testing.T, run vm.Run) int {
		_, err := run.Stdout.Write(begun)
		for piece := append([]byte{'B', 0, 0, 1, 0}, make([]byte, 1<<16)...); err == nil; {
			_, err = run.Stdout.Write(piece)
		}
		return 141
	}
	to := t.TempDir()
	c, _ := fakeCopyJob(t, false, map[string]copier{"web": endless}, "web:f", to)
	if err := c.copy(t.Context()); err == nil || !strings.Contains(err.Error(), "more than the limit of 128 MiB") {
		t.Error(err)
	}
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	silent := func(t *testing.T, run vm.Run) int {
		_, _ = run.Stdout.Write(begun)
		cancel(interrupted)
		_, _ = run.Stdout.Write(begun) // nobody reads it
		return 0
	}
	c, _ = fakeCopyJob(t, false, map[string]copier{"web": silent}, "web:f", to)
	if err := c.copy(ctx); !errors.Is(err, interrupted) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(to); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestParseLocation(t *testing.T) {
	for arg, want := range map[string]location{
		"f": {"", "f"}, "./web:f": {"", "./web:f"}, "/a:b": {"", "/a:b"}, "web:": {"web", "."},
		"web:f": {"web", "f"}, "web:/a:b": {"web", "/a:b"}, "w-1:-rf": {"w-1", "-rf"}, "d/x:y": {"", "d/x:y"},
	} {
		if got, err := parseLocation(arg); got != want || err != nil {
			t.Errorf("%q: %+v, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"", ":f", "Web:f", "..:f", "a b:f", strings.Repeat("n", 300) + ":f"} {
		if got, err := parseLocation(arg); err == nil {
			t.Errorf("%q: %+v", arg, got)
		}
	}
}

func TestMeterLine(t *testing.T) {
	for want, p := range map[string]transfer.Progress{
		"copying: 0 B, 0 B/s":                                               {},
		"copying: 3.0 MiB, 1.5 MiB/s":                                       {Bytes: 3 << 20},
		"copying: 1.0 KiB, 512 B/s: a[2J 50 %":                              {Entries: 1, Bytes: 1 << 10, Name: "a\x1b[2J", Size: 2048, Taken: 1024},
		"copying: 20000 files, 300 GiB, 150 GiB/s: x":                       {Entries: 20000, Bytes: 300 << 30, Name: "\u202e\u202ex\u202e\u202e\u200b\u200b\u200b\u200b\u200b\u200b\u200b"},
		"copying: 4 B, 2 B/s: " + strings.Repeat("n", maxShownName-3) + "…": {Entries: 1, Bytes: 4, Name: strings.Repeat("n", 255), Size: 1, Taken: 4},
	} {
		if got := meterLine(p, 2*time.Second); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// confinedCopy checks the rights of a process that receives files: it may write in its
// directory, and read nothing else.
func confinedCopy() {
	dir := os.Args[1]
	confineCopy(dir, filepath.Join(dir, "none"))
	at := func(n string) string { return filepath.Join(dir, n) }
	try := func(what string, err error) {
		verdict := "may"
		if err != nil {
			verdict = "may not"
		}
		fmt.Println(verdict, what)
	}
	try("write below", errors.Join(os.MkdirAll(at("d/e"), 0o755), os.WriteFile(at("d/e/f"), nil, 0o644), os.Rename(at("d/e/f"), at("d/e/g")), os.Symlink("x", at("d/l"))))
	_, err := os.ReadFile("/etc/passwd")
	try("read /etc/passwd", err)
	try("write beside", os.WriteFile(dir+".beside", nil, 0o644))
	_, err = os.ReadDir("/")
	try("list /", err)
}
