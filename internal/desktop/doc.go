// Package desktop is Vix's side of the desktop that it runs on: everything that a user meets
// outside of the VMs' windows.
//
//	notify.go   org.freedesktop.Notifications: words, progress, questions
//	sway.go     sway-ipc(7): who has the focus, workspaces, events, commands
//	apps.go     the programs of a VM's root, from its .desktop files (entry.go)
//	sync.go     our own desktop entries for them (entryfile.go), with icons (icon.go)
//	service.go  the D-Bus service dev.vix.Launcher; introspect.go describes it
//	startup.go  the notification of a program's start
//	text.go     a guest's words as plain text
//	bus.go      the session bus
//
// Its texts may come from a guest (a title, a program's last words), so every text is
// bounded and plain: no markup, no control or format characters.
//
// It starts no process, and looks for nothing in the environment: the caller gives it the
// bus's address and sway's socket. It is a client of the VMs' supervisors like any verb,
// and holds no state of theirs.
package desktop
