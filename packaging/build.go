// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// known is the form of versions that Debian, too, takes for one.
var known = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~-]*$`)

// version is the given one, else that of git's newest tag, else 0.0.0 with the commit.
func version(ctx context.Context, given string) (string, error) {
	v := given
	if v == "" {
		var err error
		if v, err = output(ctx, "git", "describe", "--tags", "--dirty"); err != nil {
			commit, err := output(ctx, "git", "describe", "--always", "--dirty")
			if err != nil {
				return "", fmt.Errorf("git does not say which version this is: give -version (%w)", err)
			}
			v = "0.0.0-" + commit
		}
	}
	v = strings.TrimPrefix(v, "v")
	if !known.MatchString(v) {
		return "", fmt.Errorf("%q is no version: it must begin with a digit and hold letters, digits and .+~- only", v)
	}
	return v, nil
}

// commit is that of the source with a mark when the tree was changed, "unknown" where there is no git to ask.
func commit(ctx context.Context) string {
	c, err := output(ctx, "git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
	if err != nil {
		return unknown
	}
	return c
}

// unknown is the commit of a source that git does not know.
const unknown = "unknown"

// sourceTime is the time that stands in every file: epoch (SOURCE_DATE_EPOCH), else that of the commit.
func sourceTime(ctx context.Context, epoch string) (time.Time, error) {
	if epoch == "" {
		var err error
		if epoch, err = output(ctx, "git", "log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, fmt.Errorf("git does not say when this commit was made: set SOURCE_DATE_EPOCH (%w)", err)
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is no number of seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// output runs a program and gives what it prints, without the space around it.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, strings.TrimSpace(string(failed.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}

// binary is the name of a target's program.
func (r release) binary(t target) string {
	name := "embargo-" + r.version + "-" + t.os + "-" + t.arch
	if t.os == "windows" {
		name += ".exe"
	}
	return name
}

// build compiles a static program that names neither the directory it was built in nor the time. The commit is told by a flag,
// because what the go command stamps is not the same in a clone, a work tree and an archive.
func (r release) build(ctx context.Context, t target) error {
	flags := "-s -w -X main.version=" + r.version + " -X main.commit=" + r.commit
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", r.path(r.binary(t)), "./cmd/embargo")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+t.os, "GOARCH="+t.arch, "GOAMD64=v1", "GOARM64=v8.0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("building for %s: %w\n%s", t, err, out)
	}
	return os.Chmod(r.path(r.binary(t)), 0o755)
}
