// SPDX-License-Identifier: Apache-2.0

package identity

import "strings"

// Role is a set of permissions. Source: Azure RBAC, "Understand Azure role definitions".
type Role struct {
	// ID is the role definition's GUID; a built-in role has the same everywhere.
	ID, Name, Description string
	Permissions           []Permission
	// Scopes are where it may be assigned; "/" is everywhere.
	Scopes  []string
	BuiltIn bool
}

// Permission allows Actions less NotActions on the control plane, and DataActions less NotDataActions on content. '*' stands for any text.
type Permission struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
}

// Ids of built-in roles that the code itself names.
const (
	RoleOwner       = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	RoleContributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	RoleReader      = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	RoleAcrPull     = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
	RoleAcrPush     = "8311e382-0749-4cb8-b61a-304f252e45ec"
)

const acr = "Microsoft.ContainerRegistry/registries/"

// repository is the dataActions of the repository roles: reading, and what comes on top.
var (
	repositoryRead   = []string{acr + "repositories/content/read", acr + "repositories/metadata/read"}
	repositoryWrite  = append(append([]string{}, repositoryRead...), acr+"repositories/content/write", acr+"repositories/metadata/write")
	repositoryDelete = append(append([]string{}, repositoryWrite...), acr+"repositories/content/delete", acr+"repositories/metadata/delete")
)

func allowing(actions ...string) []Permission { return []Permission{{Actions: actions}} }

func allowingData(actions []string) []Permission { return []Permission{{DataActions: actions}} }

// builtIn are the roles that exist without being made, with the ids that they have in Azure.
var builtIn = []Role{
	{ID: RoleOwner, Name: "Owner", Description: "Everything, the assignment of roles included.", Permissions: allowing("*")},
	{ID: RoleContributor, Name: "Contributor", Description: "Everything but the assignment of roles.", Permissions: []Permission{{
		Actions:    []string{"*"},
		NotActions: []string{"Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write", "Microsoft.Authorization/elevateAccess/Action"},
	}}},
	{ID: RoleReader, Name: "Reader", Description: "Reads every resource, no secrets and no content.", Permissions: allowing("*/read")},
	{ID: "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", Name: "User Access Administrator", Description: "Assigns roles.",
		Permissions: allowing("*/read", "Microsoft.Authorization/*")},
	{ID: RoleAcrPull, Name: "AcrPull", Description: "Pulls content of registries.", Permissions: allowing(acr + "pull/read")},
	{ID: RoleAcrPush, Name: "AcrPush", Description: "Pushes to registries and pulls from them.", Permissions: allowing(acr+"pull/read", acr+"push/write")},
	{ID: "c2f4ef07-c644-48eb-af81-4b1b4947fb11", Name: "AcrDelete", Description: "Deletes content of registries.", Permissions: allowing(acr + "artifacts/delete")},
	{ID: "6cef56e8-d556-48e5-a04f-b8e64114680f", Name: "AcrImageSigner", Description: "Signs content of registries.", Permissions: []Permission{{
		Actions: []string{acr + "sign/write"}, DataActions: []string{acr + "trustedCollections/write"}}}},
	{ID: "cdda3590-29a3-44f6-95f2-9f980659eb04", Name: "AcrQuarantineReader", Description: "Reads content in quarantine.", Permissions: []Permission{{
		Actions: []string{acr + "quarantine/read"}, DataActions: []string{acr + "quarantinedArtifacts/read"}}}},
	{ID: "c8d4ff99-41c3-41a8-9f60-21dfdad59608", Name: "AcrQuarantineWriter", Description: "Reads content in quarantine and changes its state.", Permissions: []Permission{{
		Actions: []string{acr + "quarantine/read", acr + "quarantine/write"}, DataActions: []string{acr + "quarantinedArtifacts/read", acr + "quarantinedArtifacts/write"}}}},
	{ID: "b93aa761-3e63-49ed-ac28-beffa264f7ac", Name: "Container Registry Repository Reader", Description: "Reads repositories, does not list the catalog.",
		Permissions: allowingData(repositoryRead)},
	{ID: "2a1e307c-b015-4ebd-883e-5b7698a07328", Name: "Container Registry Repository Writer", Description: "Reads and writes repositories, does not list the catalog.",
		Permissions: allowingData(repositoryWrite)},
	{ID: "2efddaa5-3f1f-4df3-97df-af3f13818f4c", Name: "Container Registry Repository Contributor",
		Description: "Reads, writes and deletes repositories, does not list the catalog.", Permissions: allowingData(repositoryDelete)},
	{ID: "bfdb9389-c9a5-478a-bb2f-ba9ca092c3c7", Name: "Container Registry Repository Catalog Lister", Description: "Lists the repositories of a registry.",
		Permissions: allowingData([]string{acr + "catalog/read"})},
	{ID: "577a9874-89fd-4f24-9dbd-b5034d0ad23a", Name: "Container Registry Data Importer and Data Reader", Description: "Imports into registries and pulls from them.",
		Permissions: allowing(acr+"importImage/action", acr+"pull/read", "Microsoft.ContainerRegistry/registries/read")},
}

// builtInByID finds a built-in role by its GUID in lower case.
var builtInByID = func() map[string]Role {
	m := map[string]Role{}
	for i := range builtIn {
		builtIn[i].BuiltIn, builtIn[i].Scopes = true, []string{"/"}
		m[builtIn[i].ID] = builtIn[i]
	}
	return m
}()

// allows reports whether the role permits an action; data says on which side.
func (r Role) allows(action string, data bool) bool {
	for _, p := range r.Permissions {
		yes, no := p.Actions, p.NotActions
		if data {
			yes, no = p.DataActions, p.NotDataActions
		}
		if anyMatch(yes, action) && !anyMatch(no, action) {
			return true
		}
	}
	return false
}

func anyMatch(patterns []string, action string) bool {
	for _, p := range patterns {
		if match(strings.ToLower(p), strings.ToLower(action)) {
			return true
		}
	}
	return false
}

// match compares with a pattern in which '*' stands for any text, slashes included.
func match(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}
