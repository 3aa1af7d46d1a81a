// Package vm runs virtual machines: one supervisor process for each, which
// owns every host process of its VM, and the clients that talk to supervisors.
//
// # Processes
//
//	vix-launcher run ──control.sock──► vix-launcher supervise NAME
//	vix-launcher list, stop, logs ──►    │  all children die with it (PDEATHSIG)
//	                                     ├─ vix-waylandproxy host   vhost-user socketpair to QEMU
//	                                     ├─ virtiofsd               vhost-user connection to QEMU; one for the
//	                                     │                          root, the home and each share (share.go), for
//	                                     │                          which another takes over (takeover.go)
//	                                     ├─ passt                   if it has a network: socketpair to QEMU (net.go)
//	                                     ├─ vhost-device-vsock      for vsock without the kernel's (vsock.go)
//	                                     └─ qemu-system-*           QMP and agent socketpairs to the supervisor (channel.go)
//
// Each of them is confined (package sandbox): the display process does it itself
// when it has what it needs; QEMU and virtiofsd are what vix-launcher's hidden verbs
// confine and rootview become. What each says of its confinement is in the state, for
// doctor. The display process cannot connect to the compositor; the supervisor does
// it for it (broker.go).
//
// There is no daemon above the supervisors. A VM is a directory:
//
//	$XDG_RUNTIME_DIR/vix/            0700
//	  lock                           flock: held while a VM is made or removed
//	  NAME/                          0700
//	    lock                         flock: held by the supervisor as long as it lives
//	    control.sock                 where clients connect
//	    state.json                   what list shows, for when nobody answers
//	    vsock/                       of vhost-device-vsock; empty once the guest runs
//	    wayland                      where the compositor accepts the VM's connections, if it can tell them apart
//	    log, log.1                   lines of the supervisor and of its children
//
// What a VM keeps when it ends is elsewhere, in a Store (store.go).
//
// A directory whose lock nobody holds is what a dead supervisor left; the next
// list or run removes it. Two runs at once make one VM: whoever gets the upper
// lock first makes the directory, takes its lock, listens on control.sock and
// hands both to a new supervisor; the other finds the VM's lock taken, and
// connects. A connection waits in the socket's backlog until the supervisor
// accepts, so nobody polls for anything.
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
// start that takes too long. In stopping, everything that was started is ended
// in reverse order; the directory goes last, then the lock.
//
// The package decides nothing about windows: that is the display process's.
package vm
