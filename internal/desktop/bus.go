package desktop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"
)

// dialLimit bounds the wait for a bus that takes connections and does not answer.
const dialLimit = 5 * time.Second

// DialBus connects to the session bus at address, which has the form of
// DBUS_SESSION_BUS_ADDRESS. The caller closes the connection, which also ends with ctx.
func DialBus(ctx context.Context, address string) (*dbus.Conn, error) {
	type dialled struct {
		conn *dbus.Conn
		err  error
	}
	done := make(chan dialled, 1)
	dialCtx, giveUp := context.WithCancel(ctx)
	go func() {
		conn, err := dialBus(dialCtx, address)
		done <- dialled{conn, err}
	}()
	limit := time.NewTimer(dialLimit)
	defer limit.Stop()
	select {
	case d := <-done:
		if d.err != nil {
			giveUp()
			return nil, d.err
		}
		context.AfterFunc(d.conn.Context(), giveUp)
		return d.conn, nil
	case <-ctx.Done():
	case <-limit.C:
	}
	giveUp() // which also ends a connection that is made after all
	return nil, errors.New("the session bus does not answer")
}

func dialBus(ctx context.Context, address string) (*dbus.Conn, error) {
	// By user id alone: the library's other way looks for a cookie in the home.
	auth := dbus.WithAuth(dbus.AuthExternal(strconv.Itoa(os.Getuid())))
	conn, err := dbus.Connect(address, dbus.WithContext(ctx), auth)
	if err != nil {
		return nil, fmt.Errorf("session bus: %w; is there one? (DBUS_SESSION_BUS_ADDRESS)", err)
	}
	return conn, nil
}

// Reload tells the bus at address, if there is one, that service files have changed, and our
// service, if it runs, that entries have.
func Reload(ctx context.Context, address string) {
	conn, err := DialBus(ctx, address)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.ReloadConfig", 0).Err
	_ = conn.Object(BusName, managerPath).CallWithContext(ctx, managerInterface+".Reload", dbus.FlagNoAutoStart).Err
}
