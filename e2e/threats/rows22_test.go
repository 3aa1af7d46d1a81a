package threats

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestThreat22DecideAndAct: the guest changes what a name in its writable share means,
// before, while and after the host decides on it. Seen to fail with the folders of
// before: the other VM reads the secret.
func TestThreat22DecideAndAct(t *testing.T) {
	s := threat(t, 22)
	root, err := os.MkdirTemp("", "vix-decide-") // the VMs may be another user's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if root, err = filepath.EvalSymlinks(root); err != nil {
		t.Fatal(err)
	}
	shared, secret := filepath.Join(root, "p"), filepath.Join(root, "secret")
	for _, dir := range []string{root, shared, filepath.Join(shared, "sub"), secret} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o777)); err != nil {
			t.Fatal(err)
		}
	}
	const word = "a secret of the host"
	if err := os.WriteFile(filepath.Join(secret, "key"), []byte(word), 0o644); err != nil {
		t.Fatal(err)
	}
	refused := func(when, why string, args ...string) {
		t.Helper()
		res := s.Vix(args...)
		if res.Code == 0 || args[0] == "mount" && strings.Count(res.Stderr, "\n") != 1 || !strings.Contains(res.Stderr, why) {
			t.Errorf("%s: vix %s: %v", when, strings.Join(args, " "), res)
		}
		if got := s.Guest("good", "cat /mnt/s/key 2>/dev/null; true"); strings.Contains(got, word) {
			t.Errorf("%s: the other VM has read the secret", when)
		}
		_ = s.Vix("umount", "--force", "good", "/mnt/s")
	}
	s.Must("mount", "evil", shared+":/mnt/p:rw")
	refused("in it", "lies in "+shared, "mount", "good", shared+"/sub:/mnt/s")
	refused("around it", "holds "+shared, "mount", "good", root+":/mnt/s")

	s.Must(asRoot("sh", "-c", `rmdir /mnt/p/sub && ln -s "$1" /mnt/p/sub`, "sh", secret)...)
	refused("a link", "leads through a link in a folder that a VM could write to", "mount", "good", shared+"/sub:/mnt/s")
	refused("a run", "leads through a link", "run", "--vm", "third", "--disposable", "--share", shared+"/sub:/mnt/s", "cat", "/mnt/s/key")

	// While it is decided on.
	flip := s.Start(asRoot("sh", "-c", `cd /mnt/p && while [ ! -e stop ]; do rm -f sub; mkdir sub; rmdir sub; ln -s "$1" sub; done`, "sh", secret)...)
	for range 20 {
		res := s.Vix("mount", "good", shared+"/sub:/mnt/s")
		if res.Code == 0 {
			t.Errorf("shared: %v", s.Guest("good", "ls /mnt/s"))
			_ = s.Vix("umount", "--force", "good", "/mnt/s")
		}
	}
	if err := os.WriteFile(filepath.Join(shared, "stop"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	<-flip.Done()

	// And when it has the folder no more: what it has left there is not followed.
	s.Must(asRoot("sh", "-c", `rm -rf /mnt/p/sub && ln -s "$1" /mnt/p/sub`, "sh", secret)...)
	s.Must("umount", "--force", "evil", "/mnt/p")
	refused("afterwards", "leads through a link", "mount", "good", shared+"/sub:/mnt/s")
}
