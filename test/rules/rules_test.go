// SPDX-License-Identifier: Apache-2.0

// Package rules tests the rules of the house that a compiler does not know: which package may import which, who may call the
// gate, and what may not stand in the code at all.
package rules

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/embargo-registry/embargo/"

// floors are the packages from the ground up. A package imports only lower floors; those of one floor do not know each other.
var floors = [][]string{
	{"fault", "redact", "durable"},
	{"name"},
	{"dial"},
	{"meta"},
	{"job", "identity", "network"},
	{"audit"},
	{"egress", "arm", "oci", "identity/authority"},
	{"blob", "webhook", "upstream", "trust"},
	{"registry"},
	{"providers", "backup"},
	{"server"},
	{"cmd", "packaging"},
}

// barred are imports that no floor forbids and that must not be, with the reason.
var barred = []struct{ from, to, why string }{
	{"egress", "oci", "the gate knows neither protocol"},
	{"egress", "arm", "the gate knows neither protocol"},
	{"oci", "blob", "the protocol knows no storage"},
	{"arm", "providers", "the engine knows no type"},
	{"blob", "network", "content is let out by a grant, not by looking at a connection"},
}

// closed are packages that few may import, with the reason.
var closed = []struct {
	to      string
	allowed []string
	why     string
}{
	{"blob", []string{"registry", "server", "backup", "test"}, "only the registry reads content; a restore places it"},
	{"egress", []string{"blob", "registry", "server", "backup", "test"}, "only registry/release.go asks the gate; a restore says that it is one"},
	{"blob/internal/fs", []string{"blob"}, "drivers serve blob alone"},
	{"blob/internal/driver", []string{"blob"}, "drivers serve blob alone"},
	{"blob/blobtest", []string{"test"}, "it is for tests"},
	{"github.com/minio/minio-go/v7", []string{"blob/internal/s3"}, "one package speaks S3, over dial's connections"},
	{"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container", []string{"blob/internal/azure", "blob/blobtest"}, "one package speaks Azure Blob, over dial's connections"},
	{"net/http/httputil", nil, "a reverse proxy would hand content on past the gate"},
}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// floor finds a package's floor by the longest room name that it lies in.
func floor(path string) (int, string) {
	best, room := -1, ""
	for i, rooms := range floors {
		for _, r := range rooms {
			if (path == r || strings.HasPrefix(path, r+"/")) && len(r) > len(room) {
				best, room = i, r
			}
		}
	}
	return best, room
}

func TestFloors(t *testing.T) {
	for _, p := range list(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		at, room := floor(from)
		if room == "" {
			if !strings.HasPrefix(from, "test/") {
				t.Errorf("%s stands on no floor: give it one in this test and in docs/ARCHITECTURE.md", from)
			}
			continue
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			below, other := floor(to)
			switch {
			case other == room && (room != "providers" || related(from, to)):
			case other == room:
				t.Errorf("%s imports %s: type folders never import each other", from, to)
			case below == -1:
				t.Errorf("%s imports %s, which stands on no floor", from, to)
			case below >= at:
				t.Errorf("%s (floor %d) imports %s (floor %d): a package imports only lower floors", from, at, to, below)
			}
		}
	}
}

// shared are folders that declare no type: they serve the types of their namespace.
var shared = []string{"providers/containerregistry/managed", "providers/containerregistry/connections", "providers/network/space"}

// related: a provider's package lists its own types' folders, and the shared folders of its namespace serve them.
func related(a, b string) bool {
	return strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") || slices.Contains(shared, b)
}

// TestPackagingStandsAlone: what is given out is built from outside, so that no part of it depends on how it is packed.
func TestPackagingStandsAlone(t *testing.T) {
	seen := false
	for _, p := range list(t) {
		if p.ImportPath != module+"packaging" {
			continue
		}
		seen = true
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, module) {
				t.Errorf("packaging imports %s: it runs the go command and imports nothing of ours", imp)
			}
		}
	}
	if !seen {
		t.Fatal("there is no package packaging: the test does not see it any more")
	}
}

func TestBarredImports(t *testing.T) {
	for _, p := range list(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			to := strings.TrimPrefix(imp, module)
			for _, b := range barred {
				if (from == b.from || strings.HasPrefix(from, b.from+"/")) && (to == b.to || strings.HasPrefix(to, b.to+"/")) {
					t.Errorf("%s imports %s: %s", from, to, b.why)
				}
			}
			for _, c := range closed {
				if to != c.to || strings.HasPrefix(from, c.to) {
					continue
				}
				if !slices.ContainsFunc(c.allowed, func(a string) bool { return from == a || strings.HasPrefix(from, a+"/") }) {
					t.Errorf("%s imports %s: %s", from, to, c.why)
				}
			}
		}
	}
}

// each parses every Go file that is not a test.
func each(t *testing.T, visit func(path string, set *token.FileSet, f *ast.File)) {
	t.Helper()
	root := filepath.Join("..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		seen++
		visit(filepath.ToSlash(rel), set, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Fatalf("only %d files were read: the walk is broken", seen)
	}
}

// gateCalls are the gate's methods that let content out; Fence closes, so anyone may call it.
var gateCalls = []string{"Decide", "Release", "Record", "Look", "Tell"}

// TestOnlyReleaseAsksTheGate: outside egress itself, the gate is asked in registry/release.go and nowhere else.
func TestOnlyReleaseAsksTheGate(t *testing.T) {
	calls := 0
	each(t, func(path string, set *token.FileSet, f *ast.File) {
		if strings.HasPrefix(path, "egress/") || !imports(f, module+"egress") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || !slices.Contains(gateCalls, sel.Sel.Name) || !namesGate(sel.X) {
				return true
			}
			calls++
			if path != "registry/release.go" {
				t.Errorf("%s: %s is called outside registry/release.go", set.Position(sel.Pos()), sel.Sel.Name)
			}
			return true
		})
	})
	if calls < 2 {
		t.Fatalf("found %d calls of the gate: the test does not see them any more", calls)
	}
}

// TestOnlyReleaseAndBlobHandleGrants: a Grant is named by egress, blob and registry/release.go alone, and blob.Open is called only there.
func TestOnlyReleaseAndBlobHandleGrants(t *testing.T) {
	each(t, func(path string, set *token.FileSet, f *ast.File) {
		if strings.HasPrefix(path, "egress/") || strings.HasPrefix(path, "blob/") || path == "registry/release.go" {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Grant" {
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == "egress" {
					t.Errorf("%s: egress.Grant is named outside the gate's rooms", set.Position(sel.Pos()))
				}
			}
			return true
		})
	})
}

func imports(f *ast.File, path string) bool {
	return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"`+path+`"` })
}

// namesGate: the receiver is called gate, or ends in .gate or .Gate.
func namesGate(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return strings.EqualFold(x.Name, "gate")
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "gate")
	}
	return false
}

// never are selectors that no code of the product may use, with the reason.
var never = map[string]string{
	"http.Redirect":                      "content is never answered by a redirect, and ARM clients do not follow one on PUT",
	"http.DefaultClient":                 "outbound connections are dial's",
	"http.Get":                           "outbound connections are dial's",
	"http.Post":                          "outbound connections are dial's",
	"context.WithValue":                  "no values in a context",
	"http.ServeContent":                  "content leaves through blob.Reader alone",
	"http.FileServer":                    "content leaves through blob.Reader alone",
	"httputil.NewSingleHostReverseProxy": "content leaves through blob.Reader alone",
}

// dialers may be used in the room dial alone (and to listen, in network).
var dialers = []string{"net.Dial", "net.DialTimeout", "net.Dialer", "tls.Dial", "tls.Dialer", "net.DialTCP", "net.DialUDP"}

func TestNever(t *testing.T) {
	each(t, func(path string, set *token.FileSet, f *ast.File) {
		if strings.HasPrefix(path, "test/") || strings.Contains(path, "metatest/") || strings.Contains(path, "armtest/") {
			return
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init() registers in secret; wire it in server", set.Position(fn.Pos()))
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "panic" && !strings.HasPrefix(path, "fault/") {
					t.Errorf("%s: panic; return an error", set.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				id, ok := n.X.(*ast.Ident)
				if !ok {
					return true
				}
				full := id.Name + "." + n.Sel.Name
				if why, bad := never[full]; bad && !strings.HasPrefix(path, "dial/") {
					t.Errorf("%s: %s: %s", set.Position(n.Pos()), full, why)
				}
				if slices.Contains(dialers, full) && !strings.HasPrefix(path, "dial/") {
					t.Errorf("%s: %s: outbound connections are dial's", set.Position(n.Pos()), full)
				}
			}
			return true
		})
	})
}

// TestOneLog: a handler of a log is made in one place, behind redact.
func TestOneLog(t *testing.T) {
	made := 0
	each(t, func(path string, set *token.FileSet, f *ast.File) {
		if strings.HasPrefix(path, "test/") || strings.Contains(path, "armtest/") || strings.HasPrefix(path, "packaging/") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			id, ok := sel.X.(*ast.Ident)
			if !ok || id.Name != "slog" || sel.Sel.Name != "NewTextHandler" && sel.Sel.Name != "NewJSONHandler" && sel.Sel.Name != "Default" && sel.Sel.Name != "SetDefault" {
				return true
			}
			made++
			if path != "cmd/embargo/serve.go" {
				t.Errorf("%s: slog.%s: every log goes through redact.Handler, in cmd/embargo/serve.go; what has no log uses slog.DiscardHandler", set.Position(sel.Pos()), sel.Sel.Name)
			}
			return true
		})
	})
	if made < 2 {
		t.Fatalf("found %d handlers: the test does not see them any more", made)
	}
}

// TestLicence: each file begins with its SPDX line.
func TestLicence(t *testing.T) {
	each(t, func(path string, _ *token.FileSet, f *ast.File) {
		if len(f.Comments) == 0 || f.Comments[0].List[0].Text != "// SPDX-License-Identifier: Apache-2.0" {
			t.Errorf("%s does not begin with the SPDX line", path)
		}
	})
}
