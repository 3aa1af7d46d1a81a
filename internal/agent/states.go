package agent

// # Runs
//
// A run is one program, from the host's spawn on. Where it is depends on what the guest
// has said of it alone, so both ends agree on it: the guest as it queues a frame, the host
// as it takes it. What the host says moves nothing but the first step; it may cross
// anything, as a client may leave at any moment.
//
//	         spawn            spawned            exit
//	unknown ──────► asked ─────────────► running ─────► ended
//	   ▲              │ error                             │ the ends of stdout and stderr,
//	   └──────────────┴───────────────────────────────────┘ which may come before exit too
//
// A run that is over is unknown again: ids go up, and none is used twice. The host may take a spawn
// back that it has not sent yet; then there was no run.
//
// What the guest may say. "breaks" ends the channel, as nothing that the host does can make
// a guest say that:
//
//	guest says   unknown  asked    running  ended
//	spawned      breaks   acts     breaks   breaks
//	error        breaks   acts     breaks   breaks
//	stdout       breaks   breaks   acts     acts
//	stderr       breaks   breaks   acts     acts
//	exit         breaks   breaks   acts     breaks
//	credit       breaks   breaks   acts     breaks
//	hangup       breaks   breaks   acts     breaks
//
// What the host may say, and what the guest makes of it. "crosses" is passed over: the host
// had not heard yet. "keeps" waits until the program runs:
//
//	host says    unknown  asked    running  ended
//	spawn        acts     crosses  crosses  crosses
//	stdin        crosses  keeps    acts     crosses
//	kill         crosses  keeps    acts     crosses
//	resize       crosses  keeps    acts     crosses
//	credit       crosses  acts     acts     acts
//	hangup       crosses  keeps    acts     acts
//
// Each of the three streams has a state of its own besides: open, until its sender says the
// end (data without bytes), once. The reader's hangup does not end it; it asks the sender
// to. The guest's credit and hangup are about stdin, which exit ends; the host's about
// stdout and stderr.
//
// # Calls
//
// A call is a pair of streams that the guest asks for. Where it is depends on what both ends
// have said: the guest asks, the host answers, and the guest says when it is over. Of a call
// that the host has not accepted, the guest says nothing but that it gives it up (hangup of
// down). Of one that is accepted, either end ends what it writes (data without bytes) and
// hangs up what it reads, whenever it likes:
//
//	         call             accept             both ends
//	unknown ──────► asked ─────────────► running ─────────► ended
//	   ▲              │ refuse                              ▲ │
//	   │              └─────────────────────────────────────┘ │
//	   └──────────────────────────────────────────────────────┘ over
//
// A guest that has seen the refusal, or both ends, says so at once: for it no call is ever
// ended. Its credit and hangup may cross them, and come to a call that is ended.
//
//	call: guest  unknown  asked    running  ended
//	call         acts     breaks   breaks   breaks
//	up           breaks   breaks   acts     breaks
//	credit       breaks   breaks   acts     acts
//	hangup       breaks   acts     acts     acts
//	over         breaks   breaks   breaks   acts
//
//	call: host   unknown  asked    running  ended
//	accept       crosses  acts     crosses  crosses
//	refuse       crosses  acts     crosses  crosses
//	down         crosses  crosses  acts     crosses
//	credit       crosses  crosses  acts     crosses
//	hangup       crosses  crosses  acts     crosses
//
// A call keeps its place until the guest says that it is over, so a guest that does not read
// makes no more than MaxCalls answers wait. The guest may take a call back that it has not sent yet.
//
// # A peer that does not read
//
// Frames that wait for a peer that does not read take each other's place where only the
// last counts (link.send). So they are never more than a bound for each run, none is ever
// lost, and a channel that stands still for an hour goes on as if it had not.
type phase uint8

const (
	unknown phase = iota
	asked
	running
	ended
	phases
)

func (p phase) String() string {
	return [phases]string{"unknown", "asked", "running", "ended"}[p]
}

// A verdict is what an end makes of a frame about a run.
type verdict uint8

const (
	breaks verdict = iota
	acts
	keeps
	crosses
)

func (v verdict) String() string {
	return [...]string{"breaks", "acts", "keeps", "crosses"}[v]
}

// fromGuest and fromHost are the tables of runs above, by type of frame and state of the
// run, callFromGuest and callFromHost those of calls; both ends go by them.
var (
	fromGuest = map[Type][phases]verdict{
		TypeSpawned: {breaks, acts, breaks, breaks},
		TypeError:   {breaks, acts, breaks, breaks},
		TypeStdout:  {breaks, breaks, acts, acts},
		TypeStderr:  {breaks, breaks, acts, acts},
		TypeExit:    {breaks, breaks, acts, breaks},
		TypeCredit:  {breaks, breaks, acts, breaks},
		TypeHangup:  {breaks, breaks, acts, breaks},
	}
	fromHost = map[Type][phases]verdict{
		TypeSpawn:  {acts, crosses, crosses, crosses},
		TypeStdin:  {crosses, keeps, acts, crosses},
		TypeKill:   {crosses, keeps, acts, crosses},
		TypeResize: {crosses, keeps, acts, crosses},
		TypeCredit: {crosses, acts, acts, acts},
		TypeHangup: {crosses, keeps, acts, acts},
	}
	callFromGuest = map[Type][phases]verdict{
		TypeCall:   {acts, breaks, breaks, breaks},
		TypeUp:     {breaks, breaks, acts, breaks},
		TypeCredit: {breaks, breaks, acts, acts},
		TypeHangup: {breaks, acts, acts, acts},
		TypeOver:   {breaks, breaks, breaks, acts},
	}
	callFromHost = map[Type][phases]verdict{
		TypeAccept: {crosses, acts, crosses, crosses},
		TypeRefuse: {crosses, acts, crosses, crosses},
		TypeDown:   {crosses, crosses, acts, crosses},
		TypeCredit: {crosses, crosses, acts, crosses},
		TypeHangup: {crosses, crosses, acts, crosses},
	}
)

// A course is how far a run has come. It is guarded by its link's mutex.
type course struct {
	phase phase
	// outputsEnded counts the ends of stdout and stderr; each inbox and outbox holds
	// that its own comes once.
	outputsEnded int
}

// moveLocked moves the run on by what the guest says of it. An error is a violation.
func (c *course) moveLocked(id uint32, t Type) error {
	if fromGuest[t][c.phase] != acts {
		return violation("program %d: %s while it is %s", id, t, c.phase)
	}
	switch t {
	case TypeSpawned:
		c.phase = running
	case TypeError:
		c.phase = unknown
	case TypeExit:
		c.phase = ended
		c.settleLocked()
	}
	return nil
}

// streamEndedLocked notes the end of stdout or stderr.
func (c *course) streamEndedLocked() {
	c.outputsEnded++
	c.settleLocked()
}

func (c *course) settleLocked() {
	if c.phase == ended && c.outputsEnded == 2 {
		c.phase = unknown
	}
}

// talksLocked reports whether the guest may speak of the run's streams.
func (c *course) talksLocked() bool { return c.phase == running || c.phase == ended }
