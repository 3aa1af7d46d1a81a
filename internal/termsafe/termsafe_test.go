package termsafe

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"unicode"
)

// pass returns the filtered s, and the sequences that reset the terminal.
func pass(kind Kind, s string) (out, restore string) {
	f := Filter{Kind: kind}
	out = string(f.Append(nil, []byte(s)))
	return out, string(f.Restore(nil))
}

// Strings of which nothing passes in any kind of stream but Raw.
var nothing = map[string]string{
	"clipboard, BEL":          "\x1b]52;c;cHduZWQ=\a",
	"clipboard, ST":           "\x1b]52;c;cHduZWQ=\x1b\\",
	"clipboard, C1":           "\u009d52;c;cHduZWQ=\u009c",
	"clipboard, mixed":        "\u009d52;c;cHduZWQ=\x1b\\",
	"clipboard, leading 0":    "\x1b]052;c;cHduZWQ=\a",
	"clipboard is asked":      "\x1b]52;c;?\a",
	"clipboard, kitty":        "\x1b]5522;type=write\x1b\\",
	"title":                   "\x1b]0;root@host: ~\a",
	"title, alone":            "\x1b]2;x\x1b\\",
	"title of an icon":        "\x1b]1;x\a",
	"title of X":              "\x1b]3;WM_NAME=x\a",
	"title of screen":         "\x1bkroot@host\x1b\\",
	"title of Sun's":          "\x1b]lroot\x1b\\",
	"title with U+009C in it": "\x1b]0;Ü\x1b\\",
	"colours":                 "\x1b]4;1;?\a\x1b]10;?\a\x1b]11;?\x1b\\\x1b]12;?\a\x1b]11;#000000\a\x1b]104\a",
	"directory":               "\x1b]7;file://host/etc\a",
	"link":                    "\x1b]8;;http://evil/\x1b\\\x1b]8;;\x1b\\",
	"notification":            "\x1b]9;x\a\x1b]777;notify;a;b\a\x1b]99;;x\x1b\\",
	"iTerm's file":            "\x1b]1337;File=name=eA==;inline=1:AAAA\a",
	"shell's marks":           "\x1b]133;A\a\x1b]633;A\a",
	"pointer":                 "\x1b]22;wait\a",
	"font":                    "\x1b]50;?\a",
	"log file":                "\x1b]46;/tmp/x\a",
	"sixel":                   "\x1bPq#0;2;0;0;0#0~~@@vv\x1b\\",
	"DECRQSS":                 "\x1bP$qm\x1b\\\x1bP$q\"p\x1b\\",
	"XTGETTCAP":               "\x1bP+q544e\x1b\\",
	"DECUDK":                  "\x1bP0;1|17/726d202d7266\x1b\\",
	"tmux's way around":       "\x1bPtmux;\x1b\x1b]52;c;eA==\a\x1b\\",
	"screen's way around":     "\x1bP\x1b]52;c;eA==\a\x1b\\",
	"DCS, C1":                 "\u0090$qm\u009c",
	"APC, kitty's pictures":   "\x1b_Gf=32,s=1,v=1,a=T;AAAAAA==\x1b\\",
	"APC, tmux's title":       "\x1b_title\x1b\\",
	"PM":                      "\x1b^x\x1b\\",
	"SOS":                     "\x1bXx\x1b\\",
	"APC with text":           "\x1b_é\u202e中\x1b\\",
	"answer-back":             "\x05",
	"DA":                      "\x1b[c\x1b[0c\x1b[>c\x1b[=c\x1bZ\u009bc",
	"DSR":                     "\x1b[5n\x1b[6n\x1b[?6n\x1b[?15n\x1b[?996n",
	"XTVERSION":               "\x1b[>q\x1b[>0q",
	"DECREQTPARM":             "\x1b[x\x1b[1x",
	"DECRQM":                  "\x1b[?2026$p\x1b[4$p",
	"XTWINOPS":                "\x1b[21t\x1b[20t\x1b[14t\x1b[18t\x1b[8;200;200t\x1b[22;0;0t\x1b[23;0;0t\x1b[2t",
	"kitty's keyboard, asked": "\x1b[?u",
	"kitty's, another's":      "\x1b[<u\x1b[<99u\x1b[=31u",
	"XTMODKEYS, asked":        "\x1b[?4m",
	"DECRQCRA":                "\x1b[1;1;1;1;1;1*y",
	"DECRQPSR":                "\x1b[1$w\x1b[2$w",
	"XTSMGRAPHICS":            "\x1b[?1;1;0S",
	"XTREPORTSGR":             "\x1b[1;1;1;1#|",
	"locator":                 "\x1b['|\x1b[1'z",
	"highlight mouse":         "\x1b[?1001h\x1b[1;1;1;1;1T",
	"reports unasked":         "\x1b[?2031h\x1b[?2048h\x1b[?1036h",
	"VT52":                    "\x1b[?2l",
	"132 columns":             "\x1b[?40h\x1b[?3h",
	"keyboard locked":         "\x1b[2h\x1b[12l\x1b[20h",
	"modes unknown":           "\x1b[?1007h\x1b[?45h\x1b[?80h\x1b[?69h\x1b[?8l\x1b[?67h",
	"saved modes":             "\x1b[?1s\x1b[?1r\x1b[?2004r",
	"printer":                 "\x1b[i\x1b[5i\x1b[?5i\x1b[4i",
	"scrollback":              "\x1b[3J",
	"character sets":          "\x1b%@\x1b%G\x1b F\x1b G\x1b(K\x1b(U\x1b*0\x1bn\x1bo\x1bN\x1bO",
	"tab stops":               "\x1bH\x1b[g\x1b[3g\x1b[?5W",
	"LEDs, memory lock":       "\x1b[1q\x1bl\x1bm",
	"double height":           "\x1b#3\x1b#6\x1b#8",
	"rectangles":              "\x1b[1;1;9;9;1;1;1$v\x1b[$z\x1b[88;1;1;9;9$x",
	"protected":               "\x1b[1\"q\x1b[62;1\"p",
	"bell's volume":           "\x1b[8 t\x1b[8 u",
	"Linux's palette":         "\x1b]P0000000\x1b]R",
	"Linux's bell and VT":     "\x1b[10;9999]\x1b[11;9999]\x1b[12;3]\x1b[9;0]\x1b[13]\x1b[15]",
	"Linux's character sets":  "\x1b[11m\x1b[12m",
	"C1 controls":             "\u0080\u0084\u0085\u0088\u008d\u008e\u008f\u0099\u009a\u009b\u009b6n",
	"NUL, XON, XOFF, DEL":     "\x00\x11\x13\x7f\x18\x1a",
	"two intermediates":       "\x1b[! p",
	"a prefix in the middle":  "\x1b[1?25h",
	"parameters after":        "\x1b[!1p",
	"too many parameters":     "\x1b[" + strings.Repeat("1;", 40) + "m",
	"unfinished":              "\x1b]52;c;" + strings.Repeat("A", 1<<16),
	"unfinished CSI":          "\x1b[31",
	"unfinished ESC":          "\x1b",
	"unfinished character":    "\xe2\x82",
}

func TestNothing(t *testing.T) {
	for name, s := range nothing {
		for _, kind := range []Kind{Line, Screen} {
			if out, _ := pass(kind, s); out != "" {
				t.Errorf("%s: kind %d: %q of %q", name, kind, out, s)
			}
		}
		if out, _ := pass(Raw, s); out != s {
			t.Errorf("%s: raw: %q", name, out)
		}
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"text äöü 中文 👍\n":                          "text äöü 中文 👍\n",
		"\x1b[1;31mred\x1b[0m\n":                   "\x1b[1;31mred\x1b[0m\n",
		"\x1b[38;2;1;2;3mx\x1b[48;5;200my\x1b[m":   "\x1b[38;2;1;2;3mx\x1b[48;5;200my\x1b[m",
		"\x1b[38:2::1:2:3mx\x1b[4:3my\x1b[58:5:1m": "\x1b[38:2::1:2:3mx\x1b[4:3my\x1b[58:5:1m",
		"\x1b[1;8;31mx":                            "\x1b[1;31mx", // hidden text
		"\x1b[8mx\x1b[38;2m\x1b[38mx":              "xx",
		"\x1b[31;38;9;1mx":                         "\x1b[31mx",
		"10%\r20%\r\x1b[Kdone\n":                   "10%\r20%\r\x1b[Kdone\n",
		"a\b\bb\tc\x1b[2Cd\x1b[3De\x1b[10Gf":       "a\b\bb\tc\x1b[2Cd\x1b[3De\x1b[10Gf",
		"a\x1b[Ab\x1b[Bc\x1b[Hd\x1b[2Je\x1b[1;1Hf": "abcdef",
		"a\x1b[?1049hb\x1b[?25lc\x1b[?1000hd":      "abcd",
		"a\x1bMb\x1b7c\x1b8d\x1bce\x1b(0f\x0eg\ah": "abcdefgh",
		"a\vb\fc":                                "abc",
		"a\u202eb\u2067c\u200ed":                 "abcd",
		"\x9b31mx\x9d0;y\a":                      "\ufffd31mx\ufffd0;y",
		"caf\xe9 \xff\xc3(":                      "caf\ufffd \ufffd\ufffd(",
		"\xe2\x1b[31mx":                          "\ufffd\x1b[31mx",
		"\u009b31mx":                             "\x1b[31mx", // in the usual form
		"\x1b[3\n1mx":                            "\n\x1b[31mx",
		"\x1b[31\x18mx\x1b\x1b[32my":             "mx\x1b[32my",
		"\x1b[3é1mx":                             "é1mx",
		"\x1b[99999999999999999999Cx":            "\x1b[9999Cx",
		"\x1bktitle\x1b\\x\x1b]Px12345yz\x1b]Rw": "xzw",
	} {
		if got, _ := pass(Line, in); got != want {
			t.Errorf("%q:\n%q, want\n%q", in, got, want)
		}
	}
	for in, want := range map[string]string{"\x1b[31mx": "\x1b[m", "\x1b[31mx\x1b[0m": "", "\x1b[0;31mx": "\x1b[m", "\x1b[31;0mx": "", "x": "", "\x1b[31mx\x1b[m": ""} {
		if _, got := pass(Line, in); got != want {
			t.Errorf("after %q: %q, want %q", in, got, want)
		}
	}
}

// Sequences that vim, less, htop, tmux and shells need.
func TestScreen(t *testing.T) {
	for _, s := range []string{
		"\x1b[?1049h\x1b[?1h\x1b=\x1b[?2004h\x1b[?1004h\x1b[1;24r\x1b[?12h\x1b[?25l\x1b[2J\x1b[H",
		"\x1b[24;1H\x1b[K\x1b[1;1H\x1b[?25h\x1b[2 q\x1b[4h\x1b[4l\x1b[5X\x1b[3P\x1b[2@\x1b[L\x1b[2M\x1bM\x1bD\x1bE",
		"\x1b[?1000h\x1b[?1002h\x1b[?1003h\x1b[?1006h\x1b[>1u\x1b[>4;2m\x1b[=5;1u",
		"\x1b(0lqqk\x1b(B\x1b)0\x0exx\x0f\x1b7\x1b8\x1b[s\x1b[u\x1b[!p",
		"\x1b[38;5;1m\x1b[7mx\x1b[8my\x1b[27;1;4m\x1b[m\x1b[3;5H\x1b[2A\x1b[B\x1b[5d\x1b[7`\x1b[3b\x1b[S\x1b[2T\x1b[Z\x1b[I",
		"\r\n\a\b\t\v\f\u202e",
	} {
		if got, _ := pass(Screen, s); got != s {
			t.Errorf("%q:\n%q, want it as it is", s, got)
		}
	}
	for in, want := range map[string]string{
		"\x1b[?1;1049;2048;25h":           "\x1b[?1h\x1b[?1049h\x1b[?25h",
		"\x1b[?1049l":                     "",
		"\x1b[H\x1b[2J\x1b[3J":            "\x1b[H\x1b[2J", // clear(1)
		"\x1b[>1u\x1b[>1u\x1b[<9u\x1b[<u": "\x1b[>1u\x1b[>1u\x1b[<2u",
		strings.Repeat("\x1b[>1u", 9):     strings.Repeat("\x1b[>1u", maxKeys),
		"\x1b[?1049h\x1b[>1ux\x1b[?1049l": "\x1b[?1049h\x1b[>1ux\x1b[<1u\x1b[?1049l",
		"\x1b[?1000hx\x1bcy":              "\x1b[?1000hx\x1b[?1000l\x1b[H\x1b[2J\x1b7y",
	} {
		if got, _ := pass(Screen, in); got != want {
			t.Errorf("%q:\n%q, want\n%q", in, got, want)
		}
	}
}

func TestRestore(t *testing.T) {
	for in, want := range map[string]string{
		"text\r\n":  "",
		"\x1b[?25l": "\x1b[?25h",
		"\x1b[?1000;1002;1003;1006;1015;1005;9;1016h": "\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l",
		"\x1b[?2004h\x1b[?1004h\x1b[?2026h":           "\x1b[?2026l\x1b[?1004l\x1b[?2004l",
		"\x1b[?1049h\x1b[>1u":                         "\x1b[<1u\x1b[?1049l\x1b7",
		"\x1b[?47h":                                   "\x1b[?47l",
		"\x1b[>1u\x1b[>3u":                            "\x1b[<2u",
		"\x1b[>4;2m":                                  "\x1b[>4m",
		"\x1b[6 q\x1b=\x1b[4h":                        "\x1b[4l\x1b>\x1b[0 q",
		"\x1b(0\x0e":                                  "\x1b(B\x1b)B\x0f",
		"\x1b[2;5r":                                   "\x1b7\x1b[r\x1b8",
		"\x1b[2;5r\x1b[?6h":                           "\x1b[?6l\x1b[r\x1b[9999;1H\r\n",
		"\x1b[?6;7;5l":                                "\x1b[?7h",
		"\x1b[31m\x1b7\x1b[m\x1b8":                    "\x1b[m\x1b7", // the colour is back
		"\x1b]52;c;A":                                 "",
	} {
		if _, got := pass(Screen, in); got != want {
			t.Errorf("after %q: %q, want %q", in, got, want)
		}
	}
}

// A line of Vix's own begins on a fresh line, whatever is before it.
func TestOwn(t *testing.T) {
	const own = "vix: gone\n"
	for _, c := range []struct {
		kind     Kind
		in, want string
	}{
		{Line, "", own},
		{Line, "a\n", "a\n" + own},
		{Line, "a", "a\r\n" + own},
		{Line, "vix: well\r", "vix: well\r\r\n" + own},
		{Line, "a\n\x1b[31m", "a\n\x1b[31m\x1b[m" + own},
		{Line, "a\n\x1b[9C", "a\n\x1b[9C\r\n" + own},
		{Line, "a\n\x1b]0;", "a\n" + own},
		{Raw, "a\x1b]0;", "a\x1b]0;\r\n" + own},
		{Screen, "a\r\n", "a\r\n\r" + own},
		{Screen, "a\n", "a\n\r\n" + own},
		{Screen, "a\r\n\x1b[Hb\r\n", "a\r\n\x1b[Hb\r\n\x1b[9999;1H\r\n" + own},
		{Screen, "\x1b[?1049h\x1b[H\x1b[?1049l", "\x1b[?1049h\x1b[H\x1b[?1049l\r\n" + own},
	} {
		var out bytes.Buffer
		var term Terminal
		s := term.Stream(&out, c.kind, nil)
		if _, err := io.WriteString(s, c.in); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(term.Own(&out), own); err != nil {
			t.Fatal(err)
		}
		if out.String() != c.want {
			t.Errorf("%q: %q, want %q", c.in, out.String(), c.want)
		}
	}
	// A stream's state survives another stream's output.
	var out bytes.Buffer
	var term Terminal
	_, _ = io.WriteString(term.Stream(&out, Line, nil), "a")
	_, _ = io.WriteString(term.Stream(&out, Line, nil), "\x1b[K")
	_, _ = io.WriteString(term.Own(&out), "b\x1b]0;x\a\x1b[H\n")
	if out.String() != "a\x1b[K\r\nb\n" {
		t.Errorf("%q", out.String())
	}
}

// Two streams of one terminal never combine into a sequence, for any division into pieces.
func TestTwoStreams(t *testing.T) {
	for _, cut := range []string{"\x1b|]52;c;eA==\a", "\x1b]|52;c;eA==\a", "\x1b]52;c;eA|==\a", "\xc2|\x9b6n", "\x1b[|6n", "\x1b[6|n"} {
		a, b, _ := strings.Cut(cut, "|")
		var out bytes.Buffer
		var term Terminal
		first, second := term.Stream(&out, Screen, nil), term.Stream(&out, Screen, nil)
		_, _ = io.WriteString(first, a)
		_, _ = io.WriteString(second, b)
		if got := out.String(); strings.ContainsAny(got, "\x1b\u009b") || strings.Contains(got, "\xc2\x9b") {
			t.Errorf("%q: %q", cut, got)
		}
	}
	var out bytes.Buffer
	var term Terminal
	var all sync.WaitGroup
	for range 2 {
		s := term.Stream(&out, Line, nil)
		all.Go(func() {
			for range 1000 {
				_, _ = io.Copy(struct{ io.Writer }{s}, iotest.OneByteReader(strings.NewReader("\x1b[31mü")))
			}
		})
	}
	all.Wait()
	if rest := strings.ReplaceAll(strings.ReplaceAll(out.String(), "\x1b[31m", ""), "ü", ""); rest != "" {
		t.Errorf("%.80q", rest)
	}
}

// leftOn is called before a mode is on, and nothing is written after the end.
func TestLeftOn(t *testing.T) {
	var order []string
	var term Terminal
	w := writer(func(p []byte) { order = append(order, "write "+string(p)) })
	s := term.Stream(w, Screen, func(b []byte) { order = append(order, "left "+string(b)) })
	_, _ = io.WriteString(s, "a")
	_, _ = io.WriteString(s, "\x1b[?1000h")
	_, _ = io.WriteString(s, "b\x1b[?1000h")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(s, "c\x1b[?1000h"); err == nil {
		t.Error("written after the end")
	}
	want := []string{"write a", "left \x1b[?1000l", "write \x1b[?1000h", "write b\x1b[?1000h", "left ", "write \x1b[?1000l"}
	if strings.Join(order, "|") != strings.Join(want, "|") {
		t.Errorf("%q, want %q", order, want)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func TestIsBidi(t *testing.T) {
	for r := range unicode.MaxRune + 1 {
		if isBidi(r) != unicode.Is(unicode.Bidi_Control, r) {
			t.Errorf("%U", r)
		}
	}
}

// The hot path allocates nothing.
func TestNoAllocation(t *testing.T) {
	text := bytes.Repeat([]byte("\x1b[1;31mred\x1b[0m plain and ümlaut\r\n\x1b[?25l\x1b[5;7H\x1b]0;title\a\x1b[38;2;1;2;3m"), 100)
	for _, kind := range []Kind{Line, Screen} {
		f := Filter{Kind: kind}
		buf := make([]byte, 0, 2*len(text))
		if n := testing.AllocsPerRun(20, func() { buf = f.Append(buf[:0], text) }); n != 0 {
			t.Errorf("kind %d: %v allocations for %d bytes", kind, n, len(text))
		}
	}
}
