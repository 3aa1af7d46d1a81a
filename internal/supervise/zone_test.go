package supervise

import (
	"os"
	"path/filepath"
	"testing"

	"vix/internal/agent"
)

// The zone is that of /etc/localtime at the moment: by name and rule where it is a link, by
// rule alone where it is a file.
func TestReadZone(t *testing.T) {
	const vienna = "CET-1CEST,M3.5.0,M10.5.0/3"
	tzif := func(version, rule string) string { return "TZif" + version + "\x00\n\x00data\n" + rule + "\n" }
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("usr/share/zoneinfo/Europe/Vienna", tzif("2", vienna))
	write("usr/share/zoneinfo/Etc/UTC", tzif("2", "UTC0"))
	write("usr/share/zoneinfo/old", tzif("\x00", vienna))
	write("usr/share/zoneinfo/evil", tzif("2", "UTC0\x1b[2J"))
	write("usr/share/zoneinfo/text", "CET-1\n")
	if err := os.Symlink("usr/share/zoneinfo/Europe/Vienna", filepath.Join(root, "static")); err != nil {
		t.Fatal(err)
	}
	local := filepath.Join(root, "etc/localtime")
	write("etc/localtime", "")
	for _, c := range []struct {
		link string
		want agent.Zone
	}{
		{"../usr/share/zoneinfo/Europe/Vienna", agent.Zone{Name: "Europe/Vienna", Rule: vienna}},
		{filepath.Join(root, "usr/share/zoneinfo/Etc/UTC"), agent.Zone{Name: "Etc/UTC", Rule: "UTC0"}},
		{"../static", agent.Zone{Name: "Europe/Vienna", Rule: vienna}},
		{"../usr/share/zoneinfo/old", agent.Zone{Name: "old"}},
		{"../usr/share/zoneinfo/evil", agent.Zone{Name: "evil"}},
		{"../usr/share/zoneinfo/text", agent.Zone{Name: "text"}},
		{"../usr/share/zoneinfo/../../../usr/share/zoneinfo/Europe/Vienna", agent.Zone{Rule: vienna}},
		{"nowhere", agent.Zone{}},
	} {
		if err := os.Remove(local); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(c.link, local); err != nil {
			t.Fatal(err)
		}
		if got := readZone(root); got != c.want {
			t.Errorf("%s: %+v, not %+v", c.link, got, c.want)
		}
	}
	if err := os.Remove(local); err != nil {
		t.Fatal(err)
	}
	if got := readZone(root); got != (agent.Zone{}) {
		t.Errorf("none: %+v", got)
	}
	write("etc/localtime", tzif("3", "<-03>3"))
	if got := readZone(root); got != (agent.Zone{Rule: "<-03>3"}) {
		t.Errorf("a file: %+v", got)
	}
}
