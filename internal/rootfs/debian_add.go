package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Download fetches packages, and the dependencies that the finished root lacks, with apt's
// own programs and checks, but without the state of this machine's apt. It returns the
// files' paths, none if the root has everything. Below CacheDir:
//
//	apt-SUITE/             lists and packages, kept for the next time
//
// Download does not ask the guest about its packages: the guest could make apt do anything.
func (d Debian) Download(ctx context.Context, packages []string) ([]string, error) {
	dir := filepath.Join(d.CacheDir, "apt-"+d.Suite)
	for _, sub := range []string{"etc/preferences.d", "etc/sources.list.d", "state/lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := d.takeLock(lock); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "etc", "sources.list"), []byte(d.source()+"\n"), 0o600); err != nil {
		return nil, err
	}
	d.Progress("asking the archive of Debian " + d.Suite + " what there is")
	if _, err := d.apt(ctx, dir, "update"); err != nil {
		return nil, err
	}
	install := append([]string{"install", "--"}, packages...)
	d.Progress("downloading " + strings.Join(packages, ", "))
	if _, err := d.apt(ctx, dir, append([]string{"--download-only"}, install...)...); err != nil {
		return nil, err
	}
	there, err := filepath.Glob(filepath.Join(dir, "archives", "*.deb"))
	if err != nil {
		return nil, err
	}
	return d.findNeeded(ctx, dir, install, there)
}

// findNeeded returns those of the packages there that installing install would use.
func (d Debian) findNeeded(ctx context.Context, dir string, install, there []string) ([]string, error) {
	plan, err := d.apt(ctx, dir, append([]string{"--simulate"}, install...)...)
	if err != nil {
		return nil, err
	}
	var files []string
	for line := range strings.Lines(plan) {
		// Inst NAME [OLD] (VERSION ARCHIVE [ARCH])
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "Inst" {
			continue
		}
		_, version, _ := strings.Cut(line, "(")
		version, _, _ = strings.Cut(version, " ")
		name, _, _ := strings.Cut(f[1], ":")
		prefix := name + "_" + strings.ReplaceAll(version, ":", "%3a") + "_"
		found := ""
		for _, file := range there {
			if strings.HasPrefix(filepath.Base(file), prefix) {
				found = file
			}
		}
		if found == "" {
			return nil, fmt.Errorf("apt-get: %s %s was not downloaded", name, version)
		}
		files = append(files, found)
	}
	return files, nil
}

// source returns the archive as a line of sources.list(5).
func (d Debian) source() string {
	if d.Keyring != "" {
		return "deb [signed-by=" + d.Keyring + "] " + d.Mirror + " " + d.Suite + " main"
	}
	return "deb " + d.Mirror + " " + d.Suite + " main"
}

// apt runs apt-get on the state in dir, over the packages of the root, and returns its
// output.
func (d Debian) apt(ctx context.Context, dir string, args ...string) (string, error) {
	argv := []string{"apt-get", "-qq", "--yes", "--no-install-recommends"}
	for _, o := range [][2]string{
		{"Dir::Etc", dir + "/etc"}, {"Dir::State", dir + "/state"}, {"Dir::Cache", dir}, {"Dir::Cache::archives", dir + "/archives"},
		{"Dir::State::status", filepath.Join(d.Dir(), "var/lib/dpkg/status")}, {"Dir::Log", dir},
		{"Dir::Etc::TrustedParts", "/etc/apt/trusted.gpg.d"}, {"APT::Sandbox::User", "root"}, {"Debug::NoLocking", "1"},
		{"Acquire::Retries", "3"}, {"Acquire::http::Timeout", "30"}, {"Acquire::Languages", "none"}, {"APT::Update::Error-Mode", "any"},
	} {
		argv = append(argv, "-o", o[0]+"="+o[1])
	}
	var output bytes.Buffer
	news := &builderLog{log: &output, progress: func(string) {}}
	if err := d.Run(ctx, news, append(argv, args...)); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		last := strings.TrimPrefix(news.last, "E: ")
		if last == "" {
			last = err.Error()
		}
		return "", errors.New("apt-get: " + last)
	}
	return output.String(), nil
}
