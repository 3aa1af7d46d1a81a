package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"vix/internal/plain"
)

// Limits of a VM's log. What a guest prints on its console ends up here.
const (
	LogName    = "log"
	OldLogName = "log.1"

	maxLogFile  = 2 << 20 // then log becomes log.1
	MaxLogLine  = 4 << 10
	maxFollower = 1024 // lines that may wait for one reader of logs -f
)

// A Journal is the log of one VM: lines with a time and a source, in a file of bounded
// size, and sent to followers. Every line is safe for a terminal.
type Journal struct {
	dir   *os.Root
	start time.Time

	mu        sync.Mutex
	file      *os.File
	size      int64
	followers map[chan string]struct{}
	closed    bool
}

func OpenJournal(dir *os.Root, start time.Time) (*Journal, error) {
	f, err := dir.OpenFile(LogName, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &Journal{dir: dir, start: start, file: f, followers: map[chan string]struct{}{}}, nil
}

// Printf adds one line from source.
func (j *Journal) Printf(source, format string, args ...any) {
	j.Add(source, fmt.Sprintf(format, args...))
}

func (j *Journal) Add(source, text string) {
	line := fmt.Sprintf("%8.3f [%s] %s\n", time.Since(j.start).Seconds(), source, plain.Text(strings.TrimRight(text, "\r\n"), MaxLogLine, plain.OneLine))
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	if j.size += int64(len(line)); j.size > maxLogFile {
		j.rotateLocked()
		j.size = int64(len(line))
	}
	// A full disk must not stop a VM: the line is lost, followers still get it.
	_, _ = io.WriteString(j.file, line)
	for f := range j.followers {
		select {
		case f <- line:
		default: // a follower that does not read loses lines, and nobody waits
		}
	}
}

func (j *Journal) rotateLocked() {
	if err := j.dir.Rename(LogName, OldLogName); err != nil {
		return
	}
	f, err := j.dir.OpenFile(LogName, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	j.file.Close()
	j.file = f
}

// CopyTo sends the log so far to emit, and with follow also new lines until the journal
// closes or ctx ends.
func (j *Journal) CopyTo(ctx context.Context, follow bool, emit func(string) error) error {
	next := make(chan string, maxFollower)
	past, err := j.subscribe(next, follow)
	if err != nil {
		return err
	}
	defer j.unsubscribe(next)
	for _, f := range past {
		if err == nil {
			err = emitLines(f, emit)
		}
		f.Close()
	}
	for follow && err == nil {
		select {
		case line, ok := <-next:
			if !ok {
				return nil
			}
			err = emit(line)
		case <-ctx.Done():
			return nil
		}
	}
	return err
}

// subscribe opens the files as they are and, in the same moment, registers
// next, so that no line is lost or doubled in between.
func (j *Journal) subscribe(next chan string, follow bool) ([]io.ReadCloser, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var past []io.ReadCloser
	for _, name := range []string{OldLogName, LogName} {
		f, err := j.dir.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		past = append(past, struct {
			io.Reader
			io.Closer
		}{io.LimitReader(f, st.Size()), f})
	}
	switch {
	case follow && j.closed:
		close(next)
	case follow:
		j.followers[next] = struct{}{}
	}
	return past, nil
}

func (j *Journal) unsubscribe(next chan string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.followers, next)
}

func emitLines(r io.Reader, emit func(string) error) error {
	b := bufio.NewReaderSize(r, MaxLogLine*2)
	for {
		line, err := b.ReadString('\n')
		if line != "" {
			if err := emit(line); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// Close ends the log; followers end after the last line.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	for f := range j.followers {
		close(f)
	}
	clear(j.followers)
	return j.file.Close()
}

// EachLine calls f with every line of r, a longer one than maxLogLine in
// pieces, until r ends.
func EachLine(r io.Reader, f func(string)) {
	b := bufio.NewReaderSize(r, MaxLogLine)
	for {
		line, err := b.ReadSlice('\n')
		if text := strings.TrimRight(string(line), "\r\n"); text != "" {
			f(text)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// A Tail remembers the last lines of a stream, to explain how it ended.
type Tail struct {
	mu   sync.Mutex
	last []string
	why  string // the last line that says what is wrong
}

const tailLines = 3

func (t *Tail) Add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, plain.Text(line, MaxLogLine, plain.OneLine))
	if len(t.last) > tailLines {
		t.last = slices.Delete(t.last, 0, 1)
	}
	if saysTrouble(line) {
		t.why = t.last[len(t.last)-1]
	}
}

// Trouble returns the last line that says what is wrong; "" if there was none.
func (t *Tail) Trouble() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.why
}

// String returns the lines as one.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.last, " | ")
}

// LineWriter is called with every write; a slog handler writes a line at a time.
type LineWriter func(string)

func (w LineWriter) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}

// saysTrouble reports whether a line of QEMU's says what is wrong; the dump of registers
// that follows does not.
func saysTrouble(line string) bool {
	l := strings.ToLower(line)
	return strings.Contains(l, "error") || strings.Contains(l, "fail")
}
