package supervise

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"vix/config"
	"vix/internal/boot"
	"vix/internal/qemu"
	"vix/internal/vm"
)

// A bootPart has what the machine boots: an accelerator, a kernel, an initramfs.
type bootPart struct {
	passive
	*host
	channel *channelPart
	accelerator
	files boot.Files
}

// An accelerator is how the machine's processors run.
type accelerator struct {
	accel string // QEMU's name for it
	slow  string // why it is not KVM, where it might be
	err   error  // it has to be KVM, and cannot be
}

func (p *bootPart) start() error {
	if p.err != nil {
		return p.err
	}
	vsock := p.channel.channel.state().Kind == config.ChannelVsock
	files, err := prepareBoot(p.ctx, p.launch, vsock, func(text string) { p.log.Add("vix", text) })
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // the kernel's file took 20 MiB, which nobody needs again
	p.files = files
	if p.slow != "" {
		p.note("%s", p.slow)
	}
	for _, w := range p.launch.Warnings {
		p.note("%s", w)
	}
	p.stage("prepared", 0)
	return nil
}

func chooseAccel(l vm.Launch) accelerator {
	v := l.VM
	if v.Accel == "tcg" {
		return accelerator{accel: "tcg"}
	}
	err := qemu.CheckKVM(l.Parts.KVM, l.Parts.CPUInfo)
	switch {
	case err == nil:
		return accelerator{accel: "kvm"}
	case v.Accel == "kvm":
		return accelerator{err: vm.Failf(`VM %s: KVM does not work: %v; or set accel = "auto"`, v.Name, err)}
	}
	return accelerator{accel: "tcg", slow: fmt.Sprintf(vm.SlowNote+"%s is emulated and slow: %v", v.Name, err)}
}

// prepareBoot finds the host's kernel and makes the files that QEMU boots. It is a
// variable because the tests' QEMU boots nothing.
var prepareBoot = func(ctx context.Context, l vm.Launch, vsock bool, progress func(string)) (boot.Files, error) {
	kernel, err := findKernel(l)
	if err != nil {
		return boot.Files{}, err
	}
	return boot.Prepare(ctx, boot.Config{Kernel: kernel, Guest: l.Parts.Guest, CacheDir: l.CacheDir,
		Disk: strings.HasPrefix(l.VM.Root, config.RootImage), Net: l.VM.Net == config.NetNAT, Vsock: vsock, Progress: progress})
}

func findKernel(l vm.Launch) (boot.Kernel, error) {
	if l.VM.Kernel != "" {
		return boot.NamedKernel(l.VM.Kernel, l.VM.Initrd, l.Parts.System)
	}
	return boot.FindKernel(l.Parts.System)
}
