package clipboard

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/png"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"vix/internal/wayland/waylandtest"
)

func TestStrip(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\n":                     "plain\ttext\n",
		"a\x1b[31mred\x1b[0mb":              "aredb",
		"a\x1b]0;title\ab\x1b]8;;u\x1b\\c":  "abc",
		"a\x1b]unended\nb":                  "a\nb",
		"a\x1bPdcs\x1b\\b\x1b(Bc\x1b=d\x1b": "abcd",
		"a\u009b1mb\u009dx\u009cc":          "abc",
		"one\r\ntwo\rthree":                 "one\ntwo\nthree",
		"\x00\x01\x7f\u0085x":               "x",
		"\u202eabc\u2066\u2069":             "abc",
		"\U0001f468\u200d\U0001f469 é":      "\U0001f468\u200d\U0001f469 é",
	} {
		if got := string(Strip([]byte(in))); got != want {
			t.Errorf("%q became %q, not %q", in, got, want)
		}
	}
}

func FuzzStrip(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		it, err := Convert(Text, data)
		if err != nil {
			t.Fatal(err)
		}
		out := Strip(it.Data)
		if !utf8.Valid(out) {
			t.Fatalf("%q became %q", data, out)
		}
		for _, r := range string(out) {
			if unicode.IsControl(r) && r != '\n' && r != '\t' || bidi(r) {
				t.Fatalf("%q became %q", data, out)
			}
		}
		if again := Strip(out); !bytes.Equal(again, out) {
			t.Fatalf("%q, and once more %q", out, again)
		}
	})
}

func FuzzConvertImage(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, _, err := image.DecodeConfig(bytes.NewReader(data)); err == nil && c.Width*c.Height > 1<<20 {
			return // the limit is tested below; here many small ones are
		}
		it, err := Convert(Image, data)
		if err != nil {
			return
		}
		if _, err := png.Decode(bytes.NewReader(it.Data)); err != nil || it.Kind != Image {
			t.Fatalf("what was made of it: %v", err)
		}
	})
}

// FuzzGive lets a user's process say anything to the display process, and, the other
// way, a display process that a guest has taken over to the user's.
func FuzzGive(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, serve := range []func(c net.Conn){
			func(c net.Conn) { NewWorld(Config{}).ServeGive(context.Background(), c) },
			func(c net.Conn) { NewWorld(Config{}).ServeTake(context.Background(), c) },
			func(c net.Conn) { NewWorld(Config{}).ServeFollow(context.Background(), c) },
			func(c net.Conn) {
				_, _ = Follow(c, 0)
				_ = c.Close()
			},
			func(c net.Conn) {
				items, err := Take(c, TakeRequest{Limits: map[string]int64{Text: 100, Image: 50}})
				for _, it := range items {
					if err == nil && len(it.Data) > 100 {
						t.Errorf("%d bytes of %s", len(it.Data), it.Kind)
					}
				}
				_ = c.Close()
			},
		} {
			near, far := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				serve(far)
			}()
			go func() {
				b := make([]byte, 512)
				for {
					if _, err := near.Read(b); err != nil {
						return
					}
				}
			}()
			_, _ = near.Write(data)
			_ = near.Close()
			<-done
		}
	})
}

// TestPictures holds what is no picture that the host would decode.
func TestPictures(t *testing.T) {
	var huge bytes.Buffer
	if err := png.Encode(&huge, image.NewGray(image.Rect(0, 0, 4097, 4097))); err != nil {
		t.Fatal(err)
	}
	small := new(bytes.Buffer)
	if err := png.Encode(small, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"text":      {[]byte("hello"), "known format"},
		"a bomb":    {huge.Bytes(), "4097×4097 pixels"},
		"cut short": {small.Bytes()[:40], "damaged"},
	} {
		if _, err := Convert(Image, c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	trailer := append(bytes.Clone(small.Bytes()), "a secret at the end"...)
	if it, err := Convert(Image, trailer); err != nil || bytes.Contains(it.Data, []byte("secret")) {
		t.Errorf("what is beside the pixels stays: %v", err)
	}
}

// TestReadAll holds that a source that stalls or says too much ends with a reason.
func TestReadAll(t *testing.T) {
	waylandtest.LeakCheck(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func(w *os.File) {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 200<<10)) // until nobody reads
		_ = w.Close()
	}(w)
	if _, err := read(r, Text, 100<<10); err == nil || !strings.Contains(err.Error(), "more than 102400 bytes") {
		t.Error(err)
	}
	r, w, err = os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("half"); err != nil {
		t.Fatal(err)
	}
	if _, err := read(r, Text, 100); err == nil || !strings.Contains(err.Error(), "stalls") {
		t.Error(err)
	}
}

// TestOffer holds that what is given is read in full, that it is over after that, and
// that a reader who does not read costs no more than its time.
func TestOffer(t *testing.T) {
	waylandtest.LeakCheck(t)
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	o := NewOffer([]Item{{Text, bytes.Clone(data)}})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o.Write("UTF8_STRING", w)
	var got bytes.Buffer
	if _, err := got.ReadFrom(r); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%d bytes came: %v", got.Len(), err)
	}
	_ = r.Close()
	if end := o.Wait(nil); end != EndUsed {
		t.Errorf("it ended as %q", end)
	}
	r, w, err = os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o.Write("text/plain", w) // nobody reads
	began := time.Now()
	o.Wipe()
	if time.Since(began) < stall {
		t.Error("a reader had no time")
	}
	if bytes.ContainsAny(o.items[0].Data, "0123456789") {
		t.Error("the data is still there")
	}
}

// TestTakeIsBounded holds that the user's side believes no header.
func TestTakeIsBounded(t *testing.T) {
	for name, say := range map[string]string{
		"more than the limit": `{"kind":"text","size":101}`,
		"a kind not asked":    `{"kind":"image","size":1}`,
		"no kind of ours":     `{"kind":"files","size":1}`,
		"less than nothing":   `{"kind":"text","size":-1}`,
		"twice":               `{"kind":"text","size":0}` + "\n" + `{"kind":"text","size":0}`,
		"a long line":         strings.Repeat("x", 5000),
		"an error":            `{"error":"\u001b[31mred\n"}`,
	} {
		near, far := net.Pipe()
		go func() {
			_, _ = bufio.NewReader(far).ReadString('\n')
			_, _ = far.Write([]byte(say + "\n"))
			_ = far.Close()
		}()
		items, err := Take(near, TakeRequest{Limits: map[string]int64{Text: 100}})
		_ = near.Close()
		if err == nil || strings.ContainsAny(err.Error(), "\x1b") {
			t.Errorf("%s: %d items, %v", name, len(items), err)
		}
	}
	if b, err := json.Marshal(TakeRequest{Limits: map[string]int64{Text: 1}}); err != nil || len(b) > maxLine {
		t.Error(err)
	}
}

// TestFollow holds that who follows hears of what is new, and of the last of many, and
// that the end of either side ends it.
func TestFollow(t *testing.T) {
	waylandtest.LeakCheck(t)
	w := NewWorld(Config{})
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.ServeFollow(t.Context(), far)
	}()
	st, err := Follow(near, 0)
	if err != nil || st.Seq != 1 || st.Has || st.Copies != 0 || st.Enters != 0 {
		t.Fatalf("%+v %v", st, err)
	}
	said := make(chan Status)
	go func() {
		got, err := Follow(near, st.Seq)
		if err != nil {
			t.Error(err)
		}
		said <- got
	}()
	for range 100 {
		w.mu.Lock()
		w.copies++
		w.ring()
		w.mu.Unlock()
	}
	got := <-said
	for ; got.Copies < 100; got = <-said {
		go func() {
			next, err := Follow(near, got.Seq)
			if err != nil {
				t.Error(err)
			}
			said <- next
		}()
	}
	if got.Seq != 101 {
		t.Errorf("%+v", got)
	}
	if err := near.Close(); err != nil {
		t.Error(err)
	}
	<-done
	if len(w.bells) != 0 {
		t.Error("a bell is left")
	}
}
