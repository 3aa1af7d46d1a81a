// Package vm is the contract between the supervisors of virtual machines and
// whoever uses them, and its client: what a VM is started from (Launch), what it
// shows of itself (State), what can be asked of it (Request, Reply), and where it
// is found (Registry). What a VM keeps when it ends is in a Store.
//
//	vix-launcher run ──control.sock──► vix-launcher supervise NAME   (package supervise)
//	vix-launcher list, stop, logs ──►
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
// A directory whose lock nobody holds is what a dead supervisor left; the next
// list or run removes it. Two runs at once make one VM: whoever gets the upper
// lock first makes the directory, takes its lock, listens on control.sock and
// hands both to a new supervisor; the other finds the VM's lock taken, and
// connects. A connection waits in the socket's backlog until the supervisor
// accepts, so nobody polls for anything.
//
// The package starts one kind of process, a supervisor, and knows nothing of what
// that is made of.
package vm
