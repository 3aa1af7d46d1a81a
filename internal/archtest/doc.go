// Package archtest holds the rules of the source tree as tests: who imports whom
// (ARCHITECTURE.md), how large each wing may be and how much code reads hostile bytes,
// who may start processes, where ambient authority is taken, that every package says what
// it is, and that no fuzz target has lost its corpus. It has no code of its own.
package archtest
