// SPDX-License-Identifier: Apache-2.0

package registries

import (
	"errors"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/registry"
)

const (
	importAction = TypeName + "/importImage/action"
	readAction   = TypeName + "/read"
)

type importRequest struct {
	Source   importSource `json:"source" arm:"required"`
	Tags     []string     `json:"targetTags" max:"100"`
	Untagged []string     `json:"untaggedTargetRepositories" max:"100"`
	Mode     string       `json:"mode" enum:"NoForce|Force" default:"NoForce"`
}

type importSource struct {
	ResourceID  string             `json:"resourceId"`
	RegistryURI string             `json:"registryUri"`
	Credentials *importCredentials `json:"credentials"`
	Image       string             `json:"sourceImage" arm:"required"`
}

type importCredentials struct {
	Username string `json:"username"`
	Password string `json:"password" arm:"required,secret"`
}

// importImage judges an import and begins its job. The source is asked here, so that a refusal is told at once, and again by the job, of
// every artifact.
func (k kind) importImage(tx *arm.Tx, c arm.Call[importRequest]) (job.Spec, error) {
	target, err := k.row(tx, c.ID.String())
	if err != nil {
		return job.Spec{}, err
	}
	i := registry.Import{Target: target.ID, Force: c.Body.Mode == "Force"}
	if err := k.images(c, &i); err != nil {
		return job.Spec{}, err
	}
	source, err := k.source(tx, c)
	if err != nil {
		return job.Spec{}, err
	}
	i.Source = source.ID
	caller := c.Caller
	if cred := c.Body.Source.Credentials; cred != nil {
		if caller, err = k.proven(tx, source, cred); err != nil {
			return job.Spec{}, err
		}
		i.As = &caller
	}
	may, err := k.o.Identity.CanRepository(tx.Meta(), caller, source, i.Image.Repository, identity.Pull)
	if err != nil {
		return job.Spec{}, err
	}
	if !may {
		return job.Spec{}, fault.New(fault.Forbidden, "Access to %s denied: pulling from its repository '%s' needs the permission %s/pull/read on %s.",
			source.LoginServer, i.Image.Repository, TypeName, source.ResourceID).At(source.ResourceID)
	}
	if err := k.o.AskImport(tx.Meta(), source, target, i.Image, caller, c.RequestID); err != nil {
		return job.Spec{}, err
	}
	return registry.ImportJob(i)
}

// images reads the references of the request.
func (k kind) images(c arm.Call[importRequest], i *registry.Import) error {
	var faults []*fault.Fault
	wrong := func(path string, err error) {
		faults = append(faults, fault.New(fault.InvalidParameters, "%s", fault.From(err).Message).At(path))
	}
	var err error
	if i.Image, err = name.ParseReference(c.Body.Source.Image); err != nil {
		wrong("source.sourceImage", err)
	}
	for _, text := range c.Body.Tags {
		ref, err := name.ParseReference(text)
		if err != nil {
			wrong("targetTags", err)
		}
		i.Tags = append(i.Tags, ref)
	}
	for _, text := range c.Body.Untagged {
		repo, err := name.ParseRepository(text)
		if err != nil {
			wrong("untaggedTargetRepositories", err)
		}
		i.Untagged = append(i.Untagged, repo)
	}
	if len(c.Body.Tags)+len(c.Body.Untagged) == 0 {
		faults = append(faults, fault.New(fault.InvalidParameters,
			"Missing property parameters.TargetTags for the operation against the resource with name %s.", c.ID.Name()).At("targetTags"))
	}
	return fault.Join(faults)
}

// source finds the registry that the request names, by whatever name, and asks the caller's right to know it.
func (k kind) source(tx *arm.Tx, c arm.Call[importRequest]) (meta.RegistryRow, error) {
	s := c.Body.Source
	switch {
	case (s.ResourceID == "") == (s.RegistryURI == ""):
		return meta.RegistryRow{}, fault.New(fault.InvalidParameters, "The source must be named by exactly one of source.resourceId and source.registryUri.").At("source")
	case s.ResourceID != "" && s.Credentials != nil:
		return meta.RegistryRow{}, fault.New(fault.InvalidParameters, "source.credentials go with source.registryUri; a source named by source.resourceId is read with the caller's own rights.").At("source.credentials")
	case s.RegistryURI != "":
		return k.byURI(tx, c)
	}
	id, err := name.ParseResourceID(s.ResourceID)
	if err != nil || !strings.EqualFold(id.Type(), TypeName) {
		return meta.RegistryRow{}, fault.New(fault.InvalidParameters,
			"source.resourceId is invalid, it should be in form of '/subscriptions/{subscriptionId}/resourceGroups/{resourceGroup}/providers/%s/{registryName}'", TypeName).At("source.resourceId")
	}
	if err := tx.MustLinked(importAction, c.ID, readAction, id); err != nil {
		return meta.RegistryRow{}, err
	}
	row, err := tx.Meta().RegistryByResource(id.String())
	if errors.Is(err, meta.ErrNotFound) {
		return row, fault.New(fault.ResourceNotFound, "The source registry %s was not found.", id).At("source.resourceId")
	}
	return row, err
}

// byURI recognises a registry of this installation behind a host name in any spelling. Everything else is refused: nothing is fetched from
// elsewhere, and an address of our own must not be a way round the source's policy.
func (k kind) byURI(tx *arm.Tx, c arm.Call[importRequest]) (meta.RegistryRow, error) {
	host := hostOf(c.Body.Source.RegistryURI)
	plain := network.Normal(host)
	row, err := tx.Meta().RegistryByLoginServer(plain)
	if errors.Is(err, meta.ErrNotFound) && strings.HasSuffix(plain, "."+k.o.Suffix) {
		// A data or private link name of a registry is another name of it.
		label, _, _ := strings.Cut(plain, ".")
		if row, err = tx.Meta().RegistryByLoginServer(label + "." + k.o.Suffix); errors.Is(err, meta.ErrNotFound) {
			row, err = tx.Meta().RegistryByName(label)
		}
	}
	switch {
	case err == nil:
	case !errors.Is(err, meta.ErrNotFound):
		return row, err
	case strings.HasSuffix(plain, "."+k.o.Suffix):
		return row, fault.New(fault.InvalidParameters, "Access to %s denied: there is no registry with this login server.", plain).At("source.registryUri")
	case k.o.Ours(host):
		return row, fault.New(fault.InvalidParameters,
			"The source '%s' is an address of this installation, not a login server. Name the registry by its login server or by source.resourceId.", host).At("source.registryUri")
	default:
		return row, fault.New(fault.NotSupported,
			"The source '%s' is not a registry of this installation. Importing from elsewhere is not supported: push the image to this registry instead, for example with 'skopeo copy'.", host).At("source.registryUri")
	}
	if c.Body.Source.Credentials != nil {
		return row, nil // they are asked instead of the caller's own rights
	}
	id, err := name.ParseResourceID(row.ResourceID)
	if err != nil {
		return row, err
	}
	return row, tx.MustLinked(importAction, c.ID, readAction, id)
}

// hostOf is the host of a registry's URI, which may have a scheme, a user and a path, with its port.
func hostOf(uri string) string {
	host := strings.TrimSpace(uri)
	if scheme, rest, ok := strings.Cut(host, "://"); ok && !strings.Contains(scheme, "/") {
		host = rest
	}
	host, _, _ = strings.Cut(strings.TrimPrefix(host, "//"), "/")
	return host[strings.LastIndexByte(host, '@')+1:]
}

// proven finds the caller of the credentials that came with the request: they must be good at the source now.
func (k kind) proven(tx *arm.Tx, source meta.RegistryRow, cred *importCredentials) (identity.Caller, error) {
	m := tx.Meta()
	if cred.Username == "" {
		_, caller, err := k.o.Identity.ExchangeARM(m.Context(), m, source, cred.Password)
		return caller, denied(source, err)
	}
	caller, err := k.o.Identity.Basic(m.Context(), m, source, cred.Username, cred.Password)
	return caller, denied(source, err)
}

func denied(source meta.RegistryRow, err error) error {
	if fault.Is(err, fault.InvalidToken) {
		return fault.New(fault.InvalidParameters, "Access to %s denied: the credentials of the import's source are not valid there.", source.LoginServer).
			At("source.credentials").Because(err)
	}
	return err
}
