package trace

import (
	"fmt"
	"strings"

	"vix/internal/wayland"
)

// Classes is a set of classes of messages.
type Classes uint32

// The classes. Every message belongs to exactly one.
const (
	Motion    Classes = 1 << iota // pointer motion, axes, gestures, touch: many a second
	Frame                         // a client's requests for each frame, and the answers
	Shm                           // pools and buffers
	Input                         // the rest of the seat: keys, buttons, enter and leave
	Shell                         // windows and popups
	Selection                     // clipboard and drags
	Registry                      // globals, binds, sync
	Output                        // outputs
	Other
	All = Other<<1 - 1
	// Times stands alone: it prints no messages, but where the time of round trips goes
	// (relay.Meter), as a line of JSON for each connection that ends.
	Times = Other << 1
)

var names = []string{"motion", "frame", "shm", "input", "shell", "selection", "registry", "output", "other"}

// Names lists the classes for help texts.
func Names() string { return strings.Join(names, ",") }

// ParseClasses reads a comma-separated list such as "input,shell". A name with
// '-' in front is removed, from everything if it comes first. Empty and "all"
// mean everything. "times" is not a class of messages, and stands alone.
func ParseClasses(s string) (Classes, error) {
	if s == "times" {
		return Times, nil
	}
	var c Classes
	for k, name := range strings.Split(s, ",") {
		name, minus := strings.CutPrefix(strings.TrimSpace(name), "-")
		if k == 0 && minus {
			c = All
		}
		bit, err := class(name)
		if err != nil {
			return 0, err
		}
		if minus {
			c &^= bit
		} else {
			c |= bit
		}
	}
	return c, nil
}

func class(name string) (Classes, error) {
	if name == "" || name == "all" {
		return All, nil
	}
	for k, n := range names {
		if n == name {
			return 1 << k, nil
		}
	}
	return 0, fmt.Errorf("unknown class %q; the classes are all,%s", wayland.Printable(name), Names())
}

// classOf returns the class of a message.
func classOf(i *wayland.Interface, m *wayland.Message) Classes {
	switch i {
	case wayland.WlPointer, wayland.WlTouch, wayland.ZwpRelativePointerV1, wayland.ZwpTabletToolV2,
		wayland.ZwpPointerGestureSwipeV1, wayland.ZwpPointerGesturePinchV1:
		switch m.Name {
		case "motion", "frame", "axis", "axis_source", "axis_stop", "axis_discrete", "axis_value120",
			"axis_relative_direction", "relative_motion", "update", "pressure", "tilt", "distance":
			return Motion
		}
		return Input
	case wayland.WlSurface, wayland.WlCallback, wayland.WlRegion, wayland.WpPresentation,
		wayland.WpPresentationFeedback, wayland.WpViewport, wayland.WlSubsurface, wayland.WpFifoV1:
		return Frame
	case wayland.WlShm, wayland.WlShmPool, wayland.WlBuffer, wayland.WpSinglePixelBufferManagerV1:
		return Shm
	case wayland.WlSeat, wayland.WlKeyboard, wayland.ZwpTextInputV3:
		return Input
	case wayland.WlOutput, wayland.ZxdgOutputV1:
		return Output
	case wayland.WlRegistry, wayland.WlDisplay:
		return Registry
	}
	switch {
	case strings.HasPrefix(i.Name, "xdg_"), strings.HasPrefix(i.Name, "zxdg_"):
		return Shell
	case strings.HasPrefix(i.Name, "wl_data_"), strings.HasPrefix(i.Name, "zwp_primary_"):
		return Selection
	}
	return Other
}
