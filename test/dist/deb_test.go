// SPDX-License-Identifier: Apache-2.0

package dist

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deb checks the package's fields and files, and that its unit and its configuration are what systemd and the program take.
func deb(t *testing.T, path, program string, at time.Time) {
	t.Setenv("TZ", "UTC")
	for field, want := range map[string]string{"Package": "embargo", "Version": "1.2.3~rc.1", "Architecture": "amd64", "Depends": "adduser"} {
		if got := strings.TrimSpace(run(t, "dpkg-deb", "--field", path, field)); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	if out, err := exec.Command("dpkg", "--compare-versions", "1.2.3~rc.1", "lt", "1.2.3").CombinedOutput(); err != nil {
		t.Errorf("the version before a release is not older than the release: %v %s", err, out)
	}
	var got []string
	for line := range strings.Lines(run(t, "dpkg-deb", "--contents", path)) {
		f := strings.Fields(line) // mode, owner, size, date, time, path
		if f[3]+" "+f[4] != at.Format("2006-01-02 15:04") {
			t.Errorf("not of the release's time, %s: %s", at, line)
		}
		got = append(got, f[0]+" "+f[1]+" "+f[5])
	}
	slices.Sort(got)
	want := []string{
		"-rw-r----- root/root ./etc/embargo/embargo.yaml",
		"-rw-r--r-- root/root ./lib/systemd/system/embargo.service",
		"-rw-r--r-- root/root ./usr/share/doc/embargo/copyright",
		"-rwxr-xr-x root/root ./usr/bin/embargo",
	}
	for _, d := range []string{"", "etc/", "etc/embargo/", "lib/", "lib/systemd/", "lib/systemd/system/", "usr/", "usr/bin/", "usr/share/", "usr/share/doc/", "usr/share/doc/embargo/"} {
		want = append(want, "drwxr-xr-x root/root ./"+d)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the package holds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	root := t.TempDir()
	run(t, "dpkg-deb", "--raw-extract", path, root)
	if !bytes.Equal(read(t, root, "usr/bin/embargo"), read(t, program)) {
		t.Error("the package holds another program than the one beside it")
	}
	if got := string(read(t, root, "DEBIAN/conffiles")); got != "/etc/embargo/embargo.yaml\n" {
		t.Errorf("conffiles: %q", got)
	}
	scripts(t, filepath.Join(root, "DEBIAN"))
	t.Run("unit", func(t *testing.T) { unit(t, filepath.Join(root, "lib/systemd/system/embargo.service"), program) })
	t.Run("configuration", func(t *testing.T) { configuration(t, filepath.Join(root, "etc/embargo/embargo.yaml"), program) })
}

// scripts are those that dpkg runs. None of them deletes anything.
func scripts(t *testing.T, dir string) {
	for name, want := range map[string]string{
		"postinst": "adduser --system --group", "prerm": "disable --now embargo.service", "postrm": "are kept",
	} {
		path := filepath.Join(dir, name)
		run(t, "sh", "-n", path)
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s can't be run: %v", name, err)
		}
		text := string(read(t, path))
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q", name, want)
		}
		if regexp.MustCompile(`(?m)^\s*(rm|deluser|userdel|find)\b`).MatchString(text) {
			t.Errorf("%s deletes something: data is the operator's to delete", name)
		}
	}
}

// hardened are the unit's keys by which the server can do no more than it must.
var hardened = map[string]string{
	"Service.User":                    "embargo",
	"Service.ExecStart":               "/usr/bin/embargo serve --config /etc/embargo/embargo.yaml",
	"Service.ExecReload":              "/bin/kill -HUP $MAINPID",
	"Service.Restart":                 "on-failure",
	"Service.StateDirectory":          "embargo",
	"Service.StateDirectoryMode":      "0700",
	"Service.UMask":                   "0077",
	"Service.LimitNOFILE":             "65536",
	"Service.NoNewPrivileges":         "yes",
	"Service.CapabilityBoundingSet":   "",
	"Service.ProtectSystem":           "strict",
	"Service.ProtectHome":             "yes",
	"Service.PrivateTmp":              "yes",
	"Service.PrivateDevices":          "yes",
	"Service.ProtectKernelTunables":   "yes",
	"Service.ProtectKernelModules":    "yes",
	"Service.ProtectKernelLogs":       "yes",
	"Service.ProtectControlGroups":    "yes",
	"Service.ProtectClock":            "yes",
	"Service.ProtectHostname":         "yes",
	"Service.ProtectProc":             "invisible",
	"Service.RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
	"Service.RestrictNamespaces":      "yes",
	"Service.RestrictRealtime":        "yes",
	"Service.RestrictSUIDSGID":        "yes",
	"Service.LockPersonality":         "yes",
	"Service.MemoryDenyWriteExecute":  "yes",
	"Service.SystemCallArchitectures": "native",
	"Service.SystemCallFilter":        "@system-service",
	"Install.WantedBy":                "multi-user.target",
}

// unit checks every key of the hardening, and has systemd read the unit where it is installed.
func unit(t *testing.T, path, program string) {
	got, section := map[string]string{}, ""
	for line := range strings.Lines(string(read(t, path))) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]") + "."
		} else if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			if _, twice := got[section+key]; twice {
				t.Errorf("%s is set twice", key)
			}
			got[section+key] = value
		}
	}
	for key, want := range hardened {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %q (set: %v), want %q", key, v, ok, want)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not here: systemd itself did not read the unit, its keys are checked all the same")
		return
	}
	// The program is not installed here, so a copy of the unit names the one that was built.
	here := filepath.Join(t.TempDir(), "embargo.service")
	text := strings.ReplaceAll(string(read(t, path)), "/usr/bin/embargo", program)
	if err := os.WriteFile(here, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", here).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=20", here).CombinedOutput(); err != nil {
		t.Errorf("the unit is exposed more than 2.0 of 10: %v\n%s", err, out)
	}
}

// configuration: the program starts with the file as it is, and knows every key that the file offers.
func configuration(t *testing.T, path, program string) {
	documented := string(read(t, "..", "..", "docs", "configuration.md"))
	offered := regexp.MustCompile(`(?m)^#?([a-z][A-Za-z]+):`).FindAllStringSubmatch(string(read(t, path)), -1)
	for _, k := range offered {
		if !strings.Contains(documented, "\n| `"+k[1]+"` |") {
			t.Errorf("embargo.yaml offers %s, which docs/configuration.md does not know", k[1])
		}
	}
	if len(offered) < 10 {
		t.Errorf("embargo.yaml offers %d keys only", len(offered))
	}
	data := filepath.Join(t.TempDir(), "embargo") // made beforehand and empty, as StateDirectory= leaves it
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--config", path, "--data", data, "--listen", "127.0.0.1:0", "--proxy-listen", "off", "--admin-listen", "127.0.0.1:0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	address := ""
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if m := regexp.MustCompile(`^Health +http://([^/]+)/`).FindStringSubmatch(lines.Text()); m != nil {
			address = m[1]
			break
		}
	}
	if c, err := net.Dial("tcp", address); err != nil {
		t.Errorf("the server does not listen: %v", err)
	} else if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("serve: %v\n%s", err, &stderr)
	}
}
