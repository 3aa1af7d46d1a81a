package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "vix"

// mayImport is the map of the packages: what of ours each may import, itself
// and what lies below it included. A new package gets a line here.
var mayImport = map[string][]string{
	"config":              {"internal/plain"},
	"internal/accept":     {},
	"internal/agent":      {"internal/plain"},
	"internal/archtest":   {},
	"internal/balloon":    {},
	"internal/boot":       {"internal/durable"},
	"internal/clipboard":  {"internal/wayland", "internal/relay", "internal/plain"},
	"internal/clipflow":   {"config", "internal/accept", "internal/clipboard", "internal/desktop", "internal/durable", "internal/vm", "internal/wayland"},
	"internal/desktop":    {"config", "internal/durable", "internal/icon", "internal/vm", "internal/plain"},
	"internal/durable":    {},
	"internal/filter":     {"config", "internal/label", "internal/wayland", "internal/relay", "internal/clipboard", "internal/plain", "internal/surface", "internal/ledger"},
	"internal/label":      {},
	"internal/launch":     {"config", "internal/agent", "internal/desktop", "internal/durable", "internal/plain", "internal/proc", "internal/rootfs", "internal/transfer", "internal/vm"},
	"internal/ledger":     {},
	"internal/gpu":        {"internal/wayland", "internal/ledger", "internal/vhost", "internal/virtwl"},
	"internal/guestproxy": {"internal/accept", "internal/wayland", "internal/relay", "internal/virtwl"},
	"internal/hostile":    {"internal/wayland", "internal/virtwl"},
	"internal/icon":       {},
	"internal/menu":       {"config", "internal/durable", "internal/icon", "internal/label"},
	"internal/netstack":   {"config"},
	"internal/names":      {"internal/accept"},
	"internal/plain":      {},
	"internal/relay":      {"internal/wayland"},
	"internal/rootfs":     {"internal/durable"},
	"internal/sandbox":    {},
	"internal/scope":      {},
	"internal/surface":    {},
	"internal/termsafe":   {},
	"internal/trace":      {"internal/wayland"},
	"internal/transfer":   {"internal/durable"},
	"internal/usb":        {"config", "internal/plain"},
	"internal/vhost":      {},
	"internal/virtwl":     {"internal/wayland", "internal/ledger"},
	"internal/vm":         {"config", "internal/agent", "internal/balloon", "internal/durable", "internal/plain", "internal/proc", "internal/rootfs", "internal/sandbox", "internal/scope"},
	"internal/supervise":  {"config", "internal/accept", "internal/agent", "internal/balloon", "internal/boot", "internal/display", "internal/ledger", "internal/names", "internal/plain", "internal/proc", "internal/qemu", "internal/rootfs", "internal/sandbox", "internal/scope", "internal/usb", "internal/vm"},
	"internal/proc":       {"internal/plain", "internal/sandbox"},
	"internal/qemu":       {"config", "internal/proc"},
	"internal/display":    {"config"},
	"internal/wayland":    {"internal/plain"},
	// The menu's two processes share their messages; only the one that starts VMs has this.
	"internal/menu/session": {"config", "internal/desktop", "internal/durable", "internal/icon", "internal/launch", "internal/menu", "internal/plain", "internal/vm"},
	// A test's desktop stands outside what it tests.
	"internal/desktoptest": {"internal/logtest"},
	"internal/logtest":     {},
}

// guestMustNot: a guest's binary has no host part in it, whoever imports it.
var guestMustNot = []string{"internal/vm", "internal/supervise", "internal/qemu", "internal/vhost", "internal/gpu", "internal/filter", "internal/desktop"}

// mayStart lists who below cmd/ starts processes. Packages whose name ends in
// "test" serve tests alone.
var mayStart = []string{"internal/proc", "internal/vm", "internal/sandbox"}

// mayBecome lists who may besides replace its own process by another program:
// the process that makes a root's view becomes the virtiofsd that serves it.
var mayBecome = []string{"internal/rootfs"}

type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	Doc        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	TestGoFiles,
	XTestGoFiles []string
}

// short is the path below the module, "." for its root.
func (p pkg) short() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func (p pkg) forTests() bool { return strings.HasSuffix(p.Name, "test") }

func packages(t *testing.T) []pkg {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("lacks: go")
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,Doc,GoFiles,Imports,Deps,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = "../.." // a pattern of import paths would look at every module, and fetch what is not there
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// within says whether path is root or below it.
func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func withinAny(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return within(path, r) })
}

// entry finds the line of mayImport for a package: its own or its parent's.
func entry(short string) (root string, allowed []string, ok bool) {
	for root = short; root != "." && root != ""; root = filepath.Dir(root) {
		if allowed, ok = mayImport[root]; ok {
			return root, allowed, true
		}
	}
	return "", nil, false
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		short := p.short()
		if !within(short, "internal") && !within(short, "config") {
			continue
		}
		root, allowed, ok := entry(short)
		if !ok {
			t.Errorf("%s: not in the map: add it to mayImport (and to ARCHITECTURE.md) with what it may import", short)
			continue
		}
		for _, i := range p.Imports {
			i, ours := strings.CutPrefix(i, module+"/")
			if ours && !within(i, root) && !withinAny(i, allowed) {
				t.Errorf("%s imports %s; it may import %v", short, i, allowed)
			}
		}
	}
}

func TestGuestBinariesHoldNoHostPart(t *testing.T) {
	for _, p := range packages(t) {
		if p.short() != "cmd/vix-guest" && p.short() != "internal/guestproxy" {
			continue
		}
		for _, d := range p.Deps {
			if d, ours := strings.CutPrefix(d, module+"/"); ours && withinAny(d, guestMustNot) {
				t.Errorf("%s imports %s, perhaps through another package", p.short(), d)
			}
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s: no package comment", p.ImportPath)
		}
	}
}

// forbidden are uses of ambient authority, by package and name, that belong in
// cmd/: what is below it is handed its values.
var forbidden = map[string][]string{
	"os":      {"Getenv", "LookupEnv", "Environ", "Setenv", "Exit", "Args", "Stdin", "Stdout", "Stderr", "UserHomeDir", "UserCacheDir"},
	"log":     {"Fatal", "Fatalf", "Fatalln", "Print", "Printf", "Println"},
	"syscall": {"Getenv", "Exit", "Environ"},
}

// starters start processes without os/exec.
var starters = map[string][]string{
	"os":      {"StartProcess"},
	"syscall": {"ForkExec", "StartProcess"},
}

var replacers = map[string][]string{
	"syscall":               {"Exec"},
	"golang.org/x/sys/unix": {"Exec"},
}

func TestAuthorityIsTakenInCmd(t *testing.T) {
	for _, p := range packages(t) {
		short := p.short()
		if p.Name == "main" || p.forTests() || within(short, "cmd") || within(short, "e2e") {
			continue
		}
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			for _, use := range uses(t, file, forbidden) {
				t.Errorf("%s: take it in cmd/ and hand it down", use)
			}
			if withinAny(short, mayStart) {
				continue
			}
			for _, use := range uses(t, file, starters) {
				t.Errorf("%s: only %v start processes", use, mayStart)
			}
			if withinAny(short, mayBecome) {
				continue
			}
			for _, use := range uses(t, file, replacers) {
				t.Errorf("%s: only %v and %v become another program", use, mayStart, mayBecome)
			}
		}
		if slices.Contains(p.Imports, "os/exec") && !withinAny(short, mayStart) {
			t.Errorf("%s imports os/exec: only %v start processes", short, mayStart)
		}
	}
}

// uses returns where file names something of the list, as "file:line: pkg.Name".
func uses(t *testing.T, file string, list map[string][]string) []string {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	imported := map[string]string{} // by the name in this file
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imported[name] = path
	}
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if ok && x.Obj == nil && slices.Contains(list[imported[x.Name]], sel.Sel.Name) {
			found = append(found, fset.Position(sel.Pos()).String()+": "+x.Name+"."+sel.Sel.Name)
		}
		return true
	})
	return found
}

// TestFuzzCorpora: a target whose corpus has silently gone empty tests nothing
// when the tests run.
func TestFuzzCorpora(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range f.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
					continue
				}
				dir := filepath.Join(p.Dir, "testdata", "fuzz", fn.Name.Name)
				if files, err := os.ReadDir(dir); len(files) == 0 {
					if err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Error(err)
					}
					t.Errorf("%s: %s has no corpus in testdata/fuzz/%s", p.short(), fn.Name.Name, fn.Name.Name)
				}
			}
		}
	}
}
