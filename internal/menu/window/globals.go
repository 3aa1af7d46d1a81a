package window

import (
	"errors"

	"github.com/neurlang/wayland/wl"
	"github.com/neurlang/wayland/xdg"

	"vix/internal/menu/proto"
)

// globals holds the compositor's globals that the menu uses.
type globals struct {
	registry *wl.Registry
	globals  []wl.RegistryGlobalEvent

	compositorVersion uint32
	compositor        *wl.Compositor
	shm               *wl.Shm
	seat              *wl.Seat
	layers            *proto.ZwlrLayerShellV1 // nil if missing, as all below
	shell             *xdg.WmBase
	viewporter        *proto.WpViewporter
	fractional        *proto.WpScaleManagerV1
	activation        *proto.ActivationV1
	cursors           *proto.WpShapeManagerV1
	outputs           []*output
}

// An output is used only for its scale.
type output struct {
	*wl.Output
	scale int32
}

// HandleOutputScale stores the scale. The reader writes it, and the loop reads it only after
// the reader has passed on a later event.
func (o *output) HandleOutputScale(ev wl.OutputScaleEvent) { o.scale = ev.Factor }

func (g *globals) scaleOf(out *wl.Output) int32 {
	for _, o := range g.outputs {
		if o.Output == out {
			return o.scale
		}
	}
	return 1
}

// HandleRegistryGlobal records a global.
func (g *globals) HandleRegistryGlobal(ev wl.RegistryGlobalEvent) {
	if g.compositor == nil {
		g.globals = append(g.globals, ev)
	}
}

// bind binds the first global of each kind, in a version that both sides know.
func (g *globals) bind(ctx *wl.Context) error {
	take := func(ev wl.RegistryGlobalEvent, most uint32, p wl.Proxy) {
		_ = g.registry.Bind(ev.Name, ev.Interface, min(ev.Version, most), p)
	}
	for _, ev := range g.globals {
		switch {
		case ev.Interface == "wl_compositor" && g.compositor == nil:
			g.compositor = wl.NewCompositor(ctx)
			g.compositorVersion = min(ev.Version, 6)
			take(ev, 6, g.compositor)
		case ev.Interface == "wl_shm" && g.shm == nil:
			g.shm = wl.NewShm(ctx)
			take(ev, 1, g.shm)
		case ev.Interface == "wl_seat" && g.seat == nil:
			g.seat = wl.NewSeat(ctx)
			take(ev, 7, g.seat)
		case ev.Interface == "zwlr_layer_shell_v1" && g.layers == nil:
			g.layers = proto.NewZwlrLayerShellV1(ctx)
			take(ev, 4, g.layers)
		case ev.Interface == "xdg_wm_base" && g.shell == nil:
			g.shell = xdg.NewWmBase(ctx)
			take(ev, 2, g.shell)
		case ev.Interface == "wp_viewporter" && g.viewporter == nil:
			g.viewporter = proto.NewWpViewporter(ctx)
			take(ev, 1, g.viewporter)
		case ev.Interface == "wp_fractional_scale_manager_v1" && g.fractional == nil:
			g.fractional = proto.NewWpScaleManagerV1(ctx)
			take(ev, 1, g.fractional)
		case ev.Interface == "xdg_activation_v1" && g.activation == nil:
			g.activation = proto.NewActivationV1(ctx)
			take(ev, 1, g.activation)
		case ev.Interface == "wp_cursor_shape_manager_v1" && g.cursors == nil:
			g.cursors = proto.NewWpShapeManagerV1(ctx)
			take(ev, 1, g.cursors)
		case ev.Interface == "wl_output":
			o := &output{wl.NewOutput(ctx), 1}
			o.AddScaleHandler(o)
			g.outputs = append(g.outputs, o)
			take(ev, 2, o.Output)
		}
	}
	switch {
	case g.compositor == nil || g.shm == nil || g.seat == nil:
		return errors.New("the compositor lacks wl_compositor, wl_shm or wl_seat; use another")
	case g.layers == nil && g.shell == nil:
		return errors.New("the compositor has neither zwlr_layer_shell_v1 nor xdg_wm_base; use another")
	}
	return nil
}
