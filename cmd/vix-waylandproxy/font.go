package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// fonts are the distributions' paths of bold sans-serif fonts with many scripts, the
// better ones first: Debian, Fedora, Arch, NixOS.
var fonts = []string{
	"/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf",
	"/usr/share/fonts/dejavu-sans-fonts/DejaVuSans-Bold.ttf",
	"/usr/share/fonts/dejavu/DejaVuSans-Bold.ttf",
	"/usr/share/fonts/TTF/DejaVuSans-Bold.ttf",
	"/run/current-system/sw/share/X11/fonts/DejaVuSans-Bold.ttf",
	"/usr/share/fonts/truetype/noto/NotoSans-Bold.ttf",
	"/usr/share/fonts/google-noto/NotoSans-Bold.ttf",
	"/usr/share/fonts/noto/NotoSans-Bold.ttf",
	"/usr/share/fonts/truetype/liberation/LiberationSans-Bold.ttf",
	"/usr/share/fonts/liberation-sans-fonts/LiberationSans-Bold.ttf",
	"/usr/share/fonts/liberation-sans/LiberationSans-Bold.ttf",
	"/usr/share/fonts/liberation/LiberationSans-Bold.ttf",
}

// maxFont is above the size of these fonts, and small compared with the process.
const maxFont = 4 << 20

// hostFont returns the first readable font, or nil: labels have
// a built-in one.
func hostFont(paths []string) []byte {
	for _, path := range paths {
		if b := readFont(path); b != nil {
			return b
		}
	}
	return nil
}

func readFont(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxFont {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFont+1))
	if err != nil || len(b) == 0 || len(b) > maxFont {
		return nil
	}
	return b
}
