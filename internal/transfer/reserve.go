package transfer

import "golang.org/x/sys/unix"

// maxReserve is the space that stays free on a file system; a small one keeps a twentieth.
const maxReserve = 2 << 30

// Reserve returns how many bytes a stranger's files must leave free on dir's file system.
func Reserve(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return maxReserve
	}
	return min(maxReserve, int64(st.Blocks)*st.Bsize/20)
}
