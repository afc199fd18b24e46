// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// git runs git in the working directory, as somebody, at a fixed time.
func git(t *testing.T, args ...string) {
	t.Helper()
	c := exec.Command("git", append([]string{"-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"}, args...)...)
	c.Env = append(os.Environ(), "GIT_COMMITTER_DATE=1700000000 +0000", "GIT_AUTHOR_DATE=1700000000 +0000")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", args[0], err, out)
	}
}

// Version, commit and time come from git; a version begins with a digit even where no tag says which it is.
func TestFromGit(t *testing.T) {
	t.Chdir(t.TempDir())
	ctx := t.Context()
	if v, err := version(ctx, ""); err == nil || !strings.Contains(err.Error(), "give -version") {
		t.Errorf("outside a repository: %q, %v", v, err)
	}
	if c := commit(ctx); c != "unknown" {
		t.Errorf("outside a repository the commit is %q", c)
	}
	if _, err := sourceTime(ctx, ""); err == nil || !strings.Contains(err.Error(), "set SOURCE_DATE_EPOCH") {
		t.Errorf("outside a repository: %v", err)
	}
	git(t, "init", "-q")
	if err := os.WriteFile("f", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, "add", "f")
	git(t, "commit", "-q", "-m", "one")
	if at, err := sourceTime(ctx, ""); err != nil || !at.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("the commit's time is %v, %v", at, err)
	}
	if at, err := sourceTime(ctx, "5"); err != nil || at.Unix() != 5 {
		t.Errorf("SOURCE_DATE_EPOCH does not win: %v, %v", at, err)
	}
	for _, step := range []struct {
		do           func()
		want, commit string
	}{
		{func() {}, `^0\.0\.0-[0-9a-f]{7,}$`, `^[0-9a-f]{40}$`},
		{func() { git(t, "tag", "-a", "-m", "m", "v1.2.0") }, `^1\.2\.0$`, `^[0-9a-f]{40}$`},
		{func() { git(t, "commit", "-q", "--allow-empty", "-m", "two") }, `^1\.2\.0-1-g[0-9a-f]{7,}$`, `^[0-9a-f]{40}$`},
		{func() { _ = os.WriteFile("f", []byte("2"), 0o644) }, `^1\.2\.0-1-g[0-9a-f]{7,}-dirty$`, `^[0-9a-f]{40}-dirty$`},
	} {
		step.do()
		if v, err := version(ctx, ""); err != nil || !regexp.MustCompile(step.want).MatchString(v) {
			t.Errorf("version %q, %v; want %s", v, err, step.want)
		}
		if c := commit(ctx); !regexp.MustCompile(step.commit).MatchString(c) {
			t.Errorf("commit %q, want %s", c, step.commit)
		}
	}
}

// What comes before a release is older for Debian, what comes after it is newer.
func TestDebVersion(t *testing.T) {
	for v, want := range map[string]string{
		"1.2.3": "1.2.3", "1.2.3-rc.1": "1.2.3~rc.1", "1.2.3-beta2-4-gabc": "1.2.3~beta2-4-gabc",
		"1.2.3-4-gabc": "1.2.3-4-gabc", "1.2.3-dirty": "1.2.3-dirty", "0.0.0-abc1234": "0.0.0-abc1234",
	} {
		if got := (release{version: v}).debVersion(); got != want {
			t.Errorf("%s: %s, want %s", v, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	var got []string
	r := release{version: "1.2.3", targets: targets()}
	for _, t := range r.targets {
		got = append(got, r.binary(t))
	}
	for _, t := range r.linux() {
		got = append(got, r.deb(t), r.bill(t))
	}
	want := "embargo-1.2.3-linux-amd64 embargo-1.2.3-linux-arm64 embargo-1.2.3-darwin-amd64 embargo-1.2.3-darwin-arm64 embargo-1.2.3-windows-amd64.exe " +
		"embargo_1.2.3_amd64.deb embargo-1.2.3-linux-amd64.spdx.json embargo_1.2.3_arm64.deb embargo-1.2.3-linux-arm64.spdx.json"
	if strings.Join(got, " ") != want {
		t.Errorf("%q", got)
	}
}

func TestPurl(t *testing.T) {
	for _, c := range [][3]string{
		{"modernc.org/sqlite", "v1.60.1", "pkg:golang/modernc.org/sqlite@v1.60.1"},
		{"github.com/Azure/x", "v2.0.0+incompatible", "pkg:golang/github.com/azure/x@v2.0.0%2Bincompatible"},
	} {
		if got := purl(c[0], c[1]); got != c[2] {
			t.Errorf("%s, want %s", got, c[2])
		}
	}
}
