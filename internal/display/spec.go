package display

import "fmt"

// A Spec holds the options of the command line of vix-waylandproxy host.
type Spec struct {
	VM        string
	VhostFD   int
	EventsFD  int
	ControlFD int
	BrokerFD  int
}

// Args returns the arguments of vix-waylandproxy.
func (s Spec) Args() []string {
	return []string{
		"host",
		"--vm", s.VM,
		"--vhost-fd", fmt.Sprint(s.VhostFD),
		"--events-fd", fmt.Sprint(s.EventsFD),
		"--control-fd", fmt.Sprint(s.ControlFD),
		"--broker-fd", fmt.Sprint(s.BrokerFD),
	}
}
