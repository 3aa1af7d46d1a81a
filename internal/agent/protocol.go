// Package agent is the control channel between a host and one guest: both ends of it,
// over any byte stream.
//
// The stream is a virtio-serial port named PortName, whose other end the host made: one
// channel belongs to one VM, and nothing that a guest writes can speak for another. Or it is
// a vsock connection that the guest makes; the listener must check the peer's CID to know
// the VM (supervise/vsock.go).
//
// # Frames
//
//	0      1              5
//	+------+--------------+----------------------+
//	| type | length (LE)  | payload, ≤ 65,536 B  |
//	+------+--------------+----------------------+
//
// Payloads of control frames are one JSON object, in which a string of the guest's kernel may
// be any bytes (exact.go); payloads on the data path
// are binary, little endian:
//
//	stdin, stdout, stderr   [id u32][bytes]         no bytes: end of file
//	up, down                [id u32][bytes]         the same for a call
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
//	kill, resize ──►      ◄── hangup       the reader has left (EPIPE)
//	clock ──►                              the host's clock has jumped: it was set, or the host slept
//	ping(n) ──►           ◄── pong(n)      the guest lives, and answers all pings up to n
//	                      ◄── exit(id)     the program itself has ended
//	                      ◄── traffic …    the network card's byte counts, when they change
//	                      ◄── shortage …   the kernel has killed a program for want of memory
//	                      ◄── windowloss … the display has ended, and all windows with it
//	                      ◄── call(id)     the guest wants a stream of a kind, with its fields
//	accept | refuse(id) ──►                the answer of the kind's handler
//	down(id) ──►          ◄── up(id)       with credit and hangup, as for a program's streams
//	                      ◄── over(id)     both directions have ended
//	poweroff ──►          ◄── (end of stream: the machine is off)
//
// Programs and calls have separate ids: call 1 has nothing to do with program 1.
//
// An error frame with id 0 is the guest's last report about itself: it could not boot, or
// lost a part that it cannot live without, and powers off.
//
// Each of the three streams of a program, and of the two of a call, has a window of Window
// bytes. A sender sends no more than its credit; a receiver returns credit as its reader
// consumes. So a slow reader stops the program behind it, and neither end's memory grows.
//
// # kage's names
//
// spawn, stdin, kill, resize, spawned, stdout, stderr, exit and error are kage's, with its
// frame layout, but data is binary, not JSON. kage's other messages:
//
//	session_create   is spawn: each program has a session and a control group of its own
//	mount, unmount   are spawns of a request, with fields (request.go): the agent's own process
//	                 answers with its status and output, so there is no second way to fail
//	binary_install   is a spawn of the request Receive, as root: one implementation receives
//	                 files, with one set of limits
//	ok               is spawned, and exit
//
// # Trust
//
// The host treats every byte as hostile. A frame ends the channel with an error if it is too
// long, of an unknown type, not exactly as described, about a program that the host did not
// start, or beyond its credit or a limit below. A call is refused if its kind has no handler,
// or if it exceeds the handler's number or rate (Host.Handle); that costs the host one frame.
// The guest trusts the host, and ignores what it does not know. states.go defines, for both
// ends, which frames may come when.
//
// The package starts no process and touches no file: the guest's end is given a function
// that starts programs.
package agent

import (
	"fmt"

	"vix/internal/plain"
)

// Version is the protocol's version, sent in hello.
const Version = 7

// UserPath is the guest's search path for a program named without a path.
const UserPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games:/usr/local/sbin:/usr/sbin:/sbin"

// FallbackTerm is the TERM of a program whose terminal no terminfo describes: most terminals
// of today do what it says.
const FallbackTerm = "xterm-256color"

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
	// Window is the initial credit of each stream of each program.
	Window = 256 << 10
	// MaxProcesses bounds a guest's programs that have not ended. Together with Window it
	// bounds the memory that an unread guest can occupy on the host.
	MaxProcesses = 128
	// MaxCalls bounds a guest's calls that are not over, of all kinds together. Together with
	// Window it bounds the memory that an unread guest can occupy on the host.
	MaxCalls = 32
	// MaxStages bounds the stages that a boot may report.
	MaxStages = 16
	// maxText bounds a human-readable text of a guest, in bytes.
	maxText = 1 << 10
	// maxName bounds a stage's name and state.
	maxName = 32
	// maxDomain bounds a domain (RFC 1035, 2.3.4).
	maxDomain = 253

	// MaxTerminfo bounds a terminfo entry, several times as large as that of any terminal.
	MaxTerminfo = 16 << 10
	// maxZone bounds each field of a Zone.
	maxZone = 128

	headerSize = 5
)

// Type is the type of a frame. The numbers are the protocol; the names are kage's where it
// has a message for the purpose.
type Type uint8

// Frames from the host, from the guest, and from either.
const (
	TypeBoot     Type = 1
	TypeSpawn    Type = 2
	TypeStdin    Type = 3
	TypeKill     Type = 4
	TypeResize   Type = 5
	TypePowerOff Type = 6
	TypeClock    Type = 7
	TypePing     Type = 8
	TypeAccept   Type = 9
	TypeRefuse   Type = 10
	TypeDown     Type = 11

	TypeHello   Type = 33
	TypeStage   Type = 34
	TypeReady   Type = 35
	TypeSpawned Type = 36
	TypeStdout  Type = 37
	TypeStderr  Type = 38
	TypeExit    Type = 39
	TypeError   Type = 40
	TypeTraffic Type = 41
	TypePong    Type = 42

	TypeShortage   Type = 43
	TypeWindowLoss Type = 44

	TypeCall Type = 45
	TypeUp   Type = 46
	TypeOver Type = 47

	TypeCredit Type = 65
	TypeHangup Type = 66
)

var typeNames = map[Type]string{
	TypeBoot: "boot", TypeSpawn: "spawn", TypeStdin: "stdin", TypeKill: "kill",
	TypeResize: "resize", TypePowerOff: "poweroff", TypeClock: "clock", TypePing: "ping", TypePong: "pong", TypeHello: "hello",
	TypeStage: "stage", TypeReady: "ready", TypeSpawned: "spawned",
	TypeStdout: "stdout", TypeStderr: "stderr", TypeExit: "exit",
	TypeError: "error", TypeTraffic: "traffic", TypeShortage: "shortage", TypeWindowLoss: "windowloss", TypeCredit: "credit", TypeHangup: "hangup",
	TypeCall: "call", TypeAccept: "accept", TypeRefuse: "refuse", TypeUp: "up", TypeDown: "down", TypeOver: "over",
}

func (t Type) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// A Stream is one of a program's three byte streams, numbered like its descriptors, or one
// of a call's two.
type Stream uint8

// The streams of a program, and of a call.
const (
	Stdin Stream = iota
	Stdout
	Stderr
	Up   // from the guest
	Down // from the host
)

// ofCall reports whether the stream is a call's.
func (s Stream) ofCall() bool { return s >= Up }

// subject is the stream's owner in messages.
func (s Stream) subject() string {
	if s.ofCall() {
		return "call"
	}
	return "program"
}

// A Kind says what a Spawn starts.
type Kind string

// The kinds of programs.
const (
	KindProgram Kind = ""        // Argv[0], a program of the guest, with its arguments
	KindShell   Kind = "shell"   // the user's login shell as such; Argv are its arguments, if any
	KindRequest Kind = "request" // a Request; no Argv, no TTY
)

// A CallKind is the purpose of a guest's call.
type CallKind string

// The kinds of calls.
const (
	CallNames CallKind = "names" // questions about names go up, answers come down (package names)
)

// A Message is the content of one frame.
type Message interface {
	// Type is the frame type that carries the message.
	Type() Type
	// appendTo appends the payload.
	appendTo(dst []byte) ([]byte, error)
	// check says what is out of bounds in a decoded message.
	check() error
}

// The messages.
type (
	// Hello is the guest's first frame.
	Hello struct {
		Version int    `json:"version"`
		Kernel  string `json:"kernel,omitempty"` // uname -r
	}

	// Boot tells a guest its identity.
	Boot struct {
		Hostname string   `json:"hostname"`
		Time     int64    `json:"time_ns"` // wall clock in nanoseconds since 1970, set by Host at the time of sending
		User     User     `json:"user"`
		Env      Strings  `json:"env,omitempty"`    // K=V for every program
		Mounts   []Mount  `json:"mounts,omitempty"` // made before the guest is ready
		Zone     Zone     `json:"zone,omitzero"`    // of what no Spawn starts
		Search   []string `json:"search,omitempty"` // initial list of domains that are appended to short names (package names)
	}

	// User is the ordinary user, as whom every program runs.
	User struct {
		Name string `json:"name"`
		UID  int    `json:"uid"`
		GID  int    `json:"gid"`
	}

	// Zone is the user's time zone: the guest's TZ. Both fields empty: it is not known.
	Zone struct {
		Name string `json:"name,omitempty"` // such as "Europe/Vienna", for a root that knows it
		Rule string `json:"rule,omitempty"` // such as "CET-1CEST,M3.5.0,M10.5.0/3", for one that does not
	}

	// Stage reports that a part of the boot is done.
	Stage struct {
		Name   string `json:"name"`            // "init", "root", "proxy", …
		Uptime int64  `json:"uptime_ms"`       // the guest's clock since its kernel started
		State  string `json:"state,omitempty"` // "" is done; "absent": the VM has no such part
	}

	// Ready reports that the guest can start programs.
	Ready struct {
		Uptime int64 `json:"uptime_ms"`
	}

	// Spawn starts a program. The host chooses ID, and never uses one twice.
	Spawn struct {
		ID   uint32  `json:"id"`
		Kind Kind    `json:"kind,omitempty"`
		Argv Strings `json:"argv,omitempty"` // its meaning depends on Kind
		// Request is set for KindRequest alone.
		Request *Request `json:"request,omitempty"`

		User string  `json:"user,omitempty"` // a name or number in the guest; its ordinary user if empty
		Env  Strings `json:"env,omitempty"`  // K=V, replaces the guest's own
		Cwd  Bytes   `json:"cwd,omitempty"`  // the user's home if empty
		TTY  bool    `json:"tty,omitempty"`
		Rows uint16  `json:"rows,omitempty"` // size of the TTY
		Cols uint16  `json:"cols,omitempty"`
		// Terminfo is the compiled entry of the TERM in Env (term(5)), for a guest that has none.
		Terminfo []byte `json:"terminfo,omitempty"`
		Zone     Zone   `json:"zone,omitzero"`
	}

	// Spawned reports that program ID runs.
	Spawned struct {
		ID  uint32 `json:"id"`
		PID int    `json:"pid"` // in the guest
		// OtherTerm: there is no terminfo entry for the TERM that was asked for, and the
		// program has FallbackTerm.
		OtherTerm bool `json:"other_term,omitempty"`
	}

	// Kill sends a signal to a program and its process group; SIGKILL goes to all its
	// descendants.
	Kill struct {
		ID     uint32 `json:"id"`
		Signal int    `json:"signal"` // Linux's signal number
	}

	// Resize sets the size of a program's TTY.
	Resize struct {
		ID   uint32 `json:"id"`
		Rows uint16 `json:"rows"`
		Cols uint16 `json:"cols"`
	}

	// Exit reports that program ID has ended. Output may still follow, until no descendant
	// holds the streams any more.
	Exit struct {
		ID     uint32 `json:"id"`
		Code   int    `json:"code"`
		Signal int    `json:"signal,omitempty"`
	}

	// Error reports why program ID could not start or, with ID 0, why the guest is about to
	// power off.
	Error struct {
		ID   uint32 `json:"id,omitempty"`
		Code int    `json:"code,omitempty"` // 126 or 127, as in a shell
		Text string `json:"text"`
	}

	// Traffic is the number of bytes that the guest's network card has carried since its start.
	Traffic struct {
		Received uint64 `json:"rx"`
		Sent     uint64 `json:"tx"`
	}

	// Shortage reports that the guest's kernel has killed a program for want of memory.
	Shortage struct {
		Program string `json:"program"` // its name in the kernel
		Count   uint64 `json:"count"`   // programs killed so far, with this one
	}

	// WindowLoss reports that the guest's Wayland proxy has ended, and all windows with it.
	WindowLoss struct {
		How   string `json:"how"`                // how the proxy ended, or why it did not start
		Count uint64 `json:"count"`              // such ends so far, with this one
		Pause int64  `json:"pause_ms,omitempty"` // until the next proxy starts
	}

	// Call asks the host for a stream; exactly one kind is set. The guest chooses ID, and never
	// uses one twice.
	Call struct {
		ID    uint32     `json:"id"`
		Names *NamesCall `json:"names,omitempty"`
	}

	// NamesCall is a call of CallNames.
	NamesCall struct {
		Failure string `json:"failure,omitempty"` // why the last call ended; "" for the first
	}

	// Accept opens call ID.
	Accept struct {
		ID uint32 `json:"id"`
	}

	// Refuse refuses call ID, with the reason.
	Refuse struct {
		ID   uint32 `json:"id"`
		Text string `json:"text,omitempty"`
	}

	// Over is the guest's last frame about call ID: both streams have ended.
	Over struct {
		ID uint32 `json:"id"`
	}

	// PowerOff asks the guest to end its programs and switch itself off.
	PowerOff struct {
		Grace int64 `json:"grace_ms"` // between SIGTERM and SIGKILL
	}

	// Clock is the host's wall clock, sent after it has jumped.
	Clock struct {
		Time int64 `json:"time_ns"` // as in Boot
	}

	// Ping asks for a sign of life. N is one more than the last.
	Ping struct {
		N uint64 `json:"n"`
	}

	// Pong is the sign of life. It answers every open ping up to N.
	Pong struct {
		N uint64 `json:"n"`
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

	// Hangup reports that the reader of a stream has left.
	Hangup struct {
		ID     uint32
		Stream Stream
	}
)

// Type implements Message.
func (Hello) Type() Type      { return TypeHello }
func (Boot) Type() Type       { return TypeBoot }       // Type implements Message.
func (Stage) Type() Type      { return TypeStage }      // Type implements Message.
func (Ready) Type() Type      { return TypeReady }      // Type implements Message.
func (Spawn) Type() Type      { return TypeSpawn }      // Type implements Message.
func (Spawned) Type() Type    { return TypeSpawned }    // Type implements Message.
func (Kill) Type() Type       { return TypeKill }       // Type implements Message.
func (Resize) Type() Type     { return TypeResize }     // Type implements Message.
func (Exit) Type() Type       { return TypeExit }       // Type implements Message.
func (Error) Type() Type      { return TypeError }      // Type implements Message.
func (Traffic) Type() Type    { return TypeTraffic }    // Type implements Message.
func (Shortage) Type() Type   { return TypeShortage }   // Type implements Message.
func (WindowLoss) Type() Type { return TypeWindowLoss } // Type implements Message.
func (PowerOff) Type() Type   { return TypePowerOff }   // Type implements Message.
func (Clock) Type() Type      { return TypeClock }      // Type implements Message.
func (Ping) Type() Type       { return TypePing }       // Type implements Message.
func (Pong) Type() Type       { return TypePong }       // Type implements Message.
func (Call) Type() Type       { return TypeCall }       // Type implements Message.
func (Accept) Type() Type     { return TypeAccept }     // Type implements Message.
func (Refuse) Type() Type     { return TypeRefuse }     // Type implements Message.
func (Over) Type() Type       { return TypeOver }       // Type implements Message.
func (Credit) Type() Type     { return TypeCredit }     // Type implements Message.
func (Hangup) Type() Type     { return TypeHangup }     // Type implements Message.

// Type implements Message.
func (m Data) Type() Type {
	switch m.Stream {
	case Stdout:
		return TypeStdout
	case Stderr:
		return TypeStderr
	case Up:
		return TypeUp
	case Down:
		return TypeDown
	}
	return TypeStdin
}

// Kind returns the kind that is set; "" unless exactly one is.
func (m Call) Kind() CallKind {
	if m.Names != nil {
		return CallNames
	}
	return ""
}

// plain returns the call with its texts fit for a terminal, and within their bounds.
func (m Call) plain() Call {
	if m.Names != nil {
		m.Names = &NamesCall{Failure: plain.Text(m.Names.Failure, maxText, plain.OneLine)}
	}
	return m
}
