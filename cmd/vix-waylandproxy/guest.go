package main

import (
	"errors"

	"github.com/spf13/cobra"

	"vix/internal/guestproxy"
)

func guestCommand() *cobra.Command {
	var path, device string
	var readyFD int
	var debug bool
	var tf traceFlags
	c := &cobra.Command{
		Use:   "guest --listen PATH",
		Short: "inside a VM: a Wayland socket whose windows appear on the host",
		Long: `Serves a Wayland socket inside a VM. Each connection goes to the host in a
cross-domain context of the VM's virtio-gpu device. vix-guest starts it; in a VM
of another kind start it by hand, as the user whose programs use it.`,
		Example: `  vix-waylandproxy guest --listen /run/user/1000/wayland-0`,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usagef("guest: --listen is missing")
			}
			tr, err := tf.start()
			if err != nil {
				return err
			}
			l, err := listen(path)
			if err != nil {
				return err
			}
			if err := ready(readyFD); err != nil {
				return err
			}
			err = guestproxy.Run(c.Context(), guestproxy.Config{Listen: l, Device: device, Tap: tr.Switch, Meter: &tr.meter, Log: logger(debug)})
			return errors.Join(err, tr.close())
		},
	}
	f := c.Flags()
	f.StringVar(&path, "listen", "", "socket to make, an absolute path")
	f.StringVar(&device, "device", "/dev/dri/renderD128", "render node of the virtio-gpu device")
	f.IntVar(&readyFD, "ready-fd", -1, "descriptor that gets one byte when the socket listens")
	tf.register(f)
	f.BoolVar(&debug, "debug", false, "log every connection")
	return c
}
