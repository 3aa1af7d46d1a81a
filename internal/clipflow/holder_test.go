package clipflow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/clipboard"
)

// holderVar tells this binary that it is a holder's process, of the session whose
// runtime directory it names.
const holderVar = "VIX_TEST_HOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderVar); dir != "" {
		if err := beHolder(sidesIn(dir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func beHolder(sides *Sides) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	h, err := ReadHolder(sides, os.Stdin)
	if err != nil {
		return err
	}
	return h.Run(ctx, func() {
		fmt.Print(Ready)
		os.Stdout.Close()
	})
}

func sidesIn(dir string) *Sides {
	return &Sides{RuntimeDir: dir, Wayland: filepath.Join(dir, "wayland-0"), Config: func() (*config.Config, error) { return config.Parse("config.toml", nil) }}
}

// A session is one of its own, without VMs and a compositor.
type session struct {
	*Sides
	holders sync.WaitGroup
}

func newSession(t *testing.T) *session {
	t.Helper()
	dir, err := os.MkdirTemp("", "vix") // short: the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &session{Sides: sidesIn(dir)}
	t.Cleanup(func() {
		if err := s.Clear(); err != nil {
			t.Error(err)
		}
		s.holders.Wait()
	})
	return s
}

// hold has a real holder, another process, hold text.
func (s *session) hold(from, text string) error {
	return s.Hold(from, time.Minute, []clipboard.Item{{Kind: clipboard.Text, Data: []byte(text)}}, func() (*Child, error) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{holderVar + "=" + s.RuntimeDir}
		cmd.Stderr = os.Stderr
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			return nil, err
		}
		return &Child{Stdin: in, Stdout: out, Wait: cmd.Wait, Release: func() error {
			s.holders.Go(func() { _ = cmd.Wait() })
			return nil
		}}, nil
	})
}

func (s *session) now(t *testing.T) Holding {
	t.Helper()
	held, err := s.Holding()
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// The decision about one copy does not carry another, nor does one about none.
func TestPasteOfAnotherCopy(t *testing.T) {
	s := newSession(t)
	if err := s.hold("work", "harmless"); err != nil {
		t.Fatal(err)
	}
	first := s.now(t)
	if err := s.hold("vault", "password"); err != nil {
		t.Fatal(err)
	}
	second := s.now(t)
	if first.ID == "" || first.ID == second.ID {
		t.Fatalf("ids %q, %q", first.ID, second.ID)
	}
	limits := map[string]int64{clipboard.Text: 100}
	for _, id := range []string{first.ID, ""} {
		_, err := s.ask(request{Op: "paste", ID: id, To: "web", Limits: limits, TTL: time.Minute})
		if err == nil || !strings.Contains(err.Error(), "something else was copied meanwhile") || strings.Contains(err.Error(), "\n") {
			t.Errorf("id %q: %v", id, err)
		}
	}
	// With its own, it comes as far as the VM, which does not run.
	if _, err := s.ask(request{Op: "paste", ID: second.ID, To: "web", Limits: limits, TTL: time.Minute}); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("its own id: %v", err)
	}
	if held := s.now(t); held.From != "vault" || held.ID != second.ID {
		t.Errorf("%+v", held)
	}
}

// Of copies at one time the last one is held, and can be reached: no holder is left
// behind, or takes another's socket with it.
func TestCopiesAtOnce(t *testing.T) {
	s := newSession(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if err := s.hold(fmt.Sprintf("vm%d", i), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if held := s.now(t); !strings.HasPrefix(held.From, "vm") {
		t.Errorf("%+v", held)
	}
	if err := s.Clear(); err != nil {
		t.Error(err)
	}
	if _, err := s.Holding(); !errors.Is(err, ErrNothingHeld) {
		t.Errorf("after clear: %v", err)
	}
	name := filepath.Join(s.RuntimeDir, "vix", holderName)
	if _, err := os.Lstat(name); err == nil {
		t.Errorf("%s is left", name)
	}
}

// A kind that no limit is told for does not pass, empty or not.
func TestHolderLimits(t *testing.T) {
	h := &Holder{items: []clipboard.Item{{Kind: clipboard.Text}, {Kind: clipboard.Image, Data: []byte("12345")}}}
	for limits, want := range map[string]int{"": 0, "text": 1, "image": 0} {
		req := request{Limits: map[string]int64{}}
		if limits != "" {
			req.Limits[limits] = 4
		}
		if got := h.itemsFor(req); len(got) != want {
			t.Errorf("limits of %q: %d pass, want %d", limits, len(got), want)
		}
	}
}

// What the user chose of a history holds for the session; before, the configuration does.
func TestHistory(t *testing.T) {
	s := newSession(t)
	for _, own := range []bool{true, false} {
		conf := &config.Config{Clipboard: config.Clipboard{History: own}}
		if s.keepsHistory(conf) != own {
			t.Errorf("nothing was chosen, and %v does not hold", own)
		}
	}
	for _, keep := range []bool{true, false, true} {
		if err := s.KeepHistory(keep); err != nil {
			t.Fatal(err)
		}
		if s.keepsHistory(&config.Config{}) != keep {
			t.Errorf("%v does not hold", keep)
		}
	}
}
