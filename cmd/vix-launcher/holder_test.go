package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/internal/clipboard"
)

// holderEnv is what the verbs take, with real holders, and configuration.
func holderEnv(t *testing.T, conf string, vars map[string]string) *env {
	t.Helper()
	self, err := exec.LookPath("vix-launcher") // the test binary, by that name
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "vix") // short: the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	all := map[string]string{"HOME": dir, "XDG_RUNTIME_DIR": dir, "XDG_CONFIG_HOME": dir}
	for k, v := range vars {
		all[k] = v
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "vix"), 0o700), os.WriteFile(filepath.Join(dir, "vix", "config.toml"), []byte(conf), 0o600)); err != nil {
		t.Fatal(err)
	}
	e := &env{
		getenv: func(name string) string { return all[name] },
		environ: func() (list []string) {
			for k, v := range all {
				list = append(list, k+"="+v)
			}
			return list
		},
		self: func() (string, error) { return self, nil }, stdin: strings.NewReader(""), stdout: new(bytes.Buffer), stderr: new(bytes.Buffer),
	}
	t.Cleanup(func() { _, _ = e.askHolder(holdRequest{Op: "clear"}) })
	return e
}

func holdText(t *testing.T, e *env, from, text string) {
	t.Helper()
	if err := e.hold(from, time.Minute, []clipboard.Item{{Kind: clipboard.Text, Data: []byte(text)}}); err != nil {
		t.Fatal(err)
	}
}

func heldNow(t *testing.T, e *env) holdReply {
	t.Helper()
	held, err := e.askHolder(holdRequest{Op: "status"})
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// The decision about one copy does not carry another, nor does one about none.
func TestPasteOfAnotherCopy(t *testing.T) {
	e := holderEnv(t, "", nil)
	holdText(t, e, "work", "harmless")
	first := heldNow(t, e)
	holdText(t, e, "vault", "password")
	second := heldNow(t, e)
	if first.ID == "" || first.ID == second.ID {
		t.Fatalf("ids %q, %q", first.ID, second.ID)
	}
	limits := map[string]int64{clipboard.Text: 100}
	for _, id := range []string{first.ID, ""} {
		_, err := e.askHolder(holdRequest{Op: "paste", ID: id, To: "web", Limits: limits, TTL: time.Minute})
		if err == nil || !strings.Contains(err.Error(), "something else was copied meanwhile") || strings.Contains(err.Error(), "\n") {
			t.Errorf("id %q: %v", id, err)
		}
	}
	// With its own, it comes as far as the VM, which does not run.
	if _, err := e.askHolder(holdRequest{Op: "paste", ID: second.ID, To: "web", Limits: limits, TTL: time.Minute}); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("its own id: %v", err)
	}
	if held := heldNow(t, e); held.From != "vault" || held.ID != second.ID {
		t.Errorf("%+v", held)
	}
}

// asked is a notification server whose user answers after answer has been called.
type asked struct {
	conn   *dbus.Conn
	answer func(body string) string
}

func (a *asked) GetCapabilities() ([]string, *dbus.Error) { return []string{"actions"}, nil }
func (a *asked) CloseNotification(uint32) *dbus.Error     { return nil }

func (a *asked) Notify(_ string, _ uint32, _, _, body string, actions []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	if len(actions) > 0 {
		go func() {
			_ = a.conn.Emit("/org/freedesktop/Notifications", "org.freedesktop.Notifications.ActionInvoked", uint32(1), a.answer(body))
		}()
	}
	return 1, nil
}

// sessionBus starts a bus with a notification server.
func sessionBus(t *testing.T, answer func(body string) string) (address string) {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("lacks: dbus-daemon")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, `<busconfig><type>session</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+conf, "--nofork", "--nosyslog", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	address = "unix:path=" + dir + "/bus"
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	a := &asked{conn, answer}
	if err := conn.Export(a, "/org/freedesktop/Notifications", "org.freedesktop.Notifications"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.Notifications", dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	return address
}

const askRule = `
[[clipboard.rule]]
from = "*"
to = "*"
action = "ask"
`

// Something else is copied while the user is asked: his yes is about what he was asked.
func TestCopyWhileAsked(t *testing.T) {
	var e *env
	var again atomic.Bool
	address := sessionBus(t, func(body string) string {
		if again.Load() && strings.Contains(body, "from VM work to VM web") {
			holdText(t, e, "vault", "password")
		}
		return "allow"
	})
	e = holderEnv(t, askRule, map[string]string{"DBUS_SESSION_BUS_ADDRESS": address})
	holdText(t, e, "work", "harmless")
	side := &clipSide{vm: "web"}
	if _, err := e.paste(t.Context(), side); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("nothing else was copied: %v", err)
	}
	again.Store(true)
	if _, err := e.paste(t.Context(), side); err == nil || !strings.Contains(err.Error(), "something else was copied meanwhile") {
		t.Errorf("vault's was pasted by the answer about work's: %v", err)
	}
	if held := heldNow(t, e); held.From != "vault" || held.Offered != "" {
		t.Errorf("%+v", held)
	}
}

// Of copies at one time the last one is held, and can be reached: no holder is left
// behind, or takes another's socket with it.
func TestCopiesAtOnce(t *testing.T) {
	e := holderEnv(t, "", nil)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if err := e.hold(fmt.Sprintf("vm%d", i), time.Minute, []clipboard.Item{{Kind: clipboard.Text, Data: []byte("x")}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if held := heldNow(t, e); !strings.HasPrefix(held.From, "vm") {
		t.Errorf("%+v", held)
	}
	if _, err := e.askHolder(holdRequest{Op: "clear"}); err != nil {
		t.Error(err)
	}
	if _, err := e.askHolder(holdRequest{Op: "status"}); !errors.Is(err, errNothingHeld) {
		t.Errorf("after clear: %v", err)
	}
	if name := filepath.Join(e.getenv("XDG_RUNTIME_DIR"), "vix", holderName); exists(name) {
		t.Errorf("%s is left", name)
	}
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// A kind that no limit is told for does not pass, empty or not.
func TestHolderLimits(t *testing.T) {
	h := &clipHolder{items: []clipboard.Item{{Kind: clipboard.Text}, {Kind: clipboard.Image, Data: []byte("12345")}}}
	for limits, want := range map[string]int{"": 0, "text": 1, "image": 0} {
		req := holdRequest{Limits: map[string]int64{}}
		if limits != "" {
			req.Limits[limits] = 4
		}
		if got := h.passing(req); len(got) != want {
			t.Errorf("limits of %q: %d pass, want %d", limits, len(got), want)
		}
	}
}
