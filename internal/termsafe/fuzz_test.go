package termsafe_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"vix/internal/termsafe"
	"vix/internal/termsafe/termsafetest"
)

// FuzzFilter: nothing forbidden gets out; the division of the input into pieces does not
// matter; each piece of output ends outside any sequence; and Restore resets everything.
func FuzzFilter(f *testing.F) {
	for _, s := range termsafe.Nothing {
		f.Add([]byte("a"+s+"b\n"), true, uint64(1))
		f.Add([]byte("a"+s+"b\n"), false, uint64(2))
	}
	f.Add([]byte("\x1b[?1049h\x1b[>1u\x1b[?25l\x1b[2;5r\x1b[?6h\x1b7\x1b(0\x0e\x1b[31m\x1b8\x1b[!p"), true, uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, screen bool, seed uint64) {
		kind := termsafe.Line
		if screen {
			kind = termsafe.Screen
		}
		whole := termsafe.Filter{Kind: kind}
		want := whole.Append(nil, data)
		pieces := termsafe.Filter{Kind: kind}
		w := termsafetest.New(kind)
		var got []byte
		r := rand.New(rand.NewPCG(seed, 0))
		for rest := data; len(rest) > 0; {
			n := 1 + r.IntN(min(len(rest), 1+r.IntN(16)))
			out := pieces.Append(nil, rest[:n])
			w.See(out)
			got, rest = append(got, out...), rest[n:]
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("in pieces %q, whole %q", got, want)
		}
		if whole.State() != pieces.State() {
			t.Fatalf("in pieces %+v, whole %+v", pieces.State(), whole.State())
		}
		restore := pieces.Restore(nil)
		w.See(restore)
		if left := w.Left(); w.Problem() == "" && left != "" {
			t.Fatalf("%q, then %q, leaves on: %s", got, restore, left)
		}
		if w.Problem() != "" {
			t.Fatalf("%s: of %q, then %q", w.Problem(), got, restore)
		}
		if len(pieces.Restore(nil)) > 0 {
			t.Fatal("restored twice")
		}
		if plain := !slices.ContainsFunc(data, func(c byte) bool { return c != '\n' && (c < ' ' || c > '~') }); plain && !bytes.Equal(got, data) {
			t.Fatalf("%q of plain %q", got, data)
		}
		if again := (&termsafe.Filter{Kind: kind}).Append(nil, got); kind == termsafe.Line && !bytes.Equal(again, got) {
			t.Fatalf("not the same twice: %q, then %q", got, again)
		}
	})
}

// words are a program's sequences that may leave something on.
var words = []string{
	"\x1b[?1049h", "\x1b[?1049l", "\x1b[?47h", "\x1b[?47l", "\x1b[?1048h", "\x1b[?1048l", "\x1b[>1u", "\x1b[=3u", "\x1b[<u", "\x1b[<9u", "\x1b[?1000;1006h", "\x1b[?1000l",
	"\x1b[?1004h", "\x1b[?2004h", "\x1b[?2004l", "\x1b[?1h", "\x1b=", "\x1b>", "\x1b[?25l", "\x1b[?25h", "\x1b[5 q", "\x1b[0 q", "\x1b[>4;2m", "\x1b[>4m", "\x1b(0", "\x1b(B", "\x1b)0", "\x0e", "\x0f",
	"\x1b[4h", "\x1b[4l", "\x1b[?7l", "\x1b[?7h", "\x1b[?6h", "\x1b[?6l", "\x1b[?5h", "\x1b[?2026h", "\x1b[2;4r", "\x1b[r", "\x1b[1;31m", "\x1b[m", "\x1b7", "\x1b8", "\x1b[s", "\x1b[u", "\x1b[!p", "\x1bc", "text", "\r\n",
}

// For every order of a program's sequences, and every end, everything is reset.
// This test found that a cursor restored after a reset brings modes back.
func TestAnyOrder(t *testing.T) {
	said := words
	for _, s := range termsafe.Nothing {
		said = append(said, s)
	}
	seed := rand.Uint64()
	for i := range 3000 {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		f := termsafe.Filter{Kind: termsafe.Screen}
		w := termsafetest.New(termsafe.Screen)
		var in []byte
		for range 1 + r.IntN(40) {
			s := words[r.IntN(len(words))]
			if r.IntN(8) == 0 {
				s = said[r.IntN(len(said))]
				s = s[:r.IntN(len(s)+1)]
			}
			in = append(in, s...)
			w.See(f.Append(nil, []byte(s)))
		}
		restore := f.Restore(nil)
		w.See(restore)
		if w.Problem() != "" || w.Left() != "" {
			t.Fatalf("seed %d, %d: %s, left on %s, of %q and %q", seed, i, w.Problem(), w.Left(), in, restore)
		}
	}
}
