// Package vhost is the back end of vhost-user: it makes a process a virtio
// device of a VM in a stock QEMU. It contains no device; internal/gpu is one.
//
// Two unix sockets and a pair of eventfds per ring connect it with the front end
// (QEMU), and it maps the guest's memory:
//
//	            main socket: request (front end) → reply (back end)
//	QEMU  ────────────────────────────────────────────────────────►  Serve
//	  ▲         back-end channel: SHMEM_MAP, SHMEM_UNMAP → reply        │
//	  └──────────────────────────────────────────────────── Backend ◄──┤
//	guest ── kick eventfd ─► Queue ─► Device.Process ─► Queue.Push ── call eventfd ─► guest
//
// A message on either socket is, in the host's byte order (little-endian here):
//
//	 0      4      8      12
//	+------+------+------+----------------+
//	| req  | flags| size | payload (size) |   descriptors by SCM_RIGHTS with the first byte
//	+------+------+------+----------------+
//	flags: bits 0–1 version (1), bit 2 reply, bit 3 reply wanted
//
//	memory region  (ADD_MEM_REG: u64 padding first; SET_MEM_TABLE: u32 count, u32 padding first)
//	+----------------+------+-----------------+-------------+
//	| guest physical | size | front end's own | mmap offset |   4 × u64
//	+----------------+------+-----------------+-------------+
//	vring state   u32 index, u32 value          vring address  u32 index, u32 flags, u64 desc, used, avail, log
//	vring file    u64: bits 0–7 index, bit 8 «no descriptor»
//	config        u32 offset, u32 size, u32 flags, data
//	shmem config  u32 regions, u32 padding, u64 size[256]
//	shmem map     u8 id, u8 padding[7], u64 fd offset, u64 shm offset, u64 length, u64 flags (1: writable)
//
// The source is QEMU's docs/interop/vhost-user.rst and include/uapi/linux/virtio_ring.h
// of Linux; VHOST_USER_PROTOCOL_F_SHMEM is bit 22, as in QEMU 11.
//
// # Trust
//
// The package trusts the front end to be QEMU, but a mistake of the front end only ends
// Serve with an error. The guest is hostile: the package copies its memory
// once, with bounds, and reads only the copy (Chain.Read). It returns a broken
// chain to the guest unused; a broken ring ends Serve.
//
// # Goroutines
//
// Serve's own goroutine answers the main socket and never waits for a ring or for
// the back-end channel: QEMU may be waiting for it while holding its own lock. Each
// running ring has one goroutine, which calls Device.Process. It may wait for
// a SHMEM_MAP reply, without a lock that the main socket's side needs: QEMU answers
// SHMEM_MAP, commits, and only then sends ADD_MEM_REG on the main socket.
//
// Guest memory may be unmapped by REM_MEM_REG at any time: every access holds the
// read side of Memory's lock, for the length of one copy.
//
// This package does not support migration (no dirty log), packed rings, IOTLB,
// pause and resume (a stopped ring resets the device), and reconnecting (QEMU
// does not either).
package vhost
