package virtwl

import "vix/internal/ledger"

// byteQueue is a bounded stream buffer: a power-of-two ring that grows when it
// must and is freed when it is empty and large. The VM is charged for the ring, not for
// its content.
type byteQueue struct {
	ledger     *ledger.Ledger
	buf        []byte
	start, end uint64 // stream positions
}

const (
	minQueueBuf  = 4 << 10
	keepQueueBuf = 64 << 10 // kept when empty: a burst of requests of one frame
)

func (q *byteQueue) len() int { return int(q.end - q.start) }

// advance counts n bytes that did not need the queue.
func (q *byteQueue) advance(n int) {
	q.start += uint64(n)
	q.end += uint64(n)
}

// fill appends n bytes from r. Its error is a ledger.Full when the VM may have no more.
func (q *byteQueue) fill(r CommandReader, n int) error {
	if n == 0 {
		return nil
	}
	if err := q.reserve(n); err != nil {
		return err
	}
	at := int(q.end) & (len(q.buf) - 1)
	k := min(n, len(q.buf)-at)
	err := r.Read(q.buf[at : at+k])
	if err == nil && k < n {
		err = r.Read(q.buf[:n-k])
	}
	if err != nil {
		return err
	}
	q.end += uint64(n)
	return nil
}

// reserve makes room for n more bytes.
func (q *byteQueue) reserve(n int) error {
	size := max(len(q.buf), minQueueBuf)
	for size < q.len()+n {
		size *= 2
	}
	if size == len(q.buf) {
		return nil
	}
	if err := q.ledger.Queue(size - len(q.buf)); err != nil {
		return err
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
	return nil
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
	q.drop(n)
	return n
}

// head is the start of what is queued, up to most bytes of it in one piece. It
// stays as it is until it is dropped or cleared.
func (q *byteQueue) head(most int) []byte {
	at := int(q.start) & (len(q.buf) - 1)
	return q.buf[at:][:min(q.len(), len(q.buf)-at, most)]
}

// drop forgets the first n bytes.
func (q *byteQueue) drop(n int) {
	q.start += uint64(n)
	if q.len() == 0 && len(q.buf) > keepQueueBuf {
		q.clear()
	}
}

// clear drops everything.
func (q *byteQueue) clear() {
	q.ledger.Unqueue(len(q.buf))
	q.start = q.end
	q.buf = nil
}
