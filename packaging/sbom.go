// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"time"
)

// document is a bill of materials in SPDX 2.3.
type document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creation       `json:"creationInfo"`
	Packages          []spdxPackage  `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creation struct {
	Created  time.Time `json:"created"`
	Creators []string  `json:"creators"`
}

type spdxPackage struct {
	SPDXID           string         `json:"SPDXID"`
	Name             string         `json:"name"`
	VersionInfo      string         `json:"versionInfo"`
	PackageFileName  string         `json:"packageFileName,omitempty"`
	Supplier         string         `json:"supplier"`
	DownloadLocation string         `json:"downloadLocation"`
	FilesAnalyzed    bool           `json:"filesAnalyzed"`
	Checksums        []spdxChecksum `json:"checksums,omitempty"`
	SourceInfo       string         `json:"sourceInfo,omitempty"`
	LicenseConcluded string         `json:"licenseConcluded"`
	LicenseDeclared  string         `json:"licenseDeclared"`
	CopyrightText    string         `json:"copyrightText"`
	Purpose          string         `json:"primaryPackagePurpose"`
	ExternalRefs     []externalRef  `json:"externalRefs"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// noAssertion is SPDX's word for what the document doesn't say.
const noAssertion = "NOASSERTION"

// bill is the name of a target's bill of materials.
func (r release) bill(t target) string { return r.binary(t) + ".spdx.json" }

// writeBill writes what the built program says of itself: the modules linked into it and the Go that built it.
func (r release) writeBill(t target) error {
	path := r.path(r.binary(t))
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	sum, err := sha256File(path)
	if err != nil {
		return err
	}
	d, err := r.document(r.binary(t), sum, info)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(r.path(r.bill(t)), append(b, '\n'), 0o644)
}

// document describes the program called name, whose digest is sum.
func (r release) document(name, sum string, info *debug.BuildInfo) (document, error) {
	const source = "https://github.com/embargo-registry/embargo"
	d := document{SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: name,
		DocumentNamespace: source + "/spdx/" + name + "-" + sum,
		CreationInfo:      creation{Created: r.time, Creators: []string{"Tool: embargo-packaging", "Organization: The Embargo maintainers"}}}
	program := newPackage("SPDXRef-Package-embargo", "embargo", r.version, purl(info.Main.Path, "v"+r.version))
	program.PackageFileName, program.Purpose, program.LicenseDeclared = name, "APPLICATION", "Apache-2.0"
	program.Checksums = []spdxChecksum{{"SHA256", sum}}
	if r.commit != unknown {
		program.DownloadLocation = "git+" + source + "@" + strings.TrimSuffix(r.commit, "-dirty")
	}
	d.Packages = []spdxPackage{program}
	d.relate(d.SPDXID, "DESCRIBES", program.SPDXID)
	toolchain := strings.TrimPrefix(info.GoVersion, "go")
	library := newPackage("SPDXRef-Package-Go-stdlib", "stdlib", toolchain, purl("stdlib", toolchain))
	library.LicenseDeclared = "BSD-3-Clause"
	library.ExternalRefs = append(library.ExternalRefs, externalRef{"SECURITY", "cpe23Type", "cpe:2.3:a:golang:go:" + toolchain + ":*:*:*:*:*:*:*"})
	compiler := newPackage("SPDXRef-Package-Go-toolchain", "go", toolchain, purl("toolchain", info.GoVersion))
	compiler.LicenseDeclared, compiler.Purpose = "BSD-3-Clause", "APPLICATION"
	d.Packages = append(d.Packages, library, compiler)
	d.relate(program.SPDXID, "CONTAINS", library.SPDXID)
	d.relate(compiler.SPDXID, "BUILD_TOOL_OF", program.SPDXID)
	for _, m := range info.Deps {
		p, err := dependency(m)
		if err != nil {
			return document{}, err
		}
		d.Packages = append(d.Packages, p)
		d.relate(program.SPDXID, "DEPENDS_ON", p.SPDXID)
	}
	return d, nil
}

func (d *document) relate(from, kind, to string) {
	d.Relationships = append(d.Relationships, relationship{from, kind, to})
}

// newPackage asserts nothing but name, version and purl.
func newPackage(id, name, version, locator string) spdxPackage {
	return spdxPackage{SPDXID: id, Name: name, VersionInfo: version, Supplier: noAssertion, DownloadLocation: noAssertion,
		LicenseConcluded: noAssertion, LicenseDeclared: noAssertion, CopyrightText: noAssertion, Purpose: "LIBRARY",
		ExternalRefs: []externalRef{{"PACKAGE-MANAGER", "purl", locator}}}
}

// noID are the characters that an SPDX id may not hold.
var noID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// dependency is a module that is linked into the program.
func dependency(m *debug.Module) (spdxPackage, error) {
	if m.Replace != nil {
		m = m.Replace
	}
	p := newPackage("SPDXRef-Package-"+noID.ReplaceAllString(m.Path+"-"+m.Version, "-"), m.Path, m.Version, purl(m.Path, m.Version))
	if h1, ok := strings.CutPrefix(m.Sum, "h1:"); ok {
		sum, err := base64.StdEncoding.DecodeString(h1)
		if err != nil {
			return spdxPackage{}, fmt.Errorf("the sum of %s: %w", m.Path, err)
		}
		p.Checksums = []spdxChecksum{{"SHA256", hex.EncodeToString(sum)}}
		p.SourceInfo = "The checksum is the h1 hash of go.sum: SHA-256 of the list of the module's files and their digests."
	}
	return p, nil
}

// purl names a Go module in the way of package-url: in lower case, each part escaped.
func purl(path, version string) string {
	parts := strings.Split(strings.ToLower(path), "/")
	for i, p := range parts {
		parts[i] = url.QueryEscape(p)
	}
	return "pkg:golang/" + strings.Join(parts, "/") + "@" + url.QueryEscape(version)
}
