package qemu

import (
	"fmt"
	"os"

	"vix/internal/proc"
)

// A Device is a part's share of QEMU's command line, with the files behind it. Machine
// numbers the files. The holder of the device owns them.
type Device struct {
	files []*os.File
	args  func(fd int) []string // fd is the number of the first file
	words []string              // of the kernel's command line
}

// Close closes the files of a device that is in no machine.
func (d Device) Close() { proc.CloseFiles(d.files) }

func constantArgs(args ...string) func(int) []string { return func(int) []string { return args } }

// RootTag is the virtiofs tag of the root file system; the guest learns it
// from its command line.
const RootTag = "root"

// RootDisk takes its place for a root on a disk: the first disk, or a partition of it.
const RootDisk = "/dev/vda"

// AgentPort is the name of the virtio-serial port of the agent.
const AgentPort = "dev.vix.agent"

// Display is the virtio-gpu of vix-waylandproxy host, over vhost-user.
func Display(socket *os.File) Device {
	return Device{files: []*os.File{socket}, args: func(fd int) []string {
		return []string{
			"-chardev", fmt.Sprintf("socket,id=display,fd=%d", fd),
			// virtio-id 16 is a GPU. The sizes are those of the device's own queues
			// and configuration space: a queue of 64 hangs after 60 contexts.
			"-device", "vhost-user-test-device-pci,chardev=display,virtio-id=16,num_vqs=2,vq_size=1024,config_size=16",
		}
	}}
}

// RootFS is a root that a virtiofsd serves, over vhost-user.
func RootFS(socket *os.File) Device {
	return Device{files: []*os.File{socket}, words: []string{"vix.root=" + RootTag}, args: func(fd int) []string {
		return []string{
			"-chardev", fmt.Sprintf("socket,id=root,fd=%d", fd),
			"-device", "vhost-user-fs-pci,chardev=root,tag=" + RootTag,
		}
	}}
}

// Disk is a root on an image, of format "raw" or "qcow2". QEMU never writes to it, and gets
// one descriptor and no other file.
func Disk(image *os.File, format string) Device {
	return Device{files: []*os.File{image}, words: []string{"vix.root=" + RootDisk}, args: func(fd int) []string {
		return []string{
			"-add-fd", fmt.Sprintf("fd=%d,set=1", fd),
			"-blockdev", "driver=file,node-name=image,filename=/dev/fdset/1,read-only=on",
			"-blockdev", "driver=" + format + ",node-name=disk,file=image,read-only=on",
			"-device", "virtio-blk-pci,drive=disk",
		}
	}}
}

// Serial is the virtio-serial port of the agent's channel.
func Serial(socket *os.File) Device {
	return Device{files: []*os.File{socket}, args: func(fd int) []string {
		return []string{
			"-device", "virtio-serial-pci",
			"-chardev", fmt.Sprintf("socket,id=agent,fd=%d", fd),
			"-device", "virtserialport,chardev=agent,name=" + AgentPort,
		}
	}}
}

// Vsock is the kernel's vhost-vsock (/dev/vhost-vsock). The guest has the context ID cid,
// and is to connect to the host's port.
func Vsock(device *os.File, cid, port uint32) Device {
	return Device{files: []*os.File{device}, words: agentWord(port), args: func(fd int) []string {
		return []string{"-device", fmt.Sprintf("vhost-vsock-pci,guest-cid=%d,vhostfd=%d", cid, fd)}
	}}
}

func agentWord(port uint32) []string { return []string{fmt.Sprintf("vix.agent=vsock:%d", port)} }

// CardID is the id of the network card.
const CardID = "card"

// Card is a network card whose frames go over a connected socket, each with its length
// before it.
func Card(socket *os.File) Device {
	return Device{files: []*os.File{socket}, args: func(fd int) []string {
		return card(fmt.Sprintf("stream,server=off,addr.type=fd,addr.str=%d", fd))
	}}
}

// CardOf is a network card on a network that QEMU makes itself: a value of -netdev, without
// the id.
func CardOf(netdev string) Device { return Device{args: constantArgs(card(netdev)...)} }

// The card has no ROM to boot from: nothing does.
func card(netdev string) []string {
	return []string{"-netdev", netdev + ",id=net", "-device", "virtio-net-pci,id=" + CardID + ",netdev=net,romfile="}
}

// The balloon, and where QEMU shows it.
const (
	balloonID   = "balloon"
	BalloonPath = "/machine/peripheral/" + balloonID
)

// Balloon gives memory back to the host: what the guest frees, by itself; what the guest
// could free, on request. After a request for too much, the guest takes memory back.
func Balloon() Device {
	return Device{args: constantArgs("-device", "virtio-balloon-pci,id="+balloonID+",deflate-on-oom=on,free-page-reporting=on")}
}

// Entropy feeds the guest's random numbers from the host's, so that a guest whose processor
// has no RDRAND does not wait for them. QEMU asks the host's kernel by getrandom, and needs no
// file.
func Entropy() Device {
	return Device{args: constantArgs("-object", "rng-builtin,id=entropy", "-device", "virtio-rng-pci,rng=entropy")}
}

// Where a USB controller goes, and its id.
const (
	USBPort       = "usbport"
	USBController = "usb"
)

// USB is an empty hot-pluggable port for a controller.
func USB() Device {
	return Device{args: constantArgs("-device", "pcie-root-port,id="+USBPort+",addr=1d.0,chassis=64")}
}

// Ports are n hot-pluggable ports for shares, at most 8, all functions of one slot.
func Ports(n int) Device {
	var args []string
	for i := range n {
		args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=%s,addr=1e.%d,multifunction=on,chassis=%d", PortName(i), i, i+1))
	}
	return Device{args: constantArgs(args...)}
}

// PortName is the id of a port for a share.
func PortName(i int) string { return fmt.Sprintf("port%d", i) }

// Share is a folder that a virtiofsd serves under tag, over vhost-user. It sits on a port,
// or for ever on the bus itself if port is -1.
func Share(tag string, port int, socket *os.File) Device {
	return Device{files: []*os.File{socket}, args: func(fd int) []string {
		bus := ""
		if port >= 0 {
			bus = ",bus=" + PortName(port)
		}
		return []string{
			"-chardev", fmt.Sprintf("socket,id=%s,fd=%d", tag, fd),
			"-device", fmt.Sprintf("vhost-user-fs-pci,id=%s,chardev=%s,tag=%s%s", ShareID(tag), tag, tag, bus),
		}
	}}
}

// ShareID is the id of a share's device.
func ShareID(tag string) string { return "dev-" + tag }
