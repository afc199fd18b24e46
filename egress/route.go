// SPDX-License-Identifier: Apache-2.0

package egress

// Route is one way in which bytes could leave a registry. Its value is the route's id in the register (R1 …), which is also
// its name in the audit.
type Route string

// The routes. Register says of each what stands in its way.
const (
	Pull             Route = "R1"
	PublicPull       Route = "R2"
	Redirect         Route = "R3"
	Import           Route = "R4"
	ExportPipeline   Route = "R5"
	InFlight         Route = "R6"
	Replica          Route = "R7"
	ConnectedEdge    Route = "R8"
	ForeignCache     Route = "R9"
	Upstream         Route = "R10"
	Mount            Route = "R11"
	ForeignDigest    Route = "R12"
	Webhook          Route = "R13"
	Task             Route = "R14"
	Referrer         Route = "R15"
	Names            Route = "R16"
	Diagnostics      Route = "R17"
	Backup           Route = "R18"
	AdminUser        Route = "R19"
	OldToken         Route = "R20"
	TrustedService   Route = "R21"
	PolicyFlip       Route = "R22"
	StorageAccess    Route = "R23"
	CheckThenStream  Route = "R24"
	StaleNode        Route = "R25"
	HostConfusion    Route = "R26"
	Weakening        Route = "R27"
	SharedStorage    Route = "R28"
	PullThenPush     Route = "R29"
	PortalOrDownload Route = "R30"
)

// Stance says how a route is closed.
type Stance string

// The stances.
const (
	// Judged: code decides each time; the register names the test that fails when the rule is gone.
	Judged Stance = "judged"
	// Absent: the product has no such feature, so the route does not exist; asking for it is refused.
	Absent Stance = "absent"
	// Stated: no registry can close it; the documentation says so plainly.
	Stated Stance = "stated"
)

// Entry is a route's line in the register.
type Entry struct {
	Route  Route
	Stance Stance
	// Rule is what must hold for bytes to leave this way.
	Rule string
	// Room is the place of the code that holds the rule.
	Room string
}

// Register lists every route by which bytes can leave, in order. A route is never removed: it changes its stance.
var Register = [...]Entry{
	{Pull, Judged, "an authorised caller, inside the network, of content that is in the repository asked; recorded before the first byte", "registry/release.go"},
	{PublicPull, Judged, "publicNetworkAccess, default action and IP rules, judged on the connection before authentication", "network"},
	{Redirect, Absent, "content is never answered by a redirect to storage", "registry/release.go"},
	{Import, Judged, "the source's exports are enabled, or source and target are one registry; asked at the start and of every artifact", "egress"},
	{ExportPipeline, Judged, "no export pipeline exists or can be made while exports are disabled", "providers/containerregistry"},
	{InFlight, Judged, "a running import stops before its next artifact and leaves no tag", "registry/import.go"},
	{Replica, Absent, "further regions are declared and serve nothing: no content is replicated", "providers/containerregistry"},
	{ConnectedEdge, Absent, "connected registries are not offered", "arm"},
	{ForeignCache, Judged, "a login server of this installation, in any spelling and with whatever credentials, is recognised and judged as an import", "providers/containerregistry"},
	{Upstream, Judged, "names go only to an upstream that the operator has listed, for a caller who may pull now, on record before the first byte; its tokens and redirects come from hosts listed for it; an import from outside is refused", "egress"},
	{Mount, Judged, "a mount needs read on the source repository, in the same registry; otherwise an upload begins, whether the source exists or not", "registry"},
	{ForeignDigest, Judged, "a digest is served only from a repository that holds it", "registry"},
	{Webhook, Judged, "an event carries names and digests, goes to the webhook's own destination, and while exports are disabled only to one that the operator has listed; asked at every attempt", "egress"},
	{Task, Absent, "build tasks are not offered", "arm"},
	{Referrer, Judged, "referrers are listed and served as any manifest of their repository", "registry"},
	{Names, Judged, "names are listed only to those who may read them; absent and forbidden answer alike", "oci"},
	{Diagnostics, Judged, "logs hold no content and no secret; nothing is sent anywhere", "server"},
	{Backup, Judged, "while exports are disabled anywhere, a backup is encrypted to the installation's own key and to no other; asked of every digest", "egress"},
	{AdminUser, Judged, "the admin user is off until enabled; its passwords are made at random", "identity"},
	{OldToken, Judged, "a token is judged at every request by the policy, the principal and the registry's identity now", "identity"},
	{TrustedService, Judged, "an import across a restricted network needs networkRuleBypassOptions AzureServices on both sides", "egress"},
	{PolicyFlip, Judged, "every change of a policy is recorded in its own transaction: who, from where, what changed", "arm"},
	{StorageAccess, Stated, "who reads the disk or the database reads the content", "docs"},
	{CheckThenStream, Judged, "decide, record durably, then stream in windows with the epoch re-checked; a flip waits for them", "egress"},
	{StaleNode, Judged, "one node per database; a node whose lease has ended decides nothing", "meta"},
	{HostConfusion, Judged, "the zone is the accepting socket's; SNI and Host must agree and be ours", "network"},
	{Weakening, Judged, "downgrade, PUT and delete are judged on the final state; a registry made again under a name has a new identity", "providers/containerregistry"},
	{SharedStorage, Judged, "content present elsewhere is uploaded all the same; presence is judged per repository", "registry"},
	{PullThenPush, Stated, "who may pull may keep what was pulled", "docs"},
	{PortalOrDownload, Absent, "there is no portal and no download but the distribution protocol's", "server"},
}
