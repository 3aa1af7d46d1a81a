package filter

// Limits bound what one VM may have of the compositor at a time. Zero means the
// default.
type Limits struct {
	Connections int64 // at once
	Objects     int64 // of all connections, of any interface
	Surfaces    int64 // wl_surface
	Toplevels   int64 // windows
	Popups      int64
	PoolBytes   int64 // of wl_shm pools
	Commits     int64 // wl_surface.commit each second, of one connection; excess waits
}
