package transfer

import "golang.org/x/sys/unix"

// maxReserve is what is left of a file system; a twentieth of a small one.
const maxReserve = 2 << 30

// Reserve is how many bytes a stranger's files have to leave on the file system of dir.
func Reserve(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return maxReserve
	}
	return min(maxReserve, int64(st.Blocks)*st.Bsize/20)
}
