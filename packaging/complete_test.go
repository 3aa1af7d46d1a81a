package packaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The real shells complete verbs, options, VMs and programs, of both names, from
// the files as they are installed.
func TestCompletion(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything")
	}
	dir := installed(t)
	for path, text := range map[string]string{
		"config/vix/config.toml": "[vm.web]\nprograms = [\"firefox\"]\n[vm.office]\n[vm.vault]\n",
		"run/empty":              "",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Each line is typed; the words have to be shown.
	lines := [][]string{
		{"vix run --vm ", "office", "vault", "web", "configured"},
		{"vix run --vm ", "office", "vault", "web"},
		{"vix st", "status", "show everything about", "stop", "stop VMs"},
		{"vix run --", "--background", "return once the program", "--vm", "of the VM"},
		{"vix completion ", "bash", "fish", "zsh"},
	}
	const where = `export XDG_RUNTIME_DIR=$1/run XDG_CONFIG_HOME=$1/config HOME=$1 PATH=$1/usr/bin:$PATH TERM=xterm LC_ALL=C.UTF-8; `
	check := func(t *testing.T, shown map[string]string) {
		for _, l := range lines {
			for _, want := range l[1:] {
				if !strings.Contains(shown[l[0]], want) {
					t.Fatalf("%q: %q is not shown: %q", l[0], want, shown[l[0]]) // complete.zsh has ended there
				}
			}
		}
	}
	var in strings.Builder
	for _, l := range lines {
		in.WriteString(strings.Join(l, "\t") + "\n")
	}
	for shell, script := range map[string]string{
		"bash": `zsh -f packaging/testdata/complete.zsh bash "$1/usr"`,
		"zsh":  `zsh -f packaging/testdata/complete.zsh zsh "$1/usr"`,
		"fish": `export XDG_DATA_DIRS=$1/usr/share:/usr/share; mapfile -t lines < <(cut -f 1 <<<"$2")
			fish -c 'for line in $argv; echo "$line => "; complete -C $line; end' "${lines[@]}"`,
	} {
		t.Run(shell, func(t *testing.T) {
			out := inRoot(t, where+`for p in zsh `+shell+`; do command -v $p >/dev/null || { echo lacks $p; exit; }; done
				`+script+` <<<"$2"`, dir, strings.TrimSuffix(in.String(), "\n"))
			if program, ok := strings.CutPrefix(out, "lacks "); ok {
				t.Skip("lacks: " + program)
			}
			shown := map[string]string{}
			for i, l := range lines {
				_, after, _ := strings.Cut(out, l[0]+" => ")
				if i+1 < len(lines) {
					after, _, _ = strings.Cut(after, lines[i+1][0]+" => ")
				}
				shown[l[0]] = after
			}
			check(t, shown)
		})
	}
}
