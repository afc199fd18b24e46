// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/embargo-registry/embargo/egress"

// mutations open each judged route of the register in turn. Where several rules guard one route, the one taken here is the one that the route's
// own test sees gone.
var mutations = []mutation{
	{egress.Pull, "oci/auth.go", "		if ok {\n			continue\n		}", "		if ok || !ok {\n			continue\n		}", "registry", "TestRoles"},
	{egress.Pull, "registry/release.go", "	if err == nil && c.Registry.Trust && w.reference != \"\" {", "	if err == nil && c.Registry.Trust && w.reference == d.MediaType {", "registry", "TestTrustPolicy"},
	{egress.Pull, "trust/verify.go", "	if err := trusted(content.SignerInfo.CertificateChain, stores); err != nil {", "	if err := trusted(content.SignerInfo.CertificateChain, stores); err != nil && mediaType == \"\" {", "registry", "TestTrustPolicy"},
	{egress.Import, "registry/import.go", "	if err := p.trusted(tx, own); err != nil {\n		return err\n	}\n	return p.s", "	return p.s", "registry", "TestImportOfATag"},
	{egress.PublicPull, "network/enter.go", "	return denied(p)\n}", "	_ = denied(p)\n	return nil\n}", "registry", "TestNetworkFirst"},
	{egress.Import, "egress/judge.go", "	if !source.Exports {", "	if !source.Exports && a.To == \"\" {", "test/egress", "TestR4ImportFromLockedSource"},
	{egress.ExportPipeline, "providers/containerregistry/exportpipelines/exportpipelines.go", `Export.Status == "disabled"`, `Export.Status == "never"`,
		"test/egress", "TestR5NoPipelineFromLockedRegistry"},
	{egress.InFlight, "registry/import.go", "		if err := p.s.releaseImport(tx, p.passage(), string(p.Image.Tag), p.root); err != nil {\n			return err\n		}\n", "",
		"registry", "TestImportStopsAtAFlip"},
	{egress.ForeignCache, "egress/judge.go", "	if a.To == source.ID {", "	if a.To == source.ID || a.Reference != \"\" {", "test/egress", "TestR4ImportFromLockedSource"},
	{egress.Mount, "oci/writer.go", "	if err != nil || !allowed {\n		return false, err\n	}\n	return x.s.o.Registry.Mount", "	if err != nil || !allowed && from == \"\" {\n		return false, err\n	}\n	return x.s.o.Registry.Mount",
		"registry", "TestMountNeedsPullOnSource"},
	{egress.ForeignDigest, "registry/read.go", " WHERE r.registry = $1 AND r.name = $2 AND l.digest = $3`", " WHERE $1 <> '' AND $2 <> '' AND l.digest = $3 LIMIT 1`",
		"registry", "TestDigestOfAnotherRepository"},
	{egress.Webhook, "egress/judge.go", "	case !row.Exports && !a.Declared:", "	case !row.Exports && !a.Declared && row.ID == \"\":", "test/egress", "TestR13EventsStayInside"},
	{egress.Webhook, "server/server.go", "dial.Webhook: {Anywhere: true}", "dial.Webhook: {Anywhere: true, Inside: true}", "test/egress", "TestR13EventsStayInside"},
	{egress.Upstream, "egress/judge.go", "	case !a.Declared:", "	case !a.Declared && row.ID == \"\":", "test/egress", "TestR10NamesStayInside"},
	{egress.Upstream, "upstream/upstream.go", "	outside, inside := dial.Rule{},", "	outside, inside := dial.Rule{Inside: true},", "test/egress", "TestR10NamesStayInside"},
	{egress.Upstream, "upstream/token.go", " || !among(at.Host, append([]string{u.At}, u.Tokens...))", "", "registry", "TestR10UpstreamsOwnHosts"},
	{egress.Upstream, "upstream/fetch.go", " || !among(next.Host, append([]string{u.At}, u.Redirects...))", "", "registry", "TestR10UpstreamsOwnHosts"},
	{egress.Referrer, "oci/server.go", `{kindReferrers, "GET", toPull,`, `{kindReferrers, "GET", toEnter,`, "registry", "TestReferrers"},
	{egress.Names, "oci/server.go", `{kindCatalog, "GET", toList,`, `{kindCatalog, "GET", toEnter,`, "registry", "TestTagsAndCatalog"},
	{egress.Names, "oci/server.go", `{kindAcrTags, "GET", toLook,`, `{kindAcrTags, "GET", toEnter,`, "registry", "TestTokensAndScopeMaps"},
	{egress.Pull, "identity/acrtoken.go", "	return err == nil && allowsVerb(list, repo, verb), err", "	return err == nil, err", "registry", "TestTokensAndScopeMaps"},
	{egress.OldToken, "identity/acrtoken.go", "	case !enabled:", "	case !enabled && id == \"\":", "registry", "TestRevokedTokens"},
	{egress.Diagnostics, "server/front.go", `"agent", clip(r.UserAgent()))`, `"agent", clip(r.UserAgent()), "authorization", r.Header.Get("Authorization"))`,
		"server", "TestRequestLogKeepsSecretsOut"},
	{egress.Backup, "egress/judge.go", "		if !r.Exports {\n			return fault.New(fault.ExportsDisabled,\n				\"A backup", "		if !r.Exports && r.ID == \"\" {\n			return fault.New(fault.ExportsDisabled,\n				\"A backup", "test/operate", "TestR18BackupIsSealed"},
	{egress.AdminUser, "providers/containerregistry/registries/apply.go", "row.AdminEnabled, row.AnonymousPull = p.AdminUserEnabled, p.AnonymousPull",
		"row.AdminEnabled, row.AnonymousPull = true, p.AnonymousPull", "test/egress", "TestR19AdminUserIsOffUntilEnabled"},
	{egress.OldToken, "identity/token.go", "	case !p.Enabled:", "	case !p.Enabled && p.ID == \"\":", "test/egress", "TestR20DisabledPrincipalsTokenIsVoid"},
	{egress.TrustedService, "egress/judge.go", "			if restricted(r) && !r.BypassAzureServices {", "			if restricted(r) && !r.BypassAzureServices && r.ID == \"\" {",
		"test/egress", "TestR21BypassIsAskedOnBothSides"},
	{egress.PolicyFlip, "arm/record.go", "	return e.record(tx, rec)\n}\n\n// redacted", "	return nil\n}\n\n// redacted", "test/egress", "TestR22EveryFlipIsRecorded"},
	{egress.CheckThenStream, "egress/grant.go", "	ctx = context.WithoutCancel(ctx)\n", "	if ctx != nil {\n		return nil\n	}\n", "test/egress", "TestR24FlipCutsWhatIsInFlight"},
	{egress.StaleNode, "meta/node.go", "	if others > 0 {", "	if others > 1<<20 {", "test/egress", "TestR25SecondNodeIsRefused"},
	{egress.HostConfusion, "server/front.go", "	case !agree:", "	case !agree && r.Host == \"\":", "server", "TestHostRules"},
	{egress.Weakening, "providers/containerregistry/registries/admit.go", "	if c.Want.SKU.Name != premium {\n		todo", "	if c.Want.SKU.Name == \"\" {\n		todo", "test/egress", "TestContract"},
	{egress.Weakening, "meta/registry.go", "	if r.Held {\n", "	if r.Held && r.ID == \"\" {\n", "test/operate", "TestOlderCopyIsHeld"},
	{egress.SharedStorage, "registry/release.go", "		found, err := blobIn(tx, row.ID, from, d)\n", "		size, _, err := s.blobs.Stat(tx, d)\n		found := oci.Descriptor{Digest: d, Size: size}\n",
		"registry", "TestSharedContentIsUploadedAllTheSame"},
}
