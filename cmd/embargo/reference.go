// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"strings"
)

// reference is docs/configuration.md.
func reference() string {
	var b strings.Builder
	b.WriteString(`# Configuration of ` + "`embargo serve`" + `

Each key can be given as a flag, in the environment, or in one YAML file named by ` + "`--config`" + ` (or ` + "`EMBARGO_CONFIG`" + `). A flag wins over the
environment, the environment over the file, the file over the default. A key in the file that is not listed here is an error. In the
environment, lists of names are separated by commas, and lists of objects are written as YAML or JSON.

` + "`embargo config check`" + ` reads everything as ` + "`embargo serve`" + ` would and says what is wrong, with file, line and key; what is seldom meant is a warning, on standard error, and no failure. A running server reads its configuration again when it gets SIGHUP:
certificates, listeners, ` + "`virtualNetworks`, `trustedProxies`, `clients`" + `, limits, timeouts and the log level change without dropping connections that remain allowed. A file that is wrong, or that changes what only a restart can
change (data, database, host, registrySuffix, locations, installationKey, policyEpochs, acme, webhooks, upstreams, storage, storageKeyFile, storageRoots, dns, minFreeDisk, auditMode, registryQuota, throttle, logFormat), changes nothing and is logged.

This page is generated from the table in cmd/embargo/config.go.

| key in the file | flag | environment | default | unit | what it does |
|---|---|---|---|---|---|
`)
	for _, k := range keys() {
		flag := "–"
		if k.flag != "" {
			flag = "`--" + k.flag + "`"
		}
		fallback := "empty"
		if k.fallback != "" {
			fallback = "`" + k.fallback + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s | %s |\n", k.name, flag, k.env(), fallback, k.unit, k.doc)
	}
	b.WriteString(`
An example:

` + "```yaml" + `
data: /var/lib/embargo
listen: 0.0.0.0:8443
host: [embargo.example.com]
registrySuffix: registry.example.com
webhooks:
  destinations: [builds.example.com, "10.0.7.4:8080"]
upstreams:
  registries:
    - host: docker.io
      redirects: [content.example.com]
    - host: mirror.example.com:5000
      inside: true
certificates:
  - cert: /etc/embargo/tls.crt
    key: /etc/embargo/tls.key
privateListeners:
  - address: 10.0.0.5:443
    registry: myregistry
    tls: true
    clients: [10.0.0.0/16]
logFormat: json
` + "```" + `
`)
	return b.String()
}
