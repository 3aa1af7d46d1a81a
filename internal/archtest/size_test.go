package archtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A wing is rooms that belong together, and the lines that they may have.
type wing struct {
	name  string
	lines int
	rooms []string // roots of mayImport, or packages below one
}

// wings has every package once. A bound is raised on purpose, together with
// ARCHITECTURE.md, and lowered when code goes: it is an eighth too high at most.
var wings = []wing{
	{"faces", 10700, []string{"cmd/vix-launcher", "cmd/vix-menu", "cmd/vix-waylandproxy"}},
	{"desktop", 11500, []string{"internal/clipflow", "internal/desktop", "internal/icon", "internal/launch", "internal/menu", "internal/menu/session"}},
	{"machine", 23100, []string{"internal/agent", "internal/balloon", "internal/boot", "internal/names", "internal/proc", "internal/qemu", "internal/rootfs", "internal/sandbox", "internal/scope", "internal/supervise", "internal/transfer", "internal/usb", "internal/vm"}},
	{"display", 19800, []string{"internal/clipboard", "internal/filter", "internal/gpu", "internal/label", "internal/ledger", "internal/relay", "internal/surface", "internal/trace", "internal/vhost", "internal/virtwl", "internal/wayland"}},
	{"ground", 5400, []string{"config", "internal/accept", "internal/display", "internal/durable", "internal/plain", "internal/termsafe"}},
	{"guest", 4000, []string{"cmd/vix-guest", "internal/guestproxy"}},
	{"tests", 11400, []string{"bench", "e2e", "internal/archtest", "internal/desktoptest", "internal/gpu/gputest", "internal/hostile", "internal/logtest", "internal/termsafe/termsafetest", "internal/vhost/vhosttest", "internal/wayland/waylandtest", "scripts"}},
}

// hostile lists the host's code that reads what a guest, or a process that a guest may have
// taken over, has chosen: packages, and files of packages that have another side too.
var hostile = []struct {
	name  string
	lines int
	paths []string
}{
	{"the guest's queues", 5000, []string{
		"internal/vhost", "internal/gpu", "internal/virtwl/host.go", "internal/virtwl/hostblob.go", "internal/virtwl/hostfence.go",
		"internal/virtwl/hostpipe.go", "internal/virtwl/protocol.go", "internal/virtwl/queue.go"}},
	{"Wayland", 13400, []string{
		"internal/wayland", "internal/relay", "internal/surface", "internal/filter", "internal/clipboard", "internal/label", "internal/trace"}},
	{"the agent's channel", 3900, []string{
		"internal/agent/check.go", "internal/agent/codec.go", "internal/agent/exact.go", "internal/agent/host.go", "internal/agent/link.go", "internal/agent/protocol.go",
		"internal/agent/states.go", "internal/agent/stream.go", "internal/names/host.go", "internal/names/names.go",
		"internal/supervise/channel.go", "internal/supervise/guest.go", "internal/supervise/names.go", "internal/supervise/program.go"}},
	{"processes that a guest may have taken over", 1250, []string{
		"internal/supervise/broker.go", "internal/supervise/display.go", "internal/supervise/takeover.go", "internal/qemu/qmp.go"}},
	{"files and text", 3800, []string{
		"internal/transfer/receive.go", "internal/transfer/stream.go", "internal/desktop/apps.go", "internal/desktop/entry.go",
		"internal/desktop/entryfile.go", "internal/desktop/icon.go", "internal/icon", "internal/launch/images.go", "internal/rootfs/image.go",
		"internal/plain", "internal/termsafe"}},
}

// nearest is the longest of roots that path is or lies below, "" for none.
func nearest(path string, roots []string) string {
	best := ""
	for _, r := range roots {
		if within(path, r) && len(r) > len(best) {
			best = r
		}
	}
	return best
}

// written counts the lines of a file that somebody wrote: those of generated code are none.
func written(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.HasPrefix(b, []byte("// Code generated ")) {
		return 0
	}
	return bytes.Count(b, []byte("\n"))
}

// thousands writes a number as a reader wants it.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// checkBound holds a bound against what there is, and ARCHITECTURE.md against both.
func checkBound(t *testing.T, doc, name string, bound, lines int, row string) {
	t.Helper()
	if lines > bound || bound > lines+lines/8 {
		t.Errorf("%s: %d lines, and a bound of %d: if that is meant, make it %d in size_test.go and ARCHITECTURE.md", name, lines, bound, (lines+lines/20+99)/100*100)
	}
	if !strings.Contains(doc, row+"\n") {
		t.Errorf("ARCHITECTURE.md lacks the line\n%s", row)
	}
}

func TestWings(t *testing.T) {
	doc, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	var rooms []string
	lines := map[string]int{} // by room
	for _, w := range wings {
		for _, r := range w.rooms {
			if slices.Contains(rooms, r) {
				t.Errorf("%s is in two wings", r)
			}
			rooms = append(rooms, r)
		}
	}
	for _, p := range packages(t) {
		room := nearest(p.short(), rooms)
		if room == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s is in no wing: add it to wings", p.short())
		}
		for _, f := range p.GoFiles {
			lines[room] += written(t, filepath.Join(p.Dir, f))
		}
	}
	shipped, bound := 0, 0
	for _, w := range wings {
		n := 0
		for _, r := range w.rooms {
			if lines[r] == 0 {
				t.Errorf("%s is in a wing, and there is nothing in it", r)
			}
			n += lines[r]
		}
		if w.name != "tests" {
			shipped, bound = shipped+n, bound+w.lines
		}
		checkBound(t, string(doc), "wing "+w.name, w.lines, n, fmt.Sprintf("| %s | %s | %s |", w.name, shortNames(w.rooms), thousands(w.lines)))
	}
	checkBound(t, string(doc), "all that ships", bound, shipped, fmt.Sprintf("| all that ships | | %s |", thousands(bound)))
	t.Logf("%d lines ship", shipped)
}

func TestHostileBytes(t *testing.T) {
	doc, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, h := range hostile {
		all = append(all, h.paths...)
	}
	lines := map[string]int{} // by path
	for _, p := range packages(t) {
		if p.forTests() || p.Name == "main" {
			continue
		}
		for _, f := range p.GoFiles {
			for _, path := range []string{p.short(), p.short() + "/" + f} {
				if slices.Contains(all, path) {
					lines[path] += written(t, filepath.Join(p.Dir, f))
				}
			}
		}
	}
	total, bound := 0, 0
	for _, h := range hostile {
		n := 0
		for _, path := range h.paths {
			if lines[path] == 0 {
				t.Errorf("%s is in the list of what reads hostile bytes, and is not there", path)
			}
			n += lines[path]
		}
		total, bound = total+n, bound+h.lines
		checkBound(t, string(doc), "hostile bytes: "+h.name, h.lines, n, fmt.Sprintf("| %s | %s | %s |", h.name, shortNames(h.paths), thousands(h.lines)))
	}
	checkBound(t, string(doc), "hostile bytes", bound, total, fmt.Sprintf("| all that reads hostile bytes | | %s |", thousands(bound)))
	t.Logf("%d lines of the host read hostile bytes", total)
}

// shortNames lists paths as ARCHITECTURE.md has them: files of one package together.
func shortNames(paths []string) string {
	var names []string
	last := ""
	for _, p := range paths {
		p = strings.TrimPrefix(p, "internal/")
		dir, file := filepath.Split(p)
		if strings.HasSuffix(file, ".go") && dir == last {
			names[len(names)-1] += ", " + strings.TrimSuffix(file, ".go")
			continue
		}
		last = dir
		name := strings.TrimSuffix(p, ".go")
		if !strings.HasSuffix(file, ".go") {
			last = ""
		}
		names = append(names, name)
	}
	return strings.Join(names, "; ")
}
