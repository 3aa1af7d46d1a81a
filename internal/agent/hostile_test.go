package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// raw makes a frame of any content.
func raw(t Type, payload string) []byte {
	b := append([]byte{byte(t), 0, 0, 0, 0}, payload...)
	binary.LittleEndian.PutUint32(b[1:], uint32(len(payload)))
	return b
}

func frame(t testing.TB, m Message) []byte {
	t.Helper()
	b, err := Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostile: each of these inputs ends the channel, and has no other effect.
func TestHostile(t *testing.T) {
	hello := frame(t, Hello{Version: Version})
	started := append(hello, frame(t, Spawned{ID: 1, PID: 2})...)
	called := append(hello[:len(hello):len(hello)], frame(t, Call{ID: 1, Names: &NamesCall{}})...) // the call is refused
	call := func(id uint32) []byte { return frame(t, Call{ID: id, Names: &NamesCall{}}) }
	out := func(n int) []byte { return frame(t, Data{ID: 1, Stream: Stdout, Bytes: make([]byte, n)}) }
	for name, c := range map[string]struct{ before, bad []byte }{
		"no hello":               {nil, frame(t, Ready{})},
		"hello twice":            {hello, hello},
		"another version":        {nil, frame(t, Hello{Version: Version + 1})},
		"unknown type":           {hello, raw(200, "")},
		"type 0":                 {hello, raw(0, "")},
		"a host's frame":         {hello, frame(t, PowerOff{})},
		"a host's boot":          {hello, raw(TypeBoot, `{"hostname":"x","time_ns":0,"user":{"name":"u","uid":1,"gid":1}}`)},
		"too long":               {hello, []byte{byte(TypeStage), 1, 0, 1, 0}},
		"enormous":               {hello, []byte{byte(TypeStage), 255, 255, 255, 255}},
		"not JSON":               {hello, raw(TypeStage, "{")},
		"empty":                  {hello, raw(TypeStage, "")},
		"null name":              {hello, raw(TypeStage, "null")},
		"unknown key":            {hello, raw(TypeReady, `{"uptime_ms":1,"x":1}`)},
		"two objects":            {hello, raw(TypeReady, `{"uptime_ms":1}{}`)},
		"float":                  {hello, raw(TypeReady, `{"uptime_ms":1.5}`)},
		"overflow":               {hello, raw(TypeReady, `{"uptime_ms":99999999999999999999}`)},
		"negative uptime":        {hello, raw(TypeReady, `{"uptime_ms":-1}`)},
		"traffic beyond reason":  {append(hello, frame(t, Traffic{1, maxTraffic})...), raw(TypeTraffic, `{"rx":1152921504606846977,"tx":0}`)},
		"negative traffic":       {hello, raw(TypeTraffic, `{"rx":-1,"tx":0}`)},
		"shortage of nothing":    {hello, raw(TypeShortage, `{"program":"x","count":0}`)},
		"shortage's long name":   {hello, raw(TypeShortage, `{"program":"`+strings.Repeat("a", maxName+1)+`","count":1}`)},
		"no loss of windows":     {hello, raw(TypeWindowLoss, `{"how":"x","count":0}`)},
		"a loss's long pause":    {hello, raw(TypeWindowLoss, `{"how":"x","count":1,"pause_ms":3600001}`)},
		"a loss's long reason":   {hello, raw(TypeWindowLoss, `{"how":"`+strings.Repeat("a", maxText+1)+`","count":1}`)},
		"pong unasked":           {hello, frame(t, Pong{N: 1})},
		"ready twice":            {append(hello, frame(t, Ready{})...), frame(t, Ready{})},
		"stage name":             {hello, raw(TypeStage, `{"name":"a\u001b[2J","uptime_ms":1}`)},
		"long stage name":        {hello, raw(TypeStage, `{"name":"`+strings.Repeat("a", 33)+`","uptime_ms":1}`)},
		"many stages":            {append(hello, []byte(strings.Repeat(string(frame(t, Stage{Name: "x"})), MaxStages))...), frame(t, Stage{Name: "x"})},
		"spawned unasked":        {hello, frame(t, Spawned{ID: 2, PID: 2})},
		"spawned id 0":           {hello, raw(TypeSpawned, `{"id":0,"pid":2}`)},
		"spawned twice":          {started, frame(t, Spawned{ID: 1, PID: 2})},
		"spawned pid 1":          {hello, raw(TypeSpawned, `{"id":1,"pid":1}`)},
		"error after spawned":    {started, frame(t, Error{ID: 1, Code: 127})},
		"long error":             {hello, raw(TypeError, `{"text":"`+strings.Repeat("a", maxText+1)+`"}`)},
		"exit unasked":           {started, frame(t, Exit{ID: 2})},
		"exit before spawned":    {hello, frame(t, Exit{ID: 1})},
		"exit twice":             {append(started, frame(t, Exit{ID: 1})...), frame(t, Exit{ID: 1})},
		"exit code":              {started, raw(TypeExit, `{"id":1,"code":256}`)},
		"exit signal":            {started, raw(TypeExit, `{"id":1,"code":0,"signal":65}`)},
		"output before spawned":  {hello, out(1)},
		"output of nobody":       {started, frame(t, Data{ID: 7, Stream: Stdout})},
		"output after its end":   {append(started, out(0)...), out(1)},
		"output ends twice":      {append(started, out(0)...), out(0)},
		"output beyond credit":   {append(started, []byte(strings.Repeat(string(out(MaxData)), Window/MaxData))...), out(MaxData)},
		"output too long":        {started, raw(TypeStdout, "\x01\x00\x00\x00"+strings.Repeat("x", MaxData+1))},
		"output too short":       {started, raw(TypeStdout, "\x01\x00\x00")},
		"call of no kind":        {hello, raw(TypeCall, `{"id":1}`)},
		"call of another kind":   {hello, raw(TypeCall, `{"id":1,"files":{}}`)},
		"call id 0":              {hello, raw(TypeCall, `{"id":0,"names":{}}`)},
		"call's long failure":    {hello, raw(TypeCall, `{"id":1,"names":{"failure":"`+strings.Repeat("a", maxText+1)+`"}}`)},
		"call's failure":         {hello, raw(TypeCall, `{"id":1,"names":{"failure":7}}`)},
		"call twice":             {called, call(1)},
		"call of the past":       {append(hello, append(call(7), frame(t, Over{ID: 7})...)...), call(6)},
		"many calls":             {append(hello, calls(t, MaxCalls)...), call(MaxCalls + 1)},
		"up without a call":      {hello, frame(t, Data{ID: 1, Stream: Up})},
		"up of a refused call":   {called, frame(t, Data{ID: 1, Stream: Up, Bytes: []byte("x")})},
		"credit of a refused":    {called, frame(t, Credit{ID: 1, Stream: Down, N: 1})},
		"hangup of up":           {called, frame(t, Hangup{ID: 1, Stream: Up})},
		"over without a call":    {hello, frame(t, Over{ID: 1})},
		"over twice":             {append(called, frame(t, Over{ID: 1})...), frame(t, Over{ID: 1})},
		"a host's accept":        {called, frame(t, Accept{ID: 1})},
		"a host's refusal":       {called, frame(t, Refuse{ID: 1})},
		"a host's answer":        {called, frame(t, Data{ID: 1, Stream: Down})},
		"stdin from a guest":     {started, raw(TypeStdin, "\x01\x00\x00\x00x")},
		"credit unearned":        {started, frame(t, Credit{ID: 1, Stream: Stdin, N: 1})},
		"credit 0":               {started, raw(TypeCredit, "\x01\x00\x00\x00\x00\x00\x00\x00\x00")},
		"credit of all":          {started, raw(TypeCredit, "\x01\x00\x00\x00\x00\xff\xff\xff\xff")},
		"credit for stdout":      {started, frame(t, Credit{ID: 1, Stream: Stdout, N: 1})},
		"credit for stream 3":    {started, raw(TypeCredit, "\x01\x00\x00\x00\x03\x01\x00\x00\x00")},
		"credit short":           {started, raw(TypeCredit, "\x01\x00\x00\x00\x00")},
		"credit of the future":   {started, frame(t, Credit{ID: 9, Stream: Stdin, N: 1})},
		"hangup of stderr":       {started, frame(t, Hangup{ID: 1, Stream: Stderr})},
		"hangup of nobody":       {started, frame(t, Hangup{ID: 0, Stream: Stdin})},
		"hangup long":            {started, raw(TypeHangup, "\x01\x00\x00\x00\x00\x00")},
		"credit before spawned":  {hello, frame(t, Credit{ID: 1, Stream: Stdin, N: 1})},
		"hangup before spawned":  {hello, frame(t, Hangup{ID: 1, Stream: Stdin})},
		"end before spawned":     {hello, out(0)},
		"hangup after exit":      {append(started, frame(t, Exit{ID: 1})...), frame(t, Hangup{ID: 1, Stream: Stdin})},
		"spawned after error":    {append(hello, frame(t, Error{ID: 1, Code: 127})...), frame(t, Spawned{ID: 1, PID: 2})},
		"error twice":            {append(hello, frame(t, Error{ID: 1, Code: 127})...), frame(t, Error{ID: 1, Code: 127})},
		"frames after all ended": {append(append(append(started, frame(t, Exit{ID: 1})...), out(0)...), frame(t, Data{ID: 1, Stream: Stderr})...), out(1)},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			// Without its last frame the channel goes on; with it the channel ends.
			if err := attack(t, c.before); err != nil {
				t.Fatalf("before: %v", err)
			}
			if err := attack(t, append(c.before[:len(c.before):len(c.before)], c.bad...)); !errors.Is(err, ErrProtocol) {
				t.Errorf("%v", err)
			}
		})
	}
}

func calls(t testing.TB, n uint32) (b []byte) {
	for id := range n {
		b = append(b, frame(t, Call{ID: id + 1, Names: &NamesCall{}})...)
	}
	return b
}

// attack feeds bytes to a host that has requested one program and refuses calls, and returns
// Run's error.
func attack(t testing.TB, input []byte) error {
	a, b := net.Pipe()
	return attackHost(t, NewHost(a, quiet), b, input)
}

// attackHost feeds bytes to a host from the other end of its channel.
func attackHost(t testing.TB, h *Host, b net.Conn, input []byte) error {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p, err := h.ask(&Spawn{Argv: []string{"prog"}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(io.Discard, b)
	}()
	_, _ = b.Write(input)
	_ = b.Close()
	err = <-ended
	<-read
	if _, werr := p.Wait(); err != nil && werr == nil && (p.course.phase == asked || p.course.phase == running) {
		t.Error("a program outlives its channel")
	}
	return err
}

// TestGuestIgnores: the guest trusts its host, and survives a newer one.
func TestGuestIgnores(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)
	for _, f := range [][]byte{
		raw(200, "x"), raw(TypeSpawn, "{"), raw(TypeSpawn, `{"id":1,"argv":["cat"],"new":1}`), raw(TypeStdin, "x"),
		raw(TypeKill, `{"id":77,"signal":9}`), raw(TypeExit, `{"id":1,"code":0}`), raw(TypeCredit, "\x09\x00\x00\x00\x01\x01\x00\x00\x00"),
	} {
		p.host.l.mu.Lock()
		p.host.l.control = append(p.host.l.control, queued{frame: f})
		p.host.l.work.Signal()
		p.host.l.mu.Unlock()
	}
	if st, err := p.spawn(t, "exit", "9").Wait(); st.Code != 9 || err != nil {
		t.Error(st, err)
	}
}
