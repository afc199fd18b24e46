// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/embargo-registry/embargo/meta"
)

// A chunk ends after so many lines or bytes, counted from the table's beginning, so that a table that only grows shares its chunks with the copy before.
const (
	chunkLines = 8192
	chunkBytes = 4 << 20
)

// chunker cuts lines into chunks and puts each into the folder unless it is there.
type chunker struct {
	put    func(plain []byte, lines int64) (chunk, error)
	buffer bytes.Buffer
	lines  int64
	total  int64
	chunks []chunk
}

func (c *chunker) add(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.buffer.Write(line)
	c.buffer.WriteByte('\n')
	c.lines++
	c.total++
	if c.lines >= chunkLines || c.buffer.Len() >= chunkBytes {
		return c.flush()
	}
	return nil
}

func (c *chunker) flush() error {
	if c.lines == 0 {
		return nil
	}
	made, err := c.put(c.buffer.Bytes(), c.lines)
	c.chunks = append(c.chunks, made)
	c.buffer.Reset()
	c.lines = 0
	return err
}

// putChunk writes a chunk unless the folder has it.
func (t *taking) putChunk(kind string) func(plain []byte, lines int64) (chunk, error) {
	return func(plain []byte, lines int64) (chunk, error) {
		sum := sha256.Sum256(plain)
		c := chunk{SHA256: hex.EncodeToString(sum[:]), Lines: lines}
		c.Object = t.names.of(kind, c.SHA256)
		if t.folder.has(c.Object) {
			return c, nil
		}
		if err := t.from.DB.Read(t.ctx, t.ask); err != nil {
			return c, err
		}
		t.count(int64(len(plain)))
		return c, t.folder.encrypt(object(c.Object), t.to, func(w io.Writer) error {
			z := gzip.NewWriter(w)
			_, err := z.Write(plain)
			return errors.Join(err, z.Close())
		})
	}
}

// eachLine reads a chunk's lines and checks that they are those that were written.
func (f *Folder) eachLine(c chunk, use func(line []byte) error) error {
	h := sha256.New()
	var lines int64
	err := f.readObject(c.Object, func(r io.Reader) error {
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		scan := bufio.NewScanner(io.TeeReader(z, h))
		scan.Buffer(make([]byte, 64<<10), 1<<30) // a row may hold a long document
		for scan.Scan() {
			lines++
			if err := use(scan.Bytes()); err != nil {
				return err
			}
		}
		return errors.Join(scan.Err(), z.Close())
	})
	if err == nil && (hex.EncodeToString(h.Sum(nil)) != c.SHA256 || lines != c.Lines) {
		err = fmt.Errorf("the chunk %s has other content than was written", c.Object)
	}
	return err
}

// row is a row as a line has it: bytes in base64, the rest as JSON has it.
func row(values []any) []any {
	out := make([]any, len(values))
	for i, v := range values {
		if b, ok := v.([]byte); ok {
			v = base64.StdEncoding.EncodeToString(b)
		}
		out[i] = v
	}
	return out
}

// parseRow reads a line back by the kinds of the table's columns.
func parseRow(t meta.Table, line []byte) ([]any, error) {
	var values []any
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&values); err != nil || len(values) != len(t.Columns) {
		return nil, fmt.Errorf("a row of the table %s can't be read: %w", t.Name, err)
	}
	for i, c := range t.Columns {
		var err error
		ok := true
		switch c.Kind {
		case "text":
			_, ok = values[i].(string)
		case "boolean":
			_, ok = values[i].(bool)
		case "integer":
			var n json.Number
			if n, ok = values[i].(json.Number); ok {
				values[i], err = n.Int64()
			}
		case "bytes":
			var s string
			if s, ok = values[i].(string); ok {
				values[i], err = base64.StdEncoding.DecodeString(s)
			}
		default:
			ok = false
		}
		if !ok || err != nil {
			return nil, fmt.Errorf("a row of the table %s has a value in %s that is not %s", t.Name, c.Name, strings.ToLower(c.Kind))
		}
	}
	return values, nil
}
