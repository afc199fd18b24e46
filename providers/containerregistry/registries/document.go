// SPDX-License-Identifier: Apache-2.0

// Package registries declares Microsoft.ContainerRegistry/registries: its properties over all api-versions, the rules of its policies, and
// its actions. The contract of the export policy (admit.go) is judged on the merged final state, never property by property.
package registries

import (
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/providers/containerregistry/connections"
	"github.com/embargo-registry/embargo/providers/containerregistry/managed"
)

// document is a registry in its newest shape, members in the order in which they are shown.
type document struct {
	SKU        sku               `json:"sku" arm:"required"`
	Type       string            `json:"type"`
	Identity   *managed.Identity `json:"identity" api:"2019-12-01-preview..; 2021-09-01.."`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Location   string            `json:"location" arm:"required" stance:"echo" doc:"The region that the registry is said to be in."`
	Tags       map[string]string `json:"tags"`
	SystemData arm.SystemData    `json:"systemData" api:"2020-11-01-preview..; 2021-09-01.."`
	Properties properties        `json:"properties"`
}

type sku struct {
	Name string `json:"name" arm:"required" enum:"Basic|Standard|Premium" stance:"acts" doc:"Which features may be used: network rules, disabling public access and disabling exports need Premium."`
	Tier string `json:"tier" arm:"readonly"`
}

type properties struct {
	LoginServer        string                   `json:"loginServer" arm:"readonly"`
	CreationDate       time.Time                `json:"creationDate" arm:"readonly" time:"Z"`
	ProvisioningState  string                   `json:"provisioningState" arm:"readonly"`
	Status             *status                  `json:"status" arm:"readonly"`
	AdminUserEnabled   bool                     `json:"adminUserEnabled" stance:"acts" doc:"Whether the registry's name and its two generated passwords log in."`
	StorageAccount     *storageAccount          `json:"storageAccount" api:"2017-06-01-preview..2019-05-01-preview; 2017-03-01..2019-05-01" stance:"refused" doc:"Classic registries on a storage account do not exist here."`
	NetworkRuleSet     *networkRuleSet          `json:"networkRuleSet" api:"2019-05-01-preview..; 2019-05-01.." default:"{}" sku:"Premium" shown:"Premium"`
	Policies           policies                 `json:"policies" api:"2019-05-01-preview..; 2019-05-01.."`
	Encryption         encryption               `json:"encryption" api:"2019-12-01-preview..; 2021-09-01.."`
	DataEndpoint       bool                     `json:"dataEndpointEnabled" api:"2019-12-01-preview..; 2021-09-01.." sku:"Premium" stance:"echo" doc:"Shows the data endpoint's host name; content is served by the login server either way. It is true while the registry has private endpoint connections."`
	RegionalEndpoints  string                   `json:"regionalEndpoints" api:"2026-01-01-preview.." enum:"Enabled|Disabled" default:"Disabled" sku:"Premium" stance:"echo" doc:"There is one region, which the login server serves: no further host names come of it."`
	DataHosts          []string                 `json:"dataEndpointHostNames" api:"2019-12-01-preview..; 2021-09-01.." arm:"readonly"`
	RegionalHosts      []string                 `json:"regionalEndpointHostNames" api:"2026-01-01-preview.." arm:"readonly"`
	EndpointProtocol   string                   `json:"endpointProtocol" api:"2026-01-01-preview.." enum:"IPv4|IPv4AndIPv6" default:"IPv4" stance:"echo" doc:"The listeners' addresses are configured, not chosen here."`
	PrivateConnections []connections.Connection `json:"privateEndpointConnections" api:"2019-12-01-preview..; 2021-09-01.." arm:"readonly"`
	PublicAccess       string                   `json:"publicNetworkAccess" api:"2019-12-01-preview..; 2021-09-01.." enum:"Enabled|Disabled" default:"Enabled" arm:"keep" stance:"acts" doc:"Disabled: the public listener answers 403 before authentication, whatever the IP rules say."`
	Bypass             string                   `json:"networkRuleBypassOptions" api:"2020-11-01-preview..; 2021-09-01.." enum:"AzureServices|None" default:"AzureServices" stance:"acts" doc:"Whether an import may cross restricted networks; both sides must allow it."`
	BypassForTasks     bool                     `json:"networkRuleBypassAllowedForTasks" api:"2025-05-01-preview..; 2025-11-01.." stance:"echo" doc:"There are no tasks."`
	ZoneRedundancy     string                   `json:"zoneRedundancy" api:"2020-11-01-preview..; 2021-09-01.." enum:"Enabled|Disabled" default:"Disabled" arm:"immutable,nopatch" sku:"Premium" stance:"echo" doc:"How redundant an installation is depends on where it runs, not on this."`
	AnonymousPull      bool                     `json:"anonymousPullEnabled" api:"2020-11-01-preview..; 2025-11-01.." sku:"Premium|Standard" stance:"acts" doc:"Whether whoever may enter may pull without a credential."`
	MetadataSearch     string                   `json:"metadataSearch" api:"2024-11-01-preview.." enum:"Enabled|Disabled" default:"Disabled" stance:"echo" doc:"Metadata search is not offered."`
	RoleAssignmentMode string                   `json:"roleAssignmentMode" api:"2024-11-01-preview..; 2025-11-01.." enum:"LegacyRegistryPermissions|AbacRepositoryPermissions" default:"LegacyRegistryPermissions" stance:"acts" doc:"AbacRepositoryPermissions: AcrPull, AcrPush, Owner and Contributor give no access to content; the Repository roles do."`
	NameScope          string                   `json:"autoGeneratedDomainNameLabelScope" api:"2024-11-01-preview.." enum:"Unsecure|TenantReuse|SubscriptionReuse|ResourceGroupReuse|NoReuse" default:"Unsecure" arm:"immutable,nopatch" stance:"acts" doc:"Other than Unsecure: the login server's name carries a hash of the scope."`
	WritableCache      string                   `json:"writableCacheRepos" api:"2026-03-01-preview.." enum:"Enabled|Disabled" default:"Disabled" stance:"echo" doc:"What cache rules fill can be pushed to either way; a tag that was pushed is left alone."`
}

// status is in the service's model of a registry; normal answers do not have it.
type status struct {
	DisplayStatus string    `json:"displayStatus"`
	Message       string    `json:"message"`
	Timestamp     time.Time `json:"timestamp"`
}

type storageAccount struct {
	ID string `json:"id" arm:"required"`
}

type networkRuleSet struct {
	DefaultAction string     `json:"defaultAction" enum:"Allow|Deny" default:"Allow" stance:"acts" doc:"Deny: on the public listener only the addresses of ipRules enter."`
	VNetRules     []vnetRule `json:"virtualNetworkRules" api:"2019-05-01-preview..2021-12-01-preview; 2026-03-01-preview..; 2019-05-01..2019-05-01" stance:"refused" doc:"Service endpoints are a thing of Azure's own network."`
	IPRules       []ipRule   `json:"ipRules" max:"200" stance:"acts"`
}

type ipRule struct {
	Action string `json:"action" enum:"Allow" default:"Allow" stance:"acts"`
	Value  string `json:"value" arm:"required,key" stance:"acts" doc:"An IPv4 address or CIDR range."`
}

type vnetRule struct {
	Action string `json:"action" enum:"Allow" default:"Allow"`
	ID     string `json:"id" api:"2019-05-01-preview..2021-12-01-preview; 2019-05-01..2019-05-01" arm:"omitempty"`
	Subnet string `json:"virtualNetworkSubnetResourceId" api:"2026-03-01-preview.." arm:"omitempty"`
}

type policies struct {
	Quarantine quarantine `json:"quarantinePolicy"`
	Trust      trust      `json:"trustPolicy"`
	Retention  retention  `json:"retentionPolicy"`
	Export     export     `json:"exportPolicy" api:"2021-06-01-preview..; 2021-09-01.."`
	ArmTokens  armTokens  `json:"azureADAuthenticationAsArmPolicy" api:"2022-02-01-preview..; 2025-11-01.."`
	SoftDelete softDelete `json:"softDeletePolicy" api:"2022-02-01-preview.."`
}

type quarantine struct {
	Status string `json:"status" enum:"enabled|disabled" default:"disabled" stance:"acts" doc:"enabled (Premium): manifests that are pushed or imported are seen only by those who may read content in quarantine, until one who may write it sets quarantineState to Passed."`
}

type trust struct {
	Type   string `json:"type" enum:"Notary" default:"Notary" stance:"echo"`
	Status string `json:"status" enum:"enabled|disabled" default:"disabled" stance:"acts" doc:"enabled (Premium): a tag whose manifest has no valid Notary Project signature by a signer whom a trust store (Embargo.Containment/trustStores) trusts is refused to those who may not sign (AcrImageSigner); with no trust store every tag is. Whoever names a digest names exact content: digests are not refused."`
}

type retention struct {
	Days    int       `json:"days" default:"7" min:"0" max:"365" stance:"acts" doc:"For how many days a manifest without a tag is kept."`
	Updated time.Time `json:"lastUpdatedTime" arm:"readonly"`
	Status  string    `json:"status" enum:"enabled|disabled" default:"disabled" stance:"acts" doc:"enabled (Premium): manifests that lose their last tag from then on are deleted after so many days, unless they are locked, or belong to an index or to a subject that is there. One that never had a tag is kept for an hour after its last push at least."`
}

type export struct {
	Status string `json:"status" enum:"enabled|disabled" default:"enabled" stance:"acts" doc:"disabled: no other registry imports from this one and it has no export pipelines; needs Premium and publicNetworkAccess Disabled."`
}

type armTokens struct {
	Status string `json:"status" enum:"enabled|disabled" default:"enabled" stance:"acts" doc:"Whether tokens of the resource manager are exchanged at the registry; tokens for https://containerregistry.azure.net always are."`
}

type softDelete struct {
	Days    int       `json:"retentionDays" default:"7" min:"1" max:"90" stance:"acts" doc:"For how many days what was deleted can be restored."`
	Updated time.Time `json:"lastUpdatedTime" arm:"readonly"`
	Status  string    `json:"status" enum:"enabled|disabled" default:"disabled" stance:"acts" doc:"enabled: deleted manifests and tags can be listed and restored. Not together with the retention policy."`
}

type encryption struct {
	Status   string    `json:"status" enum:"enabled|disabled" default:"disabled" stance:"refused" doc:"Customer-managed keys are not offered: enabled is refused, so that nobody relies on it."`
	KeyVault *keyVault `json:"keyVaultProperties" stance:"refused" doc:"Customer-managed keys are not offered."`
}

type keyVault struct {
	Key       string     `json:"keyIdentifier"`
	Versioned string     `json:"versionedKeyIdentifier" arm:"readonly"`
	Identity  string     `json:"identity"`
	Rotation  bool       `json:"keyRotationEnabled" arm:"readonly"`
	Rotated   *time.Time `json:"lastKeyRotationTimestamp" arm:"readonly"`
}
