package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A VM goes on with the programs that it began with, when their files are replaced by
// others, or removed.
func TestProgramsReplaced(t *testing.T) {
	other := filepath.Join(t.TempDir(), "the other version has run")
	for name, replace := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("#!/bin/sh\n>'"+other+"'\n"), 0o700), os.Rename(path+".new", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			s := b.goRun(b.start("t", "sleep", "60"))
			b.state(s)
			for _, program := range []string{"vix-launcher", "vix-waylandproxy"} {
				if err := replace(filepath.Join(b.bin, program)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.reg.Mount(t.Context(), "t", t.TempDir()+":/mnt/f"); err != nil {
				t.Errorf("mount: %v", err)
			}
			if err := b.reg.Stop(t.Context(), "t", false); err != nil {
				t.Errorf("stop: %v", err)
			}
			<-s.done
			if _, err := os.Stat(other); err == nil {
				t.Error(filepath.Base(other))
			}
		})
		t.Run(name+" while it starts", func(t *testing.T) {
			b := newBench(t)
			if err := b.reg.Root.Mkdir("t", 0o700); err != nil {
				t.Fatal(err)
			}
			l := b.launch("t")
			l.Parts.Guest = filepath.Join(b.bin, "vix-guest")
			if err := os.WriteFile(l.Parts.Guest, []byte("the first"), 0o700); err != nil {
				t.Fatal(err)
			}
			sup, err := newSupervisor(l, Desktop{})
			if err != nil {
				t.Fatal(err)
			}
			go sup.nest.Run()
			defer func() {
				_ = sup.display.stop(false)
				sup.pumps.Wait()
				sup.nest.Close()
				_ = errors.Join(sup.log.Close(), b.reg.Root.RemoveAll("t"), sup.dir.Close(), sup.reg.Close())
			}()
			for _, program := range []string{"vix-waylandproxy", "vix-guest"} {
				if err := replace(filepath.Join(b.bin, program)); err != nil {
					t.Fatal(err)
				}
			}
			if err := sup.display.start(); err != nil {
				t.Fatal(err)
			}
			for st, changed := sup.watchState(); len(st.Windows) == 0; st, changed = sup.watchState() {
				if st.PIDs.Display == 0 {
					t.Fatalf("the display ended: %+v", st)
				}
				<-changed
			}
			if guest, err := os.ReadFile(sup.launch.Parts.Guest); err != nil || string(guest) != "the first" {
				t.Errorf("%q, %v", guest, err)
			}
		})
	}
}
