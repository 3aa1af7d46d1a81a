// Package balloon decides how much of its memory a VM may use now, and measures how short of
// memory the host is. It only decides: package vm asks guests and changes balloons.
//
// Memory that a guest frees returns to the host by itself, in pieces of 2 MiB (free page
// reporting). The balloon is for memory that a guest could free but keeps until it is asked,
// above all its file cache. These are the rules (rules.go); the first that applies holds:
//
//  1. a program was started: the VM gets all its memory back, and keeps it for 30 s
//  2. the guest has little left (less than half of what it should keep): it gets a
//     quarter of its memory, or as much as it lacks, at once
//  3. the host is short, the VM has been idle for 10 s, and its guest has more than it
//     should keep: the rest is taken, a quarter of the VM's memory at a time, and at
//     least memory-min stays
//  4. the host has not been short for 30 s, and has room: an eighth is given back
//
// A guest should keep a sixteenth of its memory, and at least 64 MiB, beyond what it cannot
// do without (MemAvailable, as reported by the guest). A VM is idle when it uses less than a
// fifth of one processor. The host is short when programs waited for memory for a tenth of a
// second in the last two (PSI), for a tenth of recent time, or when less than a twelfth of its
// memory is available (pressure.go).
//
// A guest's report can harm only the guest itself: it always gets between memory-min and its
// memory. A guest that ignores a request keeps what it has, as it would without a balloon.
package balloon
