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
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "vix"

// mayImport is the map of the packages: what of ours each imports, itself and what lies
// below it, but for what has a line of its own. It is exact: an import that is not here is
// an error, and so is one that nobody needs any more. Tests may import what they like. A
// new package gets a line here.
var mayImport = map[string][]string{
	"config":              {"internal/plain"},
	"internal/accept":     {},
	"internal/agent":      {"internal/plain"},
	"internal/archtest":   {},
	"internal/balloon":    {},
	"internal/boot":       {"internal/durable"},
	"internal/clipboard":  {"internal/display", "internal/wayland", "internal/relay", "internal/plain"},
	"internal/clipflow":   {"config", "internal/accept", "internal/clipboard", "internal/desktop", "internal/durable", "internal/vm", "internal/wayland"},
	"internal/desktop":    {"config", "internal/durable", "internal/icon", "internal/vm", "internal/plain"},
	"internal/durable":    {},
	"internal/filter":     {"internal/display", "config", "internal/label", "internal/wayland", "internal/relay", "internal/clipboard", "internal/plain", "internal/surface", "internal/ledger"},
	"internal/label":      {},
	"internal/launch":     {"config", "internal/agent", "internal/desktop", "internal/durable", "internal/plain", "internal/proc", "internal/rootfs", "internal/transfer", "internal/vm"},
	"internal/ledger":     {},
	"internal/gpu":        {"internal/display", "internal/wayland", "internal/ledger", "internal/vhost", "internal/virtwl"},
	"internal/guestproxy": {"internal/accept", "internal/wayland", "internal/relay", "internal/virtwl"},
	"internal/hostile":    {"internal/wayland", "internal/virtwl"},
	"internal/icon":       {},
	"internal/menu":       {"internal/durable", "internal/icon", "internal/label"},
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
	"internal/display":    {"config", "internal/ledger", "internal/wayland"},
	"internal/wayland":    {"internal/plain"},
	// The menu's two processes share their messages; only the one that starts VMs has this.
	"internal/menu/session": {"config", "internal/desktop", "internal/durable", "internal/icon", "internal/launch", "internal/menu", "internal/plain", "internal/vm"},
	// A test's desktop stands outside what it tests.
	"internal/desktoptest": {"internal/logtest"},
	"internal/logtest":     {},

	// What is started, and what tests it.
	"bench":                {},
	"cmd/vix-guest":        {"internal/agent", "internal/guestproxy", "internal/names", "internal/transfer"},
	"cmd/vix-launcher":     {"config", "internal/agent", "internal/balloon", "internal/boot", "internal/clipboard", "internal/clipflow", "internal/desktop", "internal/display", "internal/durable", "internal/launch", "internal/menu/session", "internal/plain", "internal/proc", "internal/qemu", "internal/rootfs", "internal/sandbox", "internal/scope", "internal/supervise", "internal/termsafe", "internal/trace", "internal/transfer", "internal/usb", "internal/vm", "internal/wayland"},
	"cmd/vix-menu":         {"internal/icon", "internal/label", "internal/menu", "internal/sandbox"},
	"cmd/vix-waylandproxy": {"config", "internal/accept", "internal/clipboard", "internal/display", "internal/filter", "internal/gpu", "internal/guestproxy", "internal/ledger", "internal/plain", "internal/relay", "internal/sandbox", "internal/trace", "internal/vhost", "internal/wayland"},
	"e2e":                  {"internal/desktoptest", "internal/hostile", "internal/logtest", "internal/virtwl"},
	"scripts":              {},
}

// mustNotLink says what is in no binary of ours, whoever imports it: a guest's has no part
// of the host, and who starts VMs has none that reads the guest's queues.
var mustNotLink = map[string][]string{
	"cmd/vix-guest":       hostParts,
	"internal/guestproxy": hostParts,
	"cmd/vix-launcher":    {"internal/filter", "internal/gpu", "internal/surface", "internal/vhost", "internal/virtwl"},
}

var hostParts = []string{"internal/vm", "internal/supervise", "internal/qemu", "internal/vhost", "internal/gpu", "internal/filter", "internal/desktop"}

// mayStart lists who below cmd/ starts processes, and mayBecome who replaces its own process
// by another program: what is confined becomes QEMU, or the like. Packages whose name ends
// in "test" serve tests alone.
var (
	mayStart  = []string{"internal/proc", "internal/vm"}
	mayBecome = []string{"internal/sandbox"}
)

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

func TestImports(t *testing.T) {
	roots := slices.Collect(maps.Keys(mayImport))
	imports := map[string][]string{} // by root: those that there are
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		root := nearest(p.short(), roots)
		if root == "" {
			t.Errorf("%s: not in the map: add it to mayImport (and to ARCHITECTURE.md) with what it imports", p.short())
			continue
		}
		imports[root] = append(imports[root], "") // there is a package
		for _, i := range p.Imports {
			i, ours := strings.CutPrefix(i, module+"/")
			if i = nearest(i, roots); !ours || i == root {
				continue
			}
			if !slices.Contains(mayImport[root], i) {
				t.Errorf("%s imports %s; it may import %v", p.short(), i, mayImport[root])
			}
			imports[root] = append(imports[root], i)
		}
	}
	for root, allowed := range mayImport {
		if imports[root] == nil {
			t.Errorf("%s is in the map, and there is no such package", root)
		}
		for _, i := range allowed {
			if !slices.Contains(imports[root], i) {
				t.Errorf("%s may import %s, and does not: take it out of mayImport (and of ARCHITECTURE.md)", root, i)
			}
		}
	}
}

func TestLinks(t *testing.T) {
	for _, p := range packages(t) {
		for _, d := range p.Deps {
			if d, ours := strings.CutPrefix(d, module+"/"); ours && withinAny(d, mustNotLink[p.short()]) {
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
	idle := slices.Concat(mayStart, mayBecome) // of which nothing was seen yet
	for _, p := range packages(t) {
		short := p.short()
		if p.Name == "main" || p.forTests() || within(short, "cmd") || within(short, "e2e") {
			continue
		}
		var starts, becomes []string
		if slices.Contains(p.Imports, "os/exec") {
			starts = []string{short + ": imports os/exec"}
		}
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			for _, use := range uses(t, file, forbidden) {
				t.Errorf("%s: take it in cmd/ and hand it down", use)
			}
			starts = append(starts, uses(t, file, starters)...)
			becomes = append(becomes, uses(t, file, replacers)...)
		}
		idle = slices.DeleteFunc(idle, func(name string) bool { return name == short && len(starts)+len(becomes) > 0 })
		if !slices.Contains(mayStart, short) {
			for _, use := range starts {
				t.Errorf("%s: only %v start processes", use, mayStart)
			}
		}
		if !slices.Contains(mayBecome, short) {
			for _, use := range becomes {
				t.Errorf("%s: only %v become another program", use, mayBecome)
			}
		}
	}
	if len(idle) > 0 {
		t.Errorf("%v neither start a process nor become one: take them out of the lists", idle)
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
