package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strconv"

	"golang.org/x/sys/unix"

	"vix/internal/transfer"
)

// copyName is what the copier is called: the guest's end of vix-launcher cp. It
// runs as the user whose files it copies.
const copyName = "vix-copy"

// copyMain is "vix-copy send [-r] PATH…", a stream of files on standard output,
// or "vix-copy receive [--many] [--make] [--files] [--mode OCTAL] [--only NAME]… PATH",
// one on standard input; or "vix-copy menu" (sendMenu).
func copyMain(args []string) int {
	_ = os.WriteFile("/proc/self/comm", []byte(copyName), 0) // what ps shows
	// The end of the stream tells a receiver that its peer is gone: it has things
	// to remove.
	signal.Ignore(unix.SIGHUP, unix.SIGINT)
	if err := copyFiles(args, os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func copyFiles(args []string, in io.Reader, out, notes io.Writer) error {
	if len(args) == 0 {
		return errors.New("copy: neither send, receive nor menu")
	}
	if args[0] == "menu" {
		return sendMenu(args[1:], out)
	}
	flags := flag.NewFlagSet(copyName, flag.ContinueOnError)
	recursive := flags.Bool("r", false, "directories too")
	many := flags.Bool("many", false, "the target is a directory")
	make := flags.Bool("make", false, "make the target")
	files := flags.Bool("files", false, "nothing but files")
	var only []string
	flags.Func("only", "a name that may come", func(name string) error { only = append(only, name); return nil })
	mode := flags.String("mode", "0", "permissions of every file, if not 0")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if args[0] == "send" {
		sources, err := transfer.Sources(flags.Args(), *recursive)
		if err != nil {
			return err
		}
		defer transfer.CloseSources(sources)
		return transfer.Send(out, sources, transfer.Sending{
			Recursive: *recursive,
			Skipped:   func(path, why string) { fmt.Fprintf(notes, "%s: left out: %s\n", path, why) },
		})
	}
	perm, err := strconv.ParseUint(*mode, 8, 9)
	if err != nil || args[0] != "receive" || flags.NArg() != 1 {
		return fmt.Errorf("copy: %q not understood", args)
	}
	if *make {
		if err := os.MkdirAll(flags.Arg(0), 0o755); err != nil {
			return err
		}
	}
	to, err := transfer.Find(flags.Arg(0), *many)
	if err != nil {
		return err
	}
	defer to.Dir.Close()
	_, err = transfer.Receive(in, to, transfer.Receiving{Names: only, FilesOnly: *files, Mode: fs.FileMode(perm), Umask: 0o022})
	return err
}
