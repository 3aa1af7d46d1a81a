package virtwl

import "errors"

// byteQueue is a bounded stream buffer: a power-of-two ring that grows when it
// must and is let go when it is empty and large.
type byteQueue struct {
	host       *Host // accounts for what is queued
	buf        []byte
	start, end uint64 // stream positions
}

const (
	minQueueBuf  = 4 << 10
	keepQueueBuf = 64 << 10 // kept when empty: a burst of requests of one frame
)

var errShared = errors.New("this VM's queues are full")

func (q *byteQueue) len() int { return int(q.end - q.start) }

// advance counts n bytes that did not need the queue.
func (q *byteQueue) advance(n int) {
	q.start += uint64(n)
	q.end += uint64(n)
}

// fill appends n bytes from r.
func (q *byteQueue) fill(r CommandReader, n int) error {
	if n == 0 {
		return nil
	}
	if !q.host.takeBytes(n) {
		return errShared
	}
	q.reserve(n)
	at := int(q.end) & (len(q.buf) - 1)
	k := min(n, len(q.buf)-at)
	err := r.Read(q.buf[at : at+k])
	if err == nil && k < n {
		err = r.Read(q.buf[:n-k])
	}
	if err != nil {
		q.host.bytes.Add(-int64(n))
		return err
	}
	q.end += uint64(n)
	return nil
}

// reserve makes room for n more bytes.
func (q *byteQueue) reserve(n int) {
	size := max(len(q.buf), minQueueBuf)
	for size < q.len()+n {
		size *= 2
	}
	if size == len(q.buf) {
		return
	}
	buf := make([]byte, size)
	for p := q.start; p < q.end; {
		from := q.buf[int(p)&(len(q.buf)-1):]
		to := buf[int(p)&(size-1):]
		k := min(len(from), len(to), int(q.end-p))
		copy(to[:k], from)
		p += uint64(k)
	}
	q.buf = buf
}

// take moves up to len(p) bytes to p.
func (q *byteQueue) take(p []byte) int {
	n := min(len(p), q.len())
	if n == 0 {
		return 0
	}
	at := int(q.start) & (len(q.buf) - 1)
	k := copy(p[:n], q.buf[at:])
	copy(p[k:n], q.buf)
	q.start += uint64(n)
	q.host.bytes.Add(-int64(n))
	if q.len() == 0 && len(q.buf) > keepQueueBuf {
		q.buf = nil
	}
	return n
}

// clear drops everything.
func (q *byteQueue) clear() {
	q.host.bytes.Add(-int64(q.len()))
	q.start = q.end
	q.buf = nil
}
