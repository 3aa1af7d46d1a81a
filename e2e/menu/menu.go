// Package menu holds the tests of the menu as a user meets it: a key of sway's, typing,
// a window. The drawing, the keys and the pictures are tested in cmd/vix-menu, without
// VMs.
package menu
