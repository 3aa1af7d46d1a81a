package agent

// # Runs
//
// A run is one program, from the host's spawn on. Its state depends on the guest's frames
// alone, so both ends agree on it: the guest when it queues a frame, the host when it
// handles the frame. The host's frames cause only the first step; they may cross anything,
// as a client may leave at any moment.
//
//	         spawn            spawned            exit
//	unknown ──────► asked ─────────────► running ─────► ended
//	   ▲              │ error                             │ the ends of stdout and stderr,
//	   └──────────────┴───────────────────────────────────┘ which may come before exit too
//
// A run that is over is unknown again: ids go up, and none is used twice. The host may take
// back a spawn that it has not sent yet; then there was no run.
//
// Frames that the guest may send. "breaks" ends the channel, since no frame of the host can
// cause an honest guest to send that:
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
// Frames that the host may send, and their effect in the guest. "crosses" has none: the host
// did not know the new state yet. "keeps" waits until the program runs:
//
//	host says    unknown  asked    running  ended
//	spawn        acts     crosses  crosses  crosses
//	stdin        crosses  keeps    acts     crosses
//	kill         crosses  keeps    acts     crosses
//	resize       crosses  keeps    acts     crosses
//	credit       crosses  acts     acts     acts
//	hangup       crosses  keeps    acts     acts
//
// Each of the three streams also has a state of its own: open, until its sender sends the
// end (data without bytes), once. The reader's hangup does not end it; it asks the sender
// to. The guest's credit and hangup concern stdin, which exit ends; the host's concern
// stdout and stderr.
//
// # Calls
//
// A call is a pair of streams that the guest asks for. Its state depends on the frames of
// both ends: the guest asks, the host answers, and the guest reports when it is over. Until
// the host accepts a call, the guest may only give it up (hangup of down). Once it is
// accepted, either end may at any time end its output (data without bytes) and hang up its
// input:
//
//	         call             accept             both ends
//	unknown ──────► asked ─────────────► running ─────────► ended
//	   ▲              │ refuse                              ▲ │
//	   │              └─────────────────────────────────────┘ │
//	   └──────────────────────────────────────────────────────┘ over
//
// A guest that has received the refusal, or both ends, reports so at once: in the guest no
// call is ever in the state ended. Its credit and hangup may cross those frames, and reach an
// ended call.
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
// A call keeps its place until the guest reports that it is over, so a guest that does not
// read causes at most MaxCalls waiting answers. The guest may take back a call that it has
// not sent yet.
//
// # A peer that does not read
//
// Where only the last frame counts, a new frame replaces one that still waits for a peer that
// does not read (link.send). So waiting frames have a bound for each run, none is ever
// lost, and a channel that stands still for an hour then continues normally.
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

// A verdict is how an end reacts to a frame about a run.
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

// fromGuest and fromHost are the tables of runs above, by frame type and run state;
// callFromGuest and callFromHost are those of calls. Both ends use them.
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

// A course is the progress of a run. Its link's mutex guards it.
type course struct {
	phase phase
	// outputsEnded counts the ends of stdout and stderr; each inbox and outbox ensures that
	// its own comes once.
	outputsEnded int
}

// moveLocked advances the run by a frame of the guest. An error is a violation.
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

// talksLocked reports whether the guest may send frames about the run's streams.
func (c *course) talksLocked() bool { return c.phase == running || c.phase == ended }
