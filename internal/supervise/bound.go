package supervise

import (
	"context"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/ledger"
	"vix/internal/scope"
	"vix/internal/vm"
)

// memoryBound is the memory bound of the VM's control group: the second line behind the
// limits of everything that a VM may have.
type memoryBound struct {
	*host
	sync.Mutex
	group  scope.Scope
	budget scope.Budget
	seen   map[unix.Fsid]struct{} // file systems in memory, in budget.Files already
}

// budgetOf returns how much of the host's memory a VM may have.
func budgetOf(v config.VM, emulated bool) scope.Budget {
	limit := func(name string, def int64) int64 {
		if n, ok := v.Limits[name]; ok {
			return n
		}
		return def
	}
	b := scope.Budget{Guest: int64(v.Memory), Emulated: emulated, Shares: config.MaxShares + 1} // and the home
	if !v.NoGUI {
		b.Blobs = limit(ledger.NameBytes, ledger.DefaultBytes)
		b.Queued = limit(ledger.NameQueued, ledger.DefaultQueued)
	}
	return b
}

// widenFor raises the bound for a folder in memory that the guest may fill: the kernel
// charges a tmpfs' pages to the group of the process that writes them.
func (s *memoryBound) widenFor(folder config.Share) {
	var fs unix.Statfs_t
	if !folder.Write || unix.Statfs(folder.Host, &fs) != nil || fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return
	}
	size := int64(min(fs.Blocks, 1<<40) * uint64(fs.Bsize))
	if fs.Blocks == 0 {
		size = 1 << 60 // a tmpfs without a limit
	}
	s.Lock()
	defer s.Unlock()
	if _, again := s.seen[fs.Fsid]; again {
		return
	}
	if s.seen == nil {
		s.seen = map[unix.Fsid]struct{}{}
	}
	s.seen[fs.Fsid] = struct{}{}
	s.budget.Files = min(s.budget.Files, 1<<60) + size
	ctx, cancel := context.WithTimeout(s.ctx, scopeLimit)
	defer cancel()
	if err := s.group.Bound(ctx, s.budget.Max()); err != nil {
		s.log.Printf("vix", "control group: the bound of its memory stays without %s: %v", folder.Host, err)
	}
}

// scopeLimit bounds the wait for the session's systemd; a VM runs without it as well.
const scopeLimit = 3 * time.Second

// enterScope puts this process, and so everything that it will start, into a control group
// for the VM. The function that it returns leaves the group, when the others have ended.
func (s *memoryBound) enterScope(emulated bool) (leave func() error) {
	ctx, cancel := context.WithTimeout(s.ctx, scopeLimit)
	defer cancel()
	v := s.launch.VM
	b := budgetOf(v, emulated)
	sc := scope.Enter(ctx, scope.Config{Name: v.Name, Weight: v.CPUWeight, Memory: b.Max(), PID: os.Getpid(), Bus: s.launch.Bus, Proc: s.launch.Parts.Proc})
	s.Lock()
	s.group, s.budget = sc, b
	s.Unlock()
	s.log.Printf("vix", "control group: %s %s", sc.Kind, sc.Name)
	if sc.Memory > 0 {
		s.log.Printf("vix", "control group: the bound of its memory is %d MiB", sc.Memory>>20)
	}
	for _, w := range sc.Weaker {
		s.log.Add("vix", "control group: "+w)
	}
	s.update(func(st *vm.State) { st.Scope = &sc })
	return sc.Leave
}
