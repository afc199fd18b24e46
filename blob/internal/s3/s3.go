// SPDX-License-Identifier: Apache-2.0

// Package s3 is an object storage with Amazon's S3 protocol: a bucket, or what lies in it under a prefix.
package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/blob/internal/parts"
	"github.com/embargo-registry/embargo/redact"
)

// Options say which bucket.
type Options struct {
	// Endpoint is the service's URL without a path: https://s3.eu-central-1.amazonaws.com, http://127.0.0.1:9000.
	Endpoint string
	Bucket   string
	// Prefix is put before all names; "" is none.
	Prefix string
	// Region is what requests are signed for; "" is us-east-1.
	Region string
	// AccessKey names the caller, SecretKey proves it.
	AccessKey string
	SecretKey redact.Secret
	// PathStyle names the bucket in the path of requests, not in the host.
	PathStyle bool
	// Transport makes the connections.
	Transport http.RoundTripper
}

// retries is how often a request is sent that gets no answer, or one that says to come again.
const retries = 3

// Bucket is the storage.
type Bucket struct {
	c *minio.Core
	o Options
}

// New makes the storage. Nothing is asked of it yet.
func New(o Options) (*Bucket, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("the endpoint of an S3 storage is an https or http URL without a path")
	}
	if o.Bucket == "" || o.AccessKey == "" || o.SecretKey == "" || o.Transport == nil {
		return nil, errors.New("an S3 storage needs a bucket, an access key and its secret key")
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Prefix = strings.Trim(o.Prefix, "/"); o.Prefix != "" {
		o.Prefix += "/"
	}
	lookup := minio.BucketLookupDNS
	if o.PathStyle {
		lookup = minio.BucketLookupPath
	}
	c, err := minio.NewCore(u.Host, &minio.Options{Creds: credentials.NewStaticV4(o.AccessKey, string(o.SecretKey), ""), Secure: u.Scheme == "https",
		Transport: o.Transport, Region: o.Region, BucketLookup: lookup, MaxRetries: retries})
	return &Bucket{c, o}, err
}

func (b *Bucket) String() string {
	return fmt.Sprintf("the S3 bucket %s/%s at %s", b.o.Bucket, b.o.Prefix, b.o.Endpoint)
}

func (b *Bucket) name(name string) string { return b.o.Prefix + name }

// failed gives an error its name among the driver's.
func failed(err error) error {
	if err == nil {
		return nil
	}
	r := minio.ToErrorResponse(err)
	switch r.Code {
	case minio.NoSuchKey, minio.NoSuchUpload, "InvalidPart", "InvalidPartOrder", "EntityTooSmall":
		return errors.Join(fs.ErrNotExist, err)
	case minio.PreconditionFailed, "ConditionalRequestConflict":
		return errors.Join(driver.ErrTaken, err)
	case "XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "StorageFull":
		return errors.Join(driver.ErrFull, err)
	}
	if r.StatusCode == http.StatusInsufficientStorage {
		return errors.Join(driver.ErrFull, err)
	}
	return errors.Join(driver.ErrAway, err)
}

func sum(content []byte) string {
	h := sha256.Sum256(content)
	return hex.EncodeToString(h[:])
}

// Begin begins a multipart upload.
func (b *Bucket) Begin(ctx context.Context, name string) (string, error) {
	id, err := b.c.NewMultipartUpload(ctx, b.o.Bucket, b.name(name), minio.PutObjectOptions{})
	return id, failed(err)
}

// PutPart uploads a part. Its signature covers its content.
func (b *Bucket) PutPart(ctx context.Context, name, session string, number int, content []byte) (string, error) {
	p, err := b.c.PutObjectPart(ctx, b.o.Bucket, b.name(name), session, number, bytes.NewReader(content), int64(len(content)), minio.PutObjectPartOptions{Sha256Hex: sum(content)})
	return p.ETag, failed(err)
}

// Complete completes the multipart upload, if the object is not there.
func (b *Bucket) Complete(ctx context.Context, name, session string, tags []string) error {
	list := make([]minio.CompletePart, len(tags))
	for i, t := range tags {
		list[i] = minio.CompletePart{PartNumber: i + 1, ETag: t}
	}
	_, err := b.c.CompleteMultipartUpload(ctx, b.o.Bucket, b.name(name), session, list, absent())
	return failed(err)
}

// absent is the condition that there is no object of the name.
func absent() minio.PutObjectOptions {
	var o minio.PutObjectOptions
	o.SetMatchETagExcept("*")
	return o
}

// eachUpload visits the multipart uploads under way.
func (b *Bucket) eachUpload(ctx context.Context, prefix string, visit func(minio.ObjectMultipartInfo) error) error {
	key, id := "", ""
	for {
		page, err := b.c.ListMultipartUploads(ctx, b.o.Bucket, prefix, key, id, "", 1000)
		if err != nil {
			return failed(err)
		}
		for _, u := range page.Uploads {
			if err := visit(u); err != nil {
				return err
			}
		}
		if !page.IsTruncated {
			return nil
		}
		key, id = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

// Abandon aborts the object's multipart uploads.
func (b *Bucket) Abandon(ctx context.Context, name string) error {
	name = b.name(name)
	return b.eachUpload(ctx, name, func(u minio.ObjectMultipartInfo) error {
		if u.Key != name {
			return nil
		}
		if err := failed(b.c.AbortMultipartUpload(ctx, b.o.Bucket, name, u.UploadID)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// Unfinished visits the multipart uploads under way with the size of their parts.
func (b *Bucket) Unfinished(ctx context.Context, prefix string, visit func(parts.Entry) error) error {
	return b.eachUpload(ctx, b.name(prefix), func(u minio.ObjectMultipartInfo) error {
		e := parts.Entry{Name: strings.TrimPrefix(u.Key, b.o.Prefix), Changed: u.Initiated}
		for marker := 0; ; {
			page, err := b.c.ListObjectParts(ctx, b.o.Bucket, u.Key, u.UploadID, marker, 1000)
			if err = failed(err); errors.Is(err, fs.ErrNotExist) {
				return nil // it has ended meanwhile
			}
			if err != nil {
				return err
			}
			for _, p := range page.ObjectParts {
				e.Size += p.Size
				if p.LastModified.After(e.Changed) {
					e.Changed = p.LastModified
				}
			}
			if !page.IsTruncated {
				return visit(e)
			}
			marker = page.NextPartNumberMarker
		}
	})
}

// Put puts an object, if it is not there.
func (b *Bucket) Put(ctx context.Context, name string, content []byte) error {
	_, err := b.c.PutObject(ctx, b.o.Bucket, b.name(name), bytes.NewReader(content), int64(len(content)), "", sum(content), absent())
	return failed(err)
}

// Get streams a range.
func (b *Bucket) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if err := o.SetRange(off, off+n-1); err != nil {
		return nil, err
	}
	body, _, _, err := b.c.GetObject(ctx, b.o.Bucket, b.name(name), o)
	if err != nil {
		return nil, failed(err)
	}
	return body, nil
}

// Size asks for the object's size.
func (b *Bucket) Size(ctx context.Context, name string) (int64, error) {
	info, err := b.c.StatObject(ctx, b.o.Bucket, b.name(name), minio.StatObjectOptions{})
	return info.Size, failed(err)
}

// Delete deletes an object.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	err := failed(b.c.RemoveObject(ctx, b.o.Bucket, b.name(name), minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List visits the objects.
func (b *Bucket) List(ctx context.Context, prefix string, visit func(parts.Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for info := range b.c.ListObjectsIter(ctx, b.o.Bucket, minio.ListObjectsOptions{Prefix: b.name(prefix), Recursive: true}) {
		if info.Err != nil {
			return failed(info.Err)
		}
		if err := visit(parts.Entry{Name: strings.TrimPrefix(info.Key, b.o.Prefix), Size: info.Size, Changed: info.LastModified.In(time.UTC)}); err != nil {
			return err
		}
	}
	return nil
}
