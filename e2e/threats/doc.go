// Package threats tries every row of the threat table on a real VM, with a guest
// that is really hostile, and looks at the host whether it held. `make threats`
// prints a line for each:
//
//	threat 01: skips the guest proxy and speaks raw cross-domain: held
//
//	                ┌─ VM «evil»: hostile (internal/hostile) on the render node ─┐
//	sway, headless ◄┤                                                            ├ one desktop
//	   ▲            └─ VM «good»: what must not be harmed ───────────────────────┘
//	   └ looked at: its tree, the screen's pixels, the log, memory and descriptors
//	     of the host's processes
//
// What each test proves:
//
//	 1  commands of its own making reach the device and harm nobody; a connection
//	    without the proxy sees what the filter lets it see; neither QEMU nor a
//	    socket in the guest leads to the compositor
//	 2  no privileged interface that sway offers is told of, and none can be bound by
//	    a guessed number
//	 3  titles and app ids, bidi and control characters, and another VM's tag come out
//	    with the VM's own tag in front, in one line, of bounded length
//	 4  a window over the whole screen leaves the frame where it was
//	 5  popups of most of the screen are refused; other popups, and sub-surfaces
//	    anywhere, have the frame on every side
//	 6  the host's clipboard and primary selection are neither read nor replaced, while
//	    the VM has its own (what is bounded of them: internal/clipboard, internal/filter;
//	    acts and rules: e2e/clipboard); floods of selections and forged serials do nothing
//	 7  no activation: a window that lost the focus does not get it back, one that took
//	    it just before a paste is refused, and what the user types goes where he sees it go
//	 8  the compositor's own key works under a window that grabs all it can
//	 9  outputs do not tell make, model or serial; nothing inhibits or watches idleness
//	10  floods of everything end at a limit that the log names, memory and descriptors
//	    come back, and the other VM goes on
//	11  surplus and truncated descriptors end their own connection; a pool is no
//	    larger than its memory; memory that shrinks harms only its owner
//	12  garbage on the wire and in the rings: errors, and the VM's display goes on
//	13  no escape sequence of a guest reaches the terminal of list or logs
//	14  what lies outside the view is not to be had by "..", links, /proc or devices,
//	    and nothing that is written reaches the host
//	15  the channel is the VM's own: a guest that speaks for other programs, or
//	    for another VM, ends its own channel
//	16  a killed or wedged process ends its own VM, which says so and leaves nothing;
//	    the other VM goes on
//	17  popups with grabs, and all that else takes input, by serials that nobody sent:
//	    keys typed elsewhere, or at a lock screen, are not the VM's (on labwc and
//	    Weston, with the pointer: e2e/frame)
//	18  roles of refused requests, pending and cached states, nested and destroyed
//	    children: nothing is shown outside the frame, and the frame is whole
//	    (on labwc and Weston: e2e/frame)
//	19  popups larger than they were told, and images of the pointer that are large or
//	    far from it: cut, small, at the pointer (on labwc and Weston: e2e/frame)
//	20  memory in a message that never ends is charged, and comes back; a window of many
//	    children makes the host say no more than the VM may
//	21  what root of the guest writes to the terminals of exec, run, shell and logs sets
//	    no clipboard and no title, and asks nothing; and the terminal is as it was, however
//	    the program ends, vix-launcher's being killed included
//	22  a folder that the guest can write to gives another VM, at once or later, nothing
//	    that a name in it leads to (the clipboard's decisions: cmd/vix-launcher,
//	    TestCopyWhileAsked)
package threats
