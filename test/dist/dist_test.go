// SPDX-License-Identifier: Apache-2.0

// Package dist runs the packaging program as `make dist` does, for one system, and looks at what it wrote with the tools of those
// who will get it: dpkg-deb, systemd-analyze, podman, sha256sum.
package dist

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	given   = "v1.2.3-rc.1"
	version = "1.2.3-rc.1"
)

// files are what a run for linux/amd64 writes.
var files = []string{
	"SHA256SUMS",
	"embargo-1.2.3-rc.1-linux-amd64",
	"embargo-1.2.3-rc.1-linux-amd64.spdx.json",
	"embargo-1.2.3-rc.1-oci.tar",
	"embargo_1.2.3~rc.1_amd64.deb",
}

func TestPackages(t *testing.T) {
	look(t)
	program := filepath.Join(t.TempDir(), "packaging")
	run(t, "go", "build", "-o", program, "../../packaging")
	out := t.TempDir()
	for _, name := range []string{"embargo-0.1.0-linux-amd64", "notes"} {
		if err := os.WriteFile(filepath.Join(out, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seconds := strings.TrimSpace(run(t, "git", "log", "-1", "--format=%ct"))
	pack(t, out, "", "sh", "-c", `umask 022 && exec "$0" "$@"`, program)
	if err := os.Remove(filepath.Join(out, "notes")); err != nil {
		t.Errorf("a file that is not of a release was removed: %v", err)
	}
	if got := names(t, out); !slices.Equal(got, files) {
		t.Fatalf("the files are %q, want %q", got, files)
	}
	t.Run("reproducible", func(t *testing.T) {
		again := t.TempDir()
		pack(t, again, seconds, append(stranger(t), "sh", "-c", `umask 077 && exec "$0" "$@"`, program)...)
		for _, name := range files {
			if !bytes.Equal(read(t, out, name), read(t, again, name)) {
				t.Errorf("%s differs from one run to the next", name)
			}
		}
	})
	t.Run("binary", func(t *testing.T) { binary(t, filepath.Join(out, files[1])) })
	t.Run("bill of materials", func(t *testing.T) { bill(t, out, made(t, seconds)) })
	t.Run("checksums", func(t *testing.T) { checksums(t, out) })
	t.Run("deb", func(t *testing.T) {
		deb(t, filepath.Join(out, files[4]), filepath.Join(out, files[1]), made(t, seconds))
	})
	t.Run("image", func(t *testing.T) { image(t, out, made(t, seconds)) })
}

// TestRefuses: what the program can't pack is refused before anything is built.
func TestRefuses(t *testing.T) {
	look(t)
	program := filepath.Join(t.TempDir(), "packaging")
	run(t, "go", "build", "-o", program, "../../packaging")
	for _, c := range []struct {
		args, epoch, want string
	}{
		{"-version release-1", "", `"release-1" is no version`},
		{"-version 1.0/2", "", `"1.0/2" is no version`},
		{"-version 1.0 -only plan9/amd64", "", "not one of"},
		{"-version 1.0", "yesterday", "SOURCE_DATE_EPOCH"},
		{"linux", "", "unrecognized arguments"},
	} {
		out := filepath.Join(t.TempDir(), "dist")
		cmd := exec.Command(program, append([]string{"-out", out}, strings.Fields(c.args)...)...)
		cmd.Dir = filepath.Join("..", "..")
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+c.epoch)
		b, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(b), c.want) {
			t.Errorf("%s: %v, %s; want %q", c.args, err, b, c.want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: something was written", c.args)
		}
	}
}

// look looks at every file that the programs are built from: the go command keeps a test's result for as long as the files that
// the test itself has looked at are the same, and it does not see those that a program run by the test reads.
func look(t *testing.T) {
	t.Helper()
	root := filepath.Join("..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") && path != root || slices.Contains([]string{"bin", "dist", "docs", "test", "embargo-data"}, d.Name()) {
			return filepath.SkipDir
		}
		for _, name := range names(t, path) {
			if _, err := os.Stat(filepath.Join(path, name)); err != nil {
				return err
			}
			seen++
		}
		return nil
	})
	if err != nil || seen < 100 {
		t.Fatalf("%d files were looked at: %v", seen, err)
	}
}

// pack runs the program, which ends the command, in the root of the module. epoch is SOURCE_DATE_EPOCH, "" for the commit's time.
func pack(t *testing.T, out, epoch string, command ...string) {
	t.Helper()
	cmd := exec.Command(command[0], append(command[1:], "-out", out, "-only", "linux/amd64", "-version", given)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch, "TMPDIR="+t.TempDir())
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packaging: %v\n%s", err, b)
	}
}

// stranger is what makes a command run as a user who is not root, where the kernel lets it and the test is root's.
func stranger(t *testing.T) []string {
	t.Helper()
	as := []string{"unshare", "--user", "--map-user=1000", "--map-group=1000"}
	if out, err := exec.Command(as[0], append(as[1:], "true")...).CombinedOutput(); err != nil {
		t.Logf("both runs are of the same user: %v %s", err, out)
		return nil
	}
	return as
}

// made is the time that every file of the release bears.
func made(t *testing.T, seconds string) time.Time {
	t.Helper()
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Unix(n, 0).UTC()
}

// run runs a program that must succeed and gives its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, b, &stderr)
	}
	return string(b)
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// binary checks that the program needs no loader and says what it is.
func binary(t *testing.T, path string) {
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static: it names a loader")
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Error("the program holds a symbol table")
	}
	want := regexp.MustCompile(`^embargo 1\.2\.3-rc\.1\ncommit ([0-9a-f]{40}(-dirty)?)\ngo (go1\.[0-9.]+)\nplatform linux/amd64\n$`)
	got := want.FindStringSubmatch(run(t, path, "version"))
	if got == nil {
		t.Fatalf("version prints %q", run(t, path, "version"))
	}
	if head := strings.TrimSpace(run(t, "git", "rev-parse", "HEAD")); !strings.HasPrefix(got[1], head) {
		t.Errorf("the commit is %s, but this is %s", got[1], head)
	}
	if got[3] != runtime.Version() {
		t.Errorf("built by %s, want %s", got[3], runtime.Version())
	}
	var v map[string]string
	if err := json.Unmarshal([]byte(run(t, path, "version", "--output", "json")), &v); err != nil {
		t.Fatal(err)
	}
	if v["version"] != version || v["commit"] != got[1] || v["go"] != got[3] || v["platform"] != "linux/amd64" || len(v) != 4 {
		t.Errorf("version --output json: %v", v)
	}
	if root, err := filepath.Abs(filepath.Join("..", "..")); err != nil || bytes.Contains(read(t, path), []byte(root)) {
		t.Errorf("the program names the directory it was built in: %v", err)
	}
}

// bill checks that the document is whole: it describes this very program and every module in it.
func bill(t *testing.T, out string, at time.Time) {
	type checksum struct{ Algorithm, ChecksumValue string }
	var d struct {
		SPDXVersion, DocumentNamespace string
		CreationInfo                   struct{ Created string }
		Packages                       []struct {
			SPDXID, Name, VersionInfo string
			Checksums                 []checksum
			ExternalRefs              []struct{ ReferenceType, ReferenceLocator string }
		}
		Relationships []struct{ SpdxElementID, RelationshipType, RelatedSpdxElement string }
	}
	if err := json.Unmarshal(read(t, out, files[2]), &d); err != nil {
		t.Fatal(err)
	}
	if d.SPDXVersion != "SPDX-2.3" || d.CreationInfo.Created != at.Format(time.RFC3339) {
		t.Errorf("%s of %s", d.SPDXVersion, d.CreationInfo.Created)
	}
	known := map[string]string{"SPDXRef-DOCUMENT": "the document"}
	purls := map[string]string{}
	for _, p := range d.Packages {
		if known[p.SPDXID] != "" || !regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`).MatchString(p.SPDXID) {
			t.Errorf("%q is no id, or not the only one", p.SPDXID)
		}
		known[p.SPDXID] = p.Name
		purls[p.ExternalRefs[0].ReferenceLocator] = p.Name
		if p.Name == "embargo" && (len(p.Checksums) != 1 || p.Checksums[0] != checksum{"SHA256", digest(read(t, out, files[1]))}) {
			t.Errorf("the program's checksum is %v", p.Checksums)
		}
	}
	relations := map[string][]string{}
	for _, r := range d.Relationships {
		if known[r.SpdxElementID] == "" || known[r.RelatedSpdxElement] == "" {
			t.Errorf("%+v leads nowhere", r)
		}
		relations[r.RelationshipType] = append(relations[r.RelationshipType], known[r.SpdxElementID]+" "+known[r.RelatedSpdxElement])
	}
	for kind, want := range map[string]string{"DESCRIBES": "the document embargo", "CONTAINS": "embargo stdlib", "BUILD_TOOL_OF": "go embargo"} {
		if !slices.Equal(relations[kind], []string{want}) {
			t.Errorf("%s: %q, want %q", kind, relations[kind], want)
		}
	}
	info, err := buildinfo.ReadFile(filepath.Join(out, files[1]))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range info.Deps {
		purl := "pkg:golang/" + strings.ToLower(m.Path) + "@" + strings.ReplaceAll(m.Version, "+", "%2B")
		if purls[purl] != m.Path || !slices.Contains(relations["DEPENDS_ON"], "embargo "+m.Path) {
			t.Errorf("the document lacks %s", purl)
		}
	}
	if !slices.Contains(relations["DEPENDS_ON"], "embargo modernc.org/sqlite") || len(relations["DEPENDS_ON"]) != len(info.Deps) {
		t.Errorf("the program depends on %d modules, the document says %q", len(info.Deps), relations["DEPENDS_ON"])
	}
}

// checksums are right for each file but their own, by sha256sum's reading.
func checksums(t *testing.T, out string) {
	cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = out
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("sha256sum: %v\n%s", err, b)
	}
	for _, name := range files[1:] {
		if !strings.Contains(string(b), name+": OK\n") {
			t.Errorf("%s has no checksum:\n%s", name, b)
		}
	}
}
