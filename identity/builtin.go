// SPDX-License-Identifier: Apache-2.0

package identity

import "strings"

// Ids of built-in roles that code names.
const (
	RoleOwner                   = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	RoleContributor             = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	RoleReader                  = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	RoleUserAccessAdministrator = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"
	RoleAcrPull                 = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
	RoleAcrPush                 = "8311e382-0749-4cb8-b61a-304f252e45ec"
	RoleAcrDelete               = "c2f4ef07-c644-48eb-af81-4b1b4947fb11"
)

// acr is what permissions on registries begin with.
const acr = "Microsoft.ContainerRegistry/registries/"

// under makes permissions of words: all of acr's, unless they begin with a namespace of their own.
func under(words ...string) []string {
	var all []string
	for w := range strings.FieldsSeq(strings.Join(words, " ")) {
		if !strings.HasPrefix(w, "*") && !strings.HasPrefix(w, "Microsoft.") {
			w = acr + w
		}
		all = append(all, w)
	}
	return all
}

func allow(actions ...string) []Permission     { return []Permission{{Actions: under(actions...)}} }
func allowData(actions ...string) []Permission { return []Permission{{DataActions: under(actions...)}} }

// The permissions of repository roles, each with what the one before it has.
const (
	repositoryRead   = "repositories/metadata/read repositories/content/read"
	repositoryWrite  = repositoryRead + " repositories/metadata/write repositories/content/write"
	repositoryDelete = repositoryWrite + " repositories/metadata/delete repositories/content/delete"
)

// The permissions that both roles for a registry's configuration have.
const (
	configurationRead = "Microsoft.ContainerRegistry/registries/read operationStatuses/read privateEndpointConnections/read " +
		"privateEndpointConnections/operationStatuses/read listCredentials/action tokens/read tokens/operationStatuses/read scopeMaps/read " +
		"scopeMaps/operationStatuses/read webhooks/read webhooks/getCallbackConfig/action webhooks/listEvents/action webhooks/operationStatuses/read " +
		"replications/read replications/operationStatuses/read connectedRegistries/read providers/Microsoft.Insights/diagnosticSettings/read " +
		"providers/Microsoft.Insights/diagnosticSettings/write providers/Microsoft.Insights/logDefinitions/read " +
		"providers/Microsoft.Insights/metricDefinitions/read Microsoft.Insights/AlertRules/Write Microsoft.Insights/AlertRules/Delete " +
		"Microsoft.Insights/AlertRules/Read Microsoft.Insights/AlertRules/Activated/Action Microsoft.Insights/AlertRules/Resolved/Action " +
		"Microsoft.Insights/AlertRules/Throttled/Action Microsoft.Insights/AlertRules/Incidents/Read"
	configurationWrite = configurationRead + " Microsoft.ContainerRegistry/registries/write Microsoft.ContainerRegistry/registries/delete " +
		"regenerateCredential/action generateCredentials/action replications/write replications/delete privateEndpointConnectionsApproval/action " +
		"privateEndpointConnections/write privateEndpointConnections/delete tokens/write tokens/delete scopeMaps/write scopeMaps/delete " +
		"connectedRegistries/write connectedRegistries/delete connectedRegistries/deactivate/action webhooks/write webhooks/delete webhooks/ping/action " +
		"Microsoft.ContainerRegistry/locations/operationResults/read Microsoft.Resources/subscriptions/resourceGroups/read " +
		"Microsoft.Resources/deployments/* Microsoft.Authorization/*/read Microsoft.Network/virtualNetworks/subnets/joinViaServiceEndpoint/action " +
		"Microsoft.Network/virtualNetworks/subnets/read Microsoft.Network/virtualNetworks/subnets/write Microsoft.Network/virtualNetworks/read " +
		"Microsoft.Network/privateEndpoints/privateLinkServiceProxies/write"
)

// builtIn are the roles that exist without being made, with the ids, names and permissions that they have in Azure.
// Source: Azure RBAC, "Azure built-in roles", categories Privileged, General and Containers.
var builtIn = withScopes([]Role{
	{ID: RoleOwner, Name: "Owner", Description: "Everything, the assignment of roles included.", Permissions: allow("*")},
	{ID: RoleContributor, Name: "Contributor", Description: "Everything but the assignment of roles.", Permissions: []Permission{{
		Actions: []string{"*"},
		NotActions: under("Microsoft.Authorization/*/Delete Microsoft.Authorization/*/Write Microsoft.Authorization/elevateAccess/Action " +
			"Microsoft.Blueprint/blueprintAssignments/write Microsoft.Blueprint/blueprintAssignments/delete Microsoft.Compute/galleries/share/action " +
			"Microsoft.Purview/consents/write Microsoft.Purview/consents/delete Microsoft.Resources/deploymentStacks/manageDenySetting/action " +
			"Microsoft.Subscription/cancel/action Microsoft.Subscription/enable/action"),
	}}},
	{ID: RoleReader, Name: "Reader", Description: "Reads every resource, and pulls from registries without repository permissions; no secrets.", Permissions: allow("*/read")},
	{ID: RoleUserAccessAdministrator, Name: "User Access Administrator", Description: "Assigns roles.",
		Permissions: allow("*/read Microsoft.Authorization/* Microsoft.Support/*")},
	{ID: "f58310d9-a9f6-439a-9e8d-f62e7b41a168", Name: "Role Based Access Control Administrator", Description: "Assigns roles, and nothing else of authorization.",
		Permissions: allow("Microsoft.Authorization/roleAssignments/write Microsoft.Authorization/roleAssignments/delete */read Microsoft.Support/*")},

	{ID: RoleAcrPull, Name: "AcrPull", Description: "Pulls content of registries.", Permissions: allow("pull/read")},
	{ID: RoleAcrPush, Name: "AcrPush", Description: "Pushes to registries and pulls from them.", Permissions: allow("pull/read push/write")},
	{ID: RoleAcrDelete, Name: "AcrDelete", Description: "Deletes content of registries.", Permissions: allow("artifacts/delete")},
	{ID: "6cef56e8-d556-48e5-a04f-b8e64114680f", Name: "AcrImageSigner", Description: "Signs content of registries.",
		Permissions: []Permission{{Actions: under("sign/write"), DataActions: under("trustedCollections/write")}}},
	{ID: "cdda3590-29a3-44f6-95f2-9f980659eb04", Name: "AcrQuarantineReader", Description: "Reads content in quarantine.",
		Permissions: []Permission{{Actions: under("quarantine/read"), DataActions: under("quarantinedArtifacts/read")}}},
	{ID: "c8d4ff99-41c3-41a8-9f60-21dfdad59608", Name: "AcrQuarantineWriter", Description: "Reads content in quarantine and changes its state.",
		Permissions: []Permission{{Actions: under("quarantine/read quarantine/write"), DataActions: under("quarantinedArtifacts/read quarantinedArtifacts/write")}}},

	{ID: "b93aa761-3e63-49ed-ac28-beffa264f7ac", Name: "Container Registry Repository Reader",
		Description: "Reads repositories, does not list the catalog.", Permissions: allowData(repositoryRead)},
	{ID: "2a1e307c-b015-4ebd-883e-5b7698a07328", Name: "Container Registry Repository Writer",
		Description: "Reads and writes repositories, does not list the catalog.", Permissions: allowData(repositoryWrite)},
	{ID: "2efddaa5-3f1f-4df3-97df-af3f13818f4c", Name: "Container Registry Repository Contributor",
		Description: "Reads, writes and deletes in repositories, does not list the catalog.", Permissions: allowData(repositoryDelete)},
	{ID: "bfdb9389-c9a5-478a-bb2f-ba9ca092c3c7", Name: "Container Registry Repository Catalog Lister",
		Description: "Lists the repositories of a registry.", Permissions: allowData("catalog/read")},
	{ID: "577a9874-89fd-4f24-9dbd-b5034d0ad23a", Name: "Container Registry Data Importer and Data Reader",
		Description: "Imports into registries and pulls from them.",
		Permissions: []Permission{{Actions: under("importImage/action pull/read Microsoft.ContainerRegistry/registries/read"),
			DataActions: under(repositoryRead, "catalog/read")}}},
	{ID: "bf94e731-3a51-4a7c-8c54-a1ab9971dfc1", Name: "Container Registry Transfer Pipeline Contributor",
		Description: "Manages and runs export and import pipelines; no push and no pull.",
		Permissions: allow("exportPipelines/read exportPipelines/write exportPipelines/delete importPipelines/read importPipelines/write importPipelines/delete " +
			"pipelineRuns/read pipelineRuns/write pipelineRuns/delete pipelineRuns/operationStatuses/read")},
	{ID: "69b07be0-09bf-439a-b9a6-e73de851bd59", Name: "Container Registry Configuration Reader and Data Access Configuration Reader",
		Description: "Reads the configuration of registries, admin passwords included; no content.", Permissions: allow(configurationRead)},
	{ID: "3bc748fc-213d-45c1-8d91-9da5725539b9", Name: "Container Registry Contributor and Data Access Configuration Administrator",
		Description: "Makes and configures registries and the credentials of their data plane; no content.", Permissions: allow(configurationWrite)},
	{ID: "fb382eab-e894-4461-af04-94435c366c3f", Name: "Container Registry Tasks Contributor", Description: "Manages build tasks (not offered here) and reads registries.",
		Permissions: allow("agentpools/read agentpools/write agentpools/delete agentpools/listQueueStatus/action agentpools/operationResults/status/read " +
			"agentpools/operationStatuses/read tasks/read tasks/write tasks/delete tasks/listDetails/action scheduleRun/action listBuildSourceUploadUrl/action " +
			"runs/read runs/write runs/listLogSasUrl/action runs/cancel/action taskruns/read taskruns/write taskruns/delete taskruns/listDetails/action " +
			"taskruns/operationStatuses/read Microsoft.Resources/deployments/* Microsoft.Resources/subscriptions/resourceGroups/read " +
			"Microsoft.ContainerRegistry/registries/read")},
	{ID: "df87f177-bb12-4db1-9793-a413691eff94", Name: "Container Registry Cache Rule Administrator", Description: "Manages cache rules.",
		Permissions: allow("cacheRules/read cacheRules/write cacheRules/delete cacheRules/operationStatuses/read")},
	{ID: "c357b964-0002-4b64-a50d-7a28f02edc52", Name: "Container Registry Cache Rule Reader", Description: "Reads cache rules.", Permissions: allow("cacheRules/read")},
	{ID: "f094fb07-0703-4400-ad6a-e16dd8000e14", Name: "Container Registry Credential Set Administrator", Description: "Manages credential sets of cache rules.",
		Permissions: allow("credentialSets/read credentialSets/write credentialSets/delete credentialSets/operationStatuses/read")},
	{ID: "29093635-9924-4f2c-913b-650a12949526", Name: "Container Registry Credential Set Reader", Description: "Reads credential sets of cache rules.",
		Permissions: allow("credentialSets/read")},

	{ID: "4d97b98b-1d4f-4787-a291-c67834d212e7", Name: "Network Contributor", Description: "Manages networks and private endpoints, not access to them.",
		Permissions: allow("Microsoft.Authorization/*/read Microsoft.Insights/alertRules/* Microsoft.Network/* Microsoft.ResourceHealth/availabilityStatuses/read " +
			"Microsoft.Resources/deployments/* Microsoft.Resources/subscriptions/resourceGroups/read Microsoft.Support/*")},
	{ID: "b12aa53e-6015-4669-85d0-8515ebb3ae7f", Name: "Private DNS Zone Contributor", Description: "Manages private DNS zones, not the networks that they are linked to.",
		Permissions: allow("Microsoft.Insights/alertRules/* Microsoft.Resources/deployments/* Microsoft.Resources/subscriptions/resourceGroups/read Microsoft.Support/* " +
			"Microsoft.Network/privateDnsZones/* Microsoft.Network/privateDnsOperationResults/* Microsoft.Network/privateDnsOperationStatuses/* " +
			"Microsoft.Network/virtualNetworks/read Microsoft.Network/virtualNetworks/join/action Microsoft.Authorization/*/read")},
})

// withScopes completes the built-in roles: they may be given everywhere.
func withScopes(roles []Role) []Role {
	for i := range roles {
		roles[i].BuiltIn, roles[i].Scopes = true, []string{"/"}
	}
	return roles
}

// builtInByID finds a built-in role by its GUID in lower case.
var builtInByID = func() map[string]Role {
	m := map[string]Role{}
	for _, r := range builtIn {
		m[r.ID] = r
	}
	return m
}()
