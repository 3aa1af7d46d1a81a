package names

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of the host's end.
const (
	maxQuestions = 64                      // at one time; a guest with more waits
	patience     = time.Second             // with a server, before the next one is asked too
	answerLimit  = 4500 * time.Millisecond // with all servers; a program's own patience is 5 s
	keepFor      = 30 * time.Second        // how long a server stays first that answered when the first did not
)

// A Forwarder is the host's end: it asks the servers that the host asks.
type Forwarder struct {
	File string // resolv.conf(5); it may be missing

	port uint16 // 53, except in tests

	mu    sync.Mutex
	list  []netip.Addr // the servers of the file when good was noted
	good  netip.Addr   // the server that answered last,
	since time.Time    // and the start of keepFor
}

// Serve answers the questions from in, until in ends. Every byte of in is hostile. When ctx
// ends, Serve asks no more servers; the caller then has to end in.
func (f *Forwarder) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	w := &replies{out: out}
	asking.Go(func() {
		follow(ctx, f.File, func() { w.tell(Search(f.File)) })
	})
	places := make(chan struct{}, maxQuestions)
	for {
		places <- struct{}{}
		q, err := readFrame(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if q.how == search {
			return fmt.Errorf("%w: a search list from a guest", errFrame)
		}
		asking.Go(func() {
			defer func() { <-places }()
			if len(q.message) > 0 {
				conf := readConf(f.File)
				w.tell(conf.search)
				q.message = f.answer(ctx, q.how, q.message, f.order(conf.servers))
			}
			w.write(q)
		})
	}
}

// A replies writes whole frames to the guest.
type replies struct {
	out io.Writer

	mu     sync.Mutex
	told   bool // the guest knows search
	search []string
}

func (r *replies) write(f frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = writeFrame(r.out, f) // if it fails, in ends
}

// tell sends the guest the search list, unless it knows the list.
func (r *replies) tell(list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told && slices.Equal(r.search, list) {
		return
	}
	r.told, r.search = true, list
	_ = writeFrame(r.out, frame{how: search, message: []byte(strings.Join(list, " "))})
}

// answer asks the servers one after the other, and returns the first answer that is not a
// refusal, or else a refusal.
func (f *Forwarder) answer(ctx context.Context, how how, question []byte, servers []netip.Addr) []byte {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	type result struct {
		from   netip.Addr
		answer []byte
	}
	results := make(chan result, len(servers))
	refused := refusal(question)
	next := time.NewTimer(0) // starts at once, with the first server
	defer next.Stop()
	for asked, ended := 0, 0; ended < len(servers); {
		var more <-chan time.Time
		if asked < len(servers) {
			more = next.C
		}
		select {
		case <-more:
			server := servers[asked]
			asked++
			next.Reset(patience)
			go func() {
				answer, _ := f.exchange(ctx, how, server, question)
				results <- result{server, answer}
			}()
		case r := <-results:
			ended++
			if !refuses(r.answer) {
				f.answered(r.from)
				return r.answer
			}
			if r.answer != nil {
				refused = r.answer
			}
			next.Reset(0)
		case <-ctx.Done():
			return refused
		}
	}
	return refused
}

// exchange asks one server. It ignores a datagram that does not answer this question.
func (f *Forwarder) exchange(ctx context.Context, how how, server netip.Addr, question []byte) ([]byte, error) {
	network := "udp"
	if how == byTCP {
		network = "tcp"
	}
	port := f.port
	if port == 0 {
		port = 53
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, netip.AddrPortFrom(server, port).String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if how == byTCP {
		if err := writeTCP(conn, question); err != nil {
			return nil, err
		}
		answer, err := readTCP(conn)
		if err == nil && !answers(answer, question) {
			err = errFrame
		}
		if err != nil {
			return nil, err
		}
		return answer, nil
	}
	if _, err := conn.Write(question); err != nil {
		return nil, err
	}
	buf := make([]byte, maxMessage)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], question) {
			return slices.Clone(buf[:n]), nil
		}
	}
}

// The first four bytes of a message: its number, the bit of an answer, the result.
func answers(answer, question []byte) bool {
	return len(answer) >= minMessage && answer[0] == question[0] && answer[1] == question[1] && answer[2]&0x80 != 0
}

// refuses reports whether a message is no real answer, so that another server may have one (its
// result is "server failed", "not implemented" or "refused").
func refuses(answer []byte) bool {
	return answer == nil || answer[3]&15 == 2 || answer[3]&15 == 4 || answer[3]&15 == 5
}

// refusal returns the answer "server failed" to a question.
func refusal(question []byte) []byte {
	b := slices.Clone(question)
	b[2], b[3] = b[2]|0x80, 0x80|2
	return b
}

// order rotates the servers so that the one that has answered lately comes first.
func (f *Forwarder) order(list []netip.Addr) []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(list, f.list) || time.Since(f.since) > keepFor {
		f.list, f.good = list, netip.Addr{}
	}
	if i := slices.Index(list, f.good); i > 0 {
		list = slices.Concat(list[i:], list[:i])
	}
	return list
}

// answered notes which server has answered.
func (f *Forwarder) answered(server netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if server != f.good {
		f.good, f.since = server, time.Now()
	}
}
