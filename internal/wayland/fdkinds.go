package wayland

// fdKinds holds the kind of a message's descriptors, for every message in the
// tables that has any. Several descriptors of a message have the same kind.
// KindOther cannot leave a VM: an interface that needs it must be hidden.
var fdKinds = map[string]Kind{
	"wl_shm.create_pool":                               KindMemory,
	"wl_keyboard.keymap":                               KindMemory,
	"wl_data_offer.receive":                            KindWritePipe,
	"wl_data_source.send":                              KindWritePipe,
	"zwp_primary_selection_offer_v1.receive":           KindWritePipe,
	"gtk_primary_selection_offer.receive":              KindWritePipe,
	"gtk_primary_selection_source.send":                KindWritePipe,
	"zwp_primary_selection_source_v1.send":             KindWritePipe,
	"zwp_linux_buffer_params_v1.add":                   KindMemory,
	"zwp_linux_dmabuf_feedback_v1.format_table":        KindMemory,
	"wp_image_description_creator_icc_v1.set_icc_file": KindMemory,
	"wp_image_description_info_v1.icc_file":            KindMemory,
	"wp_security_context_manager_v1.create_listener":   KindOther, // sockets
	"wp_linux_drm_syncobj_manager_v1.import_timeline":  KindOther, // a drm_syncobj
}
