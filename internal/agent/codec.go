package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrTooLong: a message does not fit into a frame.
var ErrTooLong = errors.New("too long for the agent")

// Every violation of the protocol wraps ErrProtocol.
var ErrProtocol = errors.New("agent protocol violated")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// Append appends m as one frame. If m is out of bounds or too large for a frame, it
// returns dst unchanged and an error.
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
		return dst, fmt.Errorf("%w: %s of %d bytes, at most %d", ErrTooLong, m.Type(), n, MaxPayload)
	}
	binary.LittleEndian.PutUint32(out[len(dst)+1:], uint32(n))
	return out, nil
}

// ReadFrame reads one frame into buf, which must hold MaxPayload bytes. It returns the
// frame's type and the part of buf that is its payload. io.EOF means that the stream ended
// between two frames.
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
	case TypeUp:
		return parseData(Up, payload)
	case TypeDown:
		return parseData(Down, payload)
	case TypeCall:
		return parseJSON[Call](payload)
	case TypeAccept:
		return parseJSON[Accept](payload)
	case TypeRefuse:
		return parseJSON[Refuse](payload)
	case TypeOver:
		return parseJSON[Over](payload)
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
	case TypeClock:
		return parseJSON[Clock](payload)
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
	case TypePing:
		return parseJSON[Ping](payload)
	case TypePong:
		return parseJSON[Pong](payload)
	case TypeTraffic:
		return parseJSON[Traffic](payload)
	case TypeShortage:
		return parseJSON[Shortage](payload)
	case TypeWindowLoss:
		return parseJSON[WindowLoss](payload)
	}
	return nil, violation("unknown %s", t)
}

// parseJSON decodes exactly one object with no unknown keys.
func parseJSON[M Message](payload []byte) (Message, error) {
	var m M
	if err := decodeJSON(m.Type().String(), payload, &m); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return m, nil
}

func decodeJSON(what string, b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return violation("%s: %v", what, err)
	}
	if len(bytes.TrimLeft(b[d.InputOffset():], " \t\r\n")) != 0 {
		return violation("%s: bytes after the object", what)
	}
	return nil
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

func (m Hello) appendTo(dst []byte) ([]byte, error)      { return appendJSON(dst, m) }
func (m Boot) appendTo(dst []byte) ([]byte, error)       { return appendJSON(dst, m) }
func (m Stage) appendTo(dst []byte) ([]byte, error)      { return appendJSON(dst, m) }
func (m Ready) appendTo(dst []byte) ([]byte, error)      { return appendJSON(dst, m) }
func (m Spawn) appendTo(dst []byte) ([]byte, error)      { return appendJSON(dst, m) }
func (m Spawned) appendTo(dst []byte) ([]byte, error)    { return appendJSON(dst, m) }
func (m Kill) appendTo(dst []byte) ([]byte, error)       { return appendJSON(dst, m) }
func (m Resize) appendTo(dst []byte) ([]byte, error)     { return appendJSON(dst, m) }
func (m Exit) appendTo(dst []byte) ([]byte, error)       { return appendJSON(dst, m) }
func (m Error) appendTo(dst []byte) ([]byte, error)      { return appendJSON(dst, m) }
func (m Traffic) appendTo(dst []byte) ([]byte, error)    { return appendJSON(dst, m) }
func (m Shortage) appendTo(dst []byte) ([]byte, error)   { return appendJSON(dst, m) }
func (m WindowLoss) appendTo(dst []byte) ([]byte, error) { return appendJSON(dst, m) }
func (m PowerOff) appendTo(dst []byte) ([]byte, error)   { return appendJSON(dst, m) }
func (m Ping) appendTo(dst []byte) ([]byte, error)       { return appendJSON(dst, m) }
func (m Pong) appendTo(dst []byte) ([]byte, error)       { return appendJSON(dst, m) }
func (m Clock) appendTo(dst []byte) ([]byte, error)      { return appendJSON(dst, m) }
func (m Call) appendTo(dst []byte) ([]byte, error)       { return appendJSON(dst, m) }
func (m Accept) appendTo(dst []byte) ([]byte, error)     { return appendJSON(dst, m) }
func (m Refuse) appendTo(dst []byte) ([]byte, error)     { return appendJSON(dst, m) }
func (m Over) appendTo(dst []byte) ([]byte, error)       { return appendJSON(dst, m) }

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
