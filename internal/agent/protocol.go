// Package agent is the control channel between a host and one guest: both
// ends of it, over any one byte stream.
//
// The stream is a virtio-serial port named PortName (or, later, a vsock
// connection). One channel belongs to one VM; the host made it, so nothing a
// guest writes can speak for another VM.
//
// # Frames
//
//	0      1              5
//	+------+--------------+----------------------+
//	| type | length (LE)  | payload, ≤ 65,536 B  |
//	+------+--------------+----------------------+
//
// Payloads of control frames are one JSON object; payloads on the data path
// are binary, little endian:
//
//	stdin, stdout, stderr   [id u32][bytes]         no bytes: end of file
//	credit                  [id u32][stream u8][n u32]
//	hangup                  [id u32][stream u8]
//
// # Flow
//
//	host                                   guest (PID 1)
//	                      ◄── hello        first frame of the guest
//	boot ──►                               host name, clock, user, environment
//	                      ◄── stage …      "init", "root", "proxy", with uptime
//	                      ◄── ready        programs can be spawned
//	spawn(id) ──►
//	                      ◄── spawned(id) | error(id, 126 | 127, why)
//	stdin(id) ──►         ◄── stdout(id), stderr(id)
//	credit ──►            ◄── credit       the reader consumed n bytes
//	kill, resize ──►      ◄── hangup       the reader is gone (EPIPE)
//	                      ◄── exit(id)     the program itself has ended
//	poweroff ──►          ◄── (end of stream: the machine is off)
//
// An error frame with id 0 is the guest's last word about itself: it could not
// boot, or lost a part it cannot live without, and powers off.
//
// Each of the three streams of a program has a window of Window bytes. A
// sender sends no more than it has credit for; a receiver hands credit back
// as its reader consumes. So a slow reader stops the program behind it, and
// neither end's memory grows.
//
// # Trust
//
// The host treats every byte as hostile: a frame that is too long, of an
// unknown type, not exactly as described, about a program that the host did
// not start, beyond its credit or beyond a limit below ends the channel with
// an error. The guest trusts the host, and ignores what it does not know.
//
// The package starts no process and touches no file: the guest end is given
// a function that starts programs.
package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Version is the protocol's version, said in hello.
const Version = 1

// PortName is the name of the virtio-serial port that carries the channel.
const PortName = "dev.vix.agent"

// Limits.
const (
	// MaxPayload bounds one frame. A spawn with its environment is the
	// largest control message: Linux's own limit for one string is twice this.
	MaxPayload = 64 << 10
	// MaxData bounds the bytes of one data frame, so that a frame with its
	// headers is one write(2) to virtio_console, which takes 32 KiB at a time.
	MaxData = 32<<10 - headerSize - 4
	// Window is the credit of each stream of each program at its start.
	Window = 256 << 10
	// MaxProcesses bounds the programs of one guest that have not ended: with
	// Window it bounds what an unread guest can make its host hold.
	MaxProcesses = 128
	// MaxStages bounds how many stages a boot may report.
	MaxStages = 16
	// maxText bounds a human-readable text of a guest, in bytes.
	maxText = 1 << 10
	// maxName bounds a stage's name and state.
	maxName = 32

	headerSize = 5
)

// Type is the type of a frame. The numbers are the protocol; the names follow
// kage's where it has a message for the purpose.
type Type uint8

// Frames from the host, from the guest, and from either.
const (
	TypeBoot     Type = 1
	TypeSpawn    Type = 2
	TypeStdin    Type = 3
	TypeKill     Type = 4
	TypeResize   Type = 5
	TypePowerOff Type = 6

	TypeHello   Type = 33
	TypeStage   Type = 34
	TypeReady   Type = 35
	TypeSpawned Type = 36
	TypeStdout  Type = 37
	TypeStderr  Type = 38
	TypeExit    Type = 39
	TypeError   Type = 40

	TypeCredit Type = 65
	TypeHangup Type = 66
)

var typeNames = map[Type]string{
	TypeBoot: "boot", TypeSpawn: "spawn", TypeStdin: "stdin", TypeKill: "kill",
	TypeResize: "resize", TypePowerOff: "poweroff", TypeHello: "hello",
	TypeStage: "stage", TypeReady: "ready", TypeSpawned: "spawned",
	TypeStdout: "stdout", TypeStderr: "stderr", TypeExit: "exit",
	TypeError: "error", TypeCredit: "credit", TypeHangup: "hangup",
}

func (t Type) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// A Stream is one of a program's three byte streams, numbered as its
// descriptors are.
type Stream uint8

// The streams of a program.
const (
	Stdin Stream = iota
	Stdout
	Stderr
)

// A Message is the content of one frame.
type Message interface {
	// Type is the frame type that carries the message.
	Type() Type
	// appendTo appends the payload.
	appendTo(dst []byte) ([]byte, error)
	// check says what of a decoded message is out of bounds.
	check() error
}

// The messages.
type (
	// Hello is the guest's first frame.
	Hello struct {
		Version int    `json:"version"`
		Kernel  string `json:"kernel,omitempty"` // uname -r
	}

	// Boot tells a guest who it is.
	Boot struct {
		Hostname string   `json:"hostname"`
		Time     int64    `json:"time_ns"` // wall clock in nanoseconds since 1970, set by Host as it sends
		User     User     `json:"user"`
		Env      []string `json:"env,omitempty"` // K=V for every program
	}

	// User is the ordinary user who runs every program.
	User struct {
		Name string `json:"name"`
		UID  int    `json:"uid"`
		GID  int    `json:"gid"`
	}

	// Stage says that a part of the boot is done.
	Stage struct {
		Name   string `json:"name"`            // "init", "root", "proxy", …
		Uptime int64  `json:"uptime_ms"`       // the guest's clock since its kernel started
		State  string `json:"state,omitempty"` // "" is done; "absent": there is no such part here
	}

	// Ready says that programs can be spawned.
	Ready struct {
		Uptime int64 `json:"uptime_ms"`
	}

	// Spawn starts a program. ID is chosen by the host, which never uses one twice.
	Spawn struct {
		ID   uint32   `json:"id"`
		Argv []string `json:"argv"`
		Env  []string `json:"env,omitempty"` // K=V over the guest's own
		Cwd  string   `json:"cwd,omitempty"` // the user's home if empty
		TTY  bool     `json:"tty,omitempty"`
		Rows uint16   `json:"rows,omitempty"` // of the TTY
		Cols uint16   `json:"cols,omitempty"`
	}

	// Spawned says that program ID runs.
	Spawned struct {
		ID  uint32 `json:"id"`
		PID int    `json:"pid"` // in the guest
	}

	// Kill sends a signal to a program and its process group.
	Kill struct {
		ID     uint32 `json:"id"`
		Signal int    `json:"signal"` // Linux's number
	}

	// Resize sets the size of a program's TTY.
	Resize struct {
		ID   uint32 `json:"id"`
		Rows uint16 `json:"rows"`
		Cols uint16 `json:"cols"`
	}

	// Exit says that program ID has ended. Its output may still follow, and
	// ends by itself when no descendant holds it any more.
	Exit struct {
		ID     uint32 `json:"id"`
		Code   int    `json:"code"`
		Signal int    `json:"signal,omitempty"`
	}

	// Error says why program ID could not start, or, with ID 0, why the guest
	// is about to power off.
	Error struct {
		ID   uint32 `json:"id,omitempty"`
		Code int    `json:"code,omitempty"` // 126, 127 as in a shell
		Text string `json:"text"`
	}

	// PowerOff asks the guest to end its programs and switch itself off.
	PowerOff struct {
		Grace int64 `json:"grace_ms"` // between SIGTERM and SIGKILL
	}

	// Data is a piece of a stream; no bytes mean its end.
	Data struct {
		ID     uint32
		Stream Stream
		Bytes  []byte
	}

	// Credit lets the sender of a stream send N more bytes.
	Credit struct {
		ID     uint32
		Stream Stream
		N      uint32
	}

	// Hangup says that the reader of a stream is gone.
	Hangup struct {
		ID     uint32
		Stream Stream
	}
)

// Type implements Message.
func (Hello) Type() Type    { return TypeHello }
func (Boot) Type() Type     { return TypeBoot }     // Type implements Message.
func (Stage) Type() Type    { return TypeStage }    // Type implements Message.
func (Ready) Type() Type    { return TypeReady }    // Type implements Message.
func (Spawn) Type() Type    { return TypeSpawn }    // Type implements Message.
func (Spawned) Type() Type  { return TypeSpawned }  // Type implements Message.
func (Kill) Type() Type     { return TypeKill }     // Type implements Message.
func (Resize) Type() Type   { return TypeResize }   // Type implements Message.
func (Exit) Type() Type     { return TypeExit }     // Type implements Message.
func (Error) Type() Type    { return TypeError }    // Type implements Message.
func (PowerOff) Type() Type { return TypePowerOff } // Type implements Message.
func (Credit) Type() Type   { return TypeCredit }   // Type implements Message.
func (Hangup) Type() Type   { return TypeHangup }   // Type implements Message.

// Type implements Message.
func (m Data) Type() Type {
	switch m.Stream {
	case Stdout:
		return TypeStdout
	case Stderr:
		return TypeStderr
	}
	return TypeStdin
}

// ErrProtocol is what every violation of the protocol wraps.
var ErrProtocol = errors.New("agent protocol violated")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// Append appends m as one frame. A message that is out of bounds, or too large
// for a frame, is an error, and dst is returned as it was.
func Append(dst []byte, m Message) ([]byte, error) {
	if err := m.check(); err != nil {
		return dst, err
	}
	out := append(dst, byte(m.Type()), 0, 0, 0, 0)
	out, err := m.appendTo(out)
	if err != nil {
		return dst, err
	}
	n := len(out) - len(dst) - headerSize
	if n > MaxPayload {
		return dst, fmt.Errorf("%s of %d bytes: a frame holds %d", m.Type(), n, MaxPayload)
	}
	binary.LittleEndian.PutUint32(out[len(dst)+1:], uint32(n))
	return out, nil
}

// ReadFrame reads one frame into buf, which must hold MaxPayload bytes, and
// returns its type and the part of buf that is its payload. io.EOF means that
// the stream ended between two frames.
func ReadFrame(r io.Reader, buf []byte) (Type, []byte, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	t, n := Type(head[0]), binary.LittleEndian.Uint32(head[1:])
	if n > MaxPayload {
		return t, nil, violation("%s frame of %d bytes, at most %d", t, n, MaxPayload)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return t, nil, err
	}
	return t, buf[:n], nil
}

// Parse decodes the payload of one frame. The bytes of a Data alias payload.
// Every error wraps ErrProtocol.
func Parse(t Type, payload []byte) (Message, error) {
	switch t {
	case TypeStdin:
		return parseData(Stdin, payload)
	case TypeStdout:
		return parseData(Stdout, payload)
	case TypeStderr:
		return parseData(Stderr, payload)
	case TypeCredit:
		return parseCredit(payload)
	case TypeHangup:
		return parseHangup(payload)
	case TypeBoot:
		return parseJSON[Boot](payload)
	case TypeSpawn:
		return parseJSON[Spawn](payload)
	case TypeKill:
		return parseJSON[Kill](payload)
	case TypeResize:
		return parseJSON[Resize](payload)
	case TypePowerOff:
		return parseJSON[PowerOff](payload)
	case TypeHello:
		return parseJSON[Hello](payload)
	case TypeStage:
		return parseJSON[Stage](payload)
	case TypeReady:
		return parseJSON[Ready](payload)
	case TypeSpawned:
		return parseJSON[Spawned](payload)
	case TypeExit:
		return parseJSON[Exit](payload)
	case TypeError:
		return parseJSON[Error](payload)
	}
	return nil, violation("unknown %s", t)
}

// parseJSON decodes exactly one object with no unknown keys.
func parseJSON[M Message](payload []byte) (Message, error) {
	var m M
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, violation("%s: %v", m.Type(), err)
	}
	if len(bytes.TrimLeft(payload[d.InputOffset():], " \t\r\n")) != 0 {
		return nil, violation("%s: bytes after the object", m.Type())
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return m, nil
}

func parseData(s Stream, p []byte) (Message, error) {
	if len(p) < 4 || len(p) > 4+MaxData {
		return nil, violation("data of %d bytes, from 4 to %d", len(p), 4+MaxData)
	}
	return Data{ID: binary.LittleEndian.Uint32(p), Stream: s, Bytes: p[4:]}, nil
}

func parseCredit(p []byte) (Message, error) {
	if len(p) != 9 {
		return nil, violation("credit of %d bytes, not 9", len(p))
	}
	c := Credit{binary.LittleEndian.Uint32(p), Stream(p[4]), binary.LittleEndian.Uint32(p[5:])}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return c, nil
}

func parseHangup(p []byte) (Message, error) {
	if len(p) != 5 {
		return nil, violation("hangup of %d bytes, not 5", len(p))
	}
	h := Hangup{binary.LittleEndian.Uint32(p), Stream(p[4])}
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return h, nil
}

func appendJSON(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func (m Hello) appendTo(dst []byte) ([]byte, error)    { return appendJSON(dst, m) }
func (m Boot) appendTo(dst []byte) ([]byte, error)     { return appendJSON(dst, m) }
func (m Stage) appendTo(dst []byte) ([]byte, error)    { return appendJSON(dst, m) }
func (m Ready) appendTo(dst []byte) ([]byte, error)    { return appendJSON(dst, m) }
func (m Spawn) appendTo(dst []byte) ([]byte, error)    { return appendJSON(dst, m) }
func (m Spawned) appendTo(dst []byte) ([]byte, error)  { return appendJSON(dst, m) }
func (m Kill) appendTo(dst []byte) ([]byte, error)     { return appendJSON(dst, m) }
func (m Resize) appendTo(dst []byte) ([]byte, error)   { return appendJSON(dst, m) }
func (m Exit) appendTo(dst []byte) ([]byte, error)     { return appendJSON(dst, m) }
func (m Error) appendTo(dst []byte) ([]byte, error)    { return appendJSON(dst, m) }
func (m PowerOff) appendTo(dst []byte) ([]byte, error) { return appendJSON(dst, m) }

func (m Data) appendTo(dst []byte) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint32(dst, m.ID)
	return append(dst, m.Bytes...), nil
}

func (m Credit) appendTo(dst []byte) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint32(dst, m.ID)
	return binary.LittleEndian.AppendUint32(append(dst, byte(m.Stream)), m.N), nil
}

func (m Hangup) appendTo(dst []byte) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint32(dst, m.ID)
	return append(dst, byte(m.Stream)), nil
}

func (m Hello) check() error {
	if m.Version < 1 {
		return fmt.Errorf("hello: version %d", m.Version)
	}
	return checkText("hello: kernel", m.Kernel, maxText)
}

func (m Boot) check() error {
	switch {
	case m.Hostname == "" || len(m.Hostname) > 63:
		return fmt.Errorf("boot: hostname of %d bytes, from 1 to 63", len(m.Hostname))
	case !plainName(m.Hostname):
		return fmt.Errorf("boot: hostname %q: only letters, digits, - and _", m.Hostname)
	case m.User.Name == "" || len(m.User.Name) > maxName || !plainName(m.User.Name):
		return fmt.Errorf("boot: user name %q", m.User.Name)
	case m.User.UID <= 0 || m.User.GID <= 0:
		return fmt.Errorf("boot: user %d, group %d: programs never run as root", m.User.UID, m.User.GID)
	case m.User.UID >= 1<<31 || m.User.GID >= 1<<31:
		return fmt.Errorf("boot: user %d, group %d: too large", m.User.UID, m.User.GID)
	}
	return checkStrings("boot: environment", m.Env)
}

func (m Stage) check() error {
	if m.Name == "" || len(m.Name) > maxName || !plainName(m.Name) {
		return fmt.Errorf("stage: name %.64q", m.Name)
	}
	if len(m.State) > maxName || !plainName(m.State) {
		return fmt.Errorf("stage: state %.64q", m.State)
	}
	return checkUptime(m.Uptime)
}

func (m Ready) check() error { return checkUptime(m.Uptime) }

func (m Spawn) check() error {
	if len(m.Argv) == 0 || m.Argv[0] == "" {
		return errors.New("spawn: no program named")
	}
	if err := checkStrings("spawn: argument", m.Argv); err != nil {
		return err
	}
	if err := checkStrings("spawn: environment", m.Env); err != nil {
		return err
	}
	if strings.ContainsRune(m.Cwd, 0) {
		return errors.New("spawn: directory holds a NUL byte")
	}
	return checkID(m.ID)
}

func (m Spawned) check() error {
	if m.PID <= 1 {
		return fmt.Errorf("spawned: pid %d", m.PID)
	}
	return checkID(m.ID)
}

func (m Kill) check() error {
	if m.Signal < 1 || m.Signal > 64 {
		return fmt.Errorf("kill: signal %d, from 1 to 64", m.Signal)
	}
	return checkID(m.ID)
}

func (m Resize) check() error { return checkID(m.ID) }

func (m Exit) check() error {
	if m.Code < 0 || m.Code > 255 || m.Signal < 0 || m.Signal > 64 {
		return fmt.Errorf("exit: code %d, signal %d", m.Code, m.Signal)
	}
	return checkID(m.ID)
}

func (m Error) check() error {
	if m.Code < 0 || m.Code > 255 {
		return fmt.Errorf("error: code %d", m.Code)
	}
	return checkText("error", m.Text, maxText)
}

func (m PowerOff) check() error {
	if m.Grace < 0 || m.Grace > 3600_000 {
		return fmt.Errorf("poweroff: %d ms of grace, at most an hour", m.Grace)
	}
	return nil
}

func (m Data) check() error {
	if m.Stream > Stderr || len(m.Bytes) > MaxData {
		return fmt.Errorf("data: %d bytes on stream %d", len(m.Bytes), m.Stream)
	}
	return nil
}

func (m Credit) check() error {
	if m.Stream > Stderr || m.N == 0 || m.N > Window {
		return fmt.Errorf("credit: %d bytes for stream %d", m.N, m.Stream)
	}
	return nil
}

func (m Hangup) check() error {
	if m.Stream > Stderr {
		return fmt.Errorf("hangup: stream %d", m.Stream)
	}
	return nil
}

func checkID(id uint32) error {
	if id == 0 {
		return errors.New("program 0: ids begin at 1")
	}
	return nil
}

func checkUptime(ms int64) error {
	if ms < 0 || ms > 1<<50 {
		return fmt.Errorf("uptime of %d ms", ms)
	}
	return nil
}

// checkStrings: a string of an argument vector ends at its first NUL.
func checkStrings(what string, list []string) error {
	for _, s := range list {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("%s %.64q holds a NUL byte", what, s)
		}
		if !utf8.ValidString(s) {
			// JSON would silently replace the bytes: another program, another file.
			return fmt.Errorf("%s %.64q is not UTF-8", what, s)
		}
	}
	return nil
}

func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s: text of %d bytes, at most %d", what, len(s), limit)
	}
	return nil
}

func plainName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			continue
		}
		return false
	}
	return true
}

// plainText makes a guest's text fit to be shown on a terminal: control and
// format characters (escapes, bidi overrides) become spaces.
func plainText(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s))
}

// clip cuts s to n bytes at a rune's border.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
