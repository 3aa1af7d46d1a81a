package main

import (
	"reflect"
	"slices"
	"testing"

	"vix/internal/agent"
)

func TestFindAccount(t *testing.T) {
	const passwd = `root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
short:x:7
bad:x:minus:7:::/bin/sh
huge:x:99999999999:7:::/bin/sh
1000:x:12:12::/x:/bin/sh
user:x:1000:1000:user:/home/user:/bin/sh`
	const group = "root:x:0:\nadm:x:4:daemon,root\nbroken\nsudo:x:27:user,rooter\nmany:x:y:root\n"
	for name, want := range map[string]account{
		"root":   {name: "root", home: "/root", shell: "/bin/bash", groups: []uint32{4}},
		"0":      {name: "root", home: "/root", shell: "/bin/bash", groups: []uint32{4}},
		"daemon": {name: "daemon", uid: 1, gid: 1, home: "/usr/sbin", shell: "/usr/sbin/nologin", groups: []uint32{4}},
		"user":   {name: "user", uid: 1000, gid: 1000, home: "/home/user", shell: "/bin/sh", groups: []uint32{27}},
	} {
		if got, ok := findAccount(passwd, group, name); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	for _, name := range []string{"nobody", "short", "bad", "huge", "x", "7"} {
		if got, ok := findAccount(passwd, group, name); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Another user's programs find the display, and nothing else of the ordinary user's.
func TestAccountEnvironment(t *testing.T) {
	g := &guest{user: agent.User{Name: "user", UID: 1000, GID: 1000}}
	g.env = environment(agent.Boot{User: g.user, Env: []string{"LANG=xx"}}, true, true)
	env := account{name: "root", home: "/root", shell: "/bin/dash"}.environment(g)
	for _, want := range []string{"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/dash", "LANG=xx", "WAYLAND_DISPLAY=/run/user/1000/wayland-0"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %q", want, env)
		}
	}
	if v := getEnv(env, "XDG_RUNTIME_DIR") + getEnv(env, "DBUS_SESSION_BUS_ADDRESS"); v != "" {
		t.Errorf("%q", v)
	}
	if !reflect.DeepEqual(account{ordinary: true}.environment(g), g.env) {
		t.Error("the ordinary user's environment is another")
	}
}

// Only a valid request is carried out.
func TestOwnCommand(t *testing.T) {
	argv, err := ownCommand(agent.Request{Receive: &agent.Receive{Path: "-x", Names: []string{"a b", ""}, Mode: 0o644}})
	if want := []string{copyName, `{"receive":{"path":"-x","names":["a b",""],"mode":420}}`}; err != nil || !slices.Equal(argv, want) {
		t.Errorf("%q, %v", argv, err)
	}
	if argv, err := ownCommand(agent.Request{}); err == nil {
		t.Errorf("%q", argv)
	}
	for _, args := range [][]string{nil, {"send"}, {"{}"}, {`{"send":{"paths":[]}}`}, {`{"menu":{}}`, "x"}, {`{"menu":{}}x`}} {
		if code := ownMain(args); code != 2 {
			t.Errorf("%q: status %d", args, code)
		}
	}
}
