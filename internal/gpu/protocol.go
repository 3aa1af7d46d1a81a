package gpu

import "encoding/binary"

var le = binary.LittleEndian

// DeviceID is the virtio device number of a GPU.
const DeviceID = 16

// Feature bits (virtio_gpu.h).
const (
	featureVirgl        = 1 << 0
	featureResourceBlob = 1 << 3
	featureContextInit  = 1 << 4
)

// Commands.
const (
	cmdGetDisplayInfo       = 0x0100
	cmdResourceUnref        = 0x0102
	cmdGetCapsetInfo        = 0x0108
	cmdGetCapset            = 0x0109
	cmdResourceCreateBlob   = 0x010c
	cmdCtxCreate            = 0x0200
	cmdCtxDestroy           = 0x0201
	cmdCtxAttachResource    = 0x0202
	cmdCtxDetachResource    = 0x0203
	cmdSubmit3D             = 0x0207
	cmdResourceMapBlob      = 0x0208
	cmdResourceUnmapBlob    = 0x0209
	respOKNoData            = 0x1100
	respOKDisplayInfo       = 0x1101
	respOKCapsetInfo        = 0x1102
	respOKCapset            = 0x1103
	respOKMapInfo           = 0x1106
	respErrUnspec           = 0x1200
	respErrOutOfMemory      = 0x1201
	respErrInvalidScanout   = 0x1202
	respErrInvalidResource  = 0x1203
	respErrInvalidContext   = 0x1204
	respErrInvalidParameter = 0x1205
)

const (
	flagFence   = 1 << 0
	flagRingIdx = 1 << 1

	blobMemGuest  = 1
	blobMemHost3D = 2

	blobUseMappable = 1

	capsetMask = 0xff // in CTX_CREATE's context_init

	mapInfoCached = 1

	shmHostVisible = 1 // VIRTIO_GPU_SHM_ID_HOST_VISIBLE

	maxScanouts     = 16
	headerSize      = 24
	displayInfoSize = headerSize + maxScanouts*24
	capsetInfoSize  = headerSize + 16
	mapInfoSize     = headerSize + 8
	memEntrySize    = 16
)

// bodySize is the length of each command's fixed part after the header. Other
// commands get an error.
func bodySize(cmd uint32) (n int, known bool) {
	switch cmd {
	case cmdGetDisplayInfo, cmdCtxDestroy:
		return 0, true
	case cmdResourceUnref, cmdGetCapsetInfo, cmdGetCapset, cmdCtxAttachResource, cmdCtxDetachResource,
		cmdResourceUnmapBlob, cmdSubmit3D:
		return 8, true
	case cmdResourceMapBlob:
		return 16, true
	case cmdResourceCreateBlob:
		return 32, true
	case cmdCtxCreate:
		return 72, true
	}
	return 0, false
}

// maxBody is the longest fixed part.
const maxBody = 72

// header is virtio_gpu_ctrl_hdr.
type header struct {
	typ, flags uint32
	fence      uint64
	ctx        uint32
	ring       uint8
}

func parseHeader(p []byte) header {
	_ = p[headerSize-1]
	return header{le.Uint32(p), le.Uint32(p[4:]), le.Uint64(p[8:]), le.Uint32(p[16:]), p[20]}
}

// put writes the header.
func (h header) put(p []byte) {
	clear(p[:headerSize])
	le.PutUint32(p, h.typ)
	le.PutUint32(p[4:], h.flags)
	le.PutUint64(p[8:], h.fence)
	le.PutUint32(p[16:], h.ctx)
	p[20] = h.ring
}

// createBlob is RESOURCE_CREATE_BLOB's fixed part.
type createBlob struct {
	res, mem, flags, entries uint32
	blobID, size             uint64
}

func parseCreateBlob(p []byte) createBlob {
	_ = p[31]
	return createBlob{le.Uint32(p), le.Uint32(p[4:]), le.Uint32(p[8:]), le.Uint32(p[12:]), le.Uint64(p[16:]), le.Uint64(p[24:])}
}
