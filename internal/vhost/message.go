package vhost

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"golang.org/x/sys/unix"
)

// Request numbers of the main socket (vhost-user.rst, "Front-end message types").
const (
	reqGetFeatures         = 1
	reqSetFeatures         = 2
	reqSetOwner            = 3
	reqResetOwner          = 4
	reqSetMemTable         = 5
	reqSetVringNum         = 8
	reqSetVringAddr        = 9
	reqSetVringBase        = 10
	reqGetVringBase        = 11
	reqSetVringKick        = 12
	reqSetVringCall        = 13
	reqSetVringErr         = 14
	reqGetProtocolFeatures = 15
	reqSetProtocolFeatures = 16
	reqGetQueueNum         = 17
	reqSetVringEnable      = 18
	reqSetBackendReqFD     = 21
	reqGetConfig           = 24
	reqSetConfig           = 25
	reqResetDevice         = 34
	reqGetMaxMemSlots      = 36
	reqAddMemReg           = 37
	reqRemMemReg           = 38
	reqGetShmemConfig      = 44
)

// Request numbers of the back-end channel ("Back-end message types").
const (
	backendShmemMap   = 9
	backendShmemUnmap = 10
)

const (
	flagVersion   = 1
	flagVersMask  = 3
	flagReply     = 1 << 2
	flagNeedReply = 1 << 3
)

// Protocol features ("Protocol features").
const (
	protoReplyAck      = 1 << 3
	protoBackendReq    = 1 << 5
	protoConfig        = 1 << 9
	protoBackendSendFD = 1 << 10
	protoMemSlots      = 1 << 15
	protoShmem         = 1 << 22 // QEMU 11; 20 in the patches as first posted
	protoOffered       = protoReplyAck | protoBackendReq | protoConfig | protoBackendSendFD | protoMemSlots | protoShmem
)

// Feature bits that belong to the transport, not to a device.
const (
	FeatureIndirectDesc     = 1 << 28 // VIRTIO_RING_F_INDIRECT_DESC
	FeatureEventIdx         = 1 << 29 // VIRTIO_RING_F_EVENT_IDX
	featureProtocolFeatures = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES
	featureVersion1         = 1 << 32 // VIRTIO_F_VERSION_1
)

const (
	headerSize     = 12
	regionSize     = 32
	vringAddrSize  = 40
	configHeadSize = 12
	shmemMsgSize   = 40
	shmemConfSize  = 8 + 256*8

	// maxPayload holds the largest message that this package uses: the
	// shared-memory configuration, 2056 bytes.
	maxPayload = 4096
	// maxMessageFDs is the number of regions that one SET_MEM_TABLE may carry
	// (VHOST_MEMORY_BASELINE_NREGIONS), each with its descriptor.
	maxMessageFDs = 8
	// maxConfig is VHOST_USER_MAX_CONFIG_SIZE.
	maxConfig = 256
	// maxMemSlots is the answer to GET_MAX_MEM_SLOTS: QEMU aborts on an
	// assertion beyond 512 regions, so more would never come.
	maxMemSlots = 512
)

var le = binary.LittleEndian

// errProtocol is wrapped by every error about a front end that broke the
// protocol.
var errProtocol = errors.New("vhost-user protocol")

func protoErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errProtocol, fmt.Sprintf(format, args...))
}

// A message is one message of either socket. The holder of the message owns
// the fds.
type message struct {
	req     uint32
	flags   uint32
	payload []byte
	fds     []int
}

func (m *message) closeFDs() {
	for _, fd := range m.fds {
		_ = unix.Close(fd)
	}
	m.fds = nil
}

// takeFD returns the message's only descriptor, which the caller then owns.
func (m *message) takeFD() (int, error) {
	if len(m.fds) != 1 {
		return -1, protoErrorf("request %d with %d descriptors, want 1", m.req, len(m.fds))
	}
	fd := m.fds[0]
	m.fds = nil
	return fd, nil
}

func parseHeader(p []byte) (req, flags, size uint32, err error) {
	if len(p) < headerSize {
		return 0, 0, 0, io.ErrUnexpectedEOF
	}
	req, flags, size = le.Uint32(p), le.Uint32(p[4:]), le.Uint32(p[8:])
	if flags&flagVersMask != flagVersion {
		return 0, 0, 0, protoErrorf("version %d, want %d", flags&flagVersMask, flagVersion)
	}
	if size > maxPayload {
		return 0, 0, 0, protoErrorf("request %d of %d bytes, at most %d", req, size, maxPayload)
	}
	return req, flags, size, nil
}

func appendMessage(b []byte, req, flags uint32, payload []byte) []byte {
	b = le.AppendUint32(b, req)
	b = le.AppendUint32(b, flags|flagVersion)
	b = le.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// A region is a piece of guest memory as the front end describes it.
type region struct {
	guest, size, user, offset uint64
}

func parseRegion(p []byte) region {
	return region{le.Uint64(p), le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:])}
}

func appendRegion(b []byte, r region) []byte {
	for _, v := range [...]uint64{r.guest, r.size, r.user, r.offset} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// valid refuses regions that cannot be mapped or whose ends do not fit an address, so
// that sums with offsets inside one cannot overflow later.
func (r region) valid() error {
	switch {
	case r.size == 0, r.guest+r.size < r.guest, r.user+r.size < r.user, r.offset+r.size < r.offset:
		return protoErrorf("memory region of %#x bytes at %#x", r.size, r.guest)
	case r.offset+r.size > 1<<62:
		return protoErrorf("memory region at file offset %#x", r.offset)
	}
	return nil
}

// parseMemTable reads SET_MEM_TABLE.
func parseMemTable(p []byte) ([]region, error) {
	if len(p) < 8 {
		return nil, protoErrorf("memory table of %d bytes", len(p))
	}
	n := le.Uint32(p)
	if n > maxMessageFDs || len(p) < 8+int(n)*regionSize {
		return nil, protoErrorf("memory table of %d regions in %d bytes", n, len(p))
	}
	rs := make([]region, n)
	for i := range rs {
		rs[i] = parseRegion(p[8+i*regionSize:])
		if err := rs[i].valid(); err != nil {
			return nil, err
		}
	}
	return rs, nil
}

// parseSingleRegion reads ADD_MEM_REG and REM_MEM_REG.
func parseSingleRegion(p []byte) (region, error) {
	if len(p) < 8+regionSize {
		return region{}, protoErrorf("memory region of %d bytes", len(p))
	}
	r := parseRegion(p[8:])
	return r, r.valid()
}

type vringAddr struct {
	index, flags            uint32
	desc, used, avail, logs uint64
}

func parseVringAddr(p []byte) (vringAddr, error) {
	if len(p) < vringAddrSize {
		return vringAddr{}, protoErrorf("vring address of %d bytes", len(p))
	}
	return vringAddr{
		le.Uint32(p), le.Uint32(p[4:]),
		le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:]), le.Uint64(p[32:]),
	}, nil
}

func appendVringAddr(b []byte, a vringAddr) []byte {
	b = le.AppendUint32(b, a.index)
	b = le.AppendUint32(b, a.flags)
	for _, v := range [...]uint64{a.desc, a.used, a.avail, a.logs} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// parseState reads a vring state: an index and a value.
func parseState(p []byte) (index, value uint32, err error) {
	if len(p) < 8 {
		return 0, 0, protoErrorf("vring state of %d bytes", len(p))
	}
	return le.Uint32(p), le.Uint32(p[4:]), nil
}

func appendState(b []byte, index, value uint32) []byte {
	return le.AppendUint32(le.AppendUint32(b, index), value)
}

func parseU64(p []byte) (uint64, error) {
	if len(p) < 8 {
		return 0, protoErrorf("number of %d bytes", len(p))
	}
	return le.Uint64(p), nil
}

// parseConfig reads GET_CONFIG and SET_CONFIG; data follows the head.
func parseConfig(p []byte) (offset, size uint32, data []byte, err error) {
	if len(p) < configHeadSize {
		return 0, 0, nil, protoErrorf("config message of %d bytes", len(p))
	}
	offset, size = le.Uint32(p), le.Uint32(p[4:])
	if offset > maxConfig || size > maxConfig || offset+size > maxConfig || len(p) < configHeadSize+int(size) {
		return 0, 0, nil, protoErrorf("config of %d bytes at %d", size, offset)
	}
	return offset, size, p[configHeadSize : configHeadSize+size], nil
}

// A shmemMsg requests the front end to map a piece of a file into a shared memory
// region of the device, or to unmap it.
type shmemMsg struct {
	id                    uint8
	fdOffset, offset, len uint64
	flags                 uint64
}

const shmemWritable = 1

func appendShmem(b []byte, m shmemMsg) []byte {
	b = append(b, m.id, 0, 0, 0, 0, 0, 0, 0)
	for _, v := range [...]uint64{m.fdOffset, m.offset, m.len, m.flags} {
		b = le.AppendUint64(b, v)
	}
	return b
}

func parseShmem(p []byte) (shmemMsg, error) {
	if len(p) < shmemMsgSize {
		return shmemMsg{}, protoErrorf("shmem message of %d bytes", len(p))
	}
	return shmemMsg{p[0], le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:]), le.Uint64(p[32:])}, nil
}

// readMessage reads one message into buf (maxPayload bytes long), which the
// result aliases. io.EOF is the end between messages.
func readMessage(c *net.UnixConn, buf, oob []byte) (m message, err error) {
	defer func() {
		if err != nil {
			m.closeFDs()
		}
	}()
	var head [headerSize]byte
	for got := 0; got < headerSize; {
		n, oobn, flags, _, err := c.ReadMsgUnix(head[got:], oob)
		if oobn > 0 {
			fds, perr := parseRights(oob[:oobn])
			m.fds = append(m.fds, fds...)
			err = errors.Join(err, perr)
		}
		switch {
		case err != nil && !(errors.Is(err, io.EOF) && got == 0):
			return m, err
		case n == 0 && got == 0 || errors.Is(err, io.EOF):
			return m, io.EOF
		case n == 0:
			return m, io.ErrUnexpectedEOF
		case flags&unix.MSG_CTRUNC != 0 && len(m.fds) < maxMessageFDs:
			// The buffer had room for them: this process is at its limit of descriptors.
			return m, fmt.Errorf("no room for a message's descriptor: %w", unix.EMFILE)
		case flags&unix.MSG_CTRUNC != 0, len(m.fds) > maxMessageFDs:
			return m, protoErrorf("more descriptors than a message may carry")
		}
		got += n
	}
	var size uint32
	if m.req, m.flags, size, err = parseHeader(head[:]); err != nil {
		return m, err
	}
	m.payload = buf[:size]
	if _, err = io.ReadFull(c, m.payload); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return m, err
}

// parseRights returns the descriptors of a control message.
func parseRights(oob []byte) (fds []int, err error) {
	cms, err := unix.ParseSocketControlMessage(oob)
	for i := range cms {
		if cms[i].Header.Level != unix.SOL_SOCKET || cms[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		got, perr := unix.ParseUnixRights(&cms[i])
		fds, err = append(fds, got...), errors.Join(err, perr)
	}
	return slices.Clip(fds), err
}

// oobSpace is room for the descriptors of one message.
func oobSpace() []byte { return make([]byte, unix.CmsgSpace(maxMessageFDs*4)) }
