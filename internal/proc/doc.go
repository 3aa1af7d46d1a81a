// Package proc starts and watches the processes of one VM.
//
//	Nest ── Start(Command) ──► Child ── lines of its output ──► Journal ──► followers
//	one thread for all                   its last words: Tail
//
// A child dies with the process that started it. Package sandbox confines it; the caller
// decides what its end means.
package proc
