package agent

import (
	"bytes"
	"encoding/json"
	"reflect"
	"unicode/utf8"
)

// Bytes is a string as Linux has them: an argument, a variable, a path. It is UTF-8 almost
// always, and may be any bytes, which a JSON string cannot hold: encoding/json would replace
// them, and so name another file. In JSON it is
//
//	"text"                   if it is UTF-8
//	{"base64": "L3RtcC//"}   if it is not
//
// so that each value has one form.
type Bytes string

// base64Form is the form of what is not UTF-8; encoding/json writes a []byte in base64.
type base64Form struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (b Bytes) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(b)) {
		return json.Marshal(string(b))
	}
	return json.Marshal(base64Form{[]byte(b)})
}

// UnmarshalJSON implements json.Unmarshaler. What is of neither form is a
// *json.UnmarshalTypeError.
func (b *Bytes) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] != '{' {
		return json.Unmarshal(text, (*string)(b))
	}
	var form base64Form
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if d.Decode(&form) != nil || utf8.Valid(form.Base64) {
		return &json.UnmarshalTypeError{Value: "object", Type: reflect.TypeFor[Bytes]()}
	}
	*b = Bytes(form.Base64)
	return nil
}

// Strings is a list of such strings.
type Strings []string

// MarshalJSON implements json.Marshaler.
func (l Strings) MarshalJSON() ([]byte, error) {
	var list []Bytes
	for _, s := range l {
		list = append(list, Bytes(s))
	}
	return json.Marshal(list)
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *Strings) UnmarshalJSON(text []byte) error {
	var list []Bytes
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	*l = nil
	for _, s := range list {
		*l = append(*l, string(s))
	}
	return nil
}
