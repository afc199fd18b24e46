// SPDX-License-Identifier: Apache-2.0

package shape

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jmespath/go-jmespath"
	"go.yaml.in/yaml/v3"
)

// Resource gives a resource, as ARM answered it, every member that Azure's command line prints of a generic resource:
// what is absent is null, and resourceGroup is taken from the id.
func Resource(doc map[string]any) map[string]any {
	out := fill(doc, "extendedLocation", "id", "identity", "kind", "location", "managedBy", "name", "plan", "properties", "sku", "tags", "type")
	for name, members := range map[string][]string{
		"sku":              {"capacity", "family", "model", "name", "size", "tier"},
		"identity":         {"principalId", "tenantId", "type", "userAssignedIdentities"},
		"plan":             {"name", "product", "promotionCode", "publisher", "version"},
		"extendedLocation": {"name", "type"},
	} {
		if m, ok := out[name].(map[string]any); ok {
			out[name] = fill(m, members...)
		}
	}
	if id, ok := out["id"].(string); ok {
		if g := group(id); g != "" {
			out["resourceGroup"] = g
		}
	}
	return out
}

// Listed is Resource for an element of a list, which also has the times.
func Listed(doc map[string]any) map[string]any {
	return fill(Resource(doc), "changedTime", "createdTime", "provisioningState")
}

// Body is what is sent back of a resource that was read: without what only the server writes, and without nulls.
func Body(doc map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range doc {
		switch k {
		case "id", "name", "type", "systemData", "resourceGroup", "etag":
			continue
		}
		if m, ok := v.(map[string]any); ok && k != "properties" && k != "tags" {
			v = present(m)
		}
		if v != nil {
			out[k] = v
		}
	}
	return out
}

func present(m map[string]any) map[string]any {
	out := maps.Clone(m)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

func fill(doc map[string]any, names ...string) map[string]any {
	out := maps.Clone(doc)
	for _, n := range names {
		if _, ok := out[n]; !ok {
			out[n] = nil
		}
	}
	return out
}

func group(id string) string {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	for i := 0; i+1 < len(parts); i += 2 {
		if strings.EqualFold(parts[i], "resourceGroups") {
			return parts[i+1]
		}
	}
	return ""
}

// Formats are the output formats Write knows.
func Formats() []string { return []string{"json", "jsonc", "none", "table", "tsv", "yaml", "yamlc"} }

// Write prints v in a format, after the JMESPath query when there is one.
func Write(w io.Writer, v any, format, query string) error {
	if query != "" {
		q, err := jmespath.Compile(query)
		if err != nil {
			return fmt.Errorf("--query: %w", err)
		}
		// Numbers are compared by queries, so they must be numbers and not their texts.
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		var plain any
		if err := json.Unmarshal(b, &plain); err != nil {
			return err
		}
		if v, err = q.Search(plain); err != nil {
			return fmt.Errorf("--query: %w", err)
		}
	}
	switch format {
	case "", "json", "jsonc":
		return writeJSON(w, v)
	case "none":
		return nil
	case "yaml", "yamlc":
		b, err := yaml.Marshal(numbers(v))
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	case "tsv":
		return writeTSV(w, v)
	case "table":
		return writeTable(w, v)
	}
	return fmt.Errorf("the output format %q is not one of %s", format, strings.Join(Formats(), ", "))
}

func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// numbers turns the texts of numbers into numbers, which YAML writes without quotes.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = numbers(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = numbers(e)
		}
		return out
	}
	return v
}

func writeTSV(w io.Writer, v any) error {
	rows, ok := v.([]any)
	if !ok {
		if v == nil {
			return nil
		}
		rows = []any{v}
	}
	var b strings.Builder
	for _, row := range rows {
		var cells []string
		switch row := row.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(row)) {
				cells = append(cells, tsvCell(row[k]))
			}
		case []any:
			for _, c := range row {
				cells = append(cells, tsvCell(c))
			}
		default:
			cells = []string{tsvCell(row)}
		}
		b.WriteString(strings.Join(cells, "\t") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// tsvCell of an object is empty and of a list its length, so that each row keeps its columns.
func tsvCell(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case map[string]any:
		return ""
	case []any:
		return fmt.Sprint(len(v))
	}
	return strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(fmt.Sprint(v))
}

func writeTable(w io.Writer, v any) error {
	rows, ok := v.([]any)
	if !ok {
		if v == nil {
			return nil
		}
		rows = []any{v}
	}
	var columns []string
	var lines []map[string]string
	for _, row := range rows {
		line := map[string]string{}
		put := func(name, text string) {
			if !slices.Contains(columns, name) {
				columns = append(columns, name)
			}
			line[name] = text
		}
		switch row := row.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(row)) {
				if hidden(k, row[k]) {
					continue
				}
				put(title(k), tableCell(row[k]))
			}
		case []any:
			for i, c := range row {
				put(fmt.Sprintf("Column%d", i+1), tableCell(c))
			}
		default:
			put("Result", tableCell(row))
		}
		lines = append(lines, line)
	}
	if len(columns) == 0 {
		return nil
	}
	return align(w, columns, lines)
}

// Table writes rows under the given columns.
func Table(w io.Writer, columns []string, rows []any) error {
	var lines []map[string]string
	for _, row := range rows {
		line := map[string]string{}
		if cells, ok := row.([]any); ok {
			for i, c := range cells {
				if i < len(columns) {
					line[columns[i]] = tableCell(c)
				}
			}
		}
		lines = append(lines, line)
	}
	return align(w, columns, lines)
}

func align(w io.Writer, columns []string, lines []map[string]string) error {
	width := make([]int, len(columns))
	for i, c := range columns {
		width[i] = utf8.RuneCountInString(c)
		for _, l := range lines {
			width[i] = max(width[i], utf8.RuneCountInString(l[c]))
		}
	}
	var b strings.Builder
	row := func(cell func(i int) string) {
		var line strings.Builder
		for i := range columns {
			text := cell(i)
			line.WriteString(text + strings.Repeat(" ", width[i]-utf8.RuneCountInString(text)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	row(func(i int) string { return columns[i] })
	row(func(i int) string { return strings.Repeat("-", width[i]) })
	for _, l := range lines {
		row(func(i int) string { return l[columns[i]] })
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// hidden members do not fit a table: ids and types are long, objects and lists have no line.
func hidden(name string, v any) bool {
	switch strings.ToLower(name) {
	case "id", "type", "etag":
		return true
	}
	switch v.(type) {
	case nil, map[string]any, []any:
		return true
	}
	return false
}

func title(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}

// plain writes a number as JSON does: whole ones without an exponent.
func plain(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

func tableCell(v any) string {
	if v == nil {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, plain(v))
}
