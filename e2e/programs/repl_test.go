//go:build repl

package programs

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"vix/e2e"
	"vix/internal/desktoptest"
)

type rt struct{ *testing.T }

func (r rt) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func TestREPL(t *testing.T) {
	r := e2e.New(rt{t}, e2e.Config{Bin: "/tmp/F/bin", TOML: os.Getenv("REPL_TOML"), Desktop: desktoptest.Config{Timeout: 120 * time.Second}})
	procs := map[string]*desktoptest.Proc{}
	dir := os.Getenv("REPL_DIR")
	for {
		f, err := os.Open(dir + "/in")
		if err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			line := sc.Text()
			if line == "quit" {
				r.Vix("stop", "--force", "--all")
				return
			}
			out := func() (out string) {
				defer func() {
					if e := recover(); e != nil {
						out = fmt.Sprint("PANIC ", e)
					}
				}()
				return do(t, r, procs, dir, line)
			}()
			os.WriteFile(dir+"/out.tmp", []byte(out+"\n"), 0o644)
			os.Rename(dir+"/out.tmp", dir+"/out")
		}
		f.Close()
	}
}

func do(tt *testing.T, r *e2e.Rig, procs map[string]*desktoptest.Proc, dir, line string) string {
	t := rt{tt}
	f := strings.Fields(line)
	n := func(i int) int { v, _ := strconv.Atoi(f[i]); return v }
	switch f[0] {
	case "run": // run NAME VM sh-script
		procs[f[1]] = r.Start("run", "--vm", f[2], "sh", "-c", strings.SplitN(line, " ", 4)[3])
	case "put": // put VM hostfile guestfile
		cmd := r.Command(r.Launcher(), "run", "--vm", f[1], "sh", "-c", "cat >"+f[3])
		in, err := os.Open(f[2])
		if err != nil {
			return err.Error()
		}
		cmd.Stdin = in
		return fmt.Sprint(r.Run(cmd))
	case "out":
		p := procs[f[1]]
		select {
		case <-p.Done():
			return fmt.Sprintf("ended %d: %s", p.Wait(), p.Output())
		default:
			return p.Output()
		}
	case "guest":
		return fmt.Sprint(r.Vix("run", "--vm", f[1], "sh", "-c", strings.SplitN(line, " ", 3)[2]))
	case "vix":
		return fmt.Sprint(r.Vix(f[1:]...))
	case "win":
		var b strings.Builder
		for _, w := range r.Windows(t, nil) {
			fmt.Fprintf(&b, "%d %v type=%s wr=%v geo=%v fs=%d focus=%v\n", w.ID, w, w.Type, w.WindowRect, w.Geometry, w.FullscreenMode, w.Focused)
		}
		return b.String()
	case "waitwin":
		return fmt.Sprint(r.WaitWindows(t, n(1), nil))
	case "shot":
		return fmt.Sprint(desktoptest.SavePNG(f[1], r.Screenshot(t)))
	case "click":
		r.Click(t, n(1), n(2))
	case "rclick":
		r.MoveTo(t, n(1), n(2))
		r.Button(t, desktoptest.Right, true)
		r.Button(t, desktoptest.Right, false)
	case "move":
		r.MoveTo(t, n(1), n(2))
	case "drag":
		r.Drag(t, n(1), n(2), n(3), n(4))
	case "scroll":
		r.Scroll(t, n(1), n(2), n(3))
	case "type":
		r.Type(t, strings.SplitN(line, " ", 2)[1])
	case "key":
		r.Key(t, f[1:]...)
	case "sway":
		r.Desktop.Command(t, strings.SplitN(line, " ", 2)[1])
	case "float":
		r.Float(t, r.WaitWindow(t, func(w *desktoptest.Node) bool { return w.ID == int64(n(1)) }), n(2), n(3), n(4), n(5))
	case "close":
		r.CloseWindow(t, r.WaitWindow(t, func(w *desktoptest.Node) bool { return w.ID == int64(n(1)) }))
	default:
		return "?"
	}
	return "ok"
}
