package menu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A Setup is the first message to vix-menu: all that it needs to open.
type Setup struct {
	Items   []Item        `json:"items"`
	Actions []Action      `json:"actions"`
	VMs     map[string]VM `json:"vms"`
	Look    Look          `json:"look"`
	Socket  string        `json:"socket"` // the compositor's, relative to XDG_RUNTIME_DIR
	Locale  string        `json:"locale"` // for compose sequences
	// IconDirs and IconThemes are icon.Themes's Dirs (absolute) and Names.
	IconDirs   []string `json:"icon_dirs"`
	IconThemes []string `json:"icon_themes"`
	Fonts      []string `json:"fonts"` // files, the first to be preferred
	BoldFonts  []string `json:"bold_fonts"`
}

// A Look is what the menu looks like, in logical pixels.
type Look struct {
	Scheme   string  `json:"scheme"` // "light" or "dark"
	Accent   string  `json:"accent"` // "#rrggbb", or "" for the scheme's own
	Width    int     `json:"width"`
	Lines    int     `json:"lines"`
	FontSize float64 `json:"font_size"`
	Icons    bool    `json:"icons"`
}

// An Update is a later message to vix-menu. Nothing of it that is not set changes.
type Update struct {
	VMs map[string]VM `json:"vms,omitempty"`
	// HaveVMs tells that VMs is set: an empty map is one without a VM that runs.
	HaveVMs bool     `json:"have_vms,omitempty"`
	Items   []Item   `json:"items,omitempty"`
	Actions []Action `json:"actions,omitempty"`
	Scheme  string   `json:"scheme,omitempty"`
	Notice  *Notice  `json:"notice,omitempty"`
	Icon    *Icon    `json:"icon,omitempty"`
	Font    string   `json:"font,omitempty"` // a file with characters that were lacking
	Close   bool     `json:"close,omitempty"`
}

// A Notice is a line at the foot of the menu.
type Notice struct {
	Text string `json:"text"`
	Bad  bool   `json:"bad,omitempty"`
}

// An Icon is an SVG that has been rasterised, or could not be: File is "" then.
type Icon struct {
	Path string `json:"path"`
	Side int    `json:"side"`
	File string `json:"file"`
}

// The kinds of Event.
const (
	EventRun    = "run"    // Item was chosen
	EventAction = "action" // Action of Item was chosen
	EventIcon   = "icon"   // rasterise the SVG Path for Side pixels
	EventFont   = "font"   // find a font for the characters of Text
	EventShown  = "shown"  // the first frame is committed: what is slow may begin
	EventClosed = "closed" // the menu has gone; the last one
)

// An Event is a message from vix-menu.
type Event struct {
	Kind   string `json:"kind"`
	Item   string `json:"item,omitempty"`
	Action string `json:"action,omitempty"`
	Token  string `json:"token,omitempty"` // of xdg_activation_v1, for the window that comes of it
	Keep   bool   `json:"keep,omitempty"`  // the menu stays open
	Path   string `json:"path,omitempty"`
	Side   int    `json:"side,omitempty"`
	Text   string `json:"text,omitempty"`
}

// maxMessage bounds a message: 20,000 items are below it.
const maxMessage = 16 << 20

// A Reader reads messages.
type Reader struct{ s *bufio.Scanner }

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxMessage)
	return &Reader{s}
}

// Read reads a message into v, io.EOF after the last.
func (r *Reader) Read(v any) error {
	if !r.s.Scan() {
		if err := r.s.Err(); err != nil {
			return fmt.Errorf("menu: a message: %w", err)
		}
		return io.EOF
	}
	return json.Unmarshal(r.s.Bytes(), v)
}

// A Writer writes messages; any goroutine may.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes v as a message.
func (w *Writer) Write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) >= maxMessage {
		return errors.New("menu: a message is too large; there are too many entries")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.w.Write(append(b, '\n'))
	return err
}
