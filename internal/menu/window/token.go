package window

import (
	"time"

	"vix/internal/menu/proto"
)

// tokenLimit is how long the menu waits for a token.
const tokenLimit = 200 * time.Millisecond

// askToken requests an activation token from the compositor, in a handler. It reports whether
// an answer can be expected.
func (w *window) askToken() bool {
	if w.globals.activation == nil {
		return false
	}
	t, err := w.globals.activation.GetActivationToken()
	if err != nil {
		return false
	}
	t.AddDoneHandler(w)
	_ = t.SetSerial(w.keys.serial, w.globals.seat)
	_ = t.SetSurface(w.surface)
	if t.Commit() != nil {
		return false
	}
	w.token = time.NewTimer(tokenLimit)
	return true
}

// HandleActivationTokenV1Done receives the token.
func (w *window) HandleActivationTokenV1Done(ev proto.ActivationTokenV1DoneEvent) {
	w.call(func() { w.choose(ev.Token) })
}

// choose emits the choice, and closes the menu unless it should stay.
func (w *window) choose(token string) {
	w.token = nil
	if w.choice == nil {
		return // the token came too late
	}
	ev := *w.choice
	w.choice = nil
	ev.Token = token
	w.Emit(ev)
	if ev.Keep {
		w.model.Back()
		w.notice = nil
		w.dirty = true
		return
	}
	w.done = true
}
