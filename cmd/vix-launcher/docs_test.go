package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vix/config"
)

// project is the checkout, as the tests see it.
const project = "../.."

// documents returns the paths, below project, of what a user reads, and of all other
// documents with links.
func documents(t *testing.T) (users, others []string) {
	t.Helper()
	users, err := filepath.Glob(filepath.Join(project, "docs", "*.md"))
	if err != nil || len(users) < 5 {
		t.Fatalf("%d documents, %v", len(users), err)
	}
	for i, path := range users {
		users[i] = "docs/" + filepath.Base(path)
	}
	users = append(users, "README.md")
	return users, []string{"ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "packaging/PACKAGING.md"}
}

func document(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(project, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	inCode  = regexp.MustCompile("`[^`]+`")
	notSlug = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors returns the fragments by which a forge links to the headings of a document.
func anchors(text string) (list []string) {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		slug := strings.ToLower(notSlug.ReplaceAllString(m[1], ""))
		list = append(list, strings.ReplaceAll(slug, " ", "-"))
	}
	return list
}

// Every relative link of the documents leads to a file and, with a fragment, to one of its
// headings; and pictures are installed with the documents that show them.
func TestDocumentLinks(t *testing.T) {
	install := document(t, "packaging/install")
	users, others := documents(t)
	links := 0
	for _, from := range append(users, others...) {
		text := document(t, from)
		for _, m := range link.FindAllStringSubmatch(inCode.ReplaceAllString(text, ""), -1) {
			path, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			links++
			to := from
			if path != "" {
				to = filepath.Join(filepath.Dir(from), path)
			}
			if _, err := os.Stat(filepath.Join(project, to)); err != nil {
				t.Errorf("%s: link to %s: %v", from, m[1], err)
				continue
			}
			if fragment != "" && !slices.Contains(anchors(document(t, to)), fragment) {
				t.Errorf("%s: link to %s: no such heading", from, m[1])
			}
			if strings.HasPrefix(to, "docs/") && filepath.Ext(to) != ".md" && !strings.Contains(install, "data "+to+" ") {
				t.Errorf("%s: %s is not installed; see packaging/install", from, to)
			}
		}
	}
	if links < 30 {
		t.Errorf("only %d links", links)
	}
}

// codeBlocks returns the indented and the fenced blocks of a document.
func codeBlocks(text string) (blocks []string) {
	var block []string
	end := func() {
		if len(block) > 0 {
			blocks = append(blocks, strings.TrimSpace(strings.Join(block, "\n")))
		}
		block = nil
	}
	fenced := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(line, "```"):
			end()
			fenced = !fenced
		case fenced:
			block = append(block, line)
		case indented, line == "" && block != nil:
			block = append(block, code)
		default:
			end()
		}
	}
	end()
	return blocks
}

// vixCommand matches a use of the program in code, from its first argument on.
var vixCommand = regexp.MustCompile(`(?:^|[\s(])vix ((?:--)?[a-z].*)$`)

// commandsIn returns the arguments of the uses of vix in a document's code.
func commandsIn(text string) (list []string) {
	var code []string
	for _, span := range inCode.FindAllString(text, -1) {
		code = append(code, strings.Trim(span, "`"))
	}
	for _, block := range codeBlocks(text) {
		code = append(code, strings.Split(block, "\n")...)
	}
	for _, line := range code {
		line, _, _ = strings.Cut(line, " #")
		line, _, _ = strings.Cut(line, " | ")
		if m := vixCommand.FindStringSubmatch(line); m != nil {
			list = append(list, strings.TrimSpace(m[1]))
		}
	}
	return list
}

// checkUse says what is wrong with a use of vix: a verb or an option that does not exist.
// Its arguments may be a synopsis, with brackets, alternatives and dots.
func checkUse(root *cobra.Command, use string) error {
	use = strings.NewReplacer("[", " ", "]", " ", "…", " ", `\|`, "|", ",", " ").Replace(use)
	c, words := root, strings.Fields(use)
	if len(words) > 1 && words[0] == "help" {
		words = words[1:]
	}
	for len(words) > 0 && c.HasSubCommands() && !strings.HasPrefix(words[0], "-") {
		next := c
		for name := range strings.SplitSeq(words[0], "|") {
			i := slices.IndexFunc(c.Commands(), func(sub *cobra.Command) bool { return !sub.Hidden && (sub.Name() == name || sub.HasAlias(name)) })
			if i < 0 {
				return fmt.Errorf("%s has no verb %q", c.CommandPath(), name)
			}
			next = c.Commands()[i]
		}
		c, words = next, words[1:]
	}
	for ; len(words) > 0 && words[0] != "--"; words = words[1:] {
		if !strings.HasPrefix(words[0], "-") {
			if c.Name() == "run" {
				break // the rest is the program's
			}
			continue
		}
		takesValue := false
		for name := range strings.SplitSeq(words[0], "|") {
			var f *pflag.Flag
			if long, ok := strings.CutPrefix(name, "--"); ok {
				long, _, _ = strings.Cut(long, "=")
				f = c.Flag(long)
			} else if name = strings.TrimPrefix(name, "-"); len(name) == 1 {
				f = c.Flags().ShorthandLookup(name)
			} else {
				continue // the value of the option before "|"
			}
			if f == nil {
				return fmt.Errorf("%s has no option %s", c.CommandPath(), name)
			}
			takesValue = f.NoOptDefVal == "" && !strings.Contains(name, "=")
		}
		if takesValue && len(words) > 1 {
			words = words[1:]
		}
	}
	return nil
}

// A documentation that names verbs and options of earlier days is worse than none: each use
// of vix in README.md and docs has a verb and options that exist.
func TestDocumentCommands(t *testing.T) {
	root := command(osEnv())
	root.InitDefaultVersionFlag()
	for use, wrong := range map[string]string{
		"run --vm web --net nat firefox --private-window": "",
		"cp [-r] SRC… DST":                                "",
		"clipboard copy\\|paste [--vm NAME\\|--host]":     "",
		"exec web -- ls --color":                          "",
		"ps":                                              "",
		"run -d --rm -v ~/Music firefox":                  "",
		"help run":                                        "",
		"--version":                                       "",
		"lists":                                           `has no verb "lists"`,
		"usb attach|eject web":                            `has no verb "eject"`,
		"stop --now web":                                  "has no option --now",
		"run --vm web --fast firefox":                     "has no option --fast",
		"logs -x web":                                     "has no option x",
	} {
		if err := checkUse(root, use); (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("vix %s: %v, want %q", use, err, wrong)
		}
	}
	users, _ := documents(t)
	uses := 0
	for _, path := range users {
		for _, use := range commandsIn(document(t, path)) {
			uses++
			if err := checkUse(root, use); err != nil {
				t.Errorf("%s: vix %s: %v", path, use, err)
			}
		}
	}
	if uses < 100 {
		t.Errorf("only %d uses of vix", uses)
	}
}

// What the documents show of config.toml is right.
func TestDocumentConfigurations(t *testing.T) {
	users, _ := documents(t)
	seen := 0
	for _, path := range users {
		for _, block := range codeBlocks(document(t, path)) {
			if !strings.HasPrefix(block, "[") {
				continue
			}
			seen++
			if _, err := config.Parse(path, []byte(block)); err != nil {
				t.Errorf("%v, in %q", err, block)
			}
		}
	}
	if seen < 4 {
		t.Errorf("only %d configurations", seen)
	}
}

var (
	boldCode = regexp.MustCompile("\\*\\*[^*\n]*`[^*]*`[^*]*\\*\\*")
	firstCol = regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|")
	// variable matches what stands for something else in a message that the documents show.
	variable = regexp.MustCompile(`…|\b[A-Z]{3,}\b|\b[AB]\b|\b\d[\d:.]*(ms)?\b|"\w*"` + // placeholders, numbers, quoted words
		`|\bconfig\.toml:|\[?\bvm\.[\w.]+\]?|\b(web|memory):|; did you mean` + // a place in the configuration, a hint
		`|/dev/kvm|--net\b|qemu-system-x86_64|virtiofsd\b|\btext\b|no space left on device`) // what %s and %v stand for
)

// ofOthers are code in troubleshooting.md that is no message of Vix's.
var ofOthers = []string{"Could not find the Qt platform plugin", "expected a top-level item to end with", "no_focus"}

// piecesOf returns the fixed parts of a message that are long enough to be told apart.
func piecesOf(message string) (list []string) {
	message = strings.Join(strings.Fields(message), " ")
	for _, piece := range variable.Split(message, -1) {
		if piece = strings.Trim(piece, " :;,.()[]`%"); len(piece) >= 12 {
			list = append(list, piece)
		}
	}
	return list
}

// A message by which troubleshooting.md is searched is one that Vix prints.
func TestDocumentMessages(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{"cmd", "config", "internal"} {
		err := filepath.WalkDir(filepath.Join(project, dir), func(path string, _ os.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				var b []byte
				if b, err = os.ReadFile(path); err == nil {
					code.Write(b)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	source := strings.ReplaceAll(code.String(), `\"`, `"`)
	text := document(t, "docs/troubleshooting.md")
	pieces := 0
	var messages []string
	for _, m := range boldCode.FindAllString(text, -1) {
		messages = append(messages, inCode.FindAllString(m, -1)...)
	}
	for _, m := range firstCol.FindAllStringSubmatch(text, -1) {
		messages = append(messages, inCode.FindAllString(m[1], -1)...)
	}
	for _, m := range messages {
		if vixCommand.MatchString(strings.Trim(m, "`")) || slices.ContainsFunc(ofOthers, func(other string) bool { return strings.Contains(m, other) }) {
			continue
		}
		for _, piece := range piecesOf(m) {
			pieces++
			if !strings.Contains(source, piece) {
				t.Errorf("troubleshooting.md: %s: no message of Vix's has %q", m, piece)
			}
		}
	}
	if pieces < 50 {
		t.Errorf("only %d pieces of messages", pieces)
	}
}
