// Package vm is the contract between the supervisors of virtual machines and
// their clients, and the client's side of it: what starts a VM (Launch), what a VM shows of
// itself (State), what a client can ask (Request, Reply), and where VMs are found
// (Registry). A Store has what a VM keeps when it ends.
//
//	vix run ──control.sock──► vix-launcher supervise NAME   (package supervise)
//	vix list, stop, logs ──►
//
// There is no daemon above the supervisors. A VM is a directory:
//
//	$XDG_RUNTIME_DIR/vix/            0700
//	  lock                           flock: held while a VM is made or removed
//	  NAME/                          0700
//	    lock                         flock: held by the supervisor as long as it lives
//	    control.sock                 where clients connect
//	    state.json                   what list shows, for when nobody answers
//	    wayland                      where the compositor accepts the VM's connections, if it can tell them apart
//	    log, log.1                   lines of the supervisor and of its children
//
// A directory whose lock nobody holds is left from a dead supervisor; the next list or run
// removes it. Two runs at once make one VM: the run that gets the upper lock first makes
// the directory, takes its lock, listens on control.sock and hands both to a new
// supervisor; the other run finds the VM's lock taken, and connects. A connection waits in
// the socket's backlog until the supervisor accepts it, so nobody polls.
//
// The package starts one kind of process, a supervisor, and knows nothing of its parts.
package vm
