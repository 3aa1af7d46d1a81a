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
	accel   string
	files   boot.Files
}

func (p *bootPart) start() error {
	accel, slow, err := chooseAccel(p.launch)
	if err != nil {
		return err
	}
	vsock := p.channel.channel.state().Kind == config.ChannelVsock
	files, err := prepareBoot(p.ctx, p.launch, vsock, func(text string) { p.log.Add("vix", text) })
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // the kernel's file took 20 MiB, which nobody needs again
	p.accel, p.files = accel, files
	if slow != "" {
		p.note("%s", slow)
	}
	for _, w := range p.launch.Warnings {
		p.note("%s", w)
	}
	p.stage("prepared", 0)
	return nil
}

// chooseAccel chooses the accelerator, and says why if it is not KVM.
func chooseAccel(l vm.Launch) (accel, slow string, err error) {
	v := l.VM
	if v.Accel == "tcg" {
		return "tcg", "", nil
	}
	err = qemu.CheckKVM(l.Parts.KVM, l.Parts.CPUInfo)
	switch {
	case err == nil:
		return "kvm", "", nil
	case v.Accel == "kvm":
		return "", "", vm.Failf(`VM %s: KVM does not work: %v; or set accel = "auto"`, v.Name, err)
	}
	return "tcg", fmt.Sprintf("no KVM, so VM %s is emulated and slow: %v", v.Name, err), nil
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
