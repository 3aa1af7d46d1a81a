//go:build never

package vix

import (
	_ "github.com/BurntSushi/toml"
	_ "github.com/digitalocean/go-qemu/qmp"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/neurlang/wayland/wl"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/spf13/cobra"
	_ "github.com/u-root/u-root/pkg/cpio"
	_ "github.com/ulikunitz/xz"
	_ "golang.org/x/sys/unix"
	_ "pgregory.net/rapid"
)
