package desktop_test

import (
	"testing"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/desktoptest"
	"vix/internal/vm"
)

// What goes wrong in a VM is shown on the bus that it was started on.
func TestTell(t *testing.T) {
	d := start(t)
	if lacks := desktoptest.LacksBus(); lacks != "" {
		t.Skip("lacks: " + lacks)
	}
	address := d.StartBus(t, "")
	d.Mako(t)
	conn, err := desktop.DialBus(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l := vm.Launch{VM: config.VM{Name: "web"}, Bus: address}
	if err := desktop.Tell(within(t), l, "Trouble in VM web", "VM web: out of memory\x1b[2J"); err != nil {
		t.Fatal(err)
	}
	list := shownNotes(t, conn)
	if len(list) != 1 || list[0].Summary != "Trouble in VM web" || list[0].Body != "VM web: out of memory[2J" {
		t.Errorf("%+v", list)
	}
	if err := desktop.Tell(within(t), vm.Launch{}, "Trouble", "nobody is there"); err != nil {
		t.Error(err)
	}
}
