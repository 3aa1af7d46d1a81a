// Package proc starts and watches the processes of one VM.
//
//	Nest ── Start(Command) ──► Child ── lines of its output ──► Journal ──► followers
//	one thread for all                   its last words: Tail
//
// A child dies with the process that started it. How it is confined is package
// sandbox's; what its end means is the caller's.
package proc
