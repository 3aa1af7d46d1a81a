package agent

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// requests draws any request that can be sent.
func requests() *rapid.Generator[Request] {
	path := rapid.StringMatching(`/?[a-zé .-]{1,20}(/[^\x00/]{1,20}){0,3}`)
	clean := rapid.StringMatching(`(/[a-z-]{1,20}){1,4}`)
	paths := rapid.SliceOfN(rapid.OneOf(path, rapid.Just("a/\xff")), 1, 9)
	texts := rapid.SliceOfN(path, 1, 9)
	name := rapid.OneOf(rapid.StringMatching(`[a-zé-]{0,30}`), rapid.Just("\xff\xfe"))
	module := rapid.Custom(func(t *rapid.T) Module {
		return Module{rapid.IntRange(1, maxModule).Draw(t, "image"), rapid.IntRange(0, maxSignature).Draw(t, "signature")}
	})
	return rapid.Custom(func(t *rapid.T) Request {
		yes := rapid.Bool().Draw(t, "yes")
		switch rapid.IntRange(0, 5).Draw(t, "which") {
		case 0:
			return Request{Mount: &Mount{Tag: "share7", Path: clean.Draw(t, "path"), ReadOnly: yes}}
		case 1:
			return Request{Unmount: &Unmount{Path: clean.Draw(t, "path"), Force: yes}}
		case 2:
			return Request{Drivers: &Drivers{Modules: rapid.SliceOfN(module, 1, maxModules).Draw(t, "modules")}}
		case 3:
			return Request{Send: &Send{Paths: paths.Draw(t, "paths"), Recursive: yes}}
		case 4:
			return Request{Receive: &Receive{
				Path: Bytes(path.Draw(t, "path")), Directory: yes, Make: !yes, FilesOnly: yes,
				Names: rapid.SliceOfN(name, 1, 9).Draw(t, "names"), Mode: rapid.Uint32Max(0o777).Draw(t, "mode"),
			}}
		}
		return Request{Menu: &Menu{Programs: texts.Draw(t, "p"), Apps: texts.Draw(t, "a"), Bins: texts.Draw(t, "b"), Icons: texts.Draw(t, "i"), Services: texts.Draw(t, "s")}}
	})
}

// A request that is out of bounds is neither sent nor accepted.
func TestRequestCheck(t *testing.T) {
	long := strings.Repeat("p", maxPath+1)
	for what, r := range map[string]Request{
		"nothing":            {},
		"two things":         {Mount: &Mount{Tag: "a", Path: "/a"}, Menu: &Menu{}},
		"no tag":             {Mount: &Mount{Path: "/a"}},
		"tag":                {Mount: &Mount{Tag: "a b", Path: "/a"}},
		"relative mount":     {Mount: &Mount{Tag: "a", Path: "a"}},
		"unclean mount":      {Mount: &Mount{Tag: "a", Path: "/a/../b"}},
		"mount of all":       {Mount: &Mount{Tag: "a", Path: "/"}},
		"NUL":                {Mount: &Mount{Tag: "a", Path: "/a\x00"}},
		"relative umount":    {Unmount: &Unmount{Path: "a"}},
		"long umount":        {Unmount: &Unmount{Path: "/" + long}},
		"no modules":         {Drivers: &Drivers{}},
		"many modules":       {Drivers: &Drivers{Modules: make([]Module, maxModules+1)}},
		"empty module":       {Drivers: &Drivers{Modules: []Module{{0, 1}}}},
		"large module":       {Drivers: &Drivers{Modules: []Module{{maxModule + 1, 0}}}},
		"large signature":    {Drivers: &Drivers{Modules: []Module{{1, maxSignature + 1}}}},
		"negative signature": {Drivers: &Drivers{Modules: []Module{{1, -1}}}},
		"no files":           {Send: &Send{}},
		"empty path":         {Send: &Send{Paths: []string{"a", ""}}},
		"not UTF-8":          {Unmount: &Unmount{Path: "/\xff"}},
		"menu not UTF-8":     {Menu: &Menu{Apps: []string{"\xff"}}},
		"many files":         {Send: &Send{Paths: strings.Split(strings.Repeat("a,", maxPaths)+"a", ",")}},
		"mode":               {Receive: &Receive{Path: "a", Mode: 0o4755}},
		"nowhere":            {Receive: &Receive{}},
		"name with a way":    {Receive: &Receive{Path: "a", Names: []string{"a/b"}}},
		"name of the parent": {Receive: &Receive{Path: "a", Names: []string{".."}}},
		"long name":          {Receive: &Receive{Path: "a", Names: []string{long[:maxFileName+1]}}},
		"many names":         {Receive: &Receive{Path: "a", Names: make([]string, maxPaths+1)}},
		"many places":        {Menu: &Menu{Icons: strings.Split(strings.Repeat("a,", maxPlaces)+"a", ",")}},
	} {
		if b, err := r.Encode(); err == nil {
			t.Errorf("%s: is encoded: %s", what, b)
		}
		b, err := appendJSON(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRequest(b); !strings.Contains(what, "UTF-8") && !errors.Is(err, ErrProtocol) { // these are plain strings
			t.Errorf("%s: is taken: %v", what, err)
		}
	}
}

// FuzzRequest: a decoded request is within bounds, and encodes to an equal request.
func FuzzRequest(f *testing.F) {
	needCorpus(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := ParseRequest(in)
		if err != nil {
			return
		}
		if len(r.parts()) != 1 || len(r.Words()) == 0 || r.Name() == "" {
			t.Fatalf("%+v", r)
		}
		out, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRequest(out)
		if err != nil {
			t.Fatalf("%s does not decode again: %v", out, err)
		}
		if final, err := again.Encode(); err != nil || !bytes.Equal(out, final) {
			t.Fatalf("%q, and then %q (%v)", out, final, err)
		}
	})
}
