// Package supervise is the process that owns one VM: it starts, watches and ends
// every host process of it, and serves the clients of package vm.
//
// # Processes
//
//	package vm ──control.sock──► vix-launcher supervise NAME
//	                                     │  all children die with it (PDEATHSIG)
//	                                     ├─ vix-waylandproxy host   vhost-user socketpair to QEMU
//	                                     ├─ virtiofsd               vhost-user connection to QEMU; one for the
//	                                     │                          root, the home and each share (share.go), for
//	                                     │                          which another takes over (takeover.go)
//	                                     ├─ passt                   if it has a network: socketpair to QEMU (net.go)
//	                                     └─ qemu-system-*           QMP and agent socketpairs to the supervisor (channel.go)
//
// Each of them is confined (package sandbox). The display process confines itself once
// it has what it needs; vix-launcher's hidden verb confine becomes each of the others
// (sandbox.Spec). The state holds each one's report of its confinement, for doctor. The
// display process cannot connect to the compositor; the supervisor connects for it
// (broker.go).
//
// # States
//
//	          first client              guest is ready
//	new ──────────────────► starting ──────────────────► running
//	 │ nobody comes             │ failure, stop              │ last program ended,
//	 ▼                          ▼                            ▼ stop, failure
//	ended ◄──────────────── stopping ◄───────────────────────┘
//
// A failure is the unexpected end of any child, a broken agent channel, or a
// start that takes too long. Stopping ends everything in the reverse order of its
// start; the directory goes last, then the lock.
//
// The package decides nothing about windows: the display process does.
package supervise
