// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"os"
	"syscall"
	"time"
)

// Configure writes the configuration file, tells the server to read it again (SIGHUP) and waits until it has said in its log how that went:
// "" when it took the configuration over, else the error.
func (s *Server) Configure(config string) string {
	s.t.Helper()
	if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	answers := func() (n int, last string) {
		for _, line := range s.Lines() {
			switch line["msg"] {
			case "configuration reloaded":
				n, last = n+1, ""
			case "the configuration was not reloaded: nothing was changed":
				n, last = n+1, line["error"].(string)
			}
		}
		return n, last
	}
	before, _ := answers()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if n, last := answers(); n > before {
			return last
		}
	}
	s.t.Fatal("the server did not say whether it took the configuration over")
	return ""
}
