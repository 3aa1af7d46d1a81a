package packaging

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The PKGBUILD is a script of bash with the fields that makepkg wants. makepkg
// itself is not run: the system root has none.
func TestPKGBUILD(t *testing.T) {
	out := output(t, nil, "bash", "-euc", `bash -n packaging/arch/PKGBUILD; . packaging/arch/PKGBUILD
		printf '%s\n' "$pkgname" "$pkgver" "$pkgrel" "$_version" "${source[0]}" "${#source[@]} ${#sha256sums[@]}" "${license[*]}" "${arch[*]}" "${depends[*]}"
		declare -F build check package`)
	version := strings.TrimSpace(read(t, "../VERSION"))
	want := []string{"vix", strings.ReplaceAll(version, "-", "."), "1", version, "vix-" + version + ".tar.gz", "1 1", "Apache-2.0", "x86_64",
		"qemu-system-x86>=11 virtiofsd>=1.10 glibc libxkbcommon", "build", "check", "package"}
	if got := strings.Split(strings.TrimSpace(out), "\n"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The flake's package, overlay and modules evaluate, with stubs in the place of
// nixpkgs (testdata/eval.nix).
func TestFlake(t *testing.T) {
	if testing.Short() {
		t.Skip("runs nix")
	}
	out := inRoot(t, `command -v nix-instantiate >/dev/null || { echo lacks; exit; }
		export HOME=$1 NIX_STATE_DIR=$1 NIX_LOG_DIR=$1
		for f in flake.nix packaging/nix/*.nix; do nix-instantiate --parse "$f" >/dev/null; done
		nix-instantiate --eval --store dummy:// --strict --json -E "import $2/packaging/testdata/eval.nix $2"`, t.TempDir(), project(t))
	if out == "lacks\n" {
		t.Skip("lacks: nix-instantiate")
	}
	var got struct {
		Package struct {
			Pname, Version, BuildPhase, InstallPhase, PostFixup string
		}
		Overlay string
		Off     map[string]any
		NixOS   struct {
			Options []string
			Config  struct {
				Environment struct{ SystemPackages []string }
				Systemd     struct{ Packages []string }
				Services    struct{ DBus struct{ Packages []string } }
				Users       struct {
					Groups struct{ KVM struct{ Members []string } }
				}
			}
		}
		Home struct {
			Options []string
			Config  struct {
				XDG struct {
					ConfigFile map[string]struct{ Source string }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	version := strings.TrimSpace(read(t, "../VERSION"))
	path := "/nix/store/vix-" + version
	if p := got.Package; p.Pname != "vix" || p.Version != version || !strings.Contains(p.BuildPhase, "make docs VERSION="+version+"\n") ||
		!strings.Contains(p.InstallPhase, "PREFIX=$out packaging/install\n") || !strings.Contains(p.PostFixup, "qemu:virtiofsd") {
		t.Errorf("package: %+v", p)
	}
	if got.Overlay != "vix" || len(got.Off) != 0 {
		t.Errorf("overlay %q, a module that is off %v", got.Overlay, got.Off)
	}
	c := got.NixOS.Config
	for name, list := range map[string][]string{"systemPackages": c.Environment.SystemPackages, "systemd": c.Systemd.Packages, "dbus": c.Services.DBus.Packages} {
		if !slices.Equal(list, []string{path}) {
			t.Errorf("NixOS module, %s: %q", name, list)
		}
	}
	if !slices.Equal(got.NixOS.Options, []string{"enable", "kvmUsers", "package"}) || !slices.Equal(c.Users.Groups.KVM.Members, []string{"alice"}) {
		t.Errorf("NixOS module: %+v", got.NixOS)
	}
	files := got.Home.Config.XDG.ConfigFile
	unit := files["systemd/user/graphical-session.target.wants/vix@web.service"].Source
	if unit != path+"/lib/systemd/user/vix@.service" || files["vix/config.toml"].Source != `config.toml: {"vm":{"web":{"memory":"2G"}}}` {
		t.Errorf("home-manager module: %+v", got.Home)
	}
	if _, err := os.Stat(filepath.Join("systemd", filepath.Base(unit))); err != nil {
		t.Errorf("the module enables a unit that is not installed: %v", err)
	}
}

// The same commit gives the same tarball, with its version in it.
func TestDist(t *testing.T) {
	lacks(t, "git")
	if _, err := os.Stat("../.git"); err != nil {
		t.Skip("a tarball has no history to make another of")
	}
	var paths, sums []string
	for _, zone := range []string{"UTC", "Asia/Tokyo"} {
		path := strings.TrimSpace(output(t, []string{"TZ=" + zone}, "scripts/dist", t.TempDir()))
		paths, sums = append(paths, path), append(sums, sum(t, path))
	}
	if sums[0] != sums[1] {
		t.Errorf("not reproducible: %v", sums)
	}
	dir := t.TempDir()
	output(t, nil, "tar", "-xzf", paths[0], "-C", dir)
	name := strings.TrimSuffix(filepath.Base(paths[0]), ".tar.gz")
	version := strings.TrimSuffix(strings.TrimSpace(output(t, nil, "scripts/version")), ".dirty")
	if got := strings.TrimSpace(output(t, nil, filepath.Join(dir, name, "scripts/version"))); got != version || name != "vix-"+version {
		t.Errorf("%s: version %q, want %q", name, got, version)
	}
	if a, b := output(t, nil, filepath.Join(dir, name, "scripts/version"), "--epoch"), output(t, nil, "scripts/version", "--epoch"); a != b {
		t.Errorf("times %q and %q", a, b)
	}
}
