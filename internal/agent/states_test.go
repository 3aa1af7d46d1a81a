package agent

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestTables: the tables in the comment are those that the code uses.
func TestTables(t *testing.T) {
	text, err := os.ReadFile("states.go")
	if err != nil {
		t.Fatal(err)
	}
	for who, table := range map[string]map[Type][phases]verdict{
		"guest says": fromGuest, "host says": fromHost, "call: guest": callFromGuest, "call: host": callFromHost,
	} {
		row := func(cells ...any) string {
			line := fmt.Sprintf("//\t%-13s", cells[0])
			for _, c := range cells[1:] {
				line += fmt.Sprintf("%-9s", c)
			}
			return strings.TrimRight(line, " ")
		}
		_, below, ok := strings.Cut(string(text), row(who, unknown, asked, running, ended)+"\n")
		if !ok {
			t.Fatalf("states.go has no table %q", who)
		}
		shown, _, _ := strings.Cut(below, "\n//\n")
		if n := strings.Count(shown, "\n") + 1; n != len(table) {
			t.Errorf("the table %q shows %d rows of %d", who, n, len(table))
		}
		for typ, v := range table {
			if want := row(typ, v[unknown], v[asked], v[running], v[ended]); !strings.Contains(shown+"\n", want+"\n") {
				t.Errorf("table %q: no row %q", who, want)
			}
		}
	}
}
