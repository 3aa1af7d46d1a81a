package display

// The display process may make no connection of its own (package sandbox): the
// supervisor connects, and passes the socket. Their channel is a seqpacket pair; a
// request and its answer are a packet each, one after the other:
//
//	display     supervisor
//	"connect" ──►           "ok" + a connection to the compositor
//	"listen"  ──►           "ok" + a listening socket, VM's directory/wayland, in place of the last one
//	"through" ──►           "ok" + a connection to that socket
//	          ◄── or the reason why not, as text, without a descriptor
//
// The listening socket is for wp_security_context_v1: the display hands it to the
// compositor, which then knows the VM of every connection there, and keeps its
// privileged interfaces from it. After the first such connection the supervisor makes no
// others as long as this compositor lives: a display that a guest has taken over cannot
// get around its context. An idle connection of our own shows whether the compositor
// still lives.
const (
	BrokerConnect = "connect"
	BrokerListen  = "listen"
	BrokerThrough = "through"
	BrokerOK      = "ok"

	MaxBrokerRequest = 16
	MaxBrokerAnswer  = 256
)
