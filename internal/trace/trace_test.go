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

// say gives the tracer one message of words.
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

func TestPerfetto(t *testing.T) {
	var b bytes.Buffer
	tr := New(Options{Perfetto: &b})
	talk(tr)
	tr.Span(1, "copy", tr.begin, tr.begin.Add(3*time.Millisecond))
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	var events []traceEvent
	if err := json.Unmarshal(b.Bytes(), &events); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	kinds := map[string]int{}
	for _, e := range events {
		kinds[e.Ph]++
		if e.Ph == "X" && e.Dur != 3000 {
			t.Errorf("the copy took %v µs", e.Dur)
		}
	}
	if kinds["i"] != 5 || kinds["b"] != 1 || kinds["e"] != 1 || kinds["X"] != 1 || kinds["M"] != 8 {
		t.Errorf("events: %v\n%s", kinds, b.String())
	}
	b.Reset()
	if err := New(Options{Perfetto: &b}).Close(); err != nil || b.String() != "[]\n" {
		t.Errorf("nothing traced: %q, %v", b.String(), err)
	}
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
