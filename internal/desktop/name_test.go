package desktop

import (
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"pgregory.net/rapid"

	"vix/config"
)

func TestEntryName(t *testing.T) {
	for _, c := range []struct{ vm, id, want string }{
		{"web", "org.gnome.Maps", "dev.vix.web.org.gnome.Maps"},
		{"my-vm", "foot", "dev.vix.my_2dvm.foot"},
		{"my_vm", "foot", "dev.vix.my_5fvm.foot"},
		{"1p", "python3.13", "dev.vix._31p.python3._313"},
		{"w", "a+b", "dev.vix.w.a_2bb"},
		{"w", "a_b", "dev.vix.w.a_5fb"},
		{"w", "a..b", "dev.vix.w.a._.b"},
	} {
		got := EntryName(c.vm, c.id)
		if vm, id, err := ParseEntryName(got); got != c.want || vm != c.vm || id != c.id || err != nil {
			t.Errorf("%s %s: %s, want %s; back: %q %q %v", c.vm, c.id, got, c.want, vm, id, err)
		}
	}
	for _, name := range []string{
		"", "dev.vix", "dev.vix.", "dev.vix.web", "dev.vix.web.", "dev.vix..foot", "dev.vix.Web.foot", "dev.vix.my-vm.foot", "dev.vix.web.a-b",
		"dev.vix.web.a_b", "dev.vix.web._61", "dev.vix.web.a_2B", "dev.vix.web.a_2", "dev.vix.web.3a", "dev.vix.host.foot", "dev.vix._2dweb.foot",
		"dev.vix.web.a_+1", "dev.vix.web.a_ 1", "dev.vix.web.__", "com.dev.vix.web.a",
	} {
		if vm, id, err := ParseEntryName(name); err == nil {
			t.Errorf("%q is %q of %q", name, id, vm)
		}
	}
}

// No two programs share a name or a path of the bus, or a file's name: the VM and the id
// can be told from the name, and the name from the path.
func TestEntryNamesAreApart(t *testing.T) {
	vms := rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,31}`).Filter(func(s string) bool { return config.CheckName(s) == nil })
	ids := rapid.StringMatching(`[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}`).Filter(func(s string) bool { return plainName(s) && len(encodeID(s)) <= maxEncoded })
	rapid.Check(t, func(t *rapid.T) {
		vm, id := vms.Draw(t, "vm"), ids.Draw(t, "id")
		name := EntryName(vm, id)
		if v, i, err := ParseEntryName(name); err != nil || v != vm || i != id {
			t.Fatalf("%s: %q %q %v", name, v, i, err)
		}
		at := objectPath(name)
		if !at.IsValid() || strings.ContainsRune(name, '-') || strings.ReplaceAll(string(at)[1:], "/", ".") != name {
			t.Fatalf("%s: the path %s is not its own", name, at)
		}
		if n := len(".vix-" + name + ".desktop.tmp"); n > 255 {
			t.Fatalf("%s: the name of its file has %d bytes", name, n)
		}
		if !ours.MatchString(name + ".desktop") {
			t.Fatalf("%s: not removed by a sync", name)
		}
	})
}

// What an id or a VM may be was one of these; each pair had one path.
func TestPathsThatCollided(t *testing.T) {
	seen := map[dbus.ObjectPath]string{}
	for _, p := range [][2]string{
		{"my-vm", "a"}, {"my_vm", "a"}, {"v", "a-b"}, {"v", "a_b"}, {"v", "a+b"}, {"v", "_1"}, {"v", "1"}, {"v", "a._1"}, {"v", "a.1"}, {"v", "a..b"}, {"v", "a._.b"},
	} {
		at := objectPath(EntryName(p[0], p[1]))
		if other, ok := seen[at]; ok {
			t.Errorf("%s of %s and %s are at %s", p[1], p[0], other, at)
		}
		seen[at] = p[1] + " of " + p[0]
	}
}
