package vm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": ""}, "capabilities": ["oob"]}}`

// talk gives a monitor a QEMU whose every answer is answer's. It ends with the
// test.
func talk(t *testing.T, first string, answer func(command string) string) *monitor {
	t.Helper()
	ours, theirs, err := socketpair("qmp")
	if err != nil {
		t.Fatal(err)
	}
	m := newMonitor(ours)
	m.timeout = 200 * time.Millisecond
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		fmt.Fprintln(theirs, first)
		for lines := bufio.NewScanner(theirs); lines.Scan(); {
			fmt.Fprint(theirs, answer(lines.Text()))
		}
	}()
	t.Cleanup(func() { ours.Close(); <-done })
	return m
}

func TestQMP(t *testing.T) {
	noise := strings.Repeat(`{"event": "NOISE", "data": {"n": 1}, "timestamp": {"seconds": 1, "microseconds": 2}}`+"\n", 500)
	m := talk(t, greeting, func(command string) string {
		switch {
		case strings.Contains(command, "query-status"):
			// Events that nobody takes, before and after: a reply waits for none.
			return noise + `{"return": {"status": "running", "running": true}}` + "\n" + noise
		case strings.Contains(command, "qom-list"):
			return `{"return": "` + strings.Repeat("x", 200<<10) + "\"}\n"
		case strings.Contains(command, "quit"):
			return `{"error": {"class": "GenericError", "desc": "not now"}}` + "\n"
		}
		return "{\"return\": {}}\n"
	})
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if st, err := m.status(); st != "running" || err != nil {
			t.Fatalf("status %q, %v", st, err)
		}
	}
	var long string
	if err := m.execute("qom-list", nil, &long); err != nil || len(long) != 200<<10 {
		t.Errorf("a long reply: %d bytes, %v", len(long), err)
	}
	var refused *qmpError
	if err := m.execute("quit", nil, nil); !errors.As(err, &refused) || refused.Class != "GenericError" || err.Error() != "qmp: quit: not now" {
		t.Errorf("refused: %v", err)
	}
	if err := m.Disconnect(); err != nil {
		t.Error(err)
	}
	events, _ := m.Events(t.Context())
	n := 0
	for range events {
		n++
	}
	if n != qmpEvents {
		t.Errorf("%d events waited, want %d", n, qmpEvents)
	}
	if _, err := m.status(); err == nil {
		t.Error("a command after Disconnect works")
	}
}

// QEMU may stand still for a while: what it says late is not taken for the reply to the next
// command, which is answered as ever.
func TestQMPLateReply(t *testing.T) {
	late := ""
	m := talk(t, greeting, func(command string) string {
		var c struct{ ID int }
		_ = json.Unmarshal([]byte(command), &c)
		answer := fmt.Sprintf(`{"return": {"status": "to %d"}, "id": %d}`+"\n", c.ID, c.ID)
		if c.ID == 2 {
			late = answer
			return ""
		}
		return late + answer
	})
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	if st, err := m.status(); err == nil {
		t.Errorf("no reply: %q", st)
	}
	for i := 3; i < 6; i++ {
		if st, err := m.status(); err != nil || st != fmt.Sprint("to ", i) {
			t.Errorf("command %d: %q, %v", i, st, err)
		}
	}
	if err := m.Disconnect(); err != nil {
		t.Error(err)
	}
}

// What is not QMP ends the connection, and no reply is an error.
func TestQMPFailures(t *testing.T) {
	for name, tt := range map[string]struct {
		first  string
		answer string
	}{
		"no greeting":    {"hello", ""},
		"empty greeting": {"{}", ""},
		"no reply":       {greeting, ""},
		"not JSON":       {greeting, "what?\n"},
		"endless line":   {greeting, strings.Repeat("x", maxQMPLine+100<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			m := talk(t, tt.first, func(string) string { return tt.answer })
			if err := m.Connect(); err == nil {
				t.Error("connected")
			}
			if _, err := m.Run([]byte(`{"execute": "query-status"}`)); err == nil {
				t.Error("a command works afterwards")
			}
			_ = m.Disconnect()
		})
	}
}

// A peer of another user is refused.
func TestCheckPeer(t *testing.T) {
	b := newBench(t)
	seat, err := b.reg.take(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	defer seat.close()
	conn, pid, err := b.reg.dial("t")
	if err != nil || pid != os.Getpid() {
		t.Fatalf("pid %d, %v", pid, err)
	}
	defer conn.Close()
	if _, err := checkPeer(conn, os.Getuid()+1); err == nil || !strings.Contains(err.Error(), "the peer is user") {
		t.Errorf("another user: %v", err)
	}
}

// What the display process tells of windows is a guest's: bounded, and fit for
// a terminal.
func TestWindowEvents(t *testing.T) {
	b := newBench(t)
	if err := os.Mkdir(b.dir+"/vix/t", 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := newSupervisor(b.launch("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.reg.Close()
	defer s.dir.Close()
	var in strings.Builder
	in.WriteString("not JSON\n{\"event\":\"window\",\"id\":\"x\"}\n{\"event\":\"ready\"}\n{\"event\":\"unknown\",\"id\":7}\n")
	for i := range 2 * maxWindows {
		fmt.Fprintf(&in, `{"event":"window","id":%d,"title":"\u001b[31m\u202e%s","app_id":"%s"}`+"\n", i, strings.Repeat("ü", 1000), strings.Repeat("a", 1000))
	}
	in.WriteString("{\"event\":\"window-closed\",\"id\":3}\n{\"event\":\"window-closed\",\"id\":99999}\n")
	in.WriteString(strings.Repeat("x", 100<<10) + "\n")
	s.readEvents(strings.NewReader(in.String()), 1)
	st := s.snapshot()
	if len(st.Windows) != maxWindows-1 {
		t.Errorf("%d windows", len(st.Windows))
	}
	for _, w := range st.Windows {
		if len(w.Title) > maxTitle+10 || len(w.AppID) > maxTitle+10 || strings.ContainsAny(w.Title, "\x1b\u202e") {
			t.Fatalf("%q %q", w.Title, w.AppID)
		}
	}
	if len(st.Stages) != 1 || st.Stages[0].Name != "window" {
		t.Errorf("stages %+v", st.Stages)
	}
	if err := s.log.close(); err != nil {
		t.Error(err)
	}
}
