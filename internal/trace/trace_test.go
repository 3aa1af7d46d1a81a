package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"vix/internal/wayland"
)

// say passes one message of words to the tracer.
func say(t *Tracer, conn uint64, fromClient bool, i *wayland.Interface, id uint32, op int, words ...uint32) {
	m := &i.Events
	if fromClient {
		m = &i.Requests
	}
	var e wayland.Encoder
	e.Msg(id, uint16(op), words...)
	t.Message(conn, fromClient, i, id, &(*m)[op], e.B[wayland.HeaderSize:])
}

func talk(t *Tracer) {
	say(t, 1, true, wayland.WlSurface, 3, wayland.WlSurfaceReqFrame, 9)
	say(t, 1, true, wayland.WlSurface, 3, wayland.WlSurfaceReqCommit)
	say(t, 1, false, wayland.WlPointer, 4, wayland.WlPointerEvtMotion, 1, 256, 640)
	say(t, 1, false, wayland.WlCallback, 9, wayland.WlCallbackEvtDone, 77)
	say(t, 2, true, wayland.WlShmPool, 5, wayland.WlShmPoolReqResize, 4096)
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	tr := New(Options{Text: &b})
	talk(tr)
	var got []string
	for line := range strings.Lines(b.String()) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "] ")
		got = append(got, rest)
	}
	want := []string{
		"#1 -> wl_surface#3.frame(new id wl_callback#9)",
		"#1 -> wl_surface#3.commit()",
		"#1 wl_pointer#4.motion(1, 1, 2.5)",
		"#1 wl_callback#9.done(77)",
		"#2 -> wl_shm_pool#5.resize(4096)",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestClasses(t *testing.T) {
	for in, want := range map[string]string{
		"":              "frame commit motion done resize",
		"all":           "frame commit motion done resize",
		"-motion":       "frame commit done resize",
		"shm":           "resize",
		"-frame,-shm":   "motion",
		"frame, motion": "frame commit motion done",
	} {
		c, err := ParseClasses(in)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		talk(New(Options{Classes: c, Text: &b}))
		var got []string
		for line := range strings.Lines(b.String()) {
			_, rest, _ := strings.Cut(line, ".")
			_, rest, _ = strings.Cut(rest, ".")
			name, _, _ := strings.Cut(rest, "(")
			got = append(got, name)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q shows %s", in, s)
		}
	}
	if c, err := ParseClasses("times"); c != Times || c&All != 0 || err != nil {
		t.Error(c, err)
	}
	for _, in := range []string{"times,input", "-times", "moton", "frame,,x", "-"} {
		if _, err := ParseClasses(in); in != "-" && err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestRing(t *testing.T) {
	tr := New(Options{Ring: 3})
	talk(tr)
	var b bytes.Buffer
	if err := tr.Dump(&b); err != nil {
		t.Fatal(err)
	}
	if s := b.String(); strings.Count(s, "\n") != 3 || strings.Contains(s, "commit") || !strings.HasSuffix(s, "resize(4096)\n") {
		t.Errorf("the ring holds\n%s", s)
	}
}

// TestPerfetto checks a timeline against the rules of the trace event format, and
// that it has everything that was traced.
func TestPerfetto(t *testing.T) {
	var b bytes.Buffer
	tr := New(Options{Perfetto: &b})
	at := func(ms int) time.Time { return tr.begin.Add(time.Duration(ms) * time.Millisecond) }
	talk(tr)
	talk(tr) // with the same callback's id
	tr.Span(1, "copy", at(0), at(3))
	tr.Span(1, "copy", at(3), at(3))
	tr.Fence(1, "POLL", at(-5), at(4)) // began before the trace
	tr.Fence(1, "SEND", at(1), at(2))
	tr.Fence(3, "WRITE", at(1), at(6))
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	kinds := checkTimeline(t, b.Bytes())
	for kind, n := range map[string]int{"i": 10, "b frame": 2, "e frame": 2, "X": 2, "b fence": 3, "e fence": 3, "M": 12} {
		if kinds[kind] != n {
			t.Errorf("%d events of kind %s, not %d", kinds[kind], kind, n)
		}
	}
	b.Reset()
	if err := New(Options{Perfetto: &b}).Close(); err != nil || b.String() != "[]\n" {
		t.Errorf("nothing traced: %q, %v", b.String(), err)
	}
}

// checkTimeline checks a file as an importer of the trace event format reads it: the
// fields that each kind of event must have, of the right types; slices of a track
// that nest; asynchronous events in pairs. It returns the number of each kind.
func checkTimeline(t *testing.T, file []byte) map[string]int {
	t.Helper()
	var events []map[string]any
	if err := json.Unmarshal(file, &events); err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	type track struct{ pid, tid float64 }
	kinds, named := map[string]int{}, map[track]bool{}
	began, ended := map[string]float64{}, map[string]float64{}
	until := map[track]float64{}
	for _, e := range events {
		number := func(key string) float64 {
			v, ok := e[key].(float64)
			if !ok || v < 0 {
				t.Errorf("%s is %v in %v", key, e[key], e)
			}
			return v
		}
		text := func(key string) string {
			v, ok := e[key].(string)
			if !ok || v == "" {
				t.Errorf("%s is %v in %v", key, e[key], e)
			}
			return v
		}
		name, ph, ts, on := text("name"), text("ph"), number("ts"), track{number("pid"), number("tid")}
		kind := ph
		switch ph {
		case "M": // metadata: the name of a process or a thread
			args, _ := e["args"].(map[string]any)
			if s, ok := args["name"].(string); !ok || s == "" || name != "process_name" && name != "thread_name" {
				t.Errorf("metadata %v", e)
			}
			named[on] = true
		case "i": // instant, of its thread
			if s := text("s"); s != "t" {
				t.Errorf("scope %q", s)
			}
		case "X": // slice
			if ts < until[on] {
				t.Errorf("slices of a track overlap at %v", ts)
			}
			until[on] = ts + number("dur")
		case "b", "e": // asynchronous
			cat := text("cat")
			key := cat + text("id") + name
			times := map[string]map[string]float64{"b": began, "e": ended}[ph]
			if _, twice := times[key]; twice {
				t.Errorf("%s of %s twice", ph, key)
			}
			times[key] = ts
			kind += " " + cat
		default:
			t.Errorf("kind %q", ph)
		}
		if ph != "M" && !named[on] {
			t.Errorf("track %v has no name: %v", on, e)
		}
		kinds[kind]++
	}
	for key, ts := range ended {
		if from, ok := began[key]; !ok || from > ts {
			t.Errorf("%s ends at %v and begins at %v", key, ts, from)
		}
	}
	return kinds
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestBrokenWriter(t *testing.T) {
	tr := New(Options{Text: brokenWriter{}})
	talk(tr)
	if err := tr.Close(); err == nil || err.Error() != "disk full" {
		t.Error(err)
	}
}

func TestEveryMessageHasAClass(t *testing.T) {
	for _, i := range wayland.Interfaces() {
		for _, ms := range [][]wayland.Message{i.Requests, i.Events} {
			for k := range ms {
				if c := classOf(i, &ms[k]); c == 0 || c&(c-1) != 0 || c > Other {
					t.Errorf("%s.%s is of class %#x", i.Name, ms[k].Name, c)
				}
			}
		}
	}
}
