package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"vix/internal/proc"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": ""}, "capabilities": ["oob"]}}`

// talk gives a monitor a QEMU whose every answer is answer's. It ends with the
// test.
func talk(t *testing.T, first string, answer func(command string) string) *Monitor {
	t.Helper()
	ours, theirs, err := proc.Socketpair("qmp")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMonitor(ours)
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
		if st, err := m.Status(); st != "running" || err != nil {
			t.Fatalf("status %q, %v", st, err)
		}
	}
	var long string
	if err := m.Execute("qom-list", nil, &long); err != nil || len(long) != 200<<10 {
		t.Errorf("a long reply: %d bytes, %v", len(long), err)
	}
	var refusal *qmpError
	if err := m.Execute("quit", nil, nil); !errors.As(err, &refusal) || refusal.Class != "GenericError" || err.Error() != "qmp: quit: not now" {
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
	if _, err := m.Status(); err == nil {
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
	patience := m.timeout
	m.timeout = 200 * time.Millisecond
	if st, err := m.Status(); err == nil {
		t.Errorf("no reply: %q", st)
	}
	m.timeout = patience
	for i := 3; i < 6; i++ {
		if st, err := m.Status(); err != nil || st != fmt.Sprint("to ", i) {
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
			m.timeout = 200 * time.Millisecond
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
