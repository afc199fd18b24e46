// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/redact"
)

// Storage says where content is kept.
type Storage struct {
	// URL is "fs", the folder blobs in the data directory, or s3://BUCKET[/PREFIX]?endpoint=…&region=…&pathStyle=…, or
	// azblob://CONTAINER[/PREFIX]?account=…&endpoint=…; "" is fs.
	URL string
	// KeyFile holds what proves the caller: for S3 the access key and the secret key, for Azure a key of the account.
	KeyFile string
	// Roots is a PEM file of authorities that the storage's certificate is checked by, besides the system's; "" is none.
	Roots string
}

// folder says whether content is kept in the data directory.
func (s Storage) folder() bool { return s.URL == "" || s.URL == "fs" }

// shown is the URL without its parameters.
func (s Storage) shown() string {
	if s.folder() {
		return "fs"
	}
	at, _, _ := strings.Cut(s.URL, "?")
	return at
}

// storageParameters are what may stand behind the ? of a storage's URL, by its scheme.
var storageParameters = map[string][]string{"s3": {"endpoint", "region", "pathStyle", "insecure"}, "azblob": {"account", "endpoint", "insecure"}}

// place reads the URL, without the keys.
func (s Storage) place() (blob.Storage, error) {
	var at blob.Storage
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || storageParameters[u.Scheme] == nil || u.User != nil {
		return at, option("storage", "it is neither fs nor s3://BUCKET/PREFIX?endpoint=URL nor azblob://CONTAINER/PREFIX?account=NAME, without a key in it")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return at, option("storage", "what stands behind its ? cannot be read")
	}
	for k, v := range q {
		if !slices.Contains(storageParameters[u.Scheme], k) || len(v) != 1 {
			return at, option("storage", "%q is not one of its parameters, once each: %s", k, strings.Join(storageParameters[u.Scheme], ", "))
		}
	}
	for _, k := range []string{"pathStyle", "insecure"} {
		if v := q.Get(k); v != "" && v != "true" && v != "false" {
			return at, option("storage", "%s is neither true nor false", k)
		}
	}
	endpoint, prefix := q.Get("endpoint"), strings.Trim(u.Path, "/")
	if u.Scheme == "s3" {
		if endpoint == "" && q.Get("region") != "" {
			endpoint = "https://s3." + q.Get("region") + ".amazonaws.com"
		}
		at.S3 = &blob.S3{Endpoint: endpoint, Bucket: u.Host, Prefix: prefix, Region: q.Get("region"), PathStyle: q.Get("pathStyle") == "true"}
	} else {
		if q.Get("account") == "" {
			return at, option("storage", "the account of the container is missing: azblob://CONTAINER/PREFIX?account=NAME")
		}
		if endpoint == "" {
			endpoint = "https://" + q.Get("account") + ".blob.core.windows.net"
		}
		at.Azure = &blob.Azure{Endpoint: endpoint, Account: q.Get("account"), Container: u.Host, Prefix: prefix}
	}
	return at, encrypted(endpoint, q.Get("insecure") == "true")
}

// encrypted refuses an endpoint that is no URL, or one to which content would go in the clear beyond this machine.
func encrypted(endpoint string, insecure bool) error {
	e, err := url.Parse(endpoint)
	if err != nil || e.Hostname() == "" || e.Scheme != "https" && e.Scheme != "http" || e.User != nil || e.RawQuery != "" {
		return option("storage", "its endpoint is no https or http URL: s3://BUCKET?endpoint=https://HOST, or for Amazon s3://BUCKET?region=NAME")
	}
	host := net.JoinHostPort(e.Hostname(), "0")
	if e.Scheme == "http" && !insecure && !loopback(host) {
		return option("storage", "content would go in the clear to %s: give it an https endpoint, or say insecure=true if the network is yours alone", e.Host)
	}
	return nil
}

// keys reads the key file into the storage.
func (s Storage) keys(at *blob.Storage) error {
	if s.KeyFile == "" {
		return option("storageKeyFile", "the storage needs a key: name the file that holds it")
	}
	st, err := os.Stat(s.KeyFile)
	if err != nil {
		return &OptionError{"storageKeyFile", err}
	}
	if st.Mode().Perm()&0o077 != 0 {
		return option("storageKeyFile", "%s can be read by others (mode %#o): run chmod 600 on it", s.KeyFile, st.Mode().Perm())
	}
	text, err := os.ReadFile(s.KeyFile)
	if err != nil {
		return &OptionError{"storageKeyFile", err}
	}
	words := strings.Fields(string(text))
	switch {
	case at.S3 != nil && len(words) == 2:
		at.S3.AccessKey, at.S3.SecretKey = words[0], redact.Secret(words[1])
	case at.Azure != nil && len(words) == 1:
		at.Azure.Key = redact.Secret(words[0])
	case at.S3 != nil:
		return option("storageKeyFile", "%s holds %d words: for S3 they are the access key and the secret key", s.KeyFile, len(words))
	default:
		return option("storageKeyFile", "%s holds %d words: for Azure it is one, a key of the account", s.KeyFile, len(words))
	}
	return nil
}

// check checks the form of everything, and the key file.
func (s Storage) check() error {
	if s.folder() {
		if s.KeyFile != "" || s.Roots != "" {
			return option("storageKeyFile", "content is kept in the data directory, which needs neither a key nor roots: set storage, or leave them out")
		}
		return nil
	}
	at, err := s.place()
	if err != nil {
		return err
	}
	if _, err := moreRoots("storageRoots", s.Roots); err != nil {
		return err
	}
	return s.keys(&at)
}

// storage is where this server's content is.
func (s *Server) storage() (blob.Storage, error) {
	if s.o.Storage.folder() {
		return blob.Storage{Dir: s.dir.file("blobs")}, nil
	}
	at, err := s.o.Storage.place()
	if err == nil {
		err = s.o.Storage.keys(&at)
	}
	if err != nil {
		return at, err
	}
	if at.Roots, err = moreRoots("storageRoots", s.o.Storage.Roots); err != nil {
		return at, err
	}
	at.Dial, err = s.dialer()
	return at, err
}

// storageHost is the destination of the storage, "" for a folder.
func (s *Server) storageHost() (string, error) {
	if s.o.Storage.folder() {
		return "", nil
	}
	at, err := s.o.Storage.place()
	if err != nil {
		return "", err
	}
	return at.Destination()
}

// openBlobs opens the content store. A storage that can't be used, or that the content is not in, ends the start.
func (s *Server) openBlobs(ctx context.Context) (*blob.Store, error) {
	at, err := s.storage()
	if err != nil {
		return nil, err
	}
	blobs, err := blob.New(ctx, blob.Options{DB: s.db, Storage: at, Clock: s.o.Clock, Wall: s.o.wall, Log: s.log})
	if err != nil {
		return nil, &OptionError{"storage", err}
	}
	s.closers = append(s.closers, func() error { blobs.Settle(); return nil })
	if !s.o.Storage.folder() {
		s.rooms.ready.checks = append(s.rooms.ready.checks, check{name: "storage", fn: func(ctx context.Context) error {
			if err := blobs.Healthy(ctx); err != nil {
				return fmt.Errorf("%s does not answer: %w", blobs.Place(), err)
			}
			return nil
		}})
	}
	return blobs, nil
}
