// Package display is the contract between a VM's supervisor and its display process
// (vix-waylandproxy host): how the process is started (spec.go), what it is asked
// (control.go), and how it gets its connections (broker.go).
package display
