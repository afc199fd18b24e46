// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// bigSize is more than all buffers between the server and a client that does not read.
const bigSize = 48 << 20

// download begins to read a blob and stops after its first bytes; the connection stays open, with as much in flight as its buffers hold.
func (c *cage) download(t *testing.T, base, digest string, scope string) *http.Response {
	t.Helper()
	token, a, err := c.RegistryToken(base, c.LoginServer("vaultone"), c.ClientID, c.ClientSecret, scope)
	if err != nil || token == "" {
		t.Fatalf("no token: %v %d %s", err, a.Status, a.Body)
	}
	req, err := http.NewRequest(http.MethodGet, base+"/v2/secret/cargo/blobs/"+digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the download begins with %s", resp.Status)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	return resp
}

// TestR24FlipCutsWhatIsInFlight: a download on the public door that was under way when exports were disabled ends with the answer to the
// change: what the kernel had not sent is discarded. A download on the private door goes on to its end.
func TestR24FlipCutsWhatIsInFlight(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		big := make([]byte, bigSize)
		if _, err := rand.Read(big); err != nil {
			t.Fatal(err)
		}
		if err := c.PushBlob("vaultone", "secret/cargo", big); err != nil {
			t.Fatal(err)
		}
		digest := instance.Digest(big)
		public := c.download(t, "https://"+c.LoginServer("vaultone"), digest, "repository:secret/cargo:pull")
		private := c.download(t, c.private, digest, "repository:secret/cargo:pull")
		defer public.Body.Close()
		defer private.Body.Close()
		start := time.Now()
		c.lock(t)
		t.Logf("the flip took %v", time.Since(start))
		n, err := io.Copy(io.Discard, public.Body)
		if err == nil || n+64<<10 >= bigSize {
			t.Errorf("the public download went on after the flip: %d bytes, %v", n, err)
		}
		m, err := io.Copy(io.Discard, private.Body)
		if err != nil || m+64<<10 != bigSize {
			t.Errorf("the private download was cut: %d bytes, %v", m, err)
		}
		r := c.Recorded(t.Context(), "the cut download", func(r map[string]any) bool { return r["digest"] == digest && r["outcome"] == "aborted" })
		if sent, _ := r["bytes"].(float64); sent <= 0 || sent >= bigSize {
			t.Errorf("the record of the cut download tells %v bytes", r["bytes"])
		}
	})
}

// TestR6FlipStopsARunningImport: after a flip is answered no tag of an import that was running appears, and an import that failed has left none.
func TestR6FlipStopsARunningImport(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	each(t, func(t *testing.T, c *cage) {
		stopped := 0
		for i := range rounds {
			want(t, c.Patch("vaultone", j{"publicNetworkAccess": "Disabled", "policies": j{"exportPolicy": j{"status": "enabled"}}}), http.StatusOK)
			tag := fmt.Sprintf("round%d", i)
			begun := c.ARM(http.MethodPost, c.RegistryID("otherone")+"/importImage"+instance.Version,
				j{"source": j{"resourceId": c.RegistryID("vaultone"), "sourceImage": "secret/cargo:v1"}, "targetTags": []string{"copy:" + tag}})
			if begun.Status != http.StatusAccepted {
				t.Fatalf("import: %d %s", begun.Status, begun.Body)
			}
			want(t, c.Patch("vaultone", exports("disabled")), http.StatusOK)
			atFlip := c.has(t, tag)
			end := c.Wait(begun)
			after := c.has(t, tag)
			switch {
			case after && !atFlip:
				t.Errorf("round %d: the tag appeared after the flip was answered", i)
			case end.Status == http.StatusOK && !after:
				t.Errorf("round %d: the import succeeded without its tag", i)
			case end.Status != http.StatusOK && after:
				t.Errorf("round %d: the import failed with %d and left its tag", i, end.Status)
			}
			if !after {
				stopped++
				if !bytes.Contains(end.Body, []byte("exports disabled")) {
					t.Errorf("round %d: the stopped import does not say why: %s", i, end.Body)
				}
			}
		}
		t.Logf("%d of %d imports were stopped by the flip", stopped, rounds)
	})
}

// has reports whether the registry otherone has the tag of repository copy.
func (c *cage) has(t *testing.T, tag string) bool {
	t.Helper()
	a, err := c.OCI("otherone", "copy", http.MethodHead, "/v2/copy/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a.Status == http.StatusOK
}
