// Package display is the contract between a VM's supervisor and its display process
// (vix-waylandproxy host): the process's command line (spec.go), the requests to it
// (control.go), and the way to its connections (broker.go).
package display
