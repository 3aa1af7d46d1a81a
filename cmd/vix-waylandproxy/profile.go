package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"

	"github.com/spf13/pflag"
)

// profileFlags are for work on the proxy's speed.
type profileFlags struct{ cpu, mem string }

func (o *profileFlags) register(f *pflag.FlagSet) {
	f.StringVar(&o.cpu, "cpuprofile", "", "write a CPU profile to `FILE` at the end")
	f.StringVar(&o.mem, "memprofile", "", "write a profile of allocations to `FILE` at the end")
}

// start begins the profiles; stop writes them.
func (o *profileFlags) start() (stop func() error, err error) {
	var cpu *os.File
	if o.cpu != "" {
		if cpu, err = os.Create(o.cpu); err != nil {
			return nil, fmt.Errorf("--cpuprofile: %w", err)
		}
		if err := pprof.StartCPUProfile(cpu); err != nil {
			return nil, fmt.Errorf("--cpuprofile: %w", err)
		}
	}
	var mem *os.File // now, because a confined process opens no file later
	if o.mem != "" {
		if mem, err = os.Create(o.mem); err != nil {
			return nil, fmt.Errorf("--memprofile: %w", err)
		}
		runtime.MemProfileRate = 4096
	}
	return func() error {
		var err error
		if cpu != nil {
			pprof.StopCPUProfile()
			err = cpu.Close()
		}
		if mem == nil {
			return err
		}
		return errors.Join(err, pprof.Lookup("allocs").WriteTo(mem, 0), mem.Close())
	}, nil
}
