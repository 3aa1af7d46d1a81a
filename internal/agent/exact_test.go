package agent

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// Every string comes out of JSON as it went in, whatever its bytes, and has one form there:
// a plain JSON string if it is UTF-8.
func TestExactBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.OneOf(rapid.String(), rapid.Just("\ufffd"), rapid.Just("\xff\xfe"), rapid.Just("\xed\xa0\x80"), rapid.Just(`{"base64":"/w=="}`))
		list := Strings(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return piece.Draw(t, "a") + piece.Draw(t, "b") + string(rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "c"))
		}), 1, 5).Draw(t, "list"))
		b, err := json.Marshal(list)
		if err != nil || !utf8.Valid(b) {
			t.Fatalf("%q: %q, %v", list, b, err)
		}
		var back Strings
		if err := json.Unmarshal(b, &back); err != nil || !slices.Equal(back, list) {
			t.Fatalf("%q came back as %q by %s: %v", list, back, b, err)
		}
		if !slices.ContainsFunc(list, func(s string) bool { return !utf8.ValidString(s) }) {
			if want, _ := json.Marshal([]string(list)); string(want) != string(b) {
				t.Fatalf("%s, want %s", b, want)
			}
		}
		spawn := Spawn{ID: 1, Kind: KindShell, Argv: list, Env: list, Cwd: Bytes(list[0])}
		if spawn.check() != nil {
			return // a NUL
		}
		frame, err := Append(nil, spawn)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Parse(TypeSpawn, frame[headerSize:])
		if got, ok := m.(Spawn); err != nil || !ok || !slices.Equal(got.Argv, list) || !slices.Equal(got.Env, list) || string(got.Cwd) != list[0] {
			t.Fatalf("%+v came back as %+v: %v", spawn, m, err)
		}
	})
}

// What is of no form, or of a second one, is refused, as a member of another type.
func TestNotExactBytes(t *testing.T) {
	for _, text := range []string{`7`, `["x"]`, `{}`, `{"base64":"YQ=="}`, `{"base64":""}`, `{"base64":"/w"}`, `{"base64":7}`, `{"hex":"ff"}`, `{"base64":"/w==","more":1}`, `{"base64":"/w=="`} {
		var b Bytes
		err := json.Unmarshal([]byte(text), &b)
		if err == nil {
			t.Errorf("%s: is taken, as %q", text, b)
		}
		var foreign *json.UnmarshalTypeError
		if json.Valid([]byte(text)) && !errors.As(err, &foreign) {
			t.Errorf("%s: %v, not of another type", text, err)
		}
	}
}
