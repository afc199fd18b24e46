// SPDX-License-Identifier: Apache-2.0

package fault

// Kind is a row of the table of everything that can go wrong for a client.
type Kind int

// The kinds. Each is named after ARM's code where ARM has one, else after the OCI code.
const (
	Internal Kind = iota
	BadRequest
	InvalidParameter
	InvalidRequestContent
	InvalidResourceName
	InvalidResourceType
	InvalidResourceNamespace
	InvalidAPIVersion
	MissingAPIVersion
	NoRegisteredProvider
	MissingSubscription
	SubscriptionNotFound
	ResourceGroupNotFound
	ResourceGroupBeingDeleted
	ResourceNotFound
	ParentResourceNotFound
	NotFound
	LocationNotAvailable
	LocationConflict
	PropertyImmutable
	SKUNotSupported
	NotSupported
	DisablingPublicNetworkNotSupported
	RegistryNameInUse
	Conflict
	InvalidParameters
	OperationNotFound
	OperationCanceled
	MethodNotAllowed
	RequestTooLarge
	PreconditionFailed
	AuthenticationFailed
	InvalidToken
	MissingToken
	AuthorizationFailed
	LinkedAuthorizationFailed
	Forbidden
	TooManyRequests
	RequestTimeout
	Unavailable
	Timeout
	RoleAssignmentExists
	RoleAssignmentNotFound
	RoleAssignmentUpdateNotPermitted
	UnmatchedPrincipalType
	RoleDefinitionNotFound
	RoleDefinitionWithSameNameExists
	RoleDefinitionHasAssignments
	PrincipalNotFound
	ExportsDisabled
	MisdirectedRequest
	InvalidCIDR
	InvalidPrefix
	SubnetOutside
	SubnetsOverlap
	SubnetFull
	SubnetInUse
	PrefixInUse
	SecurityGroupInUse
	NestedResources
	AddressReserved
	AddressOutside
	AddressTaken
	InvalidReference

	FirewallDenied
	Unauthorized
	Denied
	BlobUnknown
	BlobUploadUnknown
	BlobUploadInvalid
	DigestInvalid
	ManifestUnknown
	ManifestInvalid
	ManifestBlobUnknown
	ManifestUnverified
	NameInvalid
	NameUnknown
	TagInvalid
	TagUnknown
	SizeInvalid
	RangeInvalid
	RangeNotSatisfiable
	PaginationInvalid
	Unsupported
	StorageFull
	// QuotaExceeded: a registry would hold more than its quota.
	QuotaExceeded
)

type row struct {
	status int
	arm    string
	oci    string
}

// table maps each kind to its HTTP status, ARM code and OCI code (OCI distribution 1.1, section "Error Codes").
// An empty OCI code is one that the distribution protocol has no word for: it answers UNSUPPORTED or DENIED by status.
var table = map[Kind]row{
	Internal:                           {500, "InternalServerError", "UNKNOWN"},
	BadRequest:                         {400, "BadRequest", "UNSUPPORTED"},
	InvalidParameter:                   {400, "InvalidParameter", "UNSUPPORTED"},
	InvalidRequestContent:              {400, "InvalidRequestContent", "UNSUPPORTED"},
	InvalidResourceName:                {400, "InvalidResourceName", "NAME_INVALID"},
	InvalidResourceType:                {400, "InvalidResourceType", "UNSUPPORTED"},
	InvalidResourceNamespace:           {404, "InvalidResourceNamespace", "UNSUPPORTED"},
	InvalidAPIVersion:                  {400, "InvalidApiVersionParameter", "UNSUPPORTED"},
	MissingAPIVersion:                  {400, "MissingApiVersionParameter", "UNSUPPORTED"},
	NoRegisteredProvider:               {400, "NoRegisteredProviderFound", "UNSUPPORTED"},
	MissingSubscription:                {404, "MissingSubscription", "UNSUPPORTED"},
	SubscriptionNotFound:               {404, "SubscriptionNotFound", "UNSUPPORTED"},
	ResourceGroupNotFound:              {404, "ResourceGroupNotFound", "UNSUPPORTED"},
	ResourceGroupBeingDeleted:          {409, "ResourceGroupBeingDeleted", "UNSUPPORTED"},
	ResourceNotFound:                   {404, "ResourceNotFound", "NAME_UNKNOWN"},
	ParentResourceNotFound:             {404, "ParentResourceNotFound", "NAME_UNKNOWN"},
	NotFound:                           {404, "NotFound", "UNSUPPORTED"},
	LocationNotAvailable:               {400, "LocationNotAvailableForResourceType", "UNSUPPORTED"},
	LocationConflict:                   {409, "InvalidResourceLocation", "UNSUPPORTED"},
	PropertyImmutable:                  {400, "PropertyChangeNotAllowed", "UNSUPPORTED"},
	SKUNotSupported:                    {400, "SkuNotSupported", "UNSUPPORTED"},
	NotSupported:                       {400, "NotSupported", "UNSUPPORTED"},
	DisablingPublicNetworkNotSupported: {400, "DisablingPublicNetworkAccessNotSupported", "UNSUPPORTED"},
	RegistryNameInUse:                  {409, "RegistryNameAlreadyInUse", "UNSUPPORTED"},
	Conflict:                           {409, "Conflict", "UNSUPPORTED"},
	InvalidParameters:                  {400, "InvalidParameters", "UNSUPPORTED"},
	OperationNotFound:                  {404, "OperationNotFound", "UNSUPPORTED"},
	OperationCanceled:                  {409, "OperationCanceled", "UNSUPPORTED"},
	MethodNotAllowed:                   {405, "MethodNotAllowed", "UNSUPPORTED"},
	RequestTooLarge:                    {413, "RequestContentTooLarge", "SIZE_INVALID"},
	PreconditionFailed:                 {412, "PreconditionFailed", "UNSUPPORTED"},
	AuthenticationFailed:               {401, "AuthenticationFailed", "UNAUTHORIZED"},
	InvalidToken:                       {401, "InvalidAuthenticationToken", "UNAUTHORIZED"},
	MissingToken:                       {401, "AuthenticationFailed", "UNAUTHORIZED"},
	AuthorizationFailed:                {403, "AuthorizationFailed", "DENIED"},
	LinkedAuthorizationFailed:          {403, "LinkedAuthorizationFailed", "DENIED"},
	Forbidden:                          {403, "Forbidden", "DENIED"},
	TooManyRequests:                    {429, "TooManyRequests", "TOOMANYREQUESTS"},
	RequestTimeout:                     {408, "RequestTimeout", "UNKNOWN"},
	Unavailable:                        {503, "ServiceUnavailable", "UNAVAILABLE"},
	Timeout:                            {504, "GatewayTimeout", "UNAVAILABLE"},
	RoleAssignmentExists:               {409, "RoleAssignmentExists", "UNSUPPORTED"},
	RoleAssignmentNotFound:             {404, "RoleAssignmentNotFound", "UNSUPPORTED"},
	RoleAssignmentUpdateNotPermitted:   {400, "RoleAssignmentUpdateNotPermitted", "UNSUPPORTED"},
	UnmatchedPrincipalType:             {400, "UnmatchedPrincipalType", "UNSUPPORTED"},
	RoleDefinitionNotFound:             {404, "RoleDefinitionDoesNotExist", "UNSUPPORTED"},
	RoleDefinitionWithSameNameExists:   {409, "RoleDefinitionWithSameNameExists", "UNSUPPORTED"},
	RoleDefinitionHasAssignments:       {409, "RoleDefinitionHasAssignments", "UNSUPPORTED"},
	PrincipalNotFound:                  {400, "PrincipalNotFound", "UNSUPPORTED"},
	ExportsDisabled:                    {400, "BadRequest", "DENIED"},
	MisdirectedRequest:                 {421, "MisdirectedRequest", "UNSUPPORTED"},
	InvalidCIDR:                        {400, "InvalidCIDRNotation", "UNSUPPORTED"},
	InvalidPrefix:                      {400, "InvalidAddressPrefixFormat", "UNSUPPORTED"},
	SubnetOutside:                      {400, "NetcfgInvalidSubnet", "UNSUPPORTED"},
	SubnetsOverlap:                     {400, "NetcfgSubnetRangesOverlap", "UNSUPPORTED"},
	SubnetFull:                         {400, "SubnetIsFull", "UNSUPPORTED"},
	SubnetInUse:                        {400, "InUseSubnetCannotBeDeleted", "UNSUPPORTED"},
	PrefixInUse:                        {400, "InUsePrefixCannotBeDeleted", "UNSUPPORTED"},
	SecurityGroupInUse:                 {400, "InUseNetworkSecurityGroupCannotBeDeleted", "UNSUPPORTED"},
	NestedResources:                    {409, "CannotDeleteResource", "UNSUPPORTED"},
	AddressReserved:                    {400, "PrivateIPAddressInReservedRange", "UNSUPPORTED"},
	AddressOutside:                     {400, "PrivateIPAddressNotInSubnet", "UNSUPPORTED"},
	AddressTaken:                       {400, "PrivateIPAddressIsAllocated", "UNSUPPORTED"},
	InvalidReference:                   {400, "InvalidResourceReference", "UNSUPPORTED"},

	FirewallDenied:      {403, "Forbidden", "DENIED"},
	Unauthorized:        {401, "Unauthorized", "UNAUTHORIZED"},
	Denied:              {403, "Forbidden", "DENIED"},
	BlobUnknown:         {404, "NotFound", "BLOB_UNKNOWN"},
	BlobUploadUnknown:   {404, "NotFound", "BLOB_UPLOAD_UNKNOWN"},
	BlobUploadInvalid:   {400, "BadRequest", "BLOB_UPLOAD_INVALID"},
	DigestInvalid:       {400, "BadRequest", "DIGEST_INVALID"},
	ManifestUnknown:     {404, "NotFound", "MANIFEST_UNKNOWN"},
	ManifestInvalid:     {400, "BadRequest", "MANIFEST_INVALID"},
	ManifestBlobUnknown: {404, "NotFound", "MANIFEST_BLOB_UNKNOWN"},
	ManifestUnverified:  {400, "BadRequest", "MANIFEST_UNVERIFIED"},
	NameInvalid:         {400, "BadRequest", "NAME_INVALID"},
	NameUnknown:         {404, "NotFound", "NAME_UNKNOWN"},
	TagInvalid:          {400, "BadRequest", "TAG_INVALID"},
	TagUnknown:          {404, "NotFound", "MANIFEST_UNKNOWN"},
	SizeInvalid:         {400, "BadRequest", "SIZE_INVALID"},
	RangeInvalid:        {416, "BadRequest", "BLOB_UPLOAD_INVALID"},
	RangeNotSatisfiable: {416, "RangeNotSatisfiable", "RANGE_INVALID"},
	PaginationInvalid:   {400, "BadRequest", "PAGINATION_NUMBER_INVALID"},
	Unsupported:         {405, "MethodNotAllowed", "UNSUPPORTED"},
	StorageFull:         {507, "InsufficientStorage", "DENIED"},
	QuotaExceeded:       {403, "QuotaExceeded", "DENIED"},
}

func (k Kind) row() row {
	if r, ok := table[k]; ok {
		return r
	}
	return table[Internal]
}

// Status is the kind's HTTP status.
func (k Kind) Status() int { return k.row().status }

// ARM is the kind's code in Azure Resource Manager's error envelope.
func (k Kind) ARM() string { return k.row().arm }

// OCI is the kind's code in the distribution protocol's error envelope.
func (k Kind) OCI() string { return k.row().oci }
