package launch

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progressAfter is how long a start may take before the terminal shows what it waits for.
const progressAfter = time.Second

// A Progress is the line on a terminal that says what a start waits for. Other lines go
// through it, so that they do not end up within that line.
type Progress struct {
	w    io.Writer
	name string

	mu    sync.Mutex
	timer *time.Timer
	next  string // what is waited for
	shown bool
	ended bool
}

// After a stage, what comes next.
var nextStage = map[string]string{
	"":         "preparing kernel and initramfs",
	"prepared": "starting QEMU",
	"qemu":     "booting the kernel",
	"init":     "mounting the root",
	"root":     "starting the Wayland proxy",
	"proxy":    "nearly there",
}

// NewProgress begins to wait for the start of the VM name. Without a terminal it draws
// nothing.
func NewProgress(w io.Writer, terminal bool, name string) *Progress {
	p := &Progress{w: w, name: name, next: nextStage[""], ended: !terminal}
	if terminal {
		p.timer = time.AfterFunc(progressAfter, p.show)
	}
	return p
}

// show begins to draw.
func (p *Progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown = true
	p.drawLocked()
}

// ClearLine empties the current line of a terminal.
const ClearLine = "\r\x1b[K"

func (p *Progress) drawLocked() {
	if p.shown && !p.ended {
		fmt.Fprintf(p.w, "%sstarting VM %s: %s …", ClearLine, p.name, p.next)
	}
}

// Stage is called when a stage of the start is done.
func (p *Progress) Stage(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if next, ok := nextStage[name]; ok {
		p.next = next
		p.drawLocked()
	}
}

// Line writes a line of its own.
func (p *Progress) Line(format string, a ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
	fmt.Fprintf(p.w, "vix: "+format+"\n", a...)
	p.drawLocked()
}

// Note writes a line of its own, on a raw terminal too.
func (p *Progress) Note(raw bool, text string) {
	if !raw {
		p.Line("%s", text)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "\r\nvix: %s\r\n", text)
}

// Silent says that the VM does not answer any more; on a raw terminal the keys are the
// guest's.
func (p *Progress) Silent(raw bool) {
	leave := "Ctrl-C twice"
	if raw {
		leave = "~."
	}
	p.Note(raw, fmt.Sprintf("VM %s: does not answer; waiting for it; %s leaves, and vix stop --force %s ends the VM", p.name, leave, p.name))
}

func (p *Progress) clearLocked() {
	if p.shown && !p.ended {
		fmt.Fprint(p.w, ClearLine)
	}
}

// End takes the line away.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
	p.ended = true
	if p.timer != nil {
		p.timer.Stop()
	}
}
