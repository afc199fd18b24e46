// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
)

// memory remembers what reads found, statement by statement, until a table that the statement names is written: most of what is asked, of policies, callers, rights and tags, is asked
// again and again and seldom changes. It is kept by a process that alone writes its database (Options.Alone), so every write is seen here, by the name of its table: who asks knows
// nothing of it, and nobody has to remember to clear anything.
//
// Each table has a count that is odd from before a commit that writes it until after. An answer is stored with the counts from before its snapshot and serves while they stand. A
// transaction that has used answers goes through only if their counts still stand once its snapshot is taken, and at its end: so it sees one instant. Else it runs again without memory.
type memory struct {
	tables map[string]int // the bit of each table, by name
	counts []atomic.Uint64

	texts sync.Map // of statements by their SQL: *text

	mu     sync.RWMutex
	young  map[answerKey]*answer
	old    map[answerKey]*answer
	weight int // of young, about, in bytes
}

const (
	// memoryHalf is how many bytes half of the memory takes: when the young half is full, the old one is let go.
	memoryHalf = 6 << 20
	// answerRows and answerBytes bound what is remembered of one statement.
	answerRows  = 64
	answerBytes = 16 << 10
)

// tableSet is a set of tables, as bits.
type tableSet [2]uint64

func (s *tableSet) add(bit int)           { s[bit/64] |= 1 << (bit % 64) }
func (s tableSet) has(bit int) bool       { return s[bit/64]&(1<<(bit%64)) != 0 }
func (s tableSet) or(o tableSet) tableSet { return tableSet{s[0] | o[0], s[1] | o[1]} }

// text is what is known of a statement.
type text struct {
	tables tableSet
	bits   []int
	writes bool
}

type answerKey struct {
	text *text
	args string
}

type answer struct {
	rows   [][]any
	counts []uint64 // by text.bits
	weight int
	// row is what its row means, once somebody has read it: a *RegistryRow.
	row atomic.Pointer[RegistryRow]
}

func newMemory(tables []string) (*memory, error) {
	m := &memory{tables: map[string]int{}, counts: make([]atomic.Uint64, len(tables)), young: map[answerKey]*answer{}}
	for i, t := range tables {
		m.tables[strings.ToLower(t)] = i
	}
	if len(tables) > 128 {
		return nil, fmt.Errorf("meta: %d tables, and the memory of reads can tell 128 apart", len(tables))
	}
	return m, nil
}

// text finds which tables a statement names: all words of it that are names of tables, so rather one too many.
func (m *memory) text(query string) *text {
	if t, ok := m.texts.Load(query); ok {
		return t.(*text)
	}
	t := &text{}
	word := func(c rune) bool {
		return c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}
	words := strings.FieldsFunc(query, word)
	t.writes = len(words) == 0 || !strings.EqualFold(words[0], "SELECT")
	for _, w := range words {
		if bit, ok := m.tables[strings.ToLower(w)]; ok && !t.tables.has(bit) {
			t.tables.add(bit)
			t.bits = append(t.bits, bit)
		}
	}
	known, _ := m.texts.LoadOrStore(query, t)
	return known.(*text)
}

// turn makes the counts of the tables odd (before a commit) or even again (after).
func (m *memory) turn(tables tableSet) {
	for bit := range m.counts {
		if tables.has(bit) {
			m.counts[bit].Add(1)
		}
	}
}

// look finds an answer whose tables have not been written since.
func (m *memory) look(t *text, args []byte) *answer {
	m.mu.RLock()
	a, young := m.young[answerKey{t, string(args)}]
	if !young {
		a = m.old[answerKey{t, string(args)}]
	}
	m.mu.RUnlock()
	if a == nil || !m.stands(t.bits, a.counts) {
		return nil
	}
	if !young {
		m.store(answerKey{t, string(args)}, a)
	}
	return a
}

func (m *memory) stands(bits []int, counts []uint64) bool {
	for i, bit := range bits {
		if m.counts[bit].Load() != counts[i] {
			return false
		}
	}
	return true
}

func (m *memory) store(k answerKey, a *answer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if before := m.young[k]; before != nil {
		m.weight -= before.weight
	}
	if m.weight+a.weight > memoryHalf {
		m.old, m.young, m.weight = m.young, map[answerKey]*answer{}, 0
	}
	m.young[k] = a
	m.weight += a.weight
}

// appendArgs writes arguments so that different ones differ. ok is false for a kind that no statement of ours is given.
func appendArgs(b []byte, args []any) (out []byte, ok bool) {
	for _, a := range args {
		switch v := a.(type) {
		case nil:
			b = append(b, 'n')
		case string:
			b = append(binary.AppendUvarint(append(b, 's'), uint64(len(v))), v...)
		case []byte:
			b = append(binary.AppendUvarint(append(b, 'b'), uint64(len(v))), v...)
		case int64:
			b = binary.AppendVarint(append(b, 'i'), v)
		case int:
			b = binary.AppendVarint(append(b, 'i'), int64(v))
		case bool:
			b = append(b, 't')
			if !v {
				b[len(b)-1] = 'f'
			}
		default:
			return b, false
		}
	}
	return b, true
}

// session is what one read transaction has of the memory.
type session struct {
	m *memory
	// used are the answers that were served before the transaction had a snapshot.
	used []used
	// before are the counts of all tables from before the snapshot was taken; nil while there is none.
	before []uint64
}

type used struct {
	bits   []int
	counts []uint64
}

// errMoved: what the transaction was told from memory has changed since.
var errMoved = errors.New("meta: a remembered answer has changed within the transaction")

// recall finds an answer that is of the transaction's instant.
func (s *session) recall(t *text, args []byte) *answer {
	a := s.m.look(t, args)
	switch {
	case a == nil:
	case s.before == nil:
		s.used = append(s.used, used{t.bits, a.counts})
	default:
		for i, bit := range t.bits {
			if a.counts[i] != s.before[bit] {
				return nil
			}
		}
	}
	return a
}

// holds reports whether all that was served is still so.
func (s *session) holds() bool {
	for _, u := range s.used {
		if !s.m.stands(u.bits, u.counts) {
			return false
		}
	}
	return true
}

// note keeps the counts from before a snapshot is taken.
func (s *session) note() {
	s.before = make([]uint64, len(s.m.counts))
	for i := range s.m.counts {
		s.before[i] = s.m.counts[i].Load()
	}
}

// learn stores what a statement found in the transaction's snapshot, unless a table of it was being written when that was taken.
func (s *session) learn(t *text, args []byte, rows [][]any, weight int) {
	counts := make([]uint64, len(t.bits))
	for i, bit := range t.bits {
		if counts[i] = s.before[bit]; counts[i]%2 != 0 {
			return
		}
	}
	weight += len(args) + 8*len(counts) + 160
	s.m.store(answerKey{t, string(args)}, &answer{rows: rows, counts: counts, weight: weight})
}

// weigh is about how many bytes a row takes.
func weigh(row []any) int {
	n := 16 * len(row)
	for _, v := range row {
		switch v := v.(type) {
		case string:
			n += len(v)
		case []byte:
			n += len(v)
		}
	}
	return n
}

// assign stores a column's value as database/sql's Scan does, for the kinds that our columns and statements have.
func assign(into, v any) error {
	switch d := into.(type) {
	case *string:
		switch v := v.(type) {
		case string:
			*d = v
			return nil
		case []byte:
			*d = string(v)
			return nil
		}
	case *int64:
		if v, ok := v.(int64); ok {
			*d = v
			return nil
		}
	case *int:
		if v, ok := v.(int64); ok {
			*d = int(v)
			return nil
		}
	case *bool:
		switch v := v.(type) {
		case bool:
			*d = v
			return nil
		case int64:
			*d = v != 0
			return nil
		}
	case *[]byte:
		switch v := v.(type) {
		case []byte:
			*d = append([]byte(nil), v...)
			return nil
		case string:
			*d = []byte(v)
			return nil
		case nil:
			*d = nil
			return nil
		}
	case *any:
		if b, ok := v.([]byte); ok {
			v = append([]byte(nil), b...)
		}
		*d = v
		return nil
	}
	return assignKind(into, v)
}

// assignKind is assign for named types of the plain kinds.
func assignKind(into, v any) error {
	d := reflect.ValueOf(into)
	if d.Kind() != reflect.Pointer || d.IsNil() {
		return fmt.Errorf("meta: a column can't be read into %T", into)
	}
	d = d.Elem()
	switch x := v.(type) {
	case string:
		if d.Kind() == reflect.String {
			d.SetString(x)
			return nil
		}
	case []byte:
		if d.Kind() == reflect.String {
			d.SetString(string(x))
			return nil
		}
	case int64:
		switch {
		case d.CanInt() && !d.OverflowInt(x):
			d.SetInt(x)
			return nil
		case d.CanUint() && x >= 0 && !d.OverflowUint(uint64(x)):
			d.SetUint(uint64(x))
			return nil
		case d.Kind() == reflect.Bool:
			d.SetBool(x != 0)
			return nil
		}
	case bool:
		if d.Kind() == reflect.Bool {
			d.SetBool(x)
			return nil
		}
	case float64:
		if d.CanFloat() {
			d.SetFloat(x)
			return nil
		}
	}
	return fmt.Errorf("meta: a column that holds %T can't be read into %T", v, into)
}
