// Package menu is the launcher menu without its window: its items, the matching and ranking
// of a query, the history of choices, and the messages between the menu's two processes.
//
//	vix menu  ── Setup, Update ──►  vix-menu      draws, reads keys (menu/window, menu/draw)
//	                   ◄── Event ─────────                 holds no authority but its window
//
// The first process knows programs, VMs and the configuration, and carries out the choice;
// the second is a small binary of its own, because it loads libxkbcommon. Messages are lines
// of JSON (protocol.go).
//
// The package starts nothing, opens no file but the history in the caller's directory, and
// knows nothing of Wayland.
package menu

// An Item is a row of the menu: a program in a VM, or a VM.
type Item struct {
	ID       string   `json:"id"` // unique, and the same at the next start
	Name     string   `json:"name"`
	Generic  string   `json:"generic,omitempty"` // what it is, in a word or two
	Keywords []string `json:"keywords,omitempty"`
	Icon     string   `json:"icon,omitempty"`  // a name of the icon theme, or an absolute path
	VM       string   `json:"vm"`              // the VM's name
	Tag      string   `json:"tag,omitempty"`   // what its windows' frame says
	Color    string   `json:"color,omitempty"` // "#rrggbb"
	Machine  bool     `json:"machine,omitempty"`
	// Use is how much it was used, of late above all (History.Use).
	Use float64 `json:"use,omitempty"`
}

// A VM is the state of a VM, as a row shows it.
type VM struct {
	State    string  `json:"state"`              // as vm.State says: "starting", "running", …; "" for a stopped one
	Progress float64 `json:"progress,omitempty"` // 0 to 1, of a starting one
}

// An Action is a line of the second pane.
type Action struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Icon string `json:"icon,omitempty"`
	// Running and Stopped are the VMs' states in which the action makes sense.
	Running bool `json:"running,omitempty"`
	Stopped bool `json:"stopped,omitempty"`
	// Programs only, not VMs.
	Programs bool   `json:"programs,omitempty"`
	VM       string `json:"vm,omitempty"` // if set, it is for this VM alone
	// Keep leaves the menu open, to show the result.
	Keep bool `json:"keep,omitempty"`
}
