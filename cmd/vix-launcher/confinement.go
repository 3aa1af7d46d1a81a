package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"vix/internal/sandbox"
	"vix/internal/vm"
)

// checkConfinement confines a test process in the same way as the processes of a VM.
func checkConfinement(ctx context.Context, e *env) check {
	const fix = "optional: a newer kernel, or one that lets ordinary users create namespaces, confines more"
	self, err := e.self()
	if err != nil {
		return bad("", "%v", err)
	}
	r, err := tryConfine(ctx, e, self, true)
	if err != nil {
		var bare error
		if r, bare = tryConfine(ctx, e, self, false); bare != nil {
			return warning("", "cannot be tried: %v", bare)
		}
		r.Weaker[0] = fmt.Sprintf("namespaces: %v", err)
	}
	if len(r.Weaker) > 0 {
		return warning(fix, "%s; not: %s", strings.Join(r.Measures, ", "), strings.Join(r.Weaker, "; "))
	}
	return good("%s", strings.Join(r.Measures, ", "))
}

// tryConfine runs the verb confine as for QEMU, and returns its report.
func tryConfine(ctx context.Context, e *env, self string, own bool) (r sandbox.Report, err error) {
	cmd, report, err := e.confinedCommand(ctx, sandbox.Spec{Files: []sandbox.File{{Path: self, Exec: true}}, Argv: []string{self, "--version"}}, own)
	if err != nil {
		return r, err
	}
	defer report.Close()
	var out bytes.Buffer
	cmd.Stderr = &out
	err = cmd.Run()
	cmd.ExtraFiles[0].Close()
	if err != nil {
		return r, errors.Join(err, errors.New(strings.TrimSpace(out.String())))
	}
	return sandbox.ReadReport(report)
}

// A confinedProcess is one process of a VM: its own report at the time of its confinement,
// and the kernel's view now.
type confinedProcess struct {
	Process string `json:"process"` // display, qemu, virtiofsd, supervisor, "virtiofsd /where" of a share
	sandbox.Report
	Status sandbox.Status `json:"status"`
}

type confinedVM struct {
	Name      string            `json:"name"`
	Channel   vm.ChannelState   `json:"channel"`
	Processes []confinedProcess `json:"processes"`
}

// confinedVMs inspects every running VM. It leaves out a process that ends meanwhile.
func confinedVMs(ctx context.Context, e *env, proc fs.FS) []confinedVM {
	list := []confinedVM{}
	reg, err := e.registry()
	if err != nil {
		return list // another check reports it
	}
	defer reg.Close()
	vms, err := reg.List(ctx)
	if err != nil {
		return list
	}
	for _, v := range vms {
		c := confinedVM{Name: v.Name, Channel: v.Channel, Processes: []confinedProcess{}}
		add := func(name string, pid int) {
			if pid == 0 { // the process does not exist, or not yet
				return
			}
			var report sandbox.Report
			for _, r := range v.Confinement {
				if r.PID == pid {
					report = r.Report
				}
			}
			for _, pid := range append([]int{pid}, sandbox.Workers(proc, pid)...) {
				if st, err := sandbox.ReadStatus(proc, pid); err == nil {
					c.Processes = append(c.Processes, confinedProcess{name, report, st})
				}
			}
		}
		add("supervisor", v.PIDs.Supervisor)
		add("display", v.PIDs.Display)
		add("qemu", v.PIDs.QEMU)
		add("virtiofsd", v.PIDs.Virtiofsd)
		if v.PIDs.Network > 0 {
			add("passt", v.PIDs.Network)
		}
		for _, sh := range v.Shares {
			if sh.PID > 0 {
				add("virtiofsd "+sh.Guest, sh.PID)
			}
		}
		list = append(list, c)
	}
	return list
}

// writeConfinement prints the measures in force, from the kernel alone, and below them those
// that only the process itself can know.
func writeConfinement(b *strings.Builder, vms []confinedVM) {
	for _, v := range vms {
		fmt.Fprintf(b, "\nVM %s: the confinement in force\n", v.Name)
		if v.Channel.Kind != "" {
			fmt.Fprintf(b, "  the agent's channel is %s, by %s\n", v.Channel.Kind, v.Channel.By)
		}
		for i, p := range v.Processes {
			fmt.Fprintf(b, "  %-11s %-8d %s\n", p.Process, p.Status.PID, inForce(p.Status))
			if i+1 < len(v.Processes) && v.Processes[i+1].Process == p.Process {
				continue // its worker reports the rest
			}
			if len(p.Measures) > 0 {
				fmt.Fprintf(b, "  %-11s %-8s took: %s\n", "", "", strings.Join(p.Measures, ", "))
			}
			if len(p.Weaker) > 0 {
				fmt.Fprintf(b, "  %-11s %-8s weaker: %s\n", "", "", strings.Join(p.Weaker, "; "))
			}
		}
	}
}

func inForce(s sandbox.Status) string {
	var own, unknown []string
	for _, ns := range []string{"net", "pid", "ipc", "uts", "mnt", "user"} {
		switch s.Namespaces[ns] {
		case "own":
			own = append(own, ns)
		case "unknown":
			unknown = append(unknown, ns)
		}
	}
	words := []string{"seccomp " + s.Seccomp}
	if s.NoNewPrivs {
		words = append(words, "no_new_privs")
	}
	switch {
	case strings.Trim(s.CapEff, "0") == "":
		words = append(words, "no capabilities")
	default:
		words = append(words, "capabilities "+strings.TrimLeft(s.CapEff, "0"))
	}
	if len(own) > 0 {
		words = append(words, "own "+strings.Join(own, " "))
	}
	if len(unknown) > 0 {
		words = append(words, "not to be seen: "+strings.Join(unknown, " "))
	}
	words = append(words, "core "+s.Limits["Max core file size"], "files "+s.Limits["Max open files"])
	if data := s.Limits["Max data size"]; data != "unlimited" {
		words = append(words, "data "+data)
	}
	return strings.Join(words, ", ")
}
