package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Setting is the value that a key has, and where it comes from.
type Setting struct {
	Key   string `json:"key"`
	Value any    `json:"value"` // string, int64, bool, []string or map[string]any; nil if it is not set
	From  Origin `json:"from"`
	Table string `json:"table,omitempty"` // the table of the file that has it: "vm.web"
	Line  int    `json:"line,omitempty"`
}

// An Origin is a kind of place that a value comes from.
type Origin string

// The places that a value comes from.
const (
	FromBuiltin Origin = "built-in" // nobody has said another
	FromFile    Origin = "file"
	FromName    Origin = "name"   // it follows from the VM's name
	FromChoice  Origin = "chosen" // GiveColors has chosen it
)

// Text returns the value as it would stand in the file.
func (s Setting) Text() string {
	if s.Value == nil {
		return "not set"
	}
	return literal(s.Value)
}

// Where says where the value comes from, for people.
func (s Setting) Where() string {
	switch s.From {
	case FromFile:
		return fmt.Sprintf("[%s], line %d", s.Table, s.Line)
	case FromName:
		return "the VM's name"
	case FromChoice:
		return "chosen by Vix"
	}
	return "built-in default"
}

// literal writes a value of a Setting as TOML.
func literal(x any) string {
	switch x := x.(type) {
	case string:
		return strconv.Quote(x)
	case []string:
		texts := make([]string, len(x))
		for i, s := range x {
			texts[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(texts, ", ") + "]"
	case map[string]any:
		var pairs []string
		for _, name := range slices.Sorted(maps.Keys(x)) {
			pairs = append(pairs, name+" = "+literal(x[name]))
		}
		return "{ " + strings.Join(pairs, ", ") + " }"
	}
	return fmt.Sprint(x)
}

// VMSettings returns every setting of the VM called name, as VM does: by key; each limit has
// an entry of its own.
func (c *Config) VMSettings(name string) ([]Setting, error) {
	v, err := c.VM(name)
	if err != nil {
		return nil, err
	}
	return c.settings(&v, "vm."+name, "defaults"), nil
}

// DefaultSettings returns what [defaults] can say of every VM.
func (c *Config) DefaultSettings() []Setting {
	return slices.DeleteFunc(c.settings(&c.Defaults, "defaults"), func(s Setting) bool {
		return slices.ContainsFunc(keys, func(k key) bool { return k.name == s.Key && k.perVM })
	})
}

// settings returns the settings of v, which come from the first table that has them.
func (c *Config) settings(v *VM, tables ...string) (list []Setting) {
	for _, k := range keys {
		if k.name == "limits" {
			for _, name := range slices.Sorted(maps.Keys(v.Limits)) {
				list = append(list, c.setting(v.Limits[name], tables, k.name, name))
			}
			if len(v.Limits) > 0 {
				continue
			}
		}
		s := c.setting(k.get(v), tables, k.name)
		switch {
		case s.From != FromBuiltin || s.Value == nil:
		case k.name == "color":
			s.From = FromChoice
		case k.name == "tag":
			s.From = FromName
		}
		list = append(list, s)
	}
	return list
}

func (c *Config) setting(value any, tables []string, key ...string) Setting {
	s := Setting{Key: strings.Join(key, "."), From: FromBuiltin}
	switch x := value.(type) {
	case string:
		if x != "" {
			s.Value = x
		}
	case []string:
		if x != nil {
			s.Value = x
		}
	case map[string]int64:
	default:
		s.Value = x
	}
	for _, table := range tables {
		path := append(strings.Split(table, "."), key...)
		if c.has(path) {
			s.From, s.Table, s.Line = FromFile, table, c.lines.of(path)
			break
		}
	}
	return s
}

// has reports whether the file has a value at path.
func (c *Config) has(path []string) bool {
	at := c.tree
	for _, name := range path[:len(path)-1] {
		next, ok := at[name].(map[string]any)
		if !ok {
			return false
		}
		at = next
	}
	_, ok := at[path[len(path)-1]]
	return ok
}

// MenuSettings returns the settings of [menu].
func (c *Config) MenuSettings() (list []Setting) {
	tables := []string{"menu"}
	if slices.ContainsFunc(c.Errors, func(e *Error) bool { return e.scope == ofMenu }) {
		tables = nil // none of it holds
	}
	for _, k := range menuKeys {
		list = append(list, c.setting(k.get(&c.Menu), tables, k.name))
	}
	return list
}

// ClipboardSettings returns the settings of [clipboard], and its rules in their order.
func (c *Config) ClipboardSettings() []Setting {
	tables := []string{"clipboard"}
	history := "off"
	if c.Clipboard.History {
		history = "on"
	}
	list := []Setting{
		c.setting(history, tables, "history"),
		c.setting(short(c.Clipboard.Moment), tables, "moment"),
		c.setting(short(c.Clipboard.TTL), tables, "ttl"),
	}
	for i, r := range c.Clipboard.Rules {
		list = append(list, Setting{
			Key: "rule " + strconv.Itoa(i+1), Value: r.values(),
			From: FromFile, Table: "clipboard.rule", Line: c.lines.of([]string{"clipboard", "rule", strconv.Itoa(i)}),
		})
	}
	return list
}

func (r ClipRule) values() map[string]any {
	v := map[string]any{"from": r.From, "to": r.To, "action": r.Action, "kinds": r.Kinds, "strip": r.Strip, "ttl": short(r.TTL)}
	if r.Limit > 0 {
		v["limit"] = Size(r.Limit).String()
	}
	return v
}
