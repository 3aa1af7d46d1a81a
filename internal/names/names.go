// Package names carries a guest's questions about names to the servers that its host asks.
//
//	program ─ DNS ─► Stub (guest) ─ frames ─► Forwarder (host) ─ DNS ─► a server of resolv.conf(5)
//	                              ◄─ frames ─                 ◄─ DNS ─
//
// The host's servers change while a VM runs: with the network of a laptop, with a VPN, with a
// local resolver that is installed, or whose link dangles until it runs. A server may have an
// IPv6 address, listen on the host's 127.0.0.1, or be dead, with another after it. So the guest
// learns none of that: the host reads the file for every question, and asks the servers.
//
// Programs themselves append the search list to a short name ("printer", with "search lan"),
// from their own resolv.conf(5). So the host sends the guest its search list, when a channel
// begins and whenever the list has changed. (The guest's first program may start before that;
// it has the list from the guest's boot.)
//
// A message passes unchanged: neither end reads more of it than its first four bytes. The
// channel between them is any pair of byte streams (a call of the agent's). Its flow control,
// and a limit on the questions that the host works on, are the only bounds needed:
//
//	0            4          5              7
//	+------------+----------+--------------+---------+
//	| id u32     | how u8   | length u16   | message |     little endian
//	+------------+----------+--------------+---------+
//
// An answer has its question's id; an empty message means that there is no answer. A search
// list, which only the host sends, has the id 0, and is text: domains, separated by spaces.
package names

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A how is the transport of a message: a datagram's answer may be cut off, and is then
// requested by TCP.
type how uint8

const (
	byUDP how = iota
	byTCP
	search // not a message: a search list
)

const (
	headerSize = 7
	minMessage = 12        // the header of a DNS message
	maxMessage = 1<<16 - 1 // TCP's length field
)

// A frame is one message on its way.
type frame struct {
	id      uint32
	how     how
	message []byte
}

var errFrame = errors.New("names: not understood")

// readFrame reads a frame. Its message is empty or has a valid length.
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

// writeFrame writes a frame with one write.
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
