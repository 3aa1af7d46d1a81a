package plain

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for _, c := range []struct {
		in    string
		most  int
		lines bool
		want  string
	}{
		{"plain", 5, OneLine, "plain"},
		{"plain", 4, OneLine, "plai"},
		{"plain", 2, OneLine, "pl"},
		{"plain", 0, OneLine, ""},
		{"plain", -1, OneLine, ""},
		{"", 10, OneLine, ""},
		{"grün äöü", 100, OneLine, "grün äöü"},
		{"ééééé", 7, OneLine, "ééé"}, // never half a rune
		{"a\x1b[31mb\x1b]0;x\a", 100, OneLine, "a[31mb]0;x"},
		{"a\u009b31mb\x9b", 100, OneLine, "a31mb"},
		{"a\u202eb\u2066c\u200fd\u061ce", 100, OneLine, "abcde"},
		{"a\nb\tc\rd\u2028e\u00a0f\u3000g\u0085h\vi\fj", 100, OneLine, "a b c d e f g h i j"},
		{"a\nb\tc\u2028d", 100, Lines, "a\nb c d"},
		{"a\xff\xc3b\xe2\x82", 100, OneLine, "ab"},
		{"\ufffd", 100, OneLine, ""},
		{"a\ue000b\U0010fffdc\u0378d\ufdd0e", 100, OneLine, "abcde"}, // private, unassigned, noncharacter
		{"x\u0301\u0302\u0303\u0304\u0305\u0306y", 100, OneLine, "x\u0301\u0302\u0303\u0304y"},
		{"x\u0301\u0302\u0303\u200d\u0304\u0305y", 100, OneLine, "x\u0301\u0302\u0303\u0304y"},
		{"\u0301x", 100, OneLine, "x"},
		{"a\n\u0301x", 100, Lines, "a\nx"},
		{"abe\u0301", 4, OneLine, "ab"}, // e would lose its mark
		{"abcde\u0301fgh", 7, OneLine, "abcde\u0301"},
		{"abcde\u0301\u0302", 7, OneLine, "abcd"},
		{"a\u3164\uffa0\u115f\u034fb\u2800c", 100, OneLine, "ab c"}, // invisible letters and a blank symbol
		{"a\U000e0041\U000e0001b\u200b\u2060\ufeffc\u00add", 100, OneLine, "abcd"},
		{"👍🏽", 100, OneLine, "👍🏽"},
	} {
		if got := Text(c.in, c.most, c.lines); got != c.want {
			t.Errorf("Text(%q, %d, %v) = %q, want %q", c.in, c.most, c.lines, got, c.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { Text("a title as most are", 256, OneLine) }); n != 0 {
		t.Errorf("%v allocations for a plain text", n)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"title", "a\x1b]52;c;aGk=\a", "x\u0301\u0301\u0301\u0301\u0301\u0301", "\u202eevil\u2066", "é\xff…\n\n", strings.Repeat("e\u0301", 40)} {
		f.Add(s, 20, false)
		f.Add(s, 4, true)
	}
	f.Fuzz(func(t *testing.T, s string, most int, lines bool) {
		most %= 4096
		got := Text(s, most, lines)
		if len(got) > max(most, 0) {
			t.Fatalf("%q: %d bytes, at most %d", got, len(got), most)
		}
		if !utf8.ValidString(got) {
			t.Fatalf("%q is not UTF-8", got)
		}
		marks := maxMarks
		for _, r := range got {
			switch {
			case unicode.Is(unicode.M, r):
				if marks++; marks > maxMarks {
					t.Fatalf("%q: too many marks", got)
				}
				continue
			case r == '\n' && lines:
				marks = maxMarks
				continue
			case r != ' ' && !unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S):
				t.Fatalf("%q: %U in it", got, r)
			}
			marks = 0
			if unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("%q: %U in it", got, r)
			}
		}
		if again := Text(got, most, lines); again != got {
			t.Fatalf("not the same twice: %q, then %q", got, again)
		}
		if all := Text(s, len(s), lines); len(all) <= most && got != all {
			t.Fatalf("%q is cut, of %q, with room for %d bytes", got, all, most)
		}
	})
}

func BenchmarkText(b *testing.B) {
	for name, s := range map[string]string{"ascii": strings.Repeat("a plain title ", 18), "accents": strings.Repeat("ein schöner Titel ", 14), "hostile": strings.Repeat("e\u0301\u202e\x1b[31m", 25)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(s)))
			b.ReportAllocs()
			for b.Loop() {
				Text(s, 256, OneLine)
			}
		})
	}
}

// An error is one line, whatever it contains; a quotation is short.
func TestErrorAndClip(t *testing.T) {
	err := errors.Join(errors.New("VM a: \x1b[2Jgone\n\n"), errors.New("  VM b: too"))
	if got, want := Error(err), "VM a: [2Jgone; VM b: too"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Error(errors.New(strings.Repeat("x", maxError+1))); len(got) != maxError {
		t.Errorf("%d bytes", len(got))
	}
	long := strings.Repeat("ä", 41)
	if got, want := Clip(long), long[:80]+"…"; got != want {
		t.Errorf("%q", got)
	}
	if got := Clip(long[:80]); got != long[:80] {
		t.Errorf("%q", got)
	}
}
