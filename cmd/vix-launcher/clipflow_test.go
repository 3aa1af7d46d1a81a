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
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/internal/clipboard"
	"vix/internal/clipflow"
)

// holderEnv is an env with real clipboard holders, and a configuration.
func holderEnv(t *testing.T, conf string, vars map[string]string) *env {
	t.Helper()
	self, err := exec.LookPath("vix-launcher") // the test binary, under that name
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "vix") // short, for a socket's path
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
	t.Cleanup(func() { _ = sidesOf(t, e).Clear() })
	return e
}

func sidesOf(t *testing.T, e *env) *clipflow.Sides {
	t.Helper()
	sides, err := e.sides()
	if err != nil {
		t.Fatal(err)
	}
	return sides
}

func holdText(t *testing.T, e *env, from, text string) {
	t.Helper()
	if err := sidesOf(t, e).Hold(from, time.Minute, []clipboard.Item{{Kind: clipboard.Text, Data: []byte(text)}}, e.startHolder); err != nil {
		t.Fatal(err)
	}
}

// requestLog is a notification server whose user answers after answer has been called.
type requestLog struct {
	conn   *dbus.Conn
	answer func(body string) string
}

func (a *requestLog) GetCapabilities() ([]string, *dbus.Error) { return []string{"actions"}, nil }
func (a *requestLog) CloseNotification(uint32) *dbus.Error     { return nil }

func (a *requestLog) Notify(_ string, _ uint32, _, _, body string, actions []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
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
	a := &requestLog{conn, answer}
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

// The user copies something else during the question: his yes applies to what he was asked.
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
	if held, err := sidesOf(t, e).Holding(); err != nil || held.From != "vault" || held.Recipient != "" {
		t.Errorf("%+v", held)
	}
}
