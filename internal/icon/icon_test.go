package icon

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/png"
	"testing"
	"testing/fstest"
)

func picture(t testing.TB, w, h int) []byte {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = 0xff
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFind(t *testing.T) {
	files := fstest.MapFS{}
	put := func(name, text string) { files[name] = &fstest.MapFile{Data: []byte(text)} }
	put("share/icons/hicolor/index.theme", "[Icon Theme]\nDirectories=16x16/apps,48x48/apps,scalable/apps,48x48@2/apps\n[16x16/apps]\nSize=16\n[48x48/apps]\nSize=48\nType=Fixed\n[48x48@2/apps]\nSize=48\nScale=2\n[scalable/apps]\nSize=128\nMinSize=8\nMaxSize=512\nType=Scalable\n")
	put("share/icons/Mine/index.theme", "[Icon Theme]\nInherits=Base,hicolor\nDirectories=a,../../../etc\n[a]\nSize=32\nType=Threshold\nThreshold=8\n[../../../etc]\nSize=32\n")
	put("share/icons/Base/index.theme", "[Icon Theme]\nInherits=Mine\nDirectories=b\n[b]\nSize=32\n")
	for _, f := range []string{"hicolor/16x16/apps/small.png", "hicolor/48x48/apps/small.png", "hicolor/scalable/apps/vector.svg",
		"hicolor/48x48/apps/vector.png", "Mine/a/both.png", "hicolor/48x48/apps/both.png", "Base/b/base.svg", "hicolor/48x48@2/apps/dense.png"} {
		put("share/icons/"+f, "x")
	}
	put("share/pixmaps/old.png", "x")
	put("etc/secret.png", "x")
	themes := &Themes{FS: files, Dirs: []string{"home/icons", "share/icons", "share/pixmaps"}, Names: []string{"None", "Mine"}}
	for _, c := range []struct {
		name string
		side int
		want string
	}{
		{"small", 16, "share/icons/hicolor/16x16/apps/small.png"},
		{"small", 26, "share/icons/hicolor/16x16/apps/small.png"}, // 8 too small, at twice its weight, is nearer than 22 too large
		{"small", 40, "share/icons/hicolor/48x48/apps/small.png"},
		{"vector", 26, "share/icons/hicolor/scalable/apps/vector.svg"},
		{"vector", 48, "share/icons/hicolor/48x48/apps/vector.png"},
		{"both", 26, "share/icons/Mine/a/both.png"},
		{"base", 64, "share/icons/Base/b/base.svg"},
		{"dense", 96, "share/icons/hicolor/48x48@2/apps/dense.png"},
		{"old", 26, "share/pixmaps/old.png"},
		{"old.png", 26, "share/pixmaps/old.png"},
		{"/share/pixmaps/old.png", 26, "share/pixmaps/old.png"},
		{"/share/../etc/secret.png", 26, "etc/secret.png"}, // a caller that may name a path may name this one
		{"/etc/passwd", 26, ""},
		{"secret", 32, ""}, // no path leads out of a theme
		{"../../etc/secret", 26, ""},
		{"", 26, ""},
		{"nothing", 26, ""},
	} {
		if got := themes.Find(c.name, c.side); got != c.want {
			t.Errorf("%q at %d: %q, want %q", c.name, c.side, got, c.want)
		}
	}
}

func TestDecode(t *testing.T) {
	if _, err := Decode(picture(t, 48, 48)); err != nil {
		t.Error(err)
	}
	if _, err := Decode(picture(t, MaxSide+1, 1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too wide: %v", err)
	}
	if _, err := Read(fstest.MapFS{"x": {Data: make([]byte, MaxFile+1)}}, "x"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large file: %v", err)
	}
}

// Proportions stay, and a picture that is not square has transparent edges.
func TestFit(t *testing.T) {
	img, err := Decode(picture(t, 64, 16))
	if err != nil {
		t.Fatal(err)
	}
	out := Fit(img, 32)
	if out.Bounds() != image.Rect(0, 0, 32, 32) || out.RGBAAt(16, 16) != (color.RGBA{255, 255, 255, 255}) || out.RGBAAt(16, 4).A != 0 {
		t.Errorf("%v: middle %v, above %v", out.Bounds(), out.RGBAAt(16, 16), out.RGBAAt(16, 4))
	}
}

// FuzzDecode: a decoded picture is within the limits, and Fit accepts it.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := Decode(b)
		if err != nil {
			return
		}
		if s := img.Bounds(); s.Dx() > MaxSide || s.Dy() > MaxSide || s.Empty() {
			t.Fatalf("a picture of %v", s)
		}
		Fit(img, 26)
	})
}

// FuzzIndex: an index.theme names no directory outside its theme, and no invalid size.
func FuzzIndex(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		th, _ := parseIndex("x", b)
		for _, d := range th.dirs {
			if d.size <= 0 || d.scale <= 0 || d.path == "" || d.path[0] == '/' || bytes.Contains([]byte("/"+d.path+"/"), []byte("/../")) {
				t.Fatalf("%+v", d)
			}
			if d.distance(26) < 0 {
				t.Fatalf("%+v is nearer than near", d)
			}
		}
	})
}
