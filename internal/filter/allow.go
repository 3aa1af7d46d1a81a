package filter

import (
	"slices"

	"vix/internal/display"
	"vix/internal/wayland"
)

// Allowed returns the version in which a guest may see a global by the rules
// alone, 0 for none.
func Allowed(i *wayland.Interface, version uint32) uint32 {
	return min(version, display.Rules[i].Max)
}

// globals returns the highest versions that this VM may see, by
// Interface.Index: the rules with the configuration's changes. Deny is stronger than
// Allow.
func (cfg *Config) globals() []uint32 {
	most := make([]uint32, len(wayland.Interfaces()))
	for i, r := range display.Rules {
		most[i.Index] = r.Max
		switch {
		case slices.Contains(cfg.Deny, i.Name):
			most[i.Index] = 0
		case r.Max == 0 && !display.Never[i] && slices.Contains(cfg.Allow, i.Name):
			most[i.Index] = i.Version
		}
	}
	return most
}
