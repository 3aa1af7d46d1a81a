package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/proc"
	"vix/internal/vm"
)

// A guest without a network that asks for names all the same is refused, and no more.
func TestNoNames(t *testing.T) {
	b := newBench(t)
	b.do("names", "exec cat")
	s := b.goRun(b.start("t", "sleep", "60"))
	b.state(s)
	b.waitFor("a refusal", func() bool {
		text, _ := os.ReadFile(filepath.Join(b.dir, "vix", "t", proc.LogName))
		return strings.Contains(string(text), "names: call: refused by the host: the host takes no such calls")
	})
	if st, err := b.reg.State(t.Context(), "t"); err != nil || len(st.Notes) != 0 {
		t.Errorf("%v, the notes are %q", err, st.Notes)
	}
	s.signals <- unix.SIGTERM
	<-s.done
}

// A guest's name server that ends, or that says what no guest's may, is followed by another.
func TestNamesComeAgain(t *testing.T) {
	for what, first := range map[string]string{"ends": "exit 0", "is hostile": `printf '\1\0\0\0\7\14\0'; exec cat`} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			starts := filepath.Join(b.dir, "starts")
			b.do("names", "echo >>"+starts+`; [ $(wc -l <`+starts+`) -gt 1 ] || { `+first+`; }; exec cat 3>&1 >/dev/null`)
			s := b.start("t", "sleep", "60")
			launch := b.launch("t")
			launch.VM.Net = config.NetNAT
			launch.Parts.System = filepath.Join(t.TempDir(), "test")
			conf := filepath.Join(launch.Parts.System, resolvConf)
			if err := errors.Join(os.MkdirAll(filepath.Dir(conf), 0o700), os.WriteFile(conf, []byte("search lan\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
			s.run.Launch = func() (vm.Launch, error) { return launch, nil }
			b.goRun(s)
			b.state(s)
			b.waitFor("another name server, and a note", func() bool {
				text, _ := os.ReadFile(starts)
				st, err := b.reg.State(t.Context(), "t")
				if err != nil {
					t.Fatal(err)
				}
				return len(text) == 2 && strings.Count(strings.Join(st.Notes, "\n"), "cannot resolve names") == 1
			})
			text, _ := os.ReadFile(filepath.Join(b.dir, "vix", "t", proc.LogName))
			if !strings.Contains(string(text), "search list: [lan]") {
				t.Error("the guest boots without the search list")
			}
			if !strings.Contains(string(text), "the guest asks for names again: the script [2J has ended") {
				t.Error("why names are asked for again is not in the log")
			}
			s.signals <- unix.SIGTERM
			<-s.done
		})
	}
}
