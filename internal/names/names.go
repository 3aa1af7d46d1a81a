// Package names carries a guest's questions for names to those whom its host asks.
//
//	program ─ DNS ─► Stub (guest) ─ frames ─► Forwarder (host) ─ DNS ─► a server of resolv.conf(5)
//	                              ◄─ frames ─                 ◄─ DNS ─
//
// Whom the host asks changes while a VM runs: with the network that a laptop is in, with a
// VPN, with a local resolver that is installed, or whose link dangles until it runs. It may
// have an IPv6 address, listen on the host's 127.0.0.1, or be dead, with another after it.
// So the guest is told none of that, the file is read for every question, and the host asks.
//
// What the host appends to a short name ("printer", with "search lan") a program appends
// itself, by its own resolv.conf(5). So the search list is told to the guest, when a channel
// begins and whenever it has changed. (The first of its programs may be faster than that: it
// has what the host said at the guest's boot.)
//
// A message is carried as it is: neither end looks at more of it than the first four bytes.
// The channel between them is any pair of byte streams (a call of the agent's); its flow
// control, and the number of questions that the host has in hand, are all the bounds that
// are needed:
//
//	0            4          5              7
//	+------------+----------+--------------+---------+
//	| id u32     | how u8   | length u16   | message |     little endian
//	+------------+----------+--------------+---------+
//
// An answer has its question's id; without a message there is none. A search list, which the
// host alone sends, has the id 0, and is text: domains, with a space between.
package names

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// how a message came: an answer to a datagram may be cut off, and is then asked for by TCP.
type how uint8

const (
	byUDP how = iota
	byTCP
	search // is no message's: it is a search list
)

const (
	headerSize = 7
	minMessage = 12        // the header of a DNS message
	maxMessage = 1<<16 - 1 // as TCP's length has it
)

// A frame is one message on its way.
type frame struct {
	id      uint32
	how     how
	message []byte
}

var errFrame = errors.New("names: not understood")

// readFrame reads a frame. The message may be empty, or is of a length that one may have.
func readFrame(r io.Reader) (f frame, err error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	n := int(binary.LittleEndian.Uint16(head[5:]))
	f.id, f.how = binary.LittleEndian.Uint32(head[:]), how(head[4])
	good := n == 0 || n >= minMessage
	if f.how == search {
		good = n <= maxSearch
	}
	if f.how > search || !good {
		return f, fmt.Errorf("%w: %d bytes by way %d", errFrame, n, f.how)
	}
	f.message = make([]byte, n)
	if _, err := io.ReadFull(r, f.message); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return f, err
	}
	return f, nil
}

// writeFrame writes a frame, by one write.
func writeFrame(w io.Writer, f frame) error {
	b := make([]byte, headerSize, headerSize+len(f.message))
	binary.LittleEndian.PutUint32(b, f.id)
	b[4] = byte(f.how)
	binary.LittleEndian.PutUint16(b[5:], uint16(len(f.message)))
	_, err := w.Write(append(b, f.message...))
	return err
}

// readTCP reads a message from a connection (RFC 1035, 4.2.2).
func readTCP(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n < minMessage {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeTCP(w io.Writer, message []byte) error {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(message)))
	_, err := w.Write(append(b, message...))
	return err
}
