package termsafe

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// recorded returns a program's output to a terminal, from the fuzz target's corpus.
func recorded(b *testing.B, name string) []byte {
	b.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "fuzz", "FuzzFilter", name))
	if err != nil {
		b.Fatal(err)
	}
	_, quoted, _ := strings.Cut(string(text), "[]byte(")
	quoted, _, _ = strings.Cut(quoted, ")\nbool")
	s, err := strconv.Unquote(quoted)
	if err != nil {
		b.Fatal(err)
	}
	return []byte(s)
}

// BenchmarkStream passes a program's output through a pipe to a stand-in for a
// terminal, with the filter and without it (io.Copy).
func BenchmarkStream(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		name string
		text []byte
	}{
		{"log", []byte("[  123.456] some.service[42]: a line as programs write them, of some eighty letters\n")},
		{"german", []byte("Übergrößenträger möchten süße Äpfel, aber keine sauren Gurken in der schönen Küche\n")},
		{"chinese", []byte("任何来自虚拟机的字节都被认为是有敌意的，所以它们在到达终端之前会被检查。\n")},
		{"colours", []byte("\x1b[01;34mdirectory\x1b[0m  \x1b[01;32mprogram\x1b[0m  plain.txt  \x1b[01;36mlink\x1b[0m\n")},
		{"vim", recorded(b, "vim-screen")},
		{"htop", recorded(b, "htop-screen")},
	} {
		text := bytes.Repeat(c.text, 1+(1<<20)/len(c.text))
		for _, way := range []struct {
			name string
			w    io.Writer
		}{
			{"copy", null}, {"line", new(Terminal).Stream(null, Line, nil)}, {"screen", new(Terminal).Stream(null, Screen, func([]byte) {})},
		} {
			b.Run(c.name+"/"+way.name, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				buf := make([]byte, 32<<10)
				before := processor(b)
				for b.Loop() {
					if err := throughPipe(way.w, text, buf); err != nil {
						b.Fatal(err)
					}
				}
				// Steadier than a rate, on a machine with other work.
				b.ReportMetric((processor(b)-before).Seconds()*1e3/(float64(b.N)*float64(len(text))/(1<<20)), "cpu-ms/MiB")
			})
		}
	}
}

// processor returns the processor time of this process.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// throughPipe does what package vm does with a program's output.
func throughPipe(w io.Writer, text, buf []byte) error {
	r, p, err := os.Pipe()
	if err != nil {
		return err
	}
	go func() {
		_, _ = p.Write(text)
		p.Close()
	}()
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf)
	r.Close()
	return err
}
