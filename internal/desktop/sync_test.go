package desktop

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vix/config"
)

var update = flag.Bool("update", false, "rewrite docs/dbus.md")

func TestReference(t *testing.T) {
	const at = "../../docs/dbus.md"
	want := Reference()
	if *update {
		if err := os.WriteFile(at, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(at)
	if err != nil || string(have) != want {
		t.Errorf("%s is not what the service says of itself (%v): go test ./internal/desktop -run TestReference -update", at, err)
	}
}

// hostileEntry is a guest's file that tries everything at once.
const hostileEntry = "[Desktop Entry]\nType=Application\nName=Evil\\nExec=rm -rf /\nName[de]=B\u00f6se; $(x) %f\nComment=\\n[Desktop Entry]\\nExec=evil\n" +
	"Exec=evil --flag \"%F\" %F\nIcon=../../../etc/passwd\nCategories=Game;Evil;Audio;\nKeywords=a\\;b;c\\nExec=evil;\nMimeType=image/png;x/y\\nExec=evil;x-scheme-handler/http;image/svg+xml;\n" +
	"StartupWMClass=vix.vault.x\\nExec=evil\nDBusActivatable=true\nActions=evil;\nTryExec=\nURL=evil\n[Desktop Action evil]\nName=e\nExec=evil\n"

func hostileFile(t *testing.T) EntryFile {
	t.Helper()
	apps, notes, err := Apps(tree(t, map[string]string{"usr/share/applications/evil.desktop": hostileEntry, "usr/bin/evil": ""}), "web")
	if err != nil || len(apps) != 1 {
		t.Fatal(apps, notes, err)
	}
	return EntryFile{
		App: apps[0], VM: config.VM{Name: "web", MIME: []string{"image/*", "x/*"}},
		Launcher: "/opt/my vix/100%/vix-launcher", Icon: "dev.vix.web.evil", DBus: true,
	}
}

// TestEntryOfHostileFile: every Exec is ours, and nothing that the guest says is more
// than the text of one key.
func TestEntryOfHostileFile(t *testing.T) {
	text := string(hostileFile(t).Bytes())
	groups := 0
	for l := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "=")
		if strings.HasPrefix(l, "[") {
			groups++
		}
		if key == "Exec" && !strings.HasPrefix(value, `"/opt/my vix/100%%/vix-launcher" desktop launch `) {
			t.Errorf("an Exec that is not ours: %q", l)
		}
	}
	for _, want := range []string{
		"\nName=Evil Exec=rm -rf / (web)\n", "\nStartupWMClass=vix.web.vix_vault.x_Exec_evil\n", "\nMimeType=image/png;image/svg+xml;\n",
		"\nCategories=AudioVideo;Audio;Game;\n", "desktop launch web evil %F\n", "\nX-Vix-VM=web\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(text, "DBusActivatable") {
		t.Error("an entry that a launcher may open by a call, and not wait")
	}
	if groups != 1+len(Actions) {
		t.Errorf("%d groups", groups)
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestEntryIsValid(t *testing.T) {
	tool, err := exec.LookPath("desktop-file-validate")
	if err != nil {
		t.Skip("lacks: desktop-file-validate")
	}
	f := hostileFile(t)
	f.Launcher = "/usr/bin/vix-launcher"
	at := filepath.Join(t.TempDir(), f.App.EntryName()+".desktop")
	if err := os.WriteFile(at, f.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, at).CombinedOutput()
	bad := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(out)), "\n"), func(l string) bool { return l == "" || strings.Contains(l, ": hint: ") })
	if err != nil || len(bad) > 0 {
		t.Errorf("%v: %s\n%s", err, out, f.Bytes())
	}
}

func TestSync(t *testing.T) {
	data := tree(t, map[string]string{
		"applications/dev.vix.web.mine.desktop":    "[Desktop Entry]\nX-Vix-VM=web\n", // without our first line
		"applications/other.desktop":               madeBy + "\nX-Vix-VM=web\n",
		"dbus-1/services/dev.vix.Launcher.service": "[D-BUS Service]\n",
	})
	f := hostileFile(t)
	icons := map[int][]byte{48: []byte("a"), 128: []byte("b")}
	want := f.Files(icons, "vix-dbus.service")
	sync := func(want []File, dry bool) string {
		t.Helper()
		changes, err := Sync(data, want, dry)
		if err != nil {
			t.Error(err)
		}
		var all []string
		for _, c := range changes {
			all = append(all, c.Action+" "+c.Path)
		}
		return strings.Join(all, "\n")
	}
	added := "add applications/dev.vix.web.evil.desktop\nadd dbus-1/services/dev.vix.web.evil.service\n" +
		"add icons/hicolor/128x128/apps/dev.vix.web.evil.png\nadd icons/hicolor/48x48/apps/dev.vix.web.evil.png"
	for i, c := range []struct {
		want    []File
		dry     bool
		changes string
	}{
		{want, true, added},
		{want, false, added},
		{want, false, ""},
		{f.Files(map[int][]byte{48: []byte("a"), 128: []byte("c")}, "vix-dbus.service"), false, "update icons/hicolor/128x128/apps/dev.vix.web.evil.png"},
		{nil, true, strings.ReplaceAll(added, "add ", "remove ")},
	} {
		if got := sync(c.want, c.dry); got != c.changes {
			t.Errorf("step %d:\n%s\nwant\n%s", i, got, c.changes)
		}
	}
	if list := List(data); len(list) != 1 || list[0] != (InstalledEntry{"dev.vix.web.evil", "web", "evil", "Evil Exec=rm -rf / (web)"}) {
		t.Errorf("%+v", list)
	}
	kept, err := Keep(data, func(i InstalledEntry) bool { return i.VM == "web" })
	if err != nil || len(kept) != 4 {
		t.Errorf("%d kept, %v", len(kept), err)
	}
	if got := sync(nil, false); got != strings.ReplaceAll(added, "add ", "remove ") {
		t.Errorf("removed:\n%s", got)
	}
	_, err = Sync(data, []File{{"applications/dev.vix.web.mine.desktop", []byte("x")}}, false)
	if err == nil || !strings.Contains(err.Error(), "left as it is") {
		t.Errorf("a file of the user's: %v", err)
	}
	for _, name := range []string{"applications/dev.vix.web.mine.desktop", "applications/other.desktop", "dbus-1/services/dev.vix.Launcher.service"} {
		if _, err := data.Stat(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func encodePNG(t *testing.T, w, h int) []byte {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = 255
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// claimed is a PNG whose header claims to be w × h pixels.
func claimed(t *testing.T, w, h uint32) []byte {
	t.Helper()
	b := encodePNG(t, 1, 1)
	binary.BigEndian.PutUint32(b[16:], w)
	binary.BigEndian.PutUint32(b[20:], h)
	binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
	return b
}

func TestIcon(t *testing.T) {
	const dir = "usr/share/icons/hicolor/"
	root := tree(t, map[string]string{
		dir + "48x48/apps/a.png":       string(encodePNG(t, 48, 24)),
		dir + "256x256/apps/huge.png":  string(claimed(t, 60000, 60000)),
		dir + "scalable/apps/v.svg":    "<svg/>",
		dir + "scalable/apps/lies.svg": "<svg/>",
		dir + "256x256/apps/out.png":   "->/../../../../../../etc/hostname",
		"opt/x/icon.png":               string(encodePNG(t, 10, 10)),
	})
	drawn := errors.New("drawn")
	rasterise := func(_ context.Context, svg []byte, size int) ([]byte, error) {
		if size != 128 || string(svg) != "<svg/>" {
			t.Errorf("rasterise %q at %d", svg, size)
		}
		return nil, drawn
	}
	for name, want := range map[string]string{
		"a": "", "/opt/x/icon.png": "", "huge": "60000×60000", "v": "drawn", "none": "no icon", "../../a": "no icon",
		"/etc/../../etc/passwd": "no icon", "out": "no icon", "/opt/x": "not a regular file",
	} {
		icons, err := Icon(t.Context(), root, name, "#ff0000", rasterise)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
			continue
		}
		if err != nil || len(icons) != 2 {
			t.Fatalf("%s: %d icons, %v", name, len(icons), err)
		}
		img, err := png.Decode(bytes.NewReader(icons[128]))
		if err != nil || img.Bounds() != image.Rect(0, 0, 128, 128) {
			t.Fatal(err, img.Bounds())
		}
		if got := color.NRGBAModel.Convert(img.At(98, 98)); got != (color.NRGBA{255, 0, 0, 255}) {
			t.Errorf("%s: the mark is %v", name, got)
		}
	}
}

func TestExecQuoting(t *testing.T) {
	words := []string{`/a b/c"d`, `$x`, "100%", `back\slash`, "plain"}
	e := entry{"Exec": quoteExec(slices.Clone(words))}
	list, err := parseExec(e.value("Exec"))
	if got := (command{words: list}).runs(nil); err != nil || !slices.Equal(got[0], words) {
		t.Errorf("%q, %v", got, err)
	}
}
