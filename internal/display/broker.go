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
// compositor, which knows of every connection made to it whose it is, and keeps its
// privileged interfaces from it. So once one such connection was made, there are no
// others as long as this compositor lives: a display that a guest has taken over
// does not get around its context. A connection of our own, on which nothing is ever
// said, tells whether it still does.
const (
	BrokerConnect = "connect"
	BrokerListen  = "listen"
	BrokerThrough = "through"
	BrokerOK      = "ok"

	MaxBrokerRequest = 16
	MaxBrokerAnswer  = 256
)
