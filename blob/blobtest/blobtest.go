// SPDX-License-Identifier: Apache-2.0

// Package blobtest gives tests real storages: a folder, a bucket of an S3 server and a container of an Azure one. The servers are those of
// scripts/with-storage (EMBARGO_TEST_S3, EMBARGO_TEST_AZBLOB). Without them their tests are skipped; where CI is set they fail.
package blobtest

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/blob/internal/azure"
	"github.com/embargo-registry/embargo/blob/internal/driver"
	folder "github.com/embargo-registry/embargo/blob/internal/fs"
	"github.com/embargo-registry/embargo/blob/internal/parts"
	"github.com/embargo-registry/embargo/blob/internal/s3"
	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/redact"
)

// The kinds of storages there are.
const (
	Folder = "fs"
	S3     = "s3"
	Azure  = "azblob"
)

// Kinds are all of them.
var Kinds = []string{Folder, S3, Azure}

// variable is where the URL of a kind's server is.
var variable = map[string]string{S3: "EMBARGO_TEST_S3", Azure: "EMBARGO_TEST_AZBLOB"}

// Place is a fresh, empty storage.
type Place struct {
	blob.Storage
	// URL and Key are the values of the configuration keys storage and storageKeyFile (its content).
	URL, Key string
}

// Open makes a storage of the kind that no other test uses.
func Open(t testing.TB, kind string) Place {
	t.Helper()
	if kind == Folder {
		return Place{Storage: blob.Storage{Dir: filepath.Join(t.TempDir(), "content")}, URL: "fs"}
	}
	at := os.Getenv(variable[kind])
	if at == "" {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not set: run the tests under scripts/with-storage", variable[kind])
		}
		t.Skipf("%s is not set: scripts/with-storage runs the tests with it", variable[kind])
	}
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal("the URL of the storage cannot be read")
	}
	secret, _ := u.User.Password()
	d, err := dial.New(dial.Options{Rules: map[dial.Purpose]dial.Rule{dial.Storage: {To: []string{u.Host}, Inside: true}}})
	if err != nil {
		t.Fatal(err)
	}
	prefix, host := "t"+driver.NewKey(), u.Scheme+"://"+u.Host
	if kind == S3 {
		bucket := strings.Trim(u.Path, "/")
		o := &blob.S3{Endpoint: host, Bucket: bucket, Prefix: prefix, AccessKey: u.User.Username(), SecretKey: redact.Secret(secret), PathStyle: true}
		return Place{blob.Storage{S3: o, Dial: d}, "s3://" + bucket + "/" + prefix + "?pathStyle=true&endpoint=" + url.QueryEscape(host), u.User.Username() + "\n" + secret + "\n"}
	}
	account, name, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	o := &blob.Azure{Endpoint: host + "/" + account, Account: account, Container: name, Prefix: prefix, Key: redact.Secret(secret)}
	makeContainer(t, o, d.Client(dial.Storage, dial.ClientOptions{}))
	return Place{blob.Storage{Azure: o, Dial: d}, "azblob://" + name + "/" + prefix + "?account=" + account + "&endpoint=" + url.QueryEscape(o.Endpoint), secret + "\n"}
}

func makeContainer(t testing.TB, o *blob.Azure, client *http.Client) {
	t.Helper()
	key, err := container.NewSharedKeyCredential(o.Account, string(o.Key))
	if err != nil {
		t.Fatal(err)
	}
	c, err := container.NewClientWithSharedKeyCredential(o.Endpoint+"/"+o.Container, key, &container.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: client}})
	if err == nil {
		_, err = c.Create(context.Background(), nil)
	}
	if err != nil && !bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		t.Fatal(err)
	}
}

// Count is how many objects, finished or being written, lie in a storage.
func Count(t testing.TB, at blob.Storage) int {
	t.Helper()
	return len(Keys(t, at))
}

// Keys are the keys of the objects, finished or being written, with the bytes that lie under each.
func Keys(t testing.TB, at blob.Storage) map[string]int64 {
	t.Helper()
	seen := map[string]int64{}
	if err := Driver(t, at).Walk(context.Background(), func(i driver.Item) error { seen[i.Key] += i.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	return seen
}

// Driver opens a storage as a store does.
func Driver(t testing.TB, at blob.Storage) driver.Driver {
	t.Helper()
	if at.Dir == "" {
		return parts.New(backend(t, at))
	}
	d, err := folder.Open(at.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Unmark removes the mark of an object storage, as if the bucket were gone.
func Unmark(t testing.TB, at blob.Storage) {
	t.Helper()
	if err := backend(t, at).Delete(context.Background(), "marks/installation"); err != nil {
		t.Fatal(err)
	}
}

func backend(t testing.TB, at blob.Storage) (b parts.Backend) {
	t.Helper()
	client := at.Dial.Client(dial.Storage, dial.ClientOptions{})
	var err error
	if at.S3 != nil {
		o := *at.S3
		o.Transport = client.Transport
		b, err = s3.New(o)
	} else {
		o := *at.Azure
		o.Client = client
		b, err = azure.New(o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}
