// Package balloon decides how much of its memory a VM may use now, and watches how
// short the host is of it. It asks nobody and changes nothing: package vm does that.
//
// What a guest frees goes back to the host by itself, in pieces of 2 MiB (free page
// reporting). The balloon is for the rest: what a guest could free, above all its
// cache of files, it keeps until somebody asks. These are the rules (rules.go), the
// first that applies holds:
//
//  1. a program was started: the VM gets all its memory back, and keeps it for 30 s
//  2. the guest has little left (less than half of what it is to keep): it gets a
//     quarter of its memory, or as much as it lacks, at once
//  3. the host is short, the VM has been idle for 10 s, and its guest has more than it
//     is to keep: the rest is taken, a quarter of the VM's memory at a time, down to
//     memory-min at most
//  4. the host has not been short for 30 s, and has room: an eighth is given back
//
// A guest is to keep a sixteenth of its memory, and 64 MiB at least, beyond what it
// cannot do without (its MemAvailable, in its own words). A VM is idle when it takes
// less than a fifth of one processor. The host is short when programs waited for memory
// for a tenth of a second of the last two (PSI), for a tenth of the time lately, or when
// less than a twelfth of it is available (pressure.go).
//
// What a guest says can harm only itself: whatever it says, it gets between memory-min
// and its memory. A guest that does not do as it is asked keeps what it has, as it would
// without a balloon.
package balloon
