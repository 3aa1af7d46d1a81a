package main

// The subset of Wayland that the null compositor speaks: for every request its
// argument signature (i u f s o n a h, as in wayland-scanner's output, with
// the untyped new_id of wl_registry.bind spelled out as "sun"), the interface
// of a created object, and whether it destroys its object.

type request struct {
	name string
	sig  string
	make string // interface of the object made by the 'n' argument
	dtor bool

	// derived
	fixed  int // exact body length, or -1 when it has s or a arguments
	fds    int
	newArg int // word index of the 'n' argument, or -1 (fixed signatures)
	plain  bool
	h      handler
}

type iface struct {
	name string
	reqs []request
}

type handler func(s *session, id uint32, a *args) error

type globalDef struct {
	iface   string
	version uint32
}

// nullGlobals are advertised in this order; the name is the index + 1.
var nullGlobals = []globalDef{
	{"wl_shm", 1},
	{"wl_compositor", 6},
	{"wl_subcompositor", 1},
	{"xdg_wm_base", 5},
	{"wl_data_device_manager", 3},
	{"zwp_primary_selection_device_manager_v1", 1},
	{"wl_seat", 8},
	{"wl_output", 4},
	{"zxdg_output_manager_v1", 3},
	{"zxdg_decoration_manager_v1", 1},
	{"wp_viewporter", 1},
}

var ifaces = map[string]*iface{}

func def(name string, reqs ...request) {
	for i := range reqs {
		r := &reqs[i]
		r.fixed, r.newArg = 0, -1
		for k, c := range r.sig {
			switch c {
			case 's', 'a':
				r.fixed = -1
			case 'h':
				r.fds++
				continue // not on the wire
			case 'n':
				r.newArg = k
			}
			if r.fixed >= 0 {
				r.fixed += 4
			}
		}
		r.plain = r.fixed >= 0 && r.fds == 0 && r.newArg < 0 && !r.dtor
	}
	ifaces[name] = &iface{name, reqs}
}

func rq(name, sig string) request     { return request{name: name, sig: sig} }
func mk(name, sig, i string) request  { return request{name: name, sig: sig, make: i} }
func dt(name string) request          { return request{name: name, dtor: true} }
func on(r request, h handler) request { r.h = h; return r }

// Not in the variable's own initializer: the handlers look into the table.
func init() {
	def("wl_display", on(mk("sync", "n", "wl_callback"), hSync), on(mk("get_registry", "n", "wl_registry"), hGetRegistry))
	def("wl_registry", on(rq("bind", "usun"), hBind))
	def("wl_callback")
	def("wl_compositor", on(mk("create_surface", "n", "wl_surface"), hCreateSurface), mk("create_region", "n", "wl_region"))
	def("wl_region", dt("destroy"), rq("add", "iiii"), on(rq("subtract", "iiii"), hSubtract))
	def("wl_shm", on(mk("create_pool", "nhi", "wl_shm_pool"), hCreatePool), dt("release"))
	def("wl_shm_pool", on(mk("create_buffer", "niiiiu", "wl_buffer"), hCreateBuffer), on(dt("destroy"), hPoolDestroy), on(rq("resize", "i"), hPoolResize))
	def("wl_buffer", on(dt("destroy"), hBufferDestroy))
	def("wl_surface", dt("destroy"), on(rq("attach", "oii"), hAttach), on(rq("damage", "iiii"), hDamage),
		on(mk("frame", "n", "wl_callback"), hFrame), rq("set_opaque_region", "o"), rq("set_input_region", "o"),
		on(rq("commit", ""), hCommit), rq("set_buffer_transform", "i"), rq("set_buffer_scale", "i"),
		on(rq("damage_buffer", "iiii"), hDamage), rq("offset", "ii"))
	def("wl_subcompositor", dt("destroy"), mk("get_subsurface", "noo", "wl_subsurface"))
	def("wl_subsurface", dt("destroy"), rq("set_position", "ii"), rq("place_above", "o"), rq("place_below", "o"), rq("set_sync", ""), rq("set_desync", ""))
	def("xdg_wm_base", dt("destroy"), mk("create_positioner", "n", "xdg_positioner"), on(mk("get_xdg_surface", "no", "xdg_surface"), hGetXdgSurface), rq("pong", "u"))
	def("xdg_positioner", dt("destroy"), rq("set_size", "ii"), rq("set_anchor_rect", "iiii"), rq("set_anchor", "u"), rq("set_gravity", "u"),
		rq("set_constraint_adjustment", "u"), rq("set_offset", "ii"), rq("set_reactive", ""), rq("set_parent_size", "ii"), rq("set_parent_configure", "u"))
	def("xdg_surface", dt("destroy"), on(mk("get_toplevel", "n", "xdg_toplevel"), hGetToplevel), mk("get_popup", "noo", "xdg_popup"),
		rq("set_window_geometry", "iiii"), rq("ack_configure", "u"))
	def("xdg_toplevel", dt("destroy"), rq("set_parent", "o"), on(rq("set_title", "s"), hSetTitle), rq("set_app_id", "s"), rq("show_window_menu", "ouii"),
		rq("move", "ou"), rq("resize", "ouu"), rq("set_max_size", "ii"), rq("set_min_size", "ii"), rq("set_maximized", ""),
		rq("unset_maximized", ""), rq("set_fullscreen", "o"), rq("unset_fullscreen", ""), rq("set_minimized", ""))
	def("xdg_popup", dt("destroy"), rq("grab", "ou"), rq("reposition", "ou"))
	def("wl_data_device_manager", mk("create_data_source", "n", "wl_data_source"), mk("get_data_device", "no", "wl_data_device"))
	def("wl_data_source", rq("offer", "s"), dt("destroy"), rq("set_actions", "u"))
	def("wl_data_device", rq("start_drag", "ooou"), rq("set_selection", "ou"), dt("release"))
	def("zwp_primary_selection_device_manager_v1", mk("create_source", "n", "zwp_primary_selection_source_v1"), mk("get_device", "no", "zwp_primary_selection_device_v1"), dt("destroy"))
	def("zwp_primary_selection_source_v1", rq("offer", "s"), dt("destroy"))
	def("zwp_primary_selection_device_v1", rq("set_selection", "ou"), dt("destroy"))
	def("wl_seat", on(mk("get_pointer", "n", "wl_pointer"), hGetPointer), mk("get_keyboard", "n", "wl_keyboard"), mk("get_touch", "n", "wl_touch"), dt("release"))
	def("wl_pointer", rq("set_cursor", "uoii"), dt("release"))
	def("wl_keyboard", dt("release"))
	def("wl_touch", dt("release"))
	def("wl_output", dt("release"))
	def("zxdg_output_manager_v1", dt("destroy"), on(mk("get_xdg_output", "no", "zxdg_output_v1"), hGetXdgOutput))
	def("zxdg_output_v1", dt("destroy"))
	def("zxdg_decoration_manager_v1", dt("destroy"), mk("get_toplevel_decoration", "no", "zxdg_toplevel_decoration_v1"))
	def("zxdg_toplevel_decoration_v1", dt("destroy"), rq("set_mode", "u"), rq("unset_mode", ""))
	def("wp_viewporter", dt("destroy"), mk("get_viewport", "no", "wp_viewport"))
	def("wp_viewport", dt("destroy"), rq("set_source", "ffff"), rq("set_destination", "ii"))
}
