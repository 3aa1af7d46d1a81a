package desktop

import (
	"fmt"
	"strings"
	"testing"
)

// A root of a few KiB must not hold up who reads its menu (vix desktop sync, vix menu, the
// D-Bus service): a path through links has a bounded number of steps, and a command of field
// codes. Both are seen in what is left out.
func TestAttackRootsThatTakeLong(t *testing.T) {
	files := map[string]string{"d/x": "", "l38": "", "usr/bin/prog": ""}
	step := strings.Repeat("d/../", 800)
	for k := range 38 {
		files[fmt.Sprint("l", k)] = "->/" + step + fmt.Sprint("l", k+1)
	}
	files["usr/share/applications/links.desktop"] = app("TryExec=/l0", "Exec=/l0")
	files["usr/share/applications/codes.desktop"] = app("Exec=prog " + strings.Repeat("%k", 2040))
	files["usr/share/applications/good.desktop"] = app("Exec=prog %c %F")
	root := tree(t, files)
	if _, err := resolve(root, "l0"); err == nil || !strings.Contains(err.Error(), "too long a way") {
		t.Errorf("links: %v", err)
	}
	apps, notes, err := Apps(root, "vm")
	if err != nil || len(apps) != 1 || apps[0].ID != "good" {
		t.Errorf("%v, %v", apps, err)
	}
	if text := strings.Join(notes, "\n"); !strings.Contains(text, "codes.desktop: the key Exec: more than 64 field codes") {
		t.Errorf("notes: %s", text)
	}
}
