// Package programs drives real programs in VMs, as a user would: each is opened,
// typed into, clicked, resized, shown with a menu or popup, and closed, and what
// it then looks like is kept in build/e2e/NAME.png.
//
//	session: one VM on one headless sway, for several programs in turn
//	  └── program: one of them and its window
//	        float    its window has a place and a size, so that clicks hit
//	        changes  an act changes the picture there, by so many pixels
//	        restored it looks as before again: a popup has gone
//
// The light set is part of make test. The heavy one (browsers, GTK 3, Qt 6, video)
// needs the larger system root, and is what make e2e-full adds.
package programs
