// Package proto holds the Wayland bindings that the menu needs and
// neurlang/wayland lacks: layer shell, viewporter, fractional scale, activation and
// cursor shape. All but this file is made by the library's scanner from the XML of
// Debian's packages (make generate).
package proto

//go:generate ./gen.sh /usr/share/wlr-protocols/unstable/wlr-layer-shell-unstable-v1.xml
//go:generate ./gen.sh /usr/share/wayland-protocols/stable/viewporter/viewporter.xml
//go:generate ./gen.sh /usr/share/wayland-protocols/staging/fractional-scale/fractional-scale-v1.xml
//go:generate ./gen.sh /usr/share/wayland-protocols/staging/xdg-activation/xdg-activation-v1.xml
//go:generate ./gen.sh /usr/share/wayland-protocols/staging/cursor-shape/cursor-shape-v1.xml

import (
	"github.com/neurlang/wayland/wl"
	"github.com/neurlang/wayland/xdg"
)

// The names under which the generated files know the core protocol.
type (
	BaseProxy = wl.BaseProxy
	Context   = wl.Context
	Event     = wl.Event
	Proxy     = wl.Proxy
	Surface   = wl.Surface
	Output    = wl.Output
	Seat      = wl.Seat
	Pointer   = wl.Pointer
	XdgPopup  = xdg.Popup
	// ZwpTabletToolV2 stands in a request that is never made.
	ZwpTabletToolV2 = wl.BaseProxy
)

// SafeCast is wl.SafeCast.
func SafeCast[T any](p Proxy) T { return wl.SafeCast[T](p) }
