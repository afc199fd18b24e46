// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/embargo-registry/embargo/name"
)

// Key names a question: does this signature make this manifest trusted by the stores of this generation?
type Key struct {
	Generation          string
	Manifest, Signature name.Digest
	// MediaType and Size are those under which the manifest is served.
	MediaType string
	Size      int64
}

// Verdict is the answer: trusted up to and including Until, or not, for the reason Why.
type Verdict struct {
	Why   string
	Until time.Time
}

// Trusted reports whether the verdict is that the manifest is trusted.
func (v Verdict) Trusted() bool { return v.Why == "" }

// Verdicts remembers the newest verdicts. It is safe for concurrent use.
type Verdicts struct{ kept *lru.Cache[Key, Verdict] }

// NewVerdicts makes a memory of so many verdicts.
func NewVerdicts(size int) (*Verdicts, error) {
	kept, err := lru.New[Key, Verdict](size)
	return &Verdicts{kept}, err
}

// Get gives a verdict that still holds.
func (v *Verdicts) Get(k Key, now time.Time) (Verdict, bool) {
	found, ok := v.kept.Get(k)
	if !ok || now.After(found.Until) {
		return Verdict{}, false
	}
	return found, true
}

// Put remembers a verdict.
func (v *Verdicts) Put(k Key, verdict Verdict) { v.kept.Add(k, verdict) }
