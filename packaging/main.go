// SPDX-License-Identifier: Apache-2.0

// Command packaging writes what is given out of a version: binaries, Debian packages, an image of Embargo itself, a bill of
// materials for each Linux binary, and checksums. It runs in the root of the module and needs the go command, git (or -version
// and SOURCE_DATE_EPOCH) and dpkg-deb.
//
// The same commit and the same Go give the same bytes: every time in the files is SOURCE_DATE_EPOCH, else the commit's.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ERROR: "+err.Error())
		os.Exit(1)
	}
}

// release is what the files are made of and where they go.
type release struct {
	out, version, commit string
	time                 time.Time
	targets              []target
}

// target is a system that Embargo is built for.
type target struct{ os, arch string }

func (t target) String() string { return t.os + "/" + t.arch }

// targets are all of them; the server is for Linux.
func targets() []target {
	return []target{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}}
}

// path is where a file of the release is.
func (r release) path(name string) string { return filepath.Join(r.out, name) }

// linux are the targets that get more than a binary.
func (r release) linux() []target {
	return slices.DeleteFunc(slices.Clone(r.targets), func(t target) bool { return t.os != "linux" })
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("packaging", flag.ContinueOnError)
	out := f.String("out", "dist", "directory to write to; what an earlier run left there is removed")
	only := f.String("only", "", "build for one system only, e.g. linux/amd64")
	given := f.String("version", "", "the version (default: from git's tags)")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unrecognized arguments: %s", strings.Join(f.Args(), " "))
	}
	r := release{out: *out, targets: targets(), commit: commit(ctx)}
	if *only != "" {
		r.targets = slices.DeleteFunc(r.targets, func(t target) bool { return t.String() != *only })
		if len(r.targets) == 0 {
			return fmt.Errorf("-only %s: not one of %v", *only, targets())
		}
	}
	var err error
	if r.version, err = version(ctx, *given); err != nil {
		return err
	}
	if r.time, err = sourceTime(ctx, os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return err
	}
	if err := clean(r.out); err != nil {
		return err
	}
	return r.write(ctx)
}

// write makes every file of the release.
func (r release) write(ctx context.Context) error {
	for _, t := range r.targets {
		fmt.Println("building", r.binary(t))
		if err := r.build(ctx, t); err != nil {
			return err
		}
	}
	for _, t := range r.linux() {
		fmt.Println("writing", r.bill(t), "and", r.deb(t))
		if err := r.writeBill(t); err != nil {
			return fmt.Errorf("%s: %w", r.bill(t), err)
		}
		if err := r.writeDeb(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", r.deb(t), err)
		}
	}
	if len(r.linux()) > 0 {
		fmt.Println("writing", r.image())
		if err := r.writeImage(); err != nil {
			return fmt.Errorf("%s: %w", r.image(), err)
		}
	}
	return r.writeSums()
}

// sums is the file of checksums.
const sums = "SHA256SUMS"

// clean makes the directory, and removes the files of an earlier run but no others.
func clean(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, pattern := range []string{"embargo-*", "embargo_*", sums} {
		old, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, path := range old {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeSums writes the checksums in the form that sha256sum -c reads.
func (r release) writeSums() error {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "embargo") {
			continue
		}
		sum, err := sha256File(r.path(e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, e.Name())
	}
	return os.WriteFile(r.path(sums), []byte(b.String()), 0o644)
}

// sha256File is the digest of a file, in hexadecimal.
func sha256File(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
