package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/launch"
	"vix/internal/plain"
	"vix/internal/transfer"
	"vix/internal/vm"
)

// Limits on the files that a guest may put on the host.
const (
	// cpLimit is the default of --limit: more than a user copies by accident.
	cpLimit = "16G"
	// maxEntries is far above real trees: a kernel source has a hundred thousand entries.
	maxEntries = 2_000_000
)

func cpCommand(e *env) *cobra.Command {
	var recursive bool
	var limit string
	c := &cobra.Command{
		Use:   "cp [-r] [--limit SIZE] SOURCE… DESTINATION",
		Short: "copy files between the host and running VMs",
		Long: `Copies files, and with -r directories, between the host and running VMs, or from
one VM to another. A path in a VM is NAME:PATH, relative to the home directory of
its ordinary user; any other path is the host's (./NAME:PATH, if a file is called
that). If DESTINATION is a directory, each SOURCE is copied into it under its own
name; else the only SOURCE becomes DESTINATION.

Contents, permissions, times and holes are kept, and with -r symbolic links; owners
and hard links are not. A failed or interrupted copy leaves nothing half-written. A
guest's files are treated as hostile: nothing but what you asked for is copied, to
nowhere but DESTINATION, and no more than SIZE.`,
		Example: `  vix cp report.pdf web:
  vix cp web:Downloads/report.pdf .
  vix cp -r src build:/tmp/src
  vix cp -r build:out test:`,
		ValidArgsFunction: completePaths(e),
		Args:              args(2, -1, "SOURCE or DESTINATION"),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := newCopyJob(e, a, recursive, limit)
			if err != nil {
				return err
			}
			return c.run(cmd.Context())
		},
	}
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "copy directories too, and symbolic links as links")
	c.Flags().StringVar(&limit, "limit", cpLimit, "copy at most this `SIZE` from a VM, such as 512M or 64G")
	return c
}

// completePaths completes the names of running VMs, and the host's files.
func completePaths(e *env) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, n := range runningNames(c.Context(), e) {
			if strings.HasPrefix(n, word) {
				names = append(names, n+":")
			}
		}
		if len(names) == 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return names, cobra.ShellCompDirectiveNoSpace
	}
}

// A location is a path in a VM or on the host.
type location struct {
	vm   string // "" for the host
	path string
}

// parseLocation reads NAME:PATH or PATH. A colon after a slash belongs to the path.
func parseLocation(arg string) (location, error) {
	name, path, ok := strings.Cut(arg, ":")
	if !ok || strings.Contains(name, "/") {
		if arg == "" {
			return location{}, usagef("cp: a path is empty")
		}
		return location{path: arg}, nil
	}
	if err := config.CheckName(name); err != nil {
		return location{}, usagef("cp: %v; for a file of the host with that name, write ./%s", err, plain.Text(clip(arg), maxShown, plain.OneLine))
	}
	if path == "" {
		path = "."
	}
	return location{name, path}, nil
}

// A copyJob is one run of cp.
type copyJob struct {
	e         *env
	spawn     func(context.Context, vm.Run) (*vm.Exit, error) // the registry's
	confine   func(to string)                                 // restricts this process to a directory; nil in tests
	check     func(*os.File) error                            // checks each file to send; may be nil
	sources   []string
	from      string // the VM of the sources
	to        location
	recursive bool
	limit     int64
	meter     *meter
	user      string        // user of the guest's end; empty for the ordinary user
	receive   agent.Receive // for a receiving guest: the fields that do not depend on sources or target
}

func newCopyJob(e *env, args []string, recursive bool, limit string) (*copyJob, error) {
	c := &copyJob{e: e, recursive: recursive}
	size, err := config.ParseMemory(limit)
	if err != nil {
		return nil, usagef("cp: --limit: %v", err)
	}
	c.limit = int64(size)
	for i, arg := range args {
		l, err := parseLocation(arg)
		switch {
		case err != nil:
			return nil, err
		case i == len(args)-1:
			c.to = l
		case i > 0 && l.vm != c.from:
			return nil, usagef("cp: %s and %s are on different machines; copy them separately", clip(args[0]), clip(arg))
		default:
			c.from = l.vm
			c.sources = append(c.sources, l.path)
		}
	}
	if c.from == "" && c.to.vm == "" {
		return nil, usagef("cp: neither SOURCE nor DESTINATION is in a VM (NAME:PATH); use cp(1)")
	}
	return c, nil
}

// run copies until the copy is complete or a signal interrupts it.
func (c *copyJob) run(ctx context.Context) error {
	reg, err := c.e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	c.spawn = reg.Run
	c.confine = func(to string) { confineCopy(to, filepath.Join(c.e.getenv("XDG_RUNTIME_DIR"), "vix")) }
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		select {
		case sig := <-signals:
			cancel(&exitError{128 + int(sig.(unix.Signal)), errors.New("interrupted; nothing half-written is left")})
		case <-ctx.Done():
		}
	}()
	return c.copy(ctx)
}

// confineCopy restricts this process, which is about to read a guest's bytes, to the target
// directory and the VMs' sockets. Without Landlock in the kernel, the os.Root that everything
// goes through is the only protection.
func confineCopy(to, sockets string) {
	_ = landlock.V5.BestEffort().RestrictPaths(landlock.RWDirs(to), landlock.RODirs(sockets).IgnoreIfMissing())
}

// copy returns when both ends are done and incomplete files are removed.
func (c *copyJob) copy(ctx context.Context) (err error) {
	c.meter = newMeter(c.e.stderr, c.e.terminal)
	switch {
	case c.from == "":
		err = c.up(ctx)
	case c.to.vm == "":
		err = c.down(ctx)
	default:
		err = c.across(ctx)
	}
	c.meter.end()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// receiving returns the request to a receiving guest.
func (c *copyJob) receiving() agent.Request {
	r := c.receive
	r.Path, r.Names, r.FilesOnly = agent.Bytes(c.to.path), c.names(), !c.recursive
	r.Directory = r.Directory || len(c.sources) > 1
	return agent.Request{Receive: &r}
}

// names returns the names of the sources; no others are accepted. The name of a guest's "." is
// unknown here, and "" is no name.
func (c *copyJob) names() []string {
	var names []string
	for _, p := range c.sources {
		name := path.Base(path.Clean(p))
		if full, err := filepath.Abs(p); c.from == "" && err == nil {
			name = filepath.Base(full)
		}
		if name == "." || name == ".." || name == "/" {
			name = ""
		}
		names = append(names, name)
	}
	return names
}

// sending returns the request to a sending guest.
func (c *copyJob) sending() agent.Request {
	return agent.Request{Send: &agent.Send{Paths: c.sources, Recursive: c.recursive}}
}

// errGone is the error of our end of a pipe after the end of the guest's.
var errGone = errors.New("the guest took only part of it")

// pipeSize is larger than one write of either end.
const pipeSize = 256 << 10

// newPipe makes a pipe whose ends may be passed to a supervisor.
func newPipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	if c, err := r.SyscallConn(); err == nil { // fails harmlessly where there are too many pipes
		_ = c.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
	return r, w, nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// isGone reports whether err means that our pipe's reader has ended, which is not our error.
func isGone(err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, os.ErrClosed) {
		return errGone
	}
	return err
}

// up sends files of the host to a guest.
func (c *copyJob) up(ctx context.Context) error {
	sources, err := transfer.Sources(c.sources, c.recursive)
	if err != nil {
		return err
	}
	defer transfer.CloseSources(sources)
	if c.check != nil {
		for _, src := range sources {
			if err := checkSource(src, c.check); err != nil {
				return err
			}
		}
	}
	r, w, err := newPipe()
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		err := transfer.Send(w, sources, transfer.Sending{
			Recursive: c.recursive, Skipped: c.onSkip, Progress: c.meter.setProgress,
		})
		w.Close() // the stream so far is cut off
		sent <- isGone(err)
	}()
	guest := c.guest(ctx, c.to.vm, c.receiving(), r, io.Discard)
	r.Close()
	w.Close() // a supervisor that hangs also holds the other end
	err = <-sent
	switch {
	case err != nil && !errors.Is(err, errGone):
		return err
	case guest != nil:
		return guest
	}
	return err
}

func checkSource(src transfer.Source, check func(*os.File) error) error {
	f, err := src.Open()
	if err != nil {
		return err
	}
	return errors.Join(check(f), f.Close())
}

func (c *copyJob) onSkip(path, why string) {
	c.meter.line("vix: %s: left out: %s", path, why)
}

// down receives files of a guest.
func (c *copyJob) down(ctx context.Context) error {
	to, err := transfer.Find(c.to.path, len(c.sources) > 1)
	if err != nil {
		return err
	}
	defer to.Dir.Close()
	at, err := to.Dir.Open(".")
	if err != nil {
		return fmt.Errorf("%s: %w", c.to.path, transfer.Cause(err))
	}
	defer at.Close()
	here := fmt.Sprintf("/proc/self/fd/%d", at.Fd()) // the directory that was opened, even if it was renamed
	if c.confine != nil {
		c.confine(here)
	}
	if to.Name == "" && slices.Contains(c.names(), "") {
		return fmt.Errorf("cp: the source has no name of its own; give a DESTINATION inside %s", c.to.path)
	}
	umask := unix.Umask(0)
	unix.Umask(umask)
	how := transfer.Receiving{
		Names: c.names(), FilesOnly: !c.recursive,
		Umask: fs.FileMode(umask), Entries: maxEntries, Bytes: c.limit, Reserve: transfer.Reserve(here), Progress: c.meter.setProgress,
	}
	r, w, err := newPipe()
	if err != nil {
		return err
	}
	var result transfer.Result
	received := make(chan error, 1)
	go func() {
		var err error
		result, err = transfer.Receive(r, to, how)
		r.Close()
		received <- err
	}()
	guest := c.guest(ctx, c.from, c.sending(), strings.NewReader(""), w)
	w.Close()
	if ctx.Err() != nil {
		_ = r.SetReadDeadline(time.Now()) // a supervisor that hangs also holds the other end
	}
	err = <-received
	if err == nil && result.Escaping > 0 {
		c.meter.line("vix: cp: %d symbolic links lead out of the copy", result.Escaping)
	}
	if guest != nil && (err == nil || errors.Is(err, transfer.ErrCut)) {
		return guest // it explains the failure
	}
	if err != nil {
		return fmt.Errorf("VM %s: %w", c.from, err)
	}
	return nil
}

// across connects two guests. This process does not inspect the stream: the receiving guest
// trusts it no more than we would.
func (c *copyJob) across(ctx context.Context) error {
	fromGuest, out, err := newPipe()
	if err != nil {
		return err
	}
	in, toGuest, err := newPipe()
	if err != nil {
		closeAll(fromGuest, out)
		return err
	}
	first := make(chan error, 2) // the first failure explains the other
	var all sync.WaitGroup
	all.Go(func() {
		err := c.guest(ctx, c.from, c.sending(), strings.NewReader(""), out)
		if err != nil {
			first <- err
		}
		out.Close()
	})
	all.Go(func() {
		// The files themselves have copy methods of their own, with buffers of 32 KiB.
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(toGuest, c.meter)}, struct{ io.Reader }{fromGuest}, make([]byte, pipeSize))
		closeAll(fromGuest, toGuest)
	})
	all.Go(func() {
		err := c.guest(ctx, c.to.vm, c.receiving(), in, io.Discard)
		if err != nil {
			first <- err
		}
		in.Close()
		if ctx.Err() != nil {
			closeAll(fromGuest, toGuest) // a supervisor that hangs also holds the other ends
		}
	})
	all.Wait()
	select {
	case err := <-first:
		return err
	default:
		return nil
	}
}

// guest runs a guest's end of the copy.
func (c *copyJob) guest(ctx context.Context, name string, request agent.Request, stdin io.Reader, stdout io.Writer) error {
	notes := &launch.Notes{}
	how := vm.How{Kind: agent.KindRequest, Request: &request, User: c.user}
	exit, err := c.spawn(ctx, vm.Run{VM: name, How: how, Stdin: stdin, Stdout: stdout, Stderr: notes, Pipes: true})
	if err != nil {
		return err
	}
	lines := notes.Lines()
	if code := exit.Status(); code != 0 {
		why := fmt.Sprintf("its end of the copy failed (status %d)", code)
		if len(lines) > 0 {
			why = lines[len(lines)-1]
		}
		return fmt.Errorf("VM %s: %s", name, why)
	}
	for _, line := range lines {
		c.meter.line("vix: VM %s: %s", name, line)
	}
	return nil
}

// A meter shows the progress of a copy on a terminal.
type meter struct {
	w     io.Writer
	start time.Time
	stop  chan struct{} // nil if nothing is shown
	done  sync.WaitGroup

	mu    sync.Mutex
	at    transfer.Progress
	shown bool
}

const (
	meterAfter = time.Second
	meterEvery = 200 * time.Millisecond
)

func newMeter(w io.Writer, terminal bool) *meter {
	m := &meter{w: w, start: time.Now()}
	if terminal {
		m.stop = make(chan struct{})
		m.done.Go(m.show)
	}
	return m
}

func (m *meter) setProgress(p transfer.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = p
}

// Write counts the bytes of a stream that this process does not inspect.
func (m *meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at.Bytes += int64(len(p))
	return len(p), nil
}

func (m *meter) show() {
	wait := time.NewTimer(meterAfter)
	defer wait.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-wait.C:
		}
		m.mu.Lock()
		m.shown = true
		fmt.Fprint(m.w, launch.ClearLine+meterLine(m.at, time.Since(m.start)))
		m.mu.Unlock()
		wait.Reset(meterEvery)
	}
}

// line writes a separate line.
func (m *meter) line(format string, a ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shown {
		fmt.Fprint(m.w, launch.ClearLine)
	}
	fmt.Fprintf(m.w, format+"\n", a...)
}

// end erases the progress line.
func (m *meter) end() {
	if m.stop == nil {
		return
	}
	close(m.stop)
	m.done.Wait()
	if m.shown {
		fmt.Fprint(m.w, launch.ClearLine)
	}
}

// maxShownName keeps the progress on one line.
const maxShownName = 33 // bytes

func meterLine(p transfer.Progress, since time.Duration) string {
	line := fmt.Sprintf("copying: %s, %s/s", amount(p.Bytes), amount(int64(float64(p.Bytes)/max(since.Seconds(), 0.001))))
	if p.Entries > 1 {
		line = fmt.Sprintf("copying: %d files, %s", p.Entries, strings.TrimPrefix(line, "copying: "))
	}
	if p.Name == "" {
		return line
	}
	line += ": " + short(p.Name, maxShownName)
	if p.Size > 0 && p.Taken <= p.Size {
		line += fmt.Sprintf(" %d %%", p.Taken*100/p.Size)
	}
	return line
}

// amount formats a number of bytes for people.
func amount(n int64) string {
	v, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, next
	}
	if unit == "B" || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}
