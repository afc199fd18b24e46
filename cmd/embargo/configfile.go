// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// inFile is a key's value in the file, and where the key stands.
type inFile struct {
	node *yaml.Node
	line int
}

// value is what the key's put takes: text, lists and maps as they are, objects as a node, which knows its lines.
func (f inFile) value(k key) any {
	if strings.Contains(k.unit, "{") {
		return f.node
	}
	var v any
	if err := f.node.Decode(&v); err != nil {
		return f.node.Value
	}
	return v
}

// readFile reads the file's keys. A key that is not in the table, or is there twice, is an error with its line.
func readFile(path string) (map[string]inFile, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the configuration file %s does not exist", path)
	}
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: the file is not a list of keys and values", path, root.Line)
	}
	known := map[string]bool{}
	for _, k := range keys() {
		known[k.name] = true
	}
	found := map[string]inFile{}
	for i := 0; i < len(root.Content); i += 2 {
		k := root.Content[i]
		if !known[k.Value] {
			return nil, fmt.Errorf("%s:%d: unknown key %s (docs/configuration.md lists those there are)", path, k.Line, k.Value)
		}
		if _, twice := found[k.Value]; twice {
			return nil, fmt.Errorf("%s:%d: the key %s is there already", path, k.Line, k.Value)
		}
		found[k.Value] = inFile{root.Content[i+1], k.Line}
	}
	return found, nil
}
