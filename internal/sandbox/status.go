package sandbox

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Status is the kernel's view of a process: which measures are in force, whoever applied
// them (proc_pid_status(5), namespaces(7)).
type Status struct {
	PID        int               `json:"pid"`
	Name       string            `json:"name"`
	NoNewPrivs bool              `json:"no_new_privs"`
	Seccomp    string            `json:"seccomp"` // "none", "strict", or "filter"
	Filters    int               `json:"seccomp_filters"`
	CapEff     string            `json:"cap_eff"` // in the kernel's notation
	CapBnd     string            `json:"cap_bnd"`
	Limits     map[string]string `json:"limits"` // soft limits, by the kernel's names
	// Namespaces is "own", "shared" or "unknown" for each, compared with the calling process.
	// Only root can see those of another user's process, or of one that is not dumpable.
	Namespaces map[string]string `json:"namespaces"`
}

// The namespaces and limits that a Status reports.
var (
	namespaceNames = []string{"net", "pid", "ipc", "uts", "mnt", "user"}
	limitNames     = []string{"Max core file size", "Max open files", "Max data size"}
)

// ReadStatus reads the status of process pid from proc, normally /proc.
func ReadStatus(proc fs.FS, pid int) (Status, error) {
	s := Status{PID: pid, Limits: map[string]string{}, Namespaces: map[string]string{}}
	fields, err := statusFields(proc, pid)
	if err != nil {
		return s, err
	}
	s.Name, s.CapEff, s.CapBnd = fields["Name"], fields["CapEff"], fields["CapBnd"]
	s.NoNewPrivs = fields["NoNewPrivs"] == "1"
	s.Seccomp = map[string]string{"1": "strict", "2": "filter"}[fields["Seccomp"]]
	if s.Seccomp == "" {
		s.Seccomp = "none"
	}
	s.Filters, _ = strconv.Atoi(fields["Seccomp_filters"]) // Linux ≥ 5.9
	for _, ns := range namespaceNames {
		s.Namespaces[ns] = compareNamespace(proc, pid, ns)
	}
	// The number of nested process namespaces is visible to anybody.
	if s.Namespaces["pid"] == "unknown" {
		if own, err := statusFields(proc, os.Getpid()); err == nil {
			s.Namespaces["pid"] = "shared"
			if len(strings.Fields(fields["NSpid"])) > len(strings.Fields(own["NSpid"])) {
				s.Namespaces["pid"] = "own"
			}
		}
	}
	return s, s.readLimits(proc)
}

func statusFields(proc fs.FS, pid int) (map[string]string, error) {
	f, err := proc.Open(path.Join(strconv.Itoa(pid), "status"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fields := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok {
			fields[k] = strings.TrimSpace(v)
		}
	}
	return fields, nil
}

func compareNamespace(proc fs.FS, pid int, ns string) string {
	theirs, err := fs.ReadLink(proc, path.Join(strconv.Itoa(pid), "ns", ns))
	if err != nil {
		return "unknown"
	}
	ours, err := fs.ReadLink(proc, path.Join(strconv.Itoa(os.Getpid()), "ns", ns))
	switch {
	case err != nil:
		return "unknown"
	case ours == theirs:
		return "shared"
	}
	return "own"
}

// readLimits reads a table whose columns begin where those of the header do.
func (s *Status) readLimits(proc fs.FS) error {
	b, err := fs.ReadFile(proc, path.Join(strconv.Itoa(s.PID), "limits"))
	if err != nil {
		return err
	}
	header, rows, _ := strings.Cut(string(b), "\n")
	at := strings.Index(header, "Soft")
	if at < 0 {
		return fmt.Errorf("process %d: limits: not understood", s.PID)
	}
	for row := range strings.Lines(rows) {
		for _, name := range limitNames {
			if f := strings.Fields(row[min(at, len(row)):]); strings.HasPrefix(row, name) && len(f) > 0 {
				s.Limits[name] = f[0]
			}
		}
	}
	return nil
}

// Workers returns the children of pid that have its name: such a child does virtiofsd's work.
func Workers(proc fs.FS, pid int) []int {
	own, err := statusFields(proc, pid)
	if err != nil {
		return nil
	}
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil
	}
	var found []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		f, err := statusFields(proc, child)
		if err == nil && f["PPid"] == strconv.Itoa(pid) && f["Name"] == own["Name"] {
			found = append(found, child)
		}
	}
	slices.Sort(found)
	return found
}
