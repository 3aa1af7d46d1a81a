package packaging

import (
	"image"
	_ "image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// systemd, desktop-file-validate and groff find nothing to say about what is installed.
func TestToolsAccept(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything")
	}
	dir := installed(t)
	for name, script := range map[string]string{
		// The programs have to be where the unit says.
		"systemd-analyze": `for unit in "$1"/usr/lib/systemd/user/*; do
				instance=${unit/@./@web.}; name=$(basename "$instance")
				sed "s,/usr/bin/vix-launcher,$1/usr/bin/vix-launcher," "$unit" >"$2/$name"
			done
			systemd-analyze verify --user --recursive-errors=no --man=no "$2"/* 2>&1 || :`,
		"desktop-file-validate": `for f in "$1"/usr/share/applications/*.desktop; do [ ! -e "$f" ] || desktop-file-validate "$f"; done`,
		"man": `for f in "$1"/usr/share/man/man*/*; do
				case $f in */vix.1) continue ;; esac
				MANROFFSEQ= MANWIDTH=80 man --warnings=all --encoding=UTF-8 --local-file "$f" 2>&1 >/dev/null
			done`,
	} {
		t.Run(name, func(t *testing.T) {
			out := inRoot(t, `command -v `+name+` >/dev/null || { echo lacks; exit; }; `+script, dir, t.TempDir())
			switch {
			case out == "lacks\n":
				t.Skip("lacks: " + name)
			case out != "":
				t.Error(out)
			}
		})
	}
}

// The keys of our snippets for sway are nobody else's: neither each other's, nor those of sway's
// own configuration, nor, as a terminal's keys are, without Mod4.
func TestSwayKeys(t *testing.T) {
	theirs := inRoot(t, `[ ! -e /etc/sway/config ] || cat /etc/sway/config`)
	if theirs == "" {
		t.Skip("lacks: /etc/sway/config")
	}
	owner := map[string]string{}
	for _, f := range []string{"sway", "vix.conf", "clipboard.conf"} {
		text, ours := theirs, f != "sway"
		if ours {
			b, err := os.ReadFile(filepath.Join("sway", f))
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		n := 0
		for l := range strings.Lines(text) {
			words := strings.Fields(l)
			if len(words) < 3 || words[0] != "bindsym" {
				continue
			}
			at := 1
			for strings.HasPrefix(words[at], "--") {
				at++
			}
			n++
			keys := strings.Split(strings.ToLower(strings.ReplaceAll(words[at], "$mod", "Mod4")), "+")
			slices.Sort(keys)
			chord := strings.Join(keys, "+")
			if ours && (owner[chord] != "" || !slices.Contains(keys, "mod4")) {
				t.Errorf("%s: %s is also a key of %q, or has no Mod4", f, words[at], owner[chord])
			}
			owner[chord] = f
		}
		if n == 0 {
			t.Errorf("%s binds no key", f)
		}
	}
}

// The icon is drawn by what draws icons on a desktop, from a panel's size to a
// launcher's; build/e2e/icon-*.png are to be looked at.
func TestIcon(t *testing.T) {
	if testing.Short() {
		t.Skip("draws icons")
	}
	out := filepath.Join(project(t), "build/e2e")
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	said := inRoot(t, `command -v rsvg-convert >/dev/null || { echo lacks; exit; }
		for s in 16 24 32 48 64 128 256; do
			rsvg-convert -w $s -h $s packaging/desktop/dev.vix.Launcher.svg -o "$1/icon-$s.png"
			rsvg-convert -w $s -h $s packaging/desktop/dev.vix.Launcher-symbolic.svg -o "$1/icon-symbolic-$s.png"
		done`, out)
	if said == "lacks\n" {
		t.Skip("lacks: rsvg-convert")
	}
	files, err := filepath.Glob(filepath.Join(out, "icon-*.png"))
	if err != nil || len(files) != 14 {
		t.Fatalf("%d pictures (%v)", len(files), err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		img, _, err := image.Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		inked, corner := 0, 0
		size := img.Bounds().Dx()
		for y := range size {
			for x := range size {
				_, _, _, a := img.At(x, y).RGBA()
				if a > 0x8000 {
					inked++
				}
				if a > 0x8000 && (x == 0 || x == size-1) && (y == 0 || y == size-1) {
					corner++
				}
			}
		}
		symbolic := strings.Contains(file, "symbolic")
		if share := float64(inked) / float64(size*size); corner != 0 || share < 0.3 || !symbolic && share < 0.6 {
			t.Errorf("%s: %.0f %% is drawn, and %d corners", filepath.Base(file), share*100, corner)
		}
	}
}
