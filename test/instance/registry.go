// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Group is the resource group of the suites' registries; GroupPath its ARM path.
const Group = "cargo"

// GroupPath is the ARM path of the suites' group.
func (s *Server) GroupPath() string {
	return "/subscriptions/" + s.SubscriptionID + "/resourceGroups/" + Group
}

// RegistryID is the ARM id of a registry of the suites' group.
func (s *Server) RegistryID(name string) string {
	return s.GroupPath() + "/providers/Microsoft.ContainerRegistry/registries/" + name
}

// Version is the api-version of the mission.
const Version = "?api-version=2021-06-01-preview"

// J is a JSON object.
type J = map[string]any

// CreateRegistry makes the group if need be, and a Premium registry in it with the properties given.
func (s *Server) CreateRegistry(name string, properties J) {
	s.t.Helper()
	if a := s.ARM(http.MethodPut, s.GroupPath()+"?api-version=2021-04-01", J{"location": "centralus"}); a.Status > 201 {
		s.t.Fatalf("creating the group: %d %s", a.Status, a.Body)
	}
	a := s.ARM(http.MethodPut, s.RegistryID(name)+Version, J{"location": "centralus", "sku": J{"name": "Premium"}, "properties": properties})
	if a.Status != http.StatusCreated {
		s.t.Fatalf("creating the registry %s: %d %s", name, a.Status, a.Body)
	}
}

// Lock disables a registry's exports and its public side.
func (s *Server) Lock(name string) Answer {
	s.t.Helper()
	return s.Patch(name, J{"publicNetworkAccess": "Disabled", "policies": J{"exportPolicy": J{"status": "disabled"}}})
}

// Patch changes properties of a registry.
func (s *Server) Patch(name string, properties J) Answer {
	s.t.Helper()
	return s.ARM(http.MethodPatch, s.RegistryID(name)+Version, J{"properties": properties})
}

// LoginServer is a registry's login server.
func (s *Server) LoginServer(name string) string { return name + s.ACRLoginServerSuffix }

// RegistryToken asks a registry's realm for an access token with a principal's credentials.
func (s *Server) RegistryToken(base, service, user, password string, scopes ...string) (string, Answer, error) {
	q := url.Values{"service": {service}, "scope": scopes}
	a, err := s.Do(http.MethodGet, base+"/oauth2/token?"+q.Encode(), nil,
		"Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	if err != nil {
		return "", a, err
	}
	var got struct {
		AccessToken string `json:"access_token"`
	}
	if a.Status == http.StatusOK {
		err = json.Unmarshal(a.Body, &got)
	}
	return got.AccessToken, a, err
}

// OCI sends a request to a registry's public login server as the first principal, with rights on the repository.
func (s *Server) OCI(registry, repository, method, path string, body []byte, headers ...string) (Answer, error) {
	base := "https://" + s.LoginServer(registry)
	token, a, err := s.RegistryToken(base, s.LoginServer(registry), s.ClientID, s.ClientSecret, "repository:"+repository+":pull,push,delete")
	if err != nil || token == "" {
		return a, err
	}
	if strings.HasPrefix(path, "/") {
		path = base + path
	}
	return s.Do(method, path, body, append([]string{"Authorization", "Bearer " + token}, headers...)...)
}

// Digest is content's sha256 digest.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// PushBlob uploads content in one piece.
func (s *Server) PushBlob(registry, repository string, content []byte) error {
	a, err := s.OCI(registry, repository, http.MethodPost, "/v2/"+repository+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	if a.Status != http.StatusAccepted {
		return fmt.Errorf("beginning an upload: %d %s", a.Status, a.Body)
	}
	location := a.Header.Get("Location")
	join := "?"
	if strings.Contains(location, "?") {
		join = "&"
	}
	a, err = s.OCI(registry, repository, http.MethodPut, location+join+"digest="+url.QueryEscape(Digest(content)), content, "Content-Type", "application/octet-stream")
	if err == nil && a.Status != http.StatusCreated {
		err = fmt.Errorf("uploading: %d %s", a.Status, a.Body)
	}
	return err
}

// ManifestType is the media type of the images that PushImage makes.
const ManifestType = "application/vnd.oci.image.manifest.v1+json"

// PushImage pushes an image of one layer and returns its manifest.
func (s *Server) PushImage(registry, repository, tag string, layer []byte) ([]byte, error) {
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	for _, content := range [][]byte{config, layer} {
		if err := s.PushBlob(registry, repository, content); err != nil {
			return nil, err
		}
	}
	manifest, err := json.Marshal(J{
		"schemaVersion": 2, "mediaType": ManifestType,
		"config": J{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest(config), "size": len(config)},
		"layers": []J{{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest(layer), "size": len(layer)}},
	})
	if err != nil {
		return nil, err
	}
	a, err := s.OCI(registry, repository, http.MethodPut, "/v2/"+repository+"/manifests/"+tag, manifest, "Content-Type", ManifestType)
	if err == nil && a.Status != http.StatusCreated {
		err = fmt.Errorf("pushing the manifest: %d %s", a.Status, a.Body)
	}
	return manifest, err
}

// Import asks registry to import source (a body's "source") under a tag and follows the operation to its end.
func (s *Server) Import(registry string, source J, tag string) Answer {
	s.t.Helper()
	return s.Wait(s.ARM(http.MethodPost, s.RegistryID(registry)+"/importImage"+Version, J{"source": source, "targetTags": []string{tag}, "mode": "Force"}))
}
