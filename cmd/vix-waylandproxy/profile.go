package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"

	"github.com/spf13/pflag"
)

// profileFlags are for those who work on the proxy's speed.
type profileFlags struct{ cpu, mem string }

func (o *profileFlags) register(f *pflag.FlagSet) {
	f.StringVar(&o.cpu, "cpuprofile", "", "write a CPU profile to `FILE` at the end")
	f.StringVar(&o.mem, "memprofile", "", "write a profile of allocations to `FILE` at the end")
}

// start begins; stop writes what was asked for.
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
	if o.mem != "" {
		runtime.MemProfileRate = 4096
	}
	return func() error {
		var err error
		if cpu != nil {
			pprof.StopCPUProfile()
			err = cpu.Close()
		}
		if o.mem == "" {
			return err
		}
		f, ferr := os.Create(o.mem)
		if ferr != nil {
			return errors.Join(err, fmt.Errorf("--memprofile: %w", ferr))
		}
		return errors.Join(err, pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
	}, nil
}
