package menu

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func items(names ...string) []Item {
	var list []Item
	for _, n := range names {
		name, generic, _ := strings.Cut(n, "|")
		list = append(list, Item{ID: name, Name: name, Generic: generic, VM: "vm"})
	}
	return list
}

func hits(m *Model) []string {
	var ids []string
	for i := range m.Count() {
		it, _ := m.Line(i)
		ids = append(ids, it.ID)
	}
	return ids
}

func TestRanking(t *testing.T) {
	list := items("Files|File manager", "Firefox|Web browser", "Profiler", "GTK Demo", "Foot|Terminal", "Café", "Print Editor", "File Roller|Archives", "Zürich")
	for _, c := range []struct{ query, want string }{
		{"fi", "Files Firefox File Roller Profiler"},
		{"files", "Files"},
		{"web", "Firefox"},
		{"cafe", "Café"},
		{"zurich", "Zürich"},
		{"ZÜR", "Zürich"},
		{"ed pri", "Print Editor"},
		{"gdm", "GTK Demo"}, // its letters, scattered
		{"terminal", "Foot"},
		{"file man", "Files"},
		{"vm foot", "Foot"},
		{"nothing", ""},
		{"  ", "Café File Roller Files Firefox Foot GTK Demo Print Editor Profiler Zürich"},
	} {
		m := NewModel(list, nil, 9)
		m.Insert(c.query)
		got := hits(m)
		if c.query == "fi" { // equal but for their length
			got = slices.Clone(got)
			slices.Sort(got[:3])
			c.want = "File Roller Files Firefox Profiler"
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: %q, want %q", c.query, got, c.want)
		}
	}
}

// What is used much comes first among what matches about as well, and never before a
// name that was typed in full.
func TestUseRanks(t *testing.T) {
	list := items("Foot", "Foot Client", "Firefox")
	list[1].Use = 30
	m := NewModel(list, nil, 9)
	if got := hits(m)[0]; got != "Foot Client" {
		t.Errorf("without a query, %q comes first", got)
	}
	m.Insert("f")
	if got := hits(m)[0]; got != "Foot Client" {
		t.Errorf("%q comes first of what begins with f", got)
	}
	m.Insert("oot")
	if got := hits(m)[0]; got != "Foot" {
		t.Errorf("%q comes before Foot, which was typed", got)
	}
}

var text = rapid.StringOfN(rapid.SampledFrom([]rune("aabcdeé ÄZ漢-.")), 1, 12, -1)

func drawItems(t *rapid.T) []Item {
	var list []Item
	for i, n := range rapid.SliceOfN(text, 1, 20).Draw(t, "names") {
		list = append(list, Item{ID: fmt.Sprint(i), Name: n, Generic: rapid.SampledFrom([]string{"", "abc", "Zed"}).Draw(t, "generic"),
			VM: "vm", Use: rapid.Float64Range(0, 100).Draw(t, "use")})
	}
	return list
}

// Typing on narrows; the name that is typed is first; use alone never hides anything;
// what is marked are letters of the name that the query has.
func TestMatchProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawItems(t)
		query := rapid.StringOfN(rapid.SampledFrom([]rune("abcdez漢- ")), 1, 6, -1).Draw(t, "query")
		m := NewModel(list, nil, 5)
		before := hits(m)
		if len(before) != len(list) {
			t.Fatal("an empty query hides entries")
		}
		for _, r := range query {
			m.Insert(string(r))
			now := hits(m)
			for _, id := range now {
				if !slices.Contains(before, id) {
					t.Fatalf("typing %q brings %s back", r, id)
				}
			}
			before = now
		}
		if at, once := hits(m), NewModel(list, nil, 5); len(query) > 0 {
			once.Insert(query)
			if want := hits(once); !slices.Equal(at, want) {
				t.Fatalf("%q typed: %v, at once: %v", query, at, want)
			}
		}
		for i := range m.Count() {
			it, _ := m.Line(i)
			name := []rune(fold(it.Name))
			for at := range Marks(query, it.Name) {
				if at >= len(name) || !strings.ContainsRune(fold(query), name[at]) {
					t.Fatalf("%q in %q: mark %d", query, it.Name, at)
				}
			}
		}
		exact := list[rapid.IntRange(0, len(list)-1).Draw(t, "which")]
		if len(words(exact.Name)) == 1 && !strings.ContainsAny(exact.Name, " ") {
			m = NewModel(list, nil, 5)
			m.Insert(exact.Name)
			if it, _ := m.Line(0); it == nil || fold(it.Name) != fold(exact.Name) {
				t.Fatalf("%q is typed, and is not first: %v", exact.Name, hits(m))
			}
		}
	})
}

// Whatever keys come, what is selected is shown, and exists.
func TestModelProperties(t *testing.T) {
	actions := []Action{{ID: "a", Name: "%n in %v", Running: true, Stopped: true}, {ID: "b", Running: true}}
	rapid.Check(t, func(t *rapid.T) {
		m := NewModel(drawItems(t), actions, rapid.IntRange(1, 7).Draw(t, "lines"))
		for range rapid.IntRange(1, 40).Draw(t, "keys") {
			n := rapid.IntRange(-9, 9).Draw(t, "n")
			switch rapid.IntRange(0, 12).Draw(t, "key") {
			case 0:
				m.Insert(text.Draw(t, "text"))
			case 1:
				m.Backspace(n > 0)
			case 2:
				m.Delete()
			case 3:
				m.Kill(n > 0)
			case 4:
				m.Caret(n)
			case 5:
				m.Move(n, n%2 == 0)
			case 6:
				m.Select(n)
			case 7:
				m.Scroll(n)
			case 8:
				m.Open()
			case 9:
				m.Back()
			case 10:
				m.SetVMs(map[string]VM{"vm": {State: []string{"", "running"}[max(n, 0)%2]}})
			case 12:
				m.SetActions(actions[:max(n, 0)%3])
			case 11:
				m.SetItems(drawItems(t))
			}
			count, at, top := m.Count(), m.At(), m.Top()
			if count == 0 && (at != 0 || top != 0) || count > 0 && (at < 0 || at >= count || top < 0 || at < top || at >= top+m.Lines) {
				t.Fatalf("%d lines, line %d is selected, the screen begins at %d", count, at, top)
			}
			if q, at := m.Query(); at < 0 || at > len([]rune(q)) {
				t.Fatalf("the cursor is at %d in %q", at, q)
			}
			if it, a := m.Line(m.At()); count > 0 && (it == nil || (a != nil) != (m.Pane() != nil)) {
				t.Fatal("the line that is selected is not there")
			}
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	for _, n := range []int{500, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var list []Item
			for i := range n {
				list = append(list, Item{ID: fmt.Sprint(i), Name: fmt.Sprintf("Program %d of many", i), Generic: "Something to be found", VM: "work"})
			}
			m := NewModel(list, nil, 9)
			for b.Loop() {
				m.Insert("m")
				m.Insert("an")
				m.Kill(true)
			}
		})
	}
}

// TestRunningFirst: of two programs that match as well, that of a VM that runs comes first,
// whatever its name; what is used more is still before it.
// As long as nothing is typed, the list is by name.
func TestRunningFirst(t *testing.T) {
	m := NewModel(nil, nil, 5)
	m.SetVMs(map[string]VM{"work": {State: "running"}})
	m.SetItems([]Item{
		{ID: "demo/foot", Name: "Foot", VM: "demo"}, {ID: "work/foot", Name: "Foot", VM: "work"},
		{ID: "demo/food", Name: "Food", VM: "demo", Use: 9}, {ID: "work/zoo", Name: "Zoo", VM: "work"},
	})
	for query, want := range map[string][]string{
		"":   {"demo/food", "demo/foot", "work/foot", "work/zoo"},
		"fo": {"demo/food", "work/foot", "demo/foot"},
	} {
		m.Kill(true)
		m.Insert(query)
		var got []string
		for i := range m.Count() {
			it, _ := m.Line(i)
			got = append(got, it.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
}
