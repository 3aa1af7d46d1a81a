// Package qemu is what Vix knows of QEMU: its command line (Machine), its monitor
// (Monitor, QMP), and what it needs of the host's kernel (KVM, vhost).
//
// It starts no process, and the command line is a pure function.
package qemu
