package supervise

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A virtiofsd that dies leaves a guest that waits for ever: the guest's kernel has no time
// limit for its requests, and while one is open it gives back neither the mount nor the
// device. QEMU cannot put another server in the place of the first. So a takeover stands
// between QEMU and the server of a share: it passes on what QEMU says of memory and queues,
// and keeps it. The requests do not come this way:
//
//	QEMU ◄─ set-up messages ─► takeover ◄─► virtiofsd          dies
//	                              └─ the kept set-up ─────────► another one
//	guest ◄─ queues, in shared memory, and eventfds ──────────► (the same)
//
// The new server goes on where the used ring ends. That is the first request without an
// answer: virtiofsd answers the requests of a queue one after the other (it has a pool of
// threads only on request). As it has seen no FUSE INIT, it knows no file, and answers
// everything with an error until the guest unmounts the share and mounts it again.
//
// We trust QEMU less than ourselves: its messages are bounded, and only forwarded or kept;
// of memory we read one word, by pread.
type takeover struct {
	qemu *net.UnixConn
	// renew starts another server. Its error ends the takeover.
	renew func() (*net.UnixConn, error)

	mu      sync.Mutex
	server  *net.UnixConn
	renewed chan struct{} // closed and replaced when server changes, or there is none any more
	closed  bool
	waits   int // number of answers that QEMU waits for
	setup   fsSetup
}

// fsSetup is the set-up that a new server needs.
type fsSetup struct {
	features, protocol []byte // payloads; nil before QEMU has sent them
	regions            []fsRegion
	rings              [maxFSRings]fsRing
}

// An fsRegion is a part of the guest's memory.
type fsRegion struct {
	words [fsRegionSize]byte
	fd    int
}

// An fsRing is one queue.
type fsRing struct {
	num, addr, enable []byte
	kick, call        int // descriptors; 0: none
	started           bool
}

// The messages of vhost-user that a takeover knows (QEMU's docs/interop/vhost-user.rst). It
// forwards all others, and forgets them.
const (
	fsGetFeatures         = 1
	fsSetFeatures         = 2
	fsSetOwner            = 3
	fsResetOwner          = 4
	fsSetMemTable         = 5
	fsSetVringNum         = 8
	fsSetVringAddr        = 9
	fsSetVringBase        = 10
	fsGetVringBase        = 11
	fsSetVringKick        = 12
	fsSetVringCall        = 13
	fsGetProtocolFeatures = 15
	fsSetProtocolFeatures = 16
	fsGetQueueNum         = 17
	fsSetVringEnable      = 18
	fsResetDevice         = 34
	fsGetMaxMemSlots      = 36
	fsAddMemReg           = 37
	fsRemMemReg           = 38

	fsVersion    = 1
	fsNeedReply  = 1 << 3
	fsMemSlots   = 1 << 15 // protocol feature: memory comes in single regions
	fsRegionSize = 32
	maxFSPayload = 4096
	maxFSFiles   = 8
	maxFSRegions = 512 // QEMU's own limit
	maxFSRings   = 2   // of a device with one queue of requests
	fsNoFile     = 1 << 8
)

// An fsMessage is one message, either way.
type fsMessage struct {
	req, flags uint32
	payload    []byte
	fds        []int
}

func (m *fsMessage) close() {
	for _, fd := range m.fds {
		_ = unix.Close(fd)
	}
	m.fds = nil
}

// keep duplicates the i-th descriptor.
func (m *fsMessage) keep(i int) (fd int, err error) {
	return unix.FcntlInt(uintptr(m.fds[i]), unix.F_DUPFD_CLOEXEC, 3)
}

// needsAnswer reports whether the sender waits for an answer.
func (m *fsMessage) needsAnswer() bool {
	switch m.req {
	case fsGetFeatures, fsGetVringBase, fsGetProtocolFeatures, fsGetQueueNum, fsGetMaxMemSlots:
		return true
	}
	return m.flags&fsNeedReply != 0
}

func readFS(c *net.UnixConn) (m fsMessage, err error) {
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	var head [12]byte
	oob := make([]byte, unix.CmsgSpace(maxFSFiles*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(head[:], oob)
	if err != nil {
		return m, err
	}
	if n == 0 {
		return m, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return m, err
	}
	for _, cm := range messages {
		if fds, err := unix.ParseUnixRights(&cm); err == nil {
			m.fds = append(m.fds, fds...)
		}
	}
	if flags&unix.MSG_CTRUNC != 0 || len(m.fds) > maxFSFiles {
		return m, errors.New("vhost-user: descriptors are lost")
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return m, err
	}
	le := binary.LittleEndian
	m.req, m.flags = le.Uint32(head[:]), le.Uint32(head[4:])
	size := le.Uint32(head[8:])
	if size > maxFSPayload {
		return m, fmt.Errorf("vhost-user: message %d of %d bytes", m.req, size)
	}
	m.payload = make([]byte, size)
	_, err = io.ReadFull(c, m.payload)
	return m, err
}

// fsLimit bounds each wait for a server or QEMU while t.mu is held: a peer that is stopped
// in the middle must not keep a VM from ending.
const fsLimit = 5 * time.Second

// writeFS writes a message. After an error the connection is useless.
func writeFS(c *net.UnixConn, m fsMessage) error {
	if err := c.SetWriteDeadline(time.Now().Add(fsLimit)); err != nil {
		return err
	}
	le := binary.LittleEndian
	b := le.AppendUint32(nil, m.req)
	b = le.AppendUint32(b, m.flags)
	b = append(le.AppendUint32(b, uint32(len(m.payload))), m.payload...)
	var oob []byte
	if len(m.fds) > 0 {
		oob = unix.UnixRights(m.fds...)
	}
	n, _, err := c.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	return err
}

func newTakeover(qemu, server *net.UnixConn, renew func() (*net.UnixConn, error)) *takeover {
	return &takeover{qemu: qemu, server: server, renew: renew, renewed: make(chan struct{})}
}

// close ends both connections, and with them all taking over.
func (t *takeover) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeLocked()
}

func (t *takeover) closeLocked() {
	if t.closed {
		return
	}
	t.closed = true
	t.qemu.Close()
	t.server.Close()
	t.setup.forget()
	close(t.renewed)
}

// fromQEMU forwards QEMU's messages until QEMU or t ends.
func (t *takeover) fromQEMU() error {
	defer t.close()
	for {
		m, err := readFS(t.qemu)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err == nil {
			err = t.forward(m)
			m.close()
		}
		if err != nil {
			return err
		}
	}
}

// forward sends m to the server, or to the next one if that one has died.
func (t *takeover) forward(m fsMessage) error {
	for {
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return net.ErrClosed
		}
		if err := writeFS(t.server, m); err == nil {
			if m.needsAnswer() {
				t.waits++
			}
			err := t.setup.note(&m)
			t.mu.Unlock()
			return err
		}
		t.server.Close() // so that fromServer sees its end, if it only hangs
		renewed := t.renewed
		t.mu.Unlock()
		<-renewed
	}
}

// fromServer forwards the server's messages until t ends, and has another server take over
// when one ends. Its error says why there is no other server.
func (t *takeover) fromServer() error {
	defer t.close()
	server := t.server
	for {
		m, err := readFS(server)
		if err != nil {
			if server, err = t.replace(); err != nil {
				if errors.Is(err, net.ErrClosed) {
					err = nil
				}
				return err
			}
			continue
		}
		t.mu.Lock()
		t.waits = max(0, t.waits-1)
		err = writeFS(t.qemu, m)
		t.mu.Unlock()
		m.close()
		if err != nil {
			return nil // QEMU has ended
		}
	}
}

// replace starts another server and sets it up.
func (t *takeover) replace() (*net.UnixConn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, net.ErrClosed
	}
	t.server.Close()
	switch {
	case t.waits > 0:
		return nil, errors.New("QEMU waits for an answer of the one that ended")
	case t.setup.features == nil || t.setup.protocol == nil:
		return nil, errors.New("QEMU has not set it up yet")
	}
	var why error
	for {
		server, err := t.renew() // which bounds how often
		if err != nil {
			return nil, errors.Join(err, why)
		}
		t.server = server
		if why = t.setup.tell(server); why == nil {
			close(t.renewed)
			t.renewed = make(chan struct{})
			return server, nil
		}
		server.Close() // it has died as well, or hangs
	}
}

// note keeps the content of m.
func (f *fsSetup) note(m *fsMessage) (err error) {
	bad := fmt.Errorf("vhost-user: message %d: not understood", m.req)
	switch m.req {
	case fsSetFeatures:
		f.features = m.payload
	case fsSetProtocolFeatures:
		f.protocol = m.payload
	case fsSetMemTable:
		if len(m.payload) < 8 || len(m.payload) != 8+len(m.fds)*fsRegionSize {
			return bad
		}
		f.forgetMemory()
		for i := range m.fds {
			if err = f.addRegion(m, i, m.payload[8+i*fsRegionSize:]); err != nil {
				return err
			}
		}
	case fsAddMemReg:
		if len(m.payload) != 8+fsRegionSize || len(m.fds) != 1 || len(f.regions) >= maxFSRegions {
			return bad
		}
		return f.addRegion(m, 0, m.payload[8:])
	case fsRemMemReg:
		if len(m.payload) != 8+fsRegionSize {
			return bad
		}
		// A region is known by its guest address and its size.
		f.regions = slices.DeleteFunc(f.regions, func(r fsRegion) bool {
			same := string(r.words[:16]) == string(m.payload[8:24])
			if same {
				_ = unix.Close(r.fd)
			}
			return same
		})
	case fsResetOwner, fsResetDevice:
		f.forgetRings()
	case fsSetVringNum, fsSetVringAddr, fsSetVringBase, fsGetVringBase, fsSetVringEnable, fsSetVringKick, fsSetVringCall:
		if len(m.payload) < 8 {
			return bad
		}
		i := binary.LittleEndian.Uint32(m.payload) &^ fsNoFile
		if i >= maxFSRings {
			return bad
		}
		return f.rings[i].note(m)
	}
	return nil
}

func (f *fsSetup) addRegion(m *fsMessage, i int, words []byte) error {
	fd, err := m.keep(i)
	if err != nil {
		return err
	}
	f.regions = append(f.regions, fsRegion{[fsRegionSize]byte(words[:fsRegionSize]), fd})
	return nil
}

func (r *fsRing) note(m *fsMessage) (err error) {
	switch m.req {
	case fsSetVringNum:
		r.num = m.payload
	case fsSetVringAddr:
		r.addr = m.payload
	case fsSetVringEnable:
		r.enable = m.payload
	case fsGetVringBase:
		r.started = false
	case fsSetVringKick:
		r.started = true
		err = replaceFD(&r.kick, m)
	case fsSetVringCall:
		err = replaceFD(&r.call, m)
	}
	return err
}

func replaceFD(at *int, m *fsMessage) (err error) {
	if *at != 0 {
		_ = unix.Close(*at)
	}
	if *at = 0; len(m.fds) == 1 {
		*at, err = m.keep(0)
	}
	return err
}

func (f *fsSetup) forgetMemory() {
	for _, r := range f.regions {
		_ = unix.Close(r.fd)
	}
	f.regions = nil
}

func (f *fsSetup) forgetRings() {
	for i := range f.rings {
		for _, fd := range []int{f.rings[i].kick, f.rings[i].call} {
			if fd != 0 {
				_ = unix.Close(fd)
			}
		}
		f.rings[i] = fsRing{}
	}
}

func (f *fsSetup) forget() {
	f.forgetMemory()
	f.forgetRings()
}

// An fsClient speaks to a new server as QEMU does.
type fsClient struct{ *net.UnixConn }

func (c fsClient) say(req uint32, payload []byte, fds ...int) error {
	return writeFS(c.UnixConn, fsMessage{req: req, flags: fsVersion, payload: payload, fds: fds})
}

func (c fsClient) ask(req uint32) error {
	if err := c.say(req, nil); err != nil {
		return err
	}
	m, err := readFS(c.UnixConn)
	m.close()
	return err
}

// tell sets up a new server, in the order in which QEMU would.
func (f *fsSetup) tell(server *net.UnixConn) error {
	c := fsClient{server}
	if err := server.SetReadDeadline(time.Now().Add(fsLimit)); err != nil {
		return err
	}
	err := errors.Join(c.ask(fsGetFeatures), c.say(fsSetOwner, nil), c.ask(fsGetProtocolFeatures), c.say(fsSetProtocolFeatures, f.protocol), c.ask(fsGetQueueNum), c.say(fsSetFeatures, f.features))
	if err != nil {
		return err
	}
	if err := f.tellMemory(c); err != nil {
		return err
	}
	for i, r := range f.rings {
		if !r.started {
			continue
		}
		if err := f.tellRing(c, uint64(i), r); err != nil {
			return err
		}
	}
	// The server has to look for older requests, which it does when it is kicked; but a kick
	// that comes before it has taken the rest is lost.
	err = c.ask(fsGetFeatures)
	for _, r := range f.rings {
		if err == nil && r.started && r.kick != 0 {
			_, err = unix.Write(r.kick, binary.LittleEndian.AppendUint64(nil, 1))
		}
	}
	return cmp.Or(err, server.SetReadDeadline(time.Time{}))
}

func (f *fsSetup) tellMemory(c fsClient) error {
	le := binary.LittleEndian
	if len(f.protocol) == 8 && le.Uint64(f.protocol)&fsMemSlots != 0 {
		for _, r := range f.regions {
			if err := c.say(fsAddMemReg, append(make([]byte, 8), r.words[:]...), r.fd); err != nil {
				return err
			}
		}
		return nil
	}
	table, fds := le.AppendUint64(nil, uint64(len(f.regions))), []int(nil)
	for _, r := range f.regions {
		table, fds = append(table, r.words[:]...), append(fds, r.fd)
	}
	return c.say(fsSetMemTable, table, fds...)
}

func (f *fsSetup) tellRing(c fsClient, i uint64, r fsRing) error {
	le := binary.LittleEndian
	answered, err := f.usedIndex(r)
	if err != nil {
		return err
	}
	withFile := func(req uint32, fd int) error {
		if fd == 0 {
			return c.say(req, le.AppendUint64(nil, i|fsNoFile))
		}
		return c.say(req, le.AppendUint64(nil, i), fd)
	}
	err = errors.Join(c.say(fsSetVringNum, r.num), c.say(fsSetVringBase, le.AppendUint32(le.AppendUint32(nil, uint32(i)), uint32(answered))),
		c.say(fsSetVringAddr, r.addr), withFile(fsSetVringKick, r.kick), withFile(fsSetVringCall, r.call))
	if r.enable != nil {
		err = errors.Join(err, c.say(fsSetVringEnable, r.enable))
	}
	return err
}

// usedIndex reads the number of a queue's answered requests from its used ring in the
// guest's memory (the virtio specification, 2.7.8).
func (f *fsSetup) usedIndex(r fsRing) (uint16, error) {
	le := binary.LittleEndian
	if len(r.addr) < 40 || len(r.num) < 8 {
		return 0, errors.New("a queue that has no place")
	}
	at := le.Uint64(r.addr[16:]) + 2 // index, flags, then QEMU's addresses of descriptors, used, available
	for _, region := range f.regions {
		// guest's address, size, QEMU's address, offset in the file
		size, start, offset := le.Uint64(region.words[8:]), le.Uint64(region.words[16:]), le.Uint64(region.words[24:])
		if at < start || at-start >= size || size-(at-start) < 2 {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(region.fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return 0, errors.New("memory that is no file")
		}
		var b [2]byte
		if n, err := unix.Pread(region.fd, b[:], int64(offset+(at-start))); n != len(b) {
			return 0, fmt.Errorf("memory that cannot be read: %w", cmp.Or(err, io.ErrUnexpectedEOF))
		}
		return le.Uint16(b[:]), nil
	}
	return 0, errors.New("a queue outside of the memory")
}
