package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/supervise"
	"vix/internal/usb"
	"vix/internal/vm"
)

func usbCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "usb list|attach|detach",
		Short: "give USB devices to running VMs",
		Long: `Gives USB devices of this machine to running VMs, and takes them back. DEVICE is
VENDOR:PRODUCT, as lsusb(8) shows it, or BUS.PORT (or BUS-PORT), a place where
something is plugged in; "usb list" shows both.

While a VM has a device, neither the host nor another VM has it. When the VM stops,
or the device is unplugged, it is the host's again. To give a device to a VM
whenever it is plugged in, list it under "usb" in config.toml.

You need the right to open the device. If you lack it, attach prints the udev rule
that grants it.`,
		Example: `  vix usb list
  vix usb attach vault 1050:0407
  vix usb detach vault 1050:0407`,
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, a []string) error {
			if len(a) == 0 {
				return usagef("usb: want list, attach or detach; see vix usb --help")
			}
			return usagef("usb: unknown verb %q; want list, attach or detach", clip(a[0]))
		},
	}
	c.AddCommand(usbListCommand(e),
		usbChangeCommand(e, "attach", "give a device to a VM", (*vm.Registry).AttachUSB),
		usbChangeCommand(e, "detach", "take a device back from a VM", (*vm.Registry).DetachUSB))
	return c
}

// A usbEntry is a line of usb list.
type usbEntry struct {
	usb.Device
	VM     string `json:"vm"`     // the VM that has it; "": the host
	Access bool   `json:"access"` // the user may open it
}

func usbListCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list [--json]",
		Short: "list this machine's USB devices",
		Long: `Lists the USB devices of this machine by port, except hubs: what each is, which VM
has it, and whether you may open it.

With --json, prints an array with an object for each: port, id, name, node (below
/dev/bus/usb), hub, vm ("" is the host), access.`,
		Example: `  vix usb list
  vix usb list --json | jq -r '.[] | select(.vm == "") | .id'`,
		Args:              args(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := e.usbEntries(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(e.stdout, list)
			}
			if len(list) == 0 {
				return nil
			}
			t := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "PORT\tID\tVM\tACCESS\tNAME")
			for _, d := range list {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", d.Port, d.ID, orDash(d.VM), yesNo(d.Access), d.Name)
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// usbEntries returns the machine's devices, without hubs. A machine may have no USB.
func (e *env) usbEntries(ctx context.Context) ([]usbEntry, error) {
	all, err := usb.List(os.DirFS(usbDevices))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	reg, err := e.registry()
	if err != nil {
		return nil, err
	}
	defer reg.Close()
	vms, err := reg.List(ctx)
	if err != nil {
		return nil, err
	}
	list := []usbEntry{}
	for _, d := range all {
		if d.Hub {
			continue
		}
		entry := usbEntry{Device: d, Access: mayOpen(d)}
		for _, v := range vms {
			if slices.ContainsFunc(v.USB, func(x vm.USBState) bool { return x.Port == d.Port }) {
				entry.VM = v.Name
			}
		}
		list = append(list, entry)
	}
	return list, nil
}

func mayOpen(d usb.Device) bool {
	return unix.Access(filepath.Join(usbNodes, d.Node), unix.R_OK|unix.W_OK) == nil
}

func usbChangeCommand(e *env, verb, short string, change func(*vm.Registry, context.Context, string, string) (vm.USBState, error)) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " NAME DEVICE",
		Short:   short,
		Long:    strings.ToUpper(short[:1]) + short[1:] + ". See vix usb --help for what DEVICE is.",
		Example: "  vix usb " + verb + " vault 1050:0407\n  vix usb " + verb + " vault 1.2",
		Args:    args(2, 2, "NAME or DEVICE"),
		ValidArgsFunction: func(c *cobra.Command, a []string, _ string) (words []string, _ cobra.ShellCompDirective) {
			switch len(a) {
			case 0:
				words = runningNames(c.Context(), e)
			case 1:
				list, _ := e.usbEntries(c.Context())
				for _, d := range list {
					if (verb == "attach") == (d.VM == "") {
						words = append(words, d.Port+"\t"+d.ID+" "+d.Name)
					}
				}
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, a []string) error {
			if err := config.CheckName(a[0]); err != nil {
				return usagef("usb %s: %v", verb, err)
			}
			device := a[1]
			if !supervise.EmulatedUSB(device) {
				d, err := config.ParseUSB(device)
				if err != nil {
					return usagef("usb %s: %v", verb, err)
				}
				device = d.String()
			}
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			d, err := change(reg, c.Context(), a[0], device)
			if err != nil {
				return err
			}
			fmt.Fprintf(e.stdout, "%s %s %s\n", d.Port, d.ID, d.Name)
			return nil
		},
	}
}

// checkUSB checks that the user may open the devices that the configuration gives to VMs; the
// others do not matter until they are attached.
func checkUSB(_ context.Context, e *env) check {
	all, err := usb.List(os.DirFS(usbDevices))
	if err != nil {
		return good("this machine has no USB; nothing needs it")
	}
	conf, err := e.config()
	if err != nil {
		return good("%d devices", len(all)) // another check reports what is wrong
	}
	wanted := 0
	for _, v := range conf.VMs {
		for _, want := range v.USB {
			for _, d := range usb.Matching(all, want) {
				wanted++
				if !mayOpen(d) {
					file, rule := usb.Rule(d)
					return warning(fmt.Sprintf("as root, put this line into %s, run udevadm control --reload, and plug the device in again: %s", file, rule),
						"you may not open %s (%s), which is VM %s's", d.ID, d.Port, v.Name)
				}
			}
		}
	}
	return good("%d devices, of which VMs are given %d", len(all), wanted)
}
