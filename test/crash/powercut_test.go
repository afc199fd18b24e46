// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// disk is an ext4 file system of its own, on a loop device whose file lies in memory where there is room.
type disk struct {
	t          *testing.T
	image, dir string
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s (this test mounts file systems: it needs root, a loop device, and Debian's packages mount and e2fsprogs)", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// memory is a folder in memory, or the test's own where there is none.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "embargo-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// newDisk makes and mounts a file system of so many MiB. Its journal commits only when it is told to, as it may.
func newDisk(t *testing.T, size int64) *disk {
	t.Helper()
	image := filepath.Join(memory(t), "disk")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size<<20)); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	return mount(t, image)
}

func mount(t *testing.T, image string) *disk {
	t.Helper()
	d := &disk{t: t, image: image, dir: t.TempDir()}
	command(t, "mount", "-o", "loop,commit=900", image, d.dir)
	t.Cleanup(func() { command(t, "umount", d.dir) })
	return d
}

// written is how many writes the device has done, and flying how many are on their way.
func (d *disk) written() (done, flying string) {
	d.t.Helper()
	device := filepath.Base(command(d.t, "findmnt", "-n", "-o", "SOURCE", d.dir))
	b, err := os.ReadFile("/sys/block/" + device + "/stat")
	fields := strings.Fields(string(b))
	if err != nil || len(fields) < 9 {
		d.t.Fatalf("%s: %q, %v", device, b, err)
	}
	return fields[4], fields[8]
}

// cut copies what the device holds at the moment: what a power cut would leave. Nobody writes meanwhile but the kernel; a copy that met the kernel's writing is made again.
func (d *disk) cut() (image string) {
	d.t.Helper()
	image = filepath.Join(memory(d.t), "cut")
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		before, flying := d.written()
		if flying != "0" {
			continue
		}
		if err := copyFile(image, d.image); err != nil {
			d.t.Fatal(err)
		}
		if after, flying := d.written(); after == before && flying == "0" {
			return image
		}
	}
	d.t.Fatal("the kernel does not cease to write")
	return ""
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// On a file system that forgets whatever nobody asked it to store, the power is cut at the instant of an acknowledgement, in the middle of the writes of others: after the
// journal's replay everything acknowledged is there, and no row leads nowhere.
func TestPowerCut(t *testing.T) {
	d := newDisk(t, 192)
	in := newInstallation(t)
	in.Server = instance.At(t, filepath.Join(d.dir, "data"), "", in.config())
	in.Start()
	in.prepare(t)
	all := newLedger()
	for round := range powerCuts() {
		fresh := newLedger()
		fresh.at = func() {
			if err := in.Pause(); err != nil {
				t.Error(err)
			}
		}
		var image string
		in.load(t, fresh, round, func() {
			image = d.cut()
			if err := in.Continue(); err != nil {
				t.Error(err)
			}
		})
		all.add(fresh)
		if t.Failed() {
			return
		}
		t.Run(fmt.Sprint(round), func(t *testing.T) { in.afterCut(t, image, all) })
		for _, path := range fresh.late { // it was there at this cut, and may be gone at the next
			delete(all.content, path)
		}
	}
	if all.size() < 2*powerCuts() {
		t.Errorf("%d writes were acknowledged: there was no load", all.size())
	}
}

func powerCuts() int {
	if testing.Short() {
		return 2
	}
	return 12
}

// afterCut starts a server on what the cut has left.
func (in *installation) afterCut(t *testing.T, image string, l *ledger) {
	d := mount(t, image)
	after := newInstallation(t)
	after.user, after.password = in.user, in.password
	after.Server = instance.At(t, filepath.Join(d.dir, "data"), "", after.config())
	after.Start()
	after.verify(t, l)
	if err := after.Stop(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	after.dangling(t)
}

// available is how many bytes are free on the file system of a path.
func available(path string) (int64, error) {
	var st syscall.Statfs_t
	err := syscall.Statfs(path, &st)
	return int64(st.Bavail) * st.Bsize, err
}
