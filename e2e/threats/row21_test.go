package threats

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"vix/internal/termsafe"
	"vix/internal/termsafe/termsafetest"
)

// spoken is what a guest says to a person's terminal: what sets, what asks, what stays.
var spoken = []string{
	"\x1b]52;c;b3duZWQ=\a", "\x1b]52;p;?\x1b\\", "\u009d52;c;b3duZWQ=\u009c", "\x9d52;c;b3duZWQ=\x9c", "\x1bPtmux;\x1b\x1b]52;c;eA==\a\x1b\\",
	"\x1b]0;root@host\a", "\x1b]2;\r rm -rf ~\r\x1b\\\x1b[21t", "\x1bkname\x1b\\", "\x1b]7;file:///etc\a", "\x1b]8;;http://evil/\x1b\\", "\x1b]9;x\a", "\x1b]1337;File=:eA==\a",
	"\x1b]4;1;?\a\x1b]10;?\a\x1b]11;?\a\x1b]12;?\a", "\x1b]11;#000000\a\x1b]P0000000", "\x05", "\x1b[c\x1b[>c\x1b[=c\x1bZ", "\x1b[5n\x1b[6n\x1b[?6n", "\x1b[>q", "\x1b[?u", "\x1b[?4m",
	"\x1bP$qm\x1b\\", "\x1bP+q544e\x1b\\", "\x1b[?2026$p", "\x1b[14t\x1b[8;9;9t", "\x1b[1;1;1;1;1;1*y", "\x1b[?1;1;0S", "\x1b_Ga=q\x1b\\", "\x1bPq~\x1b\\", "\x1b^x\x1b\\", "\x1bXx\x1b\\",
	"\x1b[5i", "\x1b[3J", "\x1b%@", "\x1b[?2l", "\x1b[2h", "\x1b[12l", "\x1b F", "\x1b[3g", "\x1b[<99u", "\x1b[?1049l", "\x1b[1;1;1;1;1T", "\x1b[?2031h", "\x1b[?2048h", "\xc2", "\xe2\x80", "\x1b", "\x1b[", "\x1b]52;",
	"\x1b[?1049h", "\x1b[?47h", "\x1b[>31u", "\x1b[=31u", "\x1b[?1000h", "\x1b[?1002;1003;1006;1015;1016;9h", "\x1b[?1004h", "\x1b[?2004h", "\x1b[?1h", "\x1b=", "\x1b[?25l", "\x1b[5 q", "\x1b[>4;2m",
	"\x1b(0\x0e", "\x1b)0", "\x1b[4h", "\x1b[?7l", "\x1b[?6h", "\x1b[?5h", "\x1b[?2026h", "\x1b[2;4r", "\x1b[1;8;31m", "\x1b7", "\x1b8", "\x1b[!p", "\x1bc", "\x1b[H", "\x1b[A", "\u202e", "text\r", "text\n",
}

// speech is all of it in order, then in any order, and cut anywhere.
func speech(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	out := []byte(strings.Join(spoken, ""))
	for len(out) < 64<<10 {
		s := spoken[r.IntN(len(spoken))]
		if r.IntN(4) == 0 {
			s = s[:r.IntN(len(s)+1)]
		}
		out = append(out, s...)
	}
	return out
}

// A person is at a terminal, at which vix-launcher runs.
type person struct {
	t    *testing.T
	keys *os.File
	done chan struct{} // closed when the command has ended and nothing more is shown
	pid  int

	mu   sync.Mutex
	saw  bytes.Buffer
	more chan struct{}
}

// sit starts vix-launcher on a terminal of its own.
func (s *stage) sit(t *testing.T, args ...string) *person {
	t.Helper()
	cmd := s.Command(append([]string{s.Launcher()}, args...)...)
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	attr := &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if cmd.SysProcAttr != nil {
		attr.Credential = cmd.SysProcAttr.Credential
	}
	keys, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 24, Cols: 80}, attr)
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, keys: keys, done: make(chan struct{}), pid: cmd.Process.Pid, more: make(chan struct{})}
	go func() {
		_, _ = io.Copy(p, keys) // ends with the last who has the terminal open: the guard too
		_ = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { keys.Close() })
	return p
}

func (p *person) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.saw.Write(b)
	close(p.more)
	p.more = make(chan struct{})
	return len(b), nil
}

func (p *person) text() (string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.saw.String(), p.more
}

// reads waits for a word on the terminal.
func (p *person) reads(word string) {
	p.t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		text, more := p.text()
		if strings.Contains(text, word) {
			return
		}
		select {
		case <-more:
		case <-limit:
			p.t.Fatalf("%q is not shown: %q", word, text[max(0, len(text)-400):])
		}
	}
}

// unharmed waits for the end, and looks at all that the terminal got.
func (p *person) unharmed(what string, kind termsafe.Kind) string {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		p.t.Fatalf("%s: does not end", what)
	}
	text, _ := p.text()
	w := termsafetest.New(kind)
	w.See([]byte(strings.Replace(text, "\x18", "", 1))) // the guard's, before what it puts back
	if problem := w.Problem(); problem != "" {
		p.t.Errorf("%s: the terminal got %s; of %d bytes, the last: %q", what, problem, len(text), text[max(0, len(text)-300):])
	}
	if left := w.Left(); left != "" {
		p.t.Errorf("%s: the terminal is left with %s; the last: %q", what, left, text[max(0, len(text)-300):])
	}
	return text
}

// TestThreat21Terminal: root of the evil VM speaks to the terminals of exec, run, shell
// and logs. Seen to fail with each of these and --raw.
func TestThreat21Terminal(t *testing.T) {
	s := threat(t, 21)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	put := s.Command(append([]string{s.Launcher()}, asRoot("sh", "-c", "cat >/tmp/speech; chmod 644 /tmp/speech")...)...)
	put.Stdin = bytes.NewReader(speech(seed))
	if res := s.Run(put); res.Code != 0 {
		t.Fatal(res)
	}
	const both = "cat /tmp/speech & cat /tmp/speech >&2; wait; echo; echo the end"
	for what, args := range map[string][]string{
		"exec": asRoot("sh", "-c", both),
		"run":  {"run", "--vm", "evil", "sh", "-c", both},
	} {
		p := s.sit(t, args...)
		if text := p.unharmed(what, termsafe.Line); !strings.Contains(text, "the end") {
			t.Errorf("%s: %q", what, text[max(0, len(text)-300):])
		}
	}
	s.Must("run", "--vm", "evil", "--background", "sh", "-c", "cat /tmp/speech; cat /tmp/speech >&2; head -c 20000 /tmp/speech | tr '\\n' ' ' >/dev/kmsg 2>/dev/null; echo the end")
	for deadline := time.Now().Add(time.Minute); !strings.Contains(s.log(t), "[sh] the end") && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // the log of a program in the background
	}
	s.sit(t, "logs", "evil").unharmed("logs", termsafe.Line)

	tty := []string{"exec", "evil", "--user", "root", "--tty", "--", "sh", "-c"}
	for what, script := range map[string]string{
		"exec --tty":              "cat /tmp/speech",
		"exec --tty, killed":      "cat /tmp/speech; kill -9 $$",
		"exec --tty, left behind": "(trap '' HUP; sleep 1; cat /tmp/speech) & cat /tmp/speech",
	} {
		s.sit(t, append(tty[:len(tty):len(tty)], script)...).unharmed(what, termsafe.Screen)
	}
	p := s.sit(t, "shell", "--user", "root", "evil")
	p.reads("# ")
	fmt.Fprint(p.keys, "cat /tmp/speech; exit\r")
	p.unharmed("shell", termsafe.Screen)

	const stays = "trap '' INT TERM HUP; cat /tmp/speech; printf '\\n\\033[?1000hshown\\n'; while :; do sleep 1; done"
	p = s.sit(t, append(tty[:len(tty):len(tty)], stays)...)
	p.reads("shown")
	fmt.Fprint(p.keys, "\r~.")
	if text := p.unharmed("left by ~.", termsafe.Screen); !strings.Contains(text, "\nvix: VM evil: left with ~.") {
		t.Errorf("Vix's own line is not on a line of its own: %q", text[max(0, len(text)-300):])
	}
	p = s.sit(t, append(tty[:len(tty):len(tty)], stays)...)
	p.reads("shown")
	if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.unharmed("vix-launcher killed", termsafe.Screen)
	s.unharmed(t)
}
