package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// checkSettings checks that the settings of v, written as a file, are v.
func checkSettings(t *testing.T, c *Config, v VM) {
	t.Helper()
	list, err := c.VMSettings(v.Name)
	if err != nil {
		t.Fatal(err)
	}
	text := "[vm." + v.Name + "]\n"
	for _, s := range list {
		if s.Value != nil {
			text += s.Key + " = " + s.Text() + "\n"
		}
	}
	again, err := Parse("again", []byte(text))
	if err != nil || len(again.Errors) > 0 {
		t.Fatalf("%v, %v of\n%s", err, again, text)
	}
	v.NoColor = false // the text says what was chosen
	if w := again.VMs[v.Name]; fmt.Sprintf("%+v", w) != fmt.Sprintf("%+v", v) {
		t.Fatalf("%s\nis  %+v\nnot %+v", text, w, v)
	}
}

const settingsFile = `[defaults]
memory = "1G"
limits = { surfaces = 10, popups = 3 }
color = "teal"
[menu]
lines = 12
[clipboard]
ttl = "1m"
[[clipboard.rule]]
from = "web"
to = "host"
action = "ask"
limit = "1M"
[vm.web]
memory = "2G"
programs = ["firefox"]
gui = false
net = "nat"
publish = ["8080:80"]
shares = ["~/x:rw", "staging"]
usb = ["1.2", "046D:C52B"]
desktop = []
packages = []
tag = "the web"
kernel = "/k"
[vm.web.limits]
popups = 4
`

func TestSettings(t *testing.T) {
	c, err := Parse("c", []byte(settingsFile))
	if err != nil {
		t.Fatal(err)
	}
	checkSettings(t, c, c.VMs["web"])
	show := func(list []Setting) (text string) {
		for _, s := range list {
			text += s.Key + " = " + s.Text() + " (" + s.Where() + ")\n"
		}
		return text
	}
	web, err := c.VMSettings("web")
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.VMSettings("other")
	if err != nil {
		t.Fatal(err)
	}
	if len(other) != len(keys)+1 { // two limits
		t.Errorf("%d settings", len(other))
	}
	for list, want := range map[string]string{
		show(web): `memory = "2G" ([vm.web], line 15)
limits.popups = 4 ([vm.web], line 27)
limits.surfaces = 10 ([defaults], line 3)
color = "#0f9d9d" ([defaults], line 4)
cpus = 2 (built-in default)
gui = false ([vm.web], line 17)
usb = ["1-2", "046d:c52b"] ([vm.web], line 21)
desktop = [] ([vm.web], line 22)
initrd = not set (built-in default)
shares = ["~/x:/mnt/x:rw", "staging"] ([vm.web], line 20)
tag = "the web" ([vm.web], line 24)`,
		show(other): `tag = "other" (the VM's name)
memory = "1G" ([defaults], line 2)`,
		show(c.DefaultSettings()): `memory = "1G" ([defaults], line 2)
net = "none" (built-in default)`,
		show(c.MenuSettings()): `lines = 12 ([menu], line 6)
accent = not set (built-in default)`,
		show(c.ClipboardSettings()): `history = "off" (built-in default)
ttl = "1m" ([clipboard], line 8)
rule 1 = { action = "ask", from = "web", kinds = ["text", "image"], limit = "1M", strip = true, to = "host", ttl = "1m" } ([clipboard.rule], line 9)`,
	} {
		for line := range strings.SplitSeq(want, "\n") {
			if !strings.Contains("\n"+list, "\n"+line+"\n") {
				t.Errorf("no line %q in\n%s", line, list)
			}
		}
	}
	if strings.Contains(show(c.DefaultSettings()), "tag") {
		t.Error("a VM's own key is among the defaults")
	}
}

// Every key that can be set is given back.
func TestEveryKeyIsGivenBack(t *testing.T) {
	c, err := Parse("c", []byte(settingsFile+"[vm.b]\ninitrd = \"/i\"\nworkspace = \"3\"\nallow = [\"a\"]\ndeny = [\"b\"]\nmime = [\"a/b\"]\n"))
	if err != nil || len(c.Errors) > 0 {
		t.Fatal(err, c)
	}
	web, b := c.VMs["web"], c.VMs["b"]
	for _, k := range keys {
		unset := func(x any) bool { return reflect.ValueOf(x).IsZero() }
		if k.name != "gui" && unset(k.get(&web)) && unset(k.get(&b)) {
			t.Errorf("%s: %v, %v", k.name, k.get(&web), k.get(&b))
		}
	}
	checkSettings(t, c, b)
}
