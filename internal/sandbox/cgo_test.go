//go:build cgo

package sandbox

const withC = true
