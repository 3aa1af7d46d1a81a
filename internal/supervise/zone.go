package supervise

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"vix/internal/agent"
)

// maxZoneFile bounds a TZif file (RFC 9636); the largest of today's has 5 KiB.
const maxZoneFile = 64 << 10

// readZone returns the time zone of the machine whose root is system, as it is now: by the
// name that /etc/localtime leads to, and by the rule in it for a root that has no such name.
// It is empty where the machine has none, which means UTC.
func readZone(system string) agent.Zone {
	file := filepath.Join(system, "etc/localtime")
	z := agent.Zone{Name: zoneName(file)}
	f, err := os.Open(file)
	if err != nil {
		return agent.Zone{}
	}
	defer f.Close()
	if b, err := io.ReadAll(io.LimitReader(f, maxZoneFile)); err == nil {
		z.Rule = zoneRule(b)
	}
	return z.Valid()
}

// zoneName follows links to a path in a directory "zoneinfo", and returns the rest of it. A
// link there is a second name of a zone, and not followed.
func zoneName(file string) string {
	for range 8 { // more links than any distribution makes of it
		to, err := os.Readlink(file)
		if err != nil {
			return ""
		}
		if _, name, ok := strings.Cut(to, "zoneinfo/"); ok {
			return name
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(file), to)
		}
		file = to
	}
	return ""
}

// zoneRule returns the last line of a TZif file: how the zone's clocks go from now on, as in
// POSIX's TZ.
func zoneRule(b []byte) string {
	if !bytes.HasPrefix(b, []byte("TZif")) || len(b) < 5 || b[4] < '2' { // version 1 has no such line
		return ""
	}
	b, ok := bytes.CutSuffix(b, []byte("\n"))
	i := bytes.LastIndexByte(b, '\n')
	if !ok || i < 0 {
		return ""
	}
	return string(b[i+1:])
}
