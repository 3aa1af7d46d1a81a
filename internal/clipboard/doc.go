// Package clipboard gives a VM's programs a world of selections of their own, in place
// of the compositor's. No other client of the compositor sees it.
//
//	program A ⇄ relay ⇄┐                 ┌⇄ relay ⇄ program B
//	                   └── World, one a VM ┘
//	                         ▲ Take, Give: the user lets data out and in
//
// The clipboard (wl_data_device) and both protocols of the primary selection are one
// implementation, with a table of the differences (protocol.go). The way of a selection:
//
//  1. A program that has, or had, the keyboard makes a set_selection: the World holds
//     its source, and cancels the one before.
//  2. The program with the keyboard gets an offer with the source's kinds; any other
//     gets it together with the keyboard.
//  3. receive hands the write end of a pipe to the source's program, by its send event:
//     the two programs hold the ends of one pipe, with nothing of ours between.
//
// A drag needs the compositor, because only it knows the surface below the pointer. It
// gets a source of ours with one meaningless kind (drag.go): so the compositor does the
// dragging, the icon and the actions, and the World offers the content to surfaces of
// the same VM only. All others can take nothing, unless a rule of the user's allows it
// (outside.go).
//
// Limits bound everything that a program sends. This package does not decide whether
// data may leave or enter the VM; for drags it follows the rules of its Config.
package clipboard
