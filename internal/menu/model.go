package menu

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
)

// A Model is the state of an open menu: the query, the matches, the selection. Its methods
// are the actions of keys, wheel and fingers.
type Model struct {
	Lines int // rows that are shown at once

	items []Item
	keys  []key
	vms   map[string]VM

	query  []rune
	cursor int // in query

	hits []int // indices of items, the best first
	sel  int   // in the list that is shown; 0 when it is empty
	top  int   // first row that is shown

	actions []Action
	pane    []Action // the second pane's lines; nil for the first
	paneOf  int      // the item that it is of
	back    [3]int   // sel, top and paneOf's place of the first pane
}

// NewModel returns a menu of items, in which lines rows are shown at once.
func NewModel(items []Item, actions []Action, lines int) *Model {
	m := &Model{Lines: max(lines, 1), actions: actions, vms: map[string]VM{}}
	m.SetItems(items)
	return m
}

// maxQuery is more than anybody types to find a program.
const maxQuery = 256

// SetItems puts others in the place of the items. What is selected stays so, if it is
// still there.
func (m *Model) SetItems(items []Item) {
	id := ""
	if it := m.Selected(); it != nil && (m.sel > 0 || len(m.query) > 0) {
		id = it.ID
	}
	m.items, m.keys = items, make([]key, len(items))
	order := make([]int, len(items))
	for i, it := range items {
		m.keys[i].name, order[i] = fold(it.Name), i
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(m.keys[a].name, m.keys[b].name) })
	for place, i := range order {
		m.keys[i].order = int32(place)
	}
	m.pane = nil
	m.filter(order)
	for i, h := range m.hits {
		if m.items[h].ID == id {
			m.sel = i
		}
	}
	m.show()
}

// SetVMs puts others in the place of the VMs' states.
func (m *Model) SetVMs(vms map[string]VM) {
	m.vms = vms
	if m.pane != nil {
		m.pane = m.actionsFor(m.items[m.paneOf])
		m.Select(m.sel)
	}
}

// SetActions puts others in the place of the actions.
func (m *Model) SetActions(actions []Action) {
	m.actions = actions
	m.SetVMs(m.vms)
}

// VM is the state of an item's VM.
func (m *Model) VM(it Item) VM { return m.vms[it.VM] }

// filter finds the hits anew, among items by their indices, and selects the best: of equals,
// those of VMs that run, and then by name. As long as nothing is typed the list is by name.
func (m *Model) filter(among []int) {
	ws := words(string(m.query))
	type hit struct {
		i     int
		score float64
	}
	hits := make([]hit, 0, len(among))
	for _, i := range among {
		if len(ws) > 0 && m.keys[i].others == nil {
			m.keys[i].others = others(m.items[i])
		}
		if s := m.keys[i].score(ws, bonus(m.items[i].Use)); s > 0 {
			hits = append(hits, hit{i, s})
		}
	}
	running := func(i int) int {
		if len(ws) > 0 && m.vms[m.items[i].VM].State != "" {
			return 1
		}
		return 0
	}
	slices.SortFunc(hits, func(a, b hit) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(running(b.i), running(a.i)), cmp.Compare(m.keys[a.i].order, m.keys[b.i].order))
	})
	m.hits = make([]int, len(hits))
	for k, h := range hits {
		m.hits[k] = h.i
	}
	m.sel, m.top = 0, 0
}

// all are the indices of all items.
func (m *Model) all() []int {
	list := make([]int, len(m.items))
	for i := range list {
		list[i] = i
	}
	return list
}

// Query returns the typed text, and the cursor's place in it.
func (m *Model) Query() (string, int) { return string(m.query), m.cursor }

// Edit changes the query by a function of its runes and the cursor. The second pane
// closes.
func (m *Model) edit(f func(q []rune, at int) ([]rune, int)) {
	m.Back()
	q, at := f(slices.Clone(m.query), m.cursor)
	if len(q) > maxQuery {
		return
	}
	was := string(m.query)
	m.query, m.cursor = q, min(max(at, 0), len(q))
	switch now := string(q); {
	case now == was:
	case strings.HasPrefix(now, was):
		m.filter(m.hits) // what is typed behind never brings one back
	default:
		m.filter(m.all())
	}
}

// Insert types text, without characters that cannot be printed.
func (m *Model) Insert(text string) {
	var add []rune
	for _, r := range text {
		if unicode.IsPrint(r) {
			add = append(add, r)
		}
	}
	if len(add) > 0 {
		m.edit(func(q []rune, at int) ([]rune, int) { return slices.Insert(q, at, add...), at + len(add) })
	}
}

// Backspace removes the character, or the word, before the cursor.
func (m *Model) Backspace(word bool) {
	m.edit(func(q []rune, at int) ([]rune, int) {
		from := max(at-1, 0)
		if word {
			from = wordBefore(q, at)
		}
		return slices.Delete(q, from, at), from
	})
}

// Delete removes the character after the cursor.
func (m *Model) Delete() {
	m.edit(func(q []rune, at int) ([]rune, int) { return slices.Delete(q, at, min(at+1, len(q))), at })
}

// Kill removes all text before the cursor, or all text after it.
func (m *Model) Kill(before bool) {
	m.edit(func(q []rune, at int) ([]rune, int) {
		if before {
			return q[at:], 0
		}
		return q[:at], at
	})
}

// Caret moves the cursor by characters.
func (m *Model) Caret(by int) {
	m.cursor = min(max(m.cursor+by, 0), len(m.query))
}

func wordBefore(q []rune, at int) int {
	for at > 0 && unicode.IsSpace(q[at-1]) {
		at--
	}
	for at > 0 && !unicode.IsSpace(q[at-1]) {
		at--
	}
	return at
}

// Count is how many lines the pane that is shown has; Top the first on the screen.
func (m *Model) Count() int {
	if m.pane != nil {
		return len(m.pane)
	}
	return len(m.hits)
}

// Top is the first line that is shown.
func (m *Model) Top() int { return m.top }

// At is which line is selected.
func (m *Model) At() int { return m.sel }

// Move moves the selection; at the ends it goes round if wrap is set.
func (m *Model) Move(by int, wrap bool) {
	n := m.Count()
	if n == 0 {
		return
	}
	to := m.sel + by
	switch {
	case wrap && to < 0 && m.sel == 0:
		to = n - 1
	case wrap && to >= n && m.sel == n-1:
		to = 0
	}
	m.Select(to)
}

// Select selects a line, the nearest that there is.
func (m *Model) Select(line int) {
	m.sel = min(max(line, 0), max(m.Count()-1, 0))
	m.show()
}

// show scrolls as little as shows the selection.
func (m *Model) show() {
	m.top = min(m.top, m.sel)
	m.top = max(m.top, m.sel-m.Lines+1)
	m.top = min(m.top, max(m.Count()-m.Lines, 0))
}

// Scroll moves what is shown by lines; the selection stays on the screen.
func (m *Model) Scroll(by int) {
	m.top = min(max(m.top+by, 0), max(m.Count()-m.Lines, 0))
	m.sel = min(max(m.sel, m.top), m.top+m.Lines-1)
	m.sel = min(m.sel, max(m.Count()-1, 0))
}

// Line returns an item of the first pane, or an action of the second, by its line.
func (m *Model) Line(i int) (it *Item, a *Action) {
	switch {
	case i < 0 || i >= m.Count():
		return nil, nil
	case m.pane != nil:
		return &m.items[m.paneOf], &m.pane[i]
	}
	return &m.items[m.hits[i]], nil
}

// Selected returns the selected item, or the second pane's item; nil if nothing matches.
func (m *Model) Selected() *Item {
	it, _ := m.Line(m.sel)
	return it
}

// Pane returns the item of the second pane, nil in the first pane.
func (m *Model) Pane() *Item {
	if m.pane == nil {
		return nil
	}
	return &m.items[m.paneOf]
}

// Open opens the second pane, with the actions of the selected item.
func (m *Model) Open() bool {
	it := m.Selected()
	if it == nil || m.pane != nil {
		return false
	}
	list := m.actionsFor(*it)
	if len(list) == 0 {
		return false
	}
	m.back = [3]int{m.sel, m.top}
	m.paneOf = m.hits[m.sel]
	m.pane, m.sel, m.top = list, 0, 0
	return true
}

// Back closes the second pane. It says whether there was one.
func (m *Model) Back() bool {
	if m.pane == nil {
		return false
	}
	m.pane = nil
	m.sel, m.top = m.back[0], m.back[1]
	m.Select(m.sel)
	return true
}

func (m *Model) actionsFor(it Item) []Action {
	running := m.vms[it.VM].State != ""
	list := []Action{}
	for _, a := range m.actions {
		if (running && a.Running || !running && a.Stopped) && !(a.Programs && it.Machine) && (a.VM == "" || a.VM == it.VM) {
			a.Name = strings.ReplaceAll(a.Name, "%n", it.Name)
			a.Name = strings.ReplaceAll(a.Name, "%v", it.VM)
			list = append(list, a)
		}
	}
	return list
}
