package menu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A Setup is the first message to vix-menu: it has everything for making the window, while
// vix-launcher gathers the items. vix-menu waits for the first Update, which has these.
type Setup struct {
	Look   Look   `json:"look"`
	Socket string `json:"socket"` // the compositor's, relative to XDG_RUNTIME_DIR
	Locale string `json:"locale"` // for compose sequences
	// IconDirs and IconThemes are icon.Themes's Dirs (absolute) and Names.
	IconDirs   []string `json:"icon_dirs"`
	IconThemes []string `json:"icon_themes"`
	Fonts      []string `json:"fonts"` // files, the first to be preferred
	BoldFonts  []string `json:"bold_fonts"`
	// Scale is what the last menu had, 0 if that is not known: for it texts are drawn
	// before the compositor says which it is.
	Scale float64 `json:"scale,omitempty"`
	// Icons are those that the last menu found: used at once, and looked for again
	// when the menu is open.
	Icons []Icon `json:"icons"`
}

// A Look is the menu's appearance, in logical pixels.
type Look struct {
	Scheme   string  `json:"scheme"` // "light" or "dark"
	Accent   string  `json:"accent"` // "#rrggbb", or "" for the scheme's own
	Width    int     `json:"width"`
	Lines    int     `json:"lines"`
	FontSize float64 `json:"font_size"`
	Icons    bool    `json:"icons"`
}

// An Update is a later message to vix-menu. Fields that are not set change nothing.
type Update struct {
	VMs map[string]VM `json:"vms,omitempty"`
	// HaveVMs tells that VMs is set: an empty map is one without a VM that runs.
	HaveVMs bool `json:"have_vms,omitempty"`
	// Items follow the message's line, packed (PackItems): in as many bytes.
	Items   []Item   `json:"-"`
	Packed  int      `json:"packed,omitempty"`
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

// An Icon is where the picture of one is: what its theme has at Path, and a PNG for
// Side pixels of it, which is the same file if that is no SVG. File is "" if there is
// none.
type Icon struct {
	Name string `json:"name"`
	Side int    `json:"side"`
	Path string `json:"path,omitempty"`
	File string `json:"file,omitempty"`
}

// The kinds of Event.
const (
	EventRun    = "run"    // Item was chosen
	EventAction = "action" // Action of Item was chosen
	EventIcon   = "icon"   // the icon Name is Path, "" for none: an SVG is to be rasterised for Side pixels
	EventFont   = "font"   // find a font for the characters of Text
	EventShown  = "shown"  // the first frame is committed, at Scale: what is slow may begin
	EventClosed = "closed" // the menu has gone; the last one
)

// An Event is a message from vix-menu.
type Event struct {
	Kind   string  `json:"kind"`
	Item   string  `json:"item,omitempty"`
	Action string  `json:"action,omitempty"`
	Token  string  `json:"token,omitempty"` // of xdg_activation_v1, for the window that comes of it
	Keep   bool    `json:"keep,omitempty"`  // the menu stays open
	Scale  float64 `json:"scale,omitempty"`
	Name   string  `json:"name,omitempty"`
	Path   string  `json:"path,omitempty"`
	Side   int     `json:"side,omitempty"`
	Text   string  `json:"text,omitempty"`
}

// maxMessage bounds a message: 20,000 items are below it.
const maxMessage = 16 << 20

// A Reader reads messages.
type Reader struct{ r *bufio.Reader }

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, 64<<10)} }

// Read reads a message into v, io.EOF after the last.
func (r *Reader) Read(v any) error {
	line, err := r.line()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("menu: a message: %w", err)
	}
	u, ok := v.(*Update)
	if !ok || u.Packed == 0 {
		return nil
	}
	if u.Packed < 0 || u.Packed > maxMessage {
		return errTooLarge
	}
	b := make([]byte, u.Packed)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return fmt.Errorf("menu: items: %w", err)
	}
	u.Items, err = UnpackItems(string(b))
	return err
}

// line reads a line, which is valid until the next read.
func (r *Reader) line() ([]byte, error) {
	line, err := r.r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return line, err
	}
	long := append([]byte(nil), line...)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) > maxMessage {
			return nil, errTooLarge
		}
		line, err = r.r.ReadSlice('\n')
		long = append(long, line...)
	}
	return long, err
}

// A Writer writes messages; any goroutine may.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

var errTooLarge = errors.New("menu: a message is too large; there are too many entries")

// Write writes v as a message.
func (w *Writer) Write(v any) error {
	var packed []byte
	if u, ok := v.(Update); ok && u.Items != nil {
		packed = PackItems(u.Items)
		u.Packed = len(packed)
		v = u
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) >= maxMessage || len(packed) >= maxMessage {
		return errTooLarge
	}
	b = append(append(b, '\n'), packed...)
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.w.Write(b)
	return err
}
