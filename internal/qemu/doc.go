// Package qemu is what Vix knows of QEMU: its command line (Machine), its monitor
// (Monitor, QMP), and what it needs of the host's kernel (KVM, vhost).
//
// It starts no process; a pure function makes the command line.
package qemu
