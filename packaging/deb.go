// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"text/template"
)

//go:embed deb
var debian embed.FS

// debFile is a file of the package: its path, its mode, and where it comes from.
type debFile struct {
	path string
	mode fs.FileMode
	from string
}

// debFiles are those that are the same for each target.
func debFiles() []debFile {
	return []debFile{
		{"DEBIAN/postinst", 0o755, "postinst"},
		{"DEBIAN/prerm", 0o755, "prerm"},
		{"DEBIAN/postrm", 0o755, "postrm"},
		{"etc/embargo/embargo.yaml", 0o640, "embargo.yaml"},
		{"lib/systemd/system/embargo.service", 0o644, "embargo.service"},
		{"usr/share/doc/embargo/copyright", 0o644, "copyright"},
	}
}

// preview is what a version before a release ends with.
var preview = regexp.MustCompile(`^([0-9.]+)-((?:alpha|beta|pre|rc).*)$`)

// debVersion is the version as Debian orders it: 1.0.0-rc.1 comes before 1.0.0.
func (r release) debVersion() string { return preview.ReplaceAllString(r.version, "$1~$2") }

// deb is the name of a target's Debian package. Debian calls these architectures as Go does.
func (r release) deb(t target) string { return "embargo_" + r.debVersion() + "_" + t.arch + ".deb" }

// writeDeb lays the package out in a temporary directory and has dpkg-deb pack it.
func (r release) writeDeb(ctx context.Context, t target) error {
	root, err := os.MkdirTemp("", "embargo-deb")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(root) }()
	program, err := os.ReadFile(r.path(r.binary(t)))
	if err != nil {
		return err
	}
	size := len(program)
	if err := put(root, "usr/bin/embargo", 0o755, program); err != nil {
		return err
	}
	for _, f := range debFiles() {
		b, err := debian.ReadFile("deb/" + f.from)
		if err != nil {
			return err
		}
		size += len(b)
		if err := put(root, f.path, f.mode, b); err != nil {
			return err
		}
	}
	if err := put(root, "DEBIAN/conffiles", 0o644, []byte("/etc/embargo/embargo.yaml\n")); err != nil {
		return err
	}
	control, err := template.ParseFS(debian, "deb/control")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	err = control.Execute(&b, map[string]any{"Version": r.debVersion(), "Architecture": t.arch, "KiB": (size + 1023) / 1024})
	if err != nil {
		return err
	}
	if err := put(root, "DEBIAN/control", 0o644, b.Bytes()); err != nil {
		return err
	}
	if err := level(root); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, "dpkg-deb", "--build", "--root-owner-group", "-Zgzip", root, r.path(r.deb(t)))
	c.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", r.time.Unix()))
	out, err := c.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("dpkg-deb is not installed here: it is in Debian's package dpkg")
	}
	if err != nil {
		return fmt.Errorf("dpkg-deb: %w\n%s", err, out)
	}
	return nil
}

// put writes a file below root and the directories above it.
func put(root, path string, mode fs.FileMode, content []byte) error {
	full := filepath.Join(root, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(full, content, mode); err != nil {
		return err
	}
	return os.Chmod(full, mode)
}

// level gives directories the mode that no umask has touched. Files have theirs, and dpkg-deb sees to owners and times.
func level(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755)
	})
}
