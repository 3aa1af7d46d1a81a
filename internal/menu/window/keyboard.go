package window

import (
	"errors"
	"os"
	"sync"
	"time"
	"unicode"

	"github.com/neurlang/wayland/wl"
	"github.com/neurlang/wayland/xkbcommon"
	"golang.org/x/sys/unix"

	"vix/internal/menu"
)

// A keyboard is the seat's keyboard, with its layout and its compose state.
type keyboard struct {
	wl     *wl.Keyboard
	serial uint32 // of the last key, for activation

	xkb     *xkbcommon.Context
	keymap  *xkbcommon.Keymap
	state   *xkbcommon.State
	compose *xkbcommon.ComposeState // nil until the compose table is loaded, which may never happen
	preedit string
	tables  chan *xkbcommon.ComposeState
	loads   sync.WaitGroup

	rate  time.Duration // time between repeats; 0: none
	delay time.Duration

	repeat    *time.Timer
	repeatKey uint32 // the pressed key
}

// maxKeymap is ten times the size of a large keymap.
const maxKeymap = 1 << 20

// leaveAfter is how long the focus may be elsewhere: a keyboard that comes or goes takes the
// focus away for a moment.
const leaveAfter = 200 * time.Millisecond

// Modifiers that change what a key does here.
type modifiers struct{ ctrl, alt, shift bool }

// listen requests the seat's devices.
func (w *window) listen() {
	w.globals.seat.AddCapabilitiesHandler(w)
	if w.globals.shell != nil {
		w.globals.shell.AddPingHandler(w)
	}
	w.keys.rate, w.keys.delay = time.Second/25, 600*time.Millisecond
	// The keymap from the compositor is complete: no directories are searched.
	const noDefaultIncludes = 1
	w.keys.xkb = xkbcommon.ContextNew(noDefaultIncludes)
	if w.keys.xkb == nil {
		w.fail, w.done = errors.New("libxkbcommon.so.0 cannot be loaded; install it (Debian: libxkbcommon0)"), true
		return
	}
	w.loadCompose()
}

// loadCompose reads the locale's compose table, in a goroutine and a context of its own: it
// takes longer than the first frame.
func (w *window) loadCompose() {
	w.keys.tables = make(chan *xkbcommon.ComposeState, 1)
	locale := w.Setup.Locale
	w.keys.loads.Go(func() {
		if x := xkbcommon.ContextNew(0); x != nil {
			if table := x.ComposeTableNewFromLocale(locale, xkbcommon.ComposeCompileNoFlags); table != nil {
				w.keys.tables <- xkbcommon.ComposeStateNew(table, xkbcommon.ComposeStateNoFlags)
			}
		}
	})
}

// HandleSeatCapabilities acquires or releases the devices.
func (w *window) HandleSeatCapabilities(ev wl.SeatCapabilitiesEvent) {
	const hasPointer, hasKeyboard, hasTouch = 1, 2, 4
	w.call(func() {
		seat := w.globals.seat
		if has := ev.Capabilities&hasKeyboard != 0; has != (w.keys.wl != nil) {
			w.takeKeyboard(has)
		}
		if has := ev.Capabilities&hasPointer != 0; has != (w.mouse.wl != nil) {
			w.takePointer(has)
		}
		if has := ev.Capabilities&hasTouch != 0; has && w.touch.wl == nil {
			if t, err := seat.GetTouch(); err == nil {
				w.touch.wl = t
				t.AddDownHandler(w)
				t.AddUpHandler(w)
				t.AddMotionHandler(w)
				t.AddCancelHandler(w)
			}
		}
	})
}

func (w *window) takeKeyboard(has bool) {
	if !has {
		w.stopRepeat()
		// Its handlers stay: a keymap in transit must be read.
		_ = w.keys.wl.Release()
		w.keys.wl = nil
		return
	}
	k, err := w.globals.seat.GetKeyboard()
	if err != nil {
		w.fail, w.done = err, true
		return
	}
	w.keys.wl = k
	k.AddKeymapHandler(w)
	k.AddEnterHandler(w)
	k.AddLeaveHandler(w)
	k.AddKeyHandler(w)
	k.AddModifiersHandler(w)
	k.AddRepeatInfoHandler(w)
}

// HandleKeyboardKeymap reads the layout. If two descriptors arrive at once, the library loses
// one: then the keyboard is requested anew, and sends the layout again.
func (w *window) HandleKeyboardKeymap(ev wl.KeyboardKeymapEvent) {
	w.call(func() {
		if ev.FdError != nil {
			if w.keys.wl != nil {
				w.takeKeyboard(false)
				w.takeKeyboard(true)
			}
			return
		}
		f := os.NewFile(ev.Fd, "keymap")
		defer f.Close()
		if ev.Format != wl.KeyboardKeymapFormatXkbV1 || ev.Size == 0 || ev.Size > maxKeymap {
			return
		}
		// The keymap is mapped, as the protocol requires: the file's position is shared.
		b, err := unix.Mmap(int(ev.Fd), 0, int(ev.Size), unix.PROT_READ, unix.MAP_PRIVATE)
		if err != nil {
			w.Log.Warn("no keymap", "err", err)
			return
		}
		text := append(append([]byte(nil), b...), 0)
		_ = unix.Munmap(b)
		keymap := w.keys.xkb.KeymapNewFromString(text, xkbcommon.KeymapFormatTextV1, 0)
		if keymap == nil {
			w.Log.Warn("the compositor's keymap cannot be read")
			return
		}
		w.stopRepeat()
		w.keys.keymap, w.keys.state = keymap, keymap.StateNew()
	})
}

// HandleKeyboardEnter means that the menu has the focus.
func (w *window) HandleKeyboardEnter(wl.KeyboardEnterEvent) {
	w.call(func() {
		if w.leaveTimer != nil {
			w.leaveTimer.Stop()
			w.leaveTimer = nil
		}
	})
}

// HandleKeyboardLeave closes the menu, unless the focus comes back at once.
func (w *window) HandleKeyboardLeave(wl.KeyboardLeaveEvent) {
	w.call(func() {
		w.stopRepeat()
		w.leaveTimer = time.NewTimer(leaveAfter)
	})
}

// HandleKeyboardModifiers stores the modifiers.
func (w *window) HandleKeyboardModifiers(ev wl.KeyboardModifiersEvent) {
	w.call(func() {
		if w.keys.state != nil {
			w.keys.state.UpdateMask(ev.ModsDepressed, ev.ModsLatched, ev.ModsLocked, 0, 0, ev.Group)
		}
	})
}

// HandleKeyboardRepeatInfo stores the user's repeat settings.
func (w *window) HandleKeyboardRepeatInfo(ev wl.KeyboardRepeatInfoEvent) {
	w.call(func() {
		w.keys.rate, w.keys.delay = 0, time.Duration(max(ev.Delay, 1))*time.Millisecond
		if ev.Rate > 0 {
			w.keys.rate = time.Second / time.Duration(ev.Rate)
		}
	})
}

// HandleKeyboardKey handles the press or release of a key.
func (w *window) HandleKeyboardKey(ev wl.KeyboardKeyEvent) {
	w.call(func() {
		const evdev = 8 // XKB's keycodes are offset by 8
		code := ev.Key + evdev
		w.keys.serial = ev.Serial
		if ev.State == 0 {
			if code == w.keys.repeatKey {
				w.stopRepeat()
			}
			return
		}
		if w.keys.state == nil {
			return
		}
		w.stopRepeat()
		again := w.press(code, false)
		if again && w.keys.rate > 0 && w.keys.keymap.KeyRepeats(code) {
			w.keys.repeatKey, w.keys.repeat = code, time.NewTimer(w.keys.delay)
		}
	})
}

func (w *window) stopRepeat() {
	if w.keys.repeat != nil {
		w.keys.repeat.Stop()
	}
	w.keys.repeat, w.keys.repeatKey = nil, 0
}

// repeat presses the key again.
func (w *window) repeat() {
	w.press(w.keys.repeatKey, true)
	w.keys.repeat.Reset(w.keys.rate)
}

func (w *window) modifiers() modifiers {
	on := w.keys.state.SerializeMods(xkbcommon.StateModsEffective)
	has := func(name string) bool {
		i := w.keys.keymap.ModGetIndex(name)
		return i < 32 && on&(1<<i) != 0
	}
	return modifiers{has(xkbcommon.ModNameCtrl), has(xkbcommon.ModNameAlt), has(xkbcommon.ModNameShift)}
}

// press performs the action of a key. It reports whether the key may repeat.
func (w *window) press(code uint32, repeat bool) bool {
	sym := w.keys.state.KeyGetOneSym(code)
	mods := w.modifiers()
	w.dirty = true
	if w.compose(sym, repeat) {
		return true
	}
	if done, again := w.command(sym, mods, repeat); done {
		return again
	}
	if mods.ctrl || mods.alt {
		return false
	}
	if r := rune(w.keys.state.KeyGetUtf32(code)); r != 0 && unicode.IsPrint(r) {
		w.model.Insert(string(r))
		return true
	}
	return false
}

// compose feeds a key to the compose sequence. It reports whether the sequence used the key.
func (w *window) compose(sym uint32, repeat bool) bool {
	select {
	case w.keys.compose = <-w.keys.tables:
	default:
	}
	c := w.keys.compose
	if c == nil || repeat || c.Feed(sym) != xkbcommon.ComposeFeedAccepted {
		return false
	}
	switch c.GetStatus() {
	case xkbcommon.ComposeComposing:
		w.keys.preedit += shownDead(sym)
		return true
	case xkbcommon.ComposeComposed:
		w.keys.preedit = ""
		w.model.Insert(string(c.GetUtf8()))
		return true
	case xkbcommon.ComposeCancelled:
		w.keys.preedit = ""
		return true
	}
	return false
}

// shownDead returns the text shown for a key of an incomplete sequence.
func shownDead(sym uint32) string {
	if r := rune(xkbcommon.KeysymToUtf32(sym)); r != 0 && unicode.IsPrint(r) {
		return string(r)
	}
	return "·"
}

// isoLeftTab is the keysym of shift+tab in most layouts (keysymdef.h).
const isoLeftTab = 0xfe20

// command performs the action of a key that types nothing, and reports whether it had one.
func (w *window) command(sym uint32, mods modifiers, repeated bool) (done, again bool) {
	if mods.ctrl {
		if done, again := w.control(sym); done {
			return done, again
		}
	}
	m := w.model
	switch sym {
	case xkbcommon.KeyEscape:
		if !m.Back() {
			w.done = true
		}
	case xkbcommon.KeyReturn, xkbcommon.KeyKpEnter:
		if !repeated {
			w.activate(mods.ctrl)
		}
		return true, false
	case xkbcommon.KeyTab, xkbcommon.KeyMenu, xkbcommon.KeyKpTab:
		if !m.Back() {
			m.Open()
		}
		return true, false
	case isoLeftTab:
		m.Back()
		return true, false
	case xkbcommon.KeyUp, xkbcommon.KeyKpUp:
		m.Move(-1, !repeated)
	case xkbcommon.KeyDown, xkbcommon.KeyKpDown:
		m.Move(1, !repeated)
	case xkbcommon.KeyPageUp, xkbcommon.KeyKpPageUp:
		m.Move(-m.Lines, false)
	case xkbcommon.KeyPageDown, xkbcommon.KeyKpPageDown:
		m.Move(m.Lines, false)
	case xkbcommon.KeyHome, xkbcommon.KeyKpHome:
		m.Select(0)
	case xkbcommon.KeyEnd, xkbcommon.KeyKpEnd:
		m.Select(m.Count())
	case xkbcommon.KeyLeft, xkbcommon.KeyKpLeft:
		if !m.Back() {
			m.Caret(-1)
		}
	case xkbcommon.KeyRight, xkbcommon.KeyKpRight:
		if query, at := m.Query(); at < len([]rune(query)) {
			m.Caret(1)
		} else if !repeated {
			m.Open()
		}
	case xkbcommon.KeyBackspace:
		m.Backspace(mods.ctrl || mods.alt)
	case xkbcommon.KeyDelete, xkbcommon.KeyKpDelete:
		m.Delete()
	default:
		return false, false
	}
	return true, true
}

// control performs the action of ctrl and a letter, as in a shell and in fuzzel.
func (w *window) control(sym uint32) (done, again bool) {
	m := w.model
	switch rune(sym) {
	case 'c', 'g', '[':
		w.done = true
	case 'p':
		m.Move(-1, true)
	case 'n':
		m.Move(1, true)
	case 'u':
		m.Kill(true)
	case 'k':
		m.Kill(false)
	case 'w':
		m.Backspace(true)
	case 'h':
		m.Backspace(false)
	case 'd':
		m.Delete()
	case 'a':
		m.Caret(-256)
	case 'e':
		m.Caret(256)
	case 'b':
		m.Caret(-1)
	case 'f':
		m.Caret(1)
	case 'j', 'm':
		w.activate(false)
		return true, false
	default:
		return false, false
	}
	return true, true
}

// activate performs the selected action once there is an activation token, by which the
// resulting window may take the focus.
func (w *window) activate(keep bool) {
	it, action := w.model.Line(w.model.At())
	if it == nil || w.choice != nil {
		return
	}
	ev := menu.Event{Kind: menu.EventRun, Item: it.ID, Keep: keep}
	if action != nil {
		ev = menu.Event{Kind: menu.EventAction, Item: it.ID, Action: action.ID, Keep: keep || action.Keep}
	} else if it.Machine {
		w.model.Open()
		return
	}
	w.choice = &ev
	if !w.askToken() {
		w.choose("")
	}
}
