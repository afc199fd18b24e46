// SPDX-License-Identifier: Apache-2.0

// Package egress tests the gate from outside: what must not compile, what must be refused, and that no byte leaves by any route.
package egress

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// forgeries are programs that would read content without the gate. Each must fail to compile, for the reason given.
var forgeries = []struct{ name, where, program, reason string }{
	{"a grant with a field set", "test/forged", `package main
import "github.com/embargo-registry/embargo/egress"
func main() { _ = egress.Grant{G: nil} }`, "unknown field G in struct literal"},
	{"a grant with its own field set", "test/forged", `package main
import "github.com/embargo-registry/embargo/egress"
func main() { var g egress.Grant; _ = g.g }`, "g.g undefined"},
	{"a grant by position", "test/forged", `package main
import "github.com/embargo-registry/embargo/egress"
func main() { _ = egress.Grant{nil} }`, "implicit assignment to unexported field"},
	{"a decision made by hand", "test/forged", `package main
import "github.com/embargo-registry/embargo/egress"
func main() { _ = egress.Decision{valid: true} }`, "cannot refer to unexported field valid"},
	{"the driver from another room", "registry/forged", `package main
import "github.com/embargo-registry/embargo/blob/internal/fs"
func main() { _ = fs.NewKey() }`, "use of internal package"},
	{"the file behind a reader", "test/forged", `package main
import "github.com/embargo-registry/embargo/blob"
func main() { var r *blob.Reader; _ = r.file }`, "r.file undefined"},
	{"a reader without a grant", "test/forged", `package main
import ("context"; "github.com/embargo-registry/embargo/blob"; "github.com/embargo-registry/embargo/name")
func main() { var s *blob.Store; _, _ = s.Open(context.Background(), name.Digest("")) }`, "not enough arguments in call to s.Open"},
	{"a flow without a grant", "test/forged", `package main
import "github.com/embargo-registry/embargo/egress"
func main() { _ = egress.Flow{g: nil} }`, "cannot refer to unexported field g"},
	{"a reader made by hand", "test/forged", `package main
import "github.com/embargo-registry/embargo/blob"
func main() { _ = blob.Reader{size: 1} }`, "cannot refer to unexported field size"},
}

// honest is a program of the same shape that does compile: without it every forgery could fail for another reason.
const honest = `package main
import "github.com/embargo-registry/embargo/egress"
func main() { var g egress.Grant; _ = g }`

func TestForgeriesDoNotCompile(t *testing.T) {
	if out, err := compile(t, "test/forged", honest); err != nil {
		t.Fatalf("the honest program does not compile: %s", out)
	}
	for _, f := range forgeries {
		t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
			out, err := compile(t, f.where, f.program)
			if err == nil {
				t.Fatal("it compiles")
			}
			if !strings.Contains(out, f.reason) {
				t.Errorf("it fails for another reason than %q:\n%s", f.reason, out)
			}
		})
	}
}

// compile builds a program as if it stood in a folder of this module, without writing there.
func compile(t *testing.T, where, program string) (string, error) {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	overlay := filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, where, "main.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{source: []byte(program), overlay: list} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-overlay", overlay, "-o", os.DevNull, "./"+where)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}
