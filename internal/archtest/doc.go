// Package archtest holds the rules of the source tree as tests: who may import
// whom (ARCHITECTURE.md), who may start processes, where ambient authority is
// taken, that every package says what it is, and that no fuzz target has lost
// its corpus. It has no code of its own.
package archtest
