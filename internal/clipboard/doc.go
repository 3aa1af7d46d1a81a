// Package clipboard is what a VM's programs have instead of the compositor's
// selections: a world of their own, which no other client of the compositor sees.
//
//	program A ⇄ relay ⇄┐                 ┌⇄ relay ⇄ program B
//	                   └── World, one a VM ┘
//	                         ▲ Take, Give: what the user lets in and out
//
// The clipboard (wl_data_device) and both protocols of the primary selection are one
// implementation, by a table of what differs (protocol.go). How a selection goes
// through it:
//
//  1. set_selection of a program that has, or had, the keyboard: its source is held
//     by the World, and the one before is cancelled.
//  2. The program with the keyboard is told of it: an offer with the source's kinds;
//     so is any other when it gets the keyboard.
//  3. receive hands the write end of a pipe over to the source's program, by its
//     send event: the two programs' ends of one pipe, with nothing of ours between.
//
// A drag needs the compositor, which alone knows what is below the pointer. It gets
// a source of ours with one kind that means nothing to anybody (drag.go): so it does
// the dragging, the icon and the actions, and the World says what is in it, to
// surfaces of the same VM only. For all others there is nothing that they could take,
// but where a rule of the user's allows it (outside.go).
//
// Everything that a program says is bounded (Limits). What this package does not do:
// decide whether data may leave or enter the VM; for drags it holds to the rules that
// it is given.
package clipboard
