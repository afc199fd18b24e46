// SPDX-License-Identifier: Apache-2.0

// Package azure is an object storage with the protocol of Azure Blob Storage: a container, or what lies in it under a prefix.
package azure

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the protocol's checksum of a transfer, no more
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/blob/internal/parts"
	"github.com/embargo-registry/embargo/redact"
)

// Options say which container.
type Options struct {
	// Endpoint is the account's URL: https://ACCOUNT.blob.core.windows.net.
	Endpoint  string
	Account   string
	Container string
	// Prefix is put before all names; "" is none.
	Prefix string
	// Key is a key of the account.
	Key redact.Secret
	// Client makes the connections.
	Client *http.Client
}

// Container is the storage.
type Container struct {
	c *container.Client
	o Options
}

// New makes the storage. Nothing is asked of it yet.
func New(o Options) (*Container, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("the endpoint of an Azure storage is an https or http URL")
	}
	if o.Account == "" || o.Container == "" || o.Key == "" || o.Client == nil {
		return nil, errors.New("an Azure storage needs an account, its key, and a container")
	}
	if o.Prefix = strings.Trim(o.Prefix, "/"); o.Prefix != "" {
		o.Prefix += "/"
	}
	key, err := container.NewSharedKeyCredential(o.Account, string(o.Key))
	if err != nil {
		return nil, errors.New("the key of an Azure storage account is text in base64") // the cause may quote it
	}
	c, err := container.NewClientWithSharedKeyCredential(u.JoinPath(o.Container).String(), key, &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: o.Client, Retry: policy.RetryOptions{MaxRetries: 3, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 2 * time.Second},
		Telemetry: policy.TelemetryOptions{Disabled: true}}})
	return &Container{c, o}, err
}

func (c *Container) String() string {
	return fmt.Sprintf("the Azure container %s/%s of the account %s", c.o.Container, c.o.Prefix, c.o.Account)
}

func (c *Container) blob(name string) *blockblob.Client {
	return c.c.NewBlockBlobClient(c.o.Prefix + name)
}

// failed gives an error its name among the driver's.
func failed(err error) error {
	var r *azcore.ResponseError
	switch {
	case err == nil:
		return nil
	case bloberror.HasCode(err, bloberror.BlobNotFound, bloberror.InvalidBlockList, bloberror.InvalidBlockID):
		return errors.Join(fs.ErrNotExist, err)
	case bloberror.HasCode(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet):
		return errors.Join(driver.ErrTaken, err)
	case bloberror.HasCode(err, "AccountQuotaExceeded", "ShareSizeLimitReached", "InsufficientStorage"):
		return errors.Join(driver.ErrFull, err)
	case errors.As(err, &r) && r.StatusCode == http.StatusPreconditionFailed:
		return errors.Join(driver.ErrTaken, err)
	case errors.As(err, &r) && r.StatusCode == http.StatusInsufficientStorage:
		return errors.Join(driver.ErrFull, err)
	}
	return errors.Join(driver.ErrAway, err)
}

// absent is the condition that there is no blob of the name.
func absent() *blob.AccessConditions {
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}}
}

// checksum lets the service compare what arrives.
func checksum(content []byte) blob.TransferValidationTypeMD5 {
	h := md5.Sum(content) //nolint:gosec // see the import
	return h[:]
}

func body(content []byte) io.ReadSeekCloser { return streaming.NopCloser(bytes.NewReader(content)) }

// Begin names a series of blocks; the service hears of it with the first one.
func (c *Container) Begin(context.Context, string) (string, error) { return driver.NewKey(), nil }

// PutPart stages a block. Its id is of its series, so that nobody else's block takes its place.
func (c *Container) PutPart(ctx context.Context, name, session string, number int, content []byte) (string, error) {
	id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s-%05d-%s", session, number, driver.NewKey()[:10]))
	_, err := c.blob(name).StageBlock(ctx, id, body(content), &blockblob.StageBlockOptions{TransactionalValidation: checksum(content)})
	return id, failed(err)
}

// Complete commits the blocks, if the blob is not there.
func (c *Container) Complete(ctx context.Context, name, _ string, tags []string) error {
	_, err := c.blob(name).CommitBlockList(ctx, tags, &blockblob.CommitBlockListOptions{AccessConditions: absent()})
	return failed(err)
}

// Abandon drops the blocks of a blob that was never committed: putting it does, and deleting it then leaves nothing.
func (c *Container) Abandon(ctx context.Context, name string) error {
	list, err := c.blob(name).GetBlockList(ctx, blockblob.BlockListTypeAll, nil)
	if err = failed(err); errors.Is(err, fs.ErrNotExist) || err == nil && len(list.UncommittedBlocks) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := c.Size(ctx, name); !errors.Is(err, fs.ErrNotExist) {
		return err // it is committed, or nobody knows
	}
	// Azurite takes the blocks for a blob that can be deleted, and not put.
	if err := c.Put(ctx, name, nil); err != nil && !errors.Is(err, driver.ErrTaken) {
		return err
	}
	return c.Delete(ctx, name)
}

// Unfinished visits the blobs that were never committed.
func (c *Container) Unfinished(ctx context.Context, prefix string, visit func(parts.Entry) error) error {
	return c.list(ctx, prefix, true, func(e parts.Entry) error {
		list, err := c.blob(e.Name).GetBlockList(ctx, blockblob.BlockListTypeAll, nil)
		if err = failed(err); errors.Is(err, fs.ErrNotExist) || err == nil && len(list.CommittedBlocks) > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		for _, b := range list.UncommittedBlocks {
			e.Size += *b.Size
		}
		if e.Size == 0 {
			return nil
		}
		return visit(e)
	})
}

// Put puts a blob, if it is not there.
func (c *Container) Put(ctx context.Context, name string, content []byte) error {
	_, err := c.blob(name).Upload(ctx, body(content), &blockblob.UploadOptions{TransactionalValidation: checksum(content), AccessConditions: absent()})
	return failed(err)
}

// Get streams a range.
func (c *Container) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	r, err := c.blob(name).DownloadStream(ctx, &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: off, Count: n}})
	if err != nil {
		return nil, failed(err)
	}
	return r.Body, nil
}

// Size asks for the blob's size.
func (c *Container) Size(ctx context.Context, name string) (int64, error) {
	p, err := c.blob(name).GetProperties(ctx, nil)
	if err != nil || p.ContentLength == nil {
		return 0, failed(err)
	}
	return *p.ContentLength, nil
}

// Delete deletes a blob.
func (c *Container) Delete(ctx context.Context, name string) error {
	_, err := c.blob(name).Delete(ctx, nil)
	if err = failed(err); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List visits the committed blobs.
func (c *Container) List(ctx context.Context, prefix string, visit func(parts.Entry) error) error {
	return c.list(ctx, prefix, false, visit)
}

func (c *Container) list(ctx context.Context, prefix string, uncommitted bool, visit func(parts.Entry) error) error {
	pages := c.c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: to.Ptr(c.o.Prefix + prefix), Include: container.ListBlobsInclude{UncommittedBlobs: uncommitted}})
	for pages.More() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return failed(err)
		}
		for _, item := range page.Segment.BlobItems {
			e := parts.Entry{Name: strings.TrimPrefix(*item.Name, c.o.Prefix)}
			if p := item.Properties; p != nil && p.ContentLength != nil {
				e.Size = *p.ContentLength
			}
			if p := item.Properties; p != nil && p.LastModified != nil {
				e.Changed = *p.LastModified
			}
			if uncommitted && e.Size > 0 {
				continue
			}
			if err := visit(e); err != nil {
				return err
			}
		}
	}
	return nil
}
