package soak

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

var clients = flag.Int("clients", 0, "short-lived Wayland clients in one VM; 0: none")

// clientsAtOnce is how many clients one exec runs, one after another: it has to end within
// hang on a busy machine without KVM.
const clientsAtOnce = 10

// clientsScript runs so many clients: copies, which have a window for a moment and then wait
// for the next to take the selection from them; lists of globals; and a terminal.
const clientsScript = `for i in $(seq %d); do case $(($i %% 10)) in
1) foot true;;
3|6|9) wayland-info >/dev/null;;
*) printf $i | wl-copy;;
esac || exit 1; done`

// bufferSlack is how many buffers more the terminal that stays may have: it takes another when
// the compositor still shows those that it has. Each may be a blob, of which the display, QEMU
// and every virtiofsd have a descriptor. What leaks, leaks with each client.
const bufferSlack = 3

// TestClients runs many short-lived clients in one VM, and compares what every process has
// before and after: descriptors, threads, mappings, memory.
func TestClients(t *testing.T) {
	if *clients == 0 {
		t.Skip("2,000 clients take an hour without KVM: make soak, or -clients")
	}
	w := newWorld(t)
	w.vms = w.vms[:1]
	if err := w.holdAll(); err != nil {
		t.Fatal(err)
	}
	p, err := desktoptest.Command(t, w.command("run", "--vm", "a", "foot", "--app-id=held", "sleep", "1000000"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.WaitWindow(t, desktoptest.ByAppID("vix.a.held"))
	defer p.Stop()
	done := 0
	work := func(n int) {
		t.Helper()
		for begin := time.Now(); n > 0; n -= clientsAtOnce {
			k := min(n, clientsAtOnce)
			if r := w.vix("exec", "a", "--", "sh", "-c", fmt.Sprintf(clientsScript, k)); r.code != 0 || r.hung {
				t.Fatalf("after %d clients: %v", done, r)
			}
			if done += k; done%100 == 0 {
				t.Logf("%d clients, %.1f minutes", done, time.Since(begin).Minutes())
			}
		}
	}
	work(2 * clientsAtOnce)
	before := w.idle(nil)
	base := map[string]use{}
	for name, u := range before {
		u.descriptors += bufferSlack
		base[name] = u
	}
	begin := time.Now()
	work(*clients / 2)
	middle := w.idle(base)
	work(*clients - *clients/2)
	after := w.idle(base)
	table := fmt.Sprintf("%d clients in %.1f minutes, after %d; own is anonymous memory\n%s", *clients, time.Since(begin).Minutes(), 2*clientsAtOnce,
		tableOf([]string{"before", "middle", "after"}, before, middle, after))
	t.Logf("\n%s", table)
	out := "../../build/e2e/clients.txt"
	if err := errors.Join(os.MkdirAll(filepath.Dir(out), 0o755), os.WriteFile(out, []byte(table), 0o644)); err != nil {
		t.Error(err)
	}
	for _, text := range grown(base, after) {
		t.Error(text)
	}
	for _, text := range grewOwn(middle, after) {
		t.Error(text)
	}
	w.end()
}

// grewOwn tells whose own memory grew in the second of two halves of the work.
func grewOwn(middle, after map[string]use) (list []string) {
	for name, a := range after {
		slack := ownSlack
		if strings.HasSuffix(name, "qemu") {
			slack = ownSlackQEMU
		}
		if m := middle[name]; a.own > m.own+slack {
			list = append(list, fmt.Sprintf("%s: its own memory grew from %d KiB to %d in the second half, by more than %d", name, m.own, a.own, slack))
		}
	}
	return list
}
