// Command vix-menu draws the menu of "vix menu", which starts it and receives
// the choice. It is not for interactive use: it reads a menu.Setup and then
// menu.Updates on standard input, and writes menu.Events on standard output, as lines
// of JSON.
//
// It is a separate program because it loads libxkbcommon, which only a dynamically
// linked program can; the rest of Vix is static. It opens its compositor's
// socket, fonts and icons; once connected it may read files, and nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"vix/internal/icon"
	"vix/internal/label"
	"vix/internal/menu"
	"vix/internal/menu/window"
	"vix/internal/sandbox"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "vix-menu: no arguments; it is started by vix menu")
		os.Exit(2)
	}
	if err := run(os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "vix-menu: "+strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

// Until the first frame, garbage is collected only above a limit that a menu does not
// reach; afterwards memory matters more than time.
const (
	openLimit = 128 << 20
	gcPercent = 40
)

func run(in io.Reader, out, log io.Writer) error {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(openLimit)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	reader := menu.NewReader(in)
	var setup menu.Setup
	switch err := reader.Read(&setup); {
	case errors.Is(err, io.EOF):
		return nil // vix-launcher has found a mistake, and reports it
	case err != nil:
		return fmt.Errorf("no menu to show on standard input: %w; it is started by vix menu", err)
	}
	writer := menu.NewWriter(out)
	updates := make(chan menu.Update)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the process: nothing ends a read of standard input
		defer close(updates)
		for {
			var u menu.Update
			if reader.Read(&u) != nil {
				return
			}
			select {
			case updates <- u:
			case <-ctx.Done():
				return
			}
		}
	}()
	return window.Run(ctx, window.Config{
		Setup: setup, Updates: updates, ReadFont: readFont,
		Fonts: func() (regular, bold *label.Fonts) {
			regular, bold = label.NewFonts(readFonts(setup.Fonts)...), label.NewFonts(readFonts(setup.BoldFonts)...)
			bold.AddAll(regular)
			return regular, bold
		},
		Themes: &icon.Themes{FS: os.DirFS("/"), Dirs: relative(setup.IconDirs), Names: setup.IconThemes},
		Emit: func(ev menu.Event) {
			if err := writer.Write(ev); err != nil {
				cancel() // the reader is gone
			}
		},
		// The menu needs no other connection, writes nothing and starts nothing.
		Connected: func() {
			sandbox.Confine(sandbox.Profile{Files: []sandbox.File{{Path: "/"}}, Calls: sandbox.MenuCalls()})
		},
		Shown: func() {
			debug.SetGCPercent(gcPercent)
			debug.FreeOSMemory() // drops the memory that only opening needed
		},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
}

// relative returns the paths relative to os.DirFS("/").
func relative(dirs []string) []string {
	var out []string
	for _, d := range dirs {
		if d = strings.Trim(d, "/"); d != "" {
			out = append(out, d)
		}
	}
	return out
}

func readFonts(paths []string) [][]byte {
	var files [][]byte
	for _, path := range paths {
		files = append(files, readFont(path))
	}
	return files
}

// maxFont is above the largest existing fonts, collections for East Asia.
const maxFont = 64 << 20

// readFont maps a font's file, of which a small part is used; nil on failure.
func readFont(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > maxFont {
		return nil
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if errors.Is(err, unix.ENODEV) {
		b, err = io.ReadAll(io.LimitReader(f, maxFont))
	}
	if err != nil {
		return nil
	}
	return b
}
