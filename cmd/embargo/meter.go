// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/embargo-registry/embargo/backup"
)

// meter shows progress: on a terminal as one line that changes, elsewhere as a line every few seconds.
type meter struct {
	w        io.Writer
	terminal bool
	told     time.Time
	phase    string
	last     backup.Progress
}

const meterPause = 5 * time.Second

func newMeter(w io.Writer) *meter {
	m := &meter{w: w}
	if f, ok := w.(*os.File); ok {
		st, err := f.Stat()
		m.terminal = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	return m
}

func (m *meter) show(p backup.Progress) {
	m.last = p
	line := m.line()
	switch {
	case m.terminal:
		fmt.Fprintf(m.w, "\r\x1b[K%s", line)
	case p.Phase != m.phase || time.Since(m.told) >= meterPause:
		fmt.Fprintln(m.w, line)
		m.told = time.Now()
	}
	m.phase = p.Phase
}

// line is how far it is, in words.
func (m *meter) line() string {
	p := m.last
	if p.Of == 0 {
		return p.Phase
	}
	return fmt.Sprintf("%s: %d of %d objects, %s of %s", p.Phase, p.Objects, p.Of, size(p.Bytes), size(p.OfBytes))
}

func (m *meter) end() {
	switch {
	case m.terminal && m.phase != "":
		fmt.Fprint(m.w, "\r\x1b[K")
	case m.last.Objects > 0 && m.last.Objects == m.last.Of:
		fmt.Fprintln(m.w, m.line())
	}
}

// size is a number of bytes as people read it.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for v >= unit && i < 4 {
		v /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[i])
}

// some is a number with its noun.
func some(n int64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprint(n, " ", noun)
}

// are is "3 are", with the words for none and one.
func are(n int) string {
	switch n {
	case 0:
		return "none is"
	case 1:
		return "1 is"
	}
	return fmt.Sprint(n, " are")
}
