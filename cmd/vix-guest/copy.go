package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"vix/internal/agent"
	"vix/internal/transfer"
)

// copyFiles is the guest's end of vix cp. It runs as the user whose files it copies.
func copyFiles(r agent.Request, in io.Reader, out, notes io.Writer) error {
	switch {
	case r.Menu != nil:
		return sendMenu(*r.Menu, out)
	case r.Send != nil:
		return send(*r.Send, out, notes)
	}
	return receive(*r.Receive, in)
}

func send(r agent.Send, out, notes io.Writer) error {
	sources, err := transfer.Sources(r.Paths, r.Recursive)
	if err != nil {
		return err
	}
	defer transfer.CloseSources(sources)
	return transfer.Send(out, sources, transfer.Sending{
		Recursive: r.Recursive,
		Skipped:   func(path, why string) { fmt.Fprintf(notes, "%s: left out: %s\n", path, why) },
	})
}

func receive(r agent.Receive, in io.Reader) error {
	path := string(r.Path)
	if r.Make {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	to, err := transfer.Find(path, r.Directory)
	if err != nil {
		return err
	}
	defer to.Dir.Close()
	_, err = transfer.Receive(in, to, transfer.Receiving{Names: r.Names, FilesOnly: r.FilesOnly, Mode: fs.FileMode(r.Mode), Umask: 0o022})
	return err
}
