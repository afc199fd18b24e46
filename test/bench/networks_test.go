// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/embargo-registry/embargo/test/instance"
)

const (
	endpoints = 20  // private endpoints of the registry
	ipRules   = 200 // the most that a registry may have; the client's is the last
	clients   = 16
	perRound  = 4 // requests of each client in a round
)

// way is one way of pulling the same manifest.
type way struct {
	pid    int // of the server
	client *http.Client
	url    string
	token  string
}

// BenchmarkNetworks is what the decision of the network costs: a manifest's GET by 16 clients of a server with one open listener, and of one that has 20 private endpoints with doors of their
// own, a door for load balancers, and 200 IP rules. Short rounds go to the one and the other in turn; what is told is the median over the pairs of rounds: how much longer a request
// took, in per cent and in microseconds of elapsed time per request. One operation is one request of each side.
func BenchmarkNetworks(b *testing.B) {
	balancer := instance.FreePort(b)
	_, port, err := net.SplitHostPort(instance.FreePort(b))
	if err != nil {
		b.Fatal(err)
	}
	open, door := start(b, "sqlite")
	twin, twins := start(b, "sqlite")
	full := instance.New(b, "sqlite", "logLevel: info\n")
	full.CreateRegistry(registryName, nil)
	surround(b, full, port, balancer)

	plain := func(s *instance.Server, url string, header *proxyproto.Header) way {
		address := strings.TrimPrefix(url, "http://")
		return newWay(b, s, url, func(ctx context.Context) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err == nil && header != nil {
				_, err = header.WriteTo(c)
			}
			return c, err
		})
	}
	public := func(s *instance.Server) way {
		return newWay(b, s, "https://"+s.LoginServer(registryName), func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.Listening(b).Public)
		})
	}
	header := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1234}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 443})
	if err := header.SetTLVs([]proxyproto.TLV{{Type: 0xEA, Value: []byte("\x01vpce-00000000000000007")}}); err != nil {
		b.Fatal(err)
	}
	base := plain(open, door, nil)
	for _, c := range []struct {
		name      string
		one, many way
	}{
		{"address", base, plain(full, "http://127.24.0.4:"+port, nil)},
		{"balancer", base, plain(full, "http://"+balancer, header)},
		{"rules", public(open), public(full)},
		{"nothing", base, plain(twin, twins, nil)}, // another server like the first: what is measured where there is nothing to measure
	} {
		b.Run(c.name, func(b *testing.B) { paired(b, c.one, c.many) })
	}
}

// surround gives the server's registry its private endpoints and IP rules, and their network its doors.
func surround(b *testing.B, s *instance.Server, port, balancer string) {
	b.Helper()
	put := func(path string, body any) {
		a, err := s.ARMAs(s.Token(), http.MethodPut, path+"?api-version=2022-01-01", body)
		if err != nil || a.Status/100 != 2 {
			b.Fatalf("PUT %s: %v %d %s", path, err, a.Status, a.Body)
		}
	}
	in := s.GroupPath() + "/providers/Microsoft.Network/"
	var config strings.Builder
	config.WriteString("logLevel: info\nvirtualNetworks:\n")
	for i, vnet := range []string{"yard", "cloud"} {
		prefix := fmt.Sprintf("127.%d.0.0/16", 24+i)
		put(in+"virtualNetworks/"+vnet, instance.J{"location": "centralus", "properties": instance.J{"addressSpace": instance.J{"addressPrefixes": []string{prefix}},
			"subnets": []any{instance.J{"name": "default", "properties": instance.J{"addressPrefix": prefix}}}}})
	}
	fmt.Fprintf(&config, "- {id: %[1]svirtualNetworks/yard, door: address, port: %[2]s, tls: false, clients: [127.0.0.0/8]}\n"+
		"- {id: %[1]svirtualNetworks/cloud, door: proxy, listen: %[3]q, tls: false, from: [127.0.0.1], links: {", in, port, balancer)
	for n := range endpoints {
		vnet := []string{"yard", "cloud"}[n%2]
		put(fmt.Sprintf("%sprivateEndpoints/pe%d", in, n), instance.J{"location": "centralus", "properties": instance.J{"subnet": instance.J{"id": in + "virtualNetworks/" + vnet + "/subnets/default"},
			"privateLinkServiceConnections": []any{instance.J{"name": "c", "properties": instance.J{"privateLinkServiceId": s.RegistryID(registryName), "groupIds": []string{"registry"}}}}}})
		fmt.Fprintf(&config, "vpce-%017d: %sprivateEndpoints/pe%d, ", n, in, n)
	}
	config.WriteString("}}\n")
	if wrong := s.Configure(config.String()); wrong != "" {
		b.Fatal(wrong)
	}
	var rules []any
	for n := range ipRules - 1 {
		rules = append(rules, instance.J{"action": "Allow", "value": fmt.Sprintf("198.51.%d.%d", 100+n/100, n%100)})
	}
	rules = append(rules, instance.J{"action": "Allow", "value": "127.0.0.1"})
	if a := s.Patch(registryName, instance.J{"networkRuleSet": instance.J{"defaultAction": "Deny", "ipRules": rules}}); a.Status != http.StatusOK {
		b.Fatalf("%d %s", a.Status, a.Body)
	}
}

// newWay pulls an image's manifest from base; dial, if there is one, makes the connections.
func newWay(b *testing.B, s *instance.Server, base string, dial func(ctx context.Context) (net.Conn, error)) way {
	b.Helper()
	t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: clients}
	if dial != nil {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	}
	c := &http.Client{Timeout: time.Minute, Transport: t}
	b.Cleanup(c.CloseIdleConnections)
	if _, err := s.PushImage(registryName, "app", "v1", []byte("cargo")); err != nil {
		b.Fatal(err)
	}
	token, a, err := s.RegistryToken("https://"+s.LoginServer(registryName), s.LoginServer(registryName), s.ClientID, s.ClientSecret, "repository:app:pull")
	if token == "" {
		must(b, a, err, http.StatusOK)
	}
	return way{s.PID(), c, base + "/v2/app/manifests/v1", "Bearer " + token}
}

// get pulls the manifest once.
func (w way) get() error {
	r, err := http.NewRequest(http.MethodGet, w.url, nil)
	if err != nil {
		return err
	}
	r.Header = http.Header{"Authorization": {w.token}, "Accept": {instance.ManifestType}}
	resp, err := w.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK || n == 0 {
		return fmt.Errorf("%s, %d bytes, %v", resp.Status, n, err)
	}
	return nil
}

// round is how long it takes that each client has pulled so many times.
func (w way) round(b *testing.B) time.Duration {
	b.Helper()
	begin := time.Now()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range perRound {
				if err := w.get(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(begin)
}

// paired measures pairs of rounds, each side first in turn, until b.N requests were made of either.
func paired(b *testing.B, one, many way) {
	one.round(b) // connections are opened, and what is decided once per connection is on record
	many.round(b)
	var more, cost []float64
	const requests = clients * perRound
	spent, before := [2]time.Duration{}, [2]time.Duration{used(b, one), used(b, many)}
	b.ResetTimer()
	for n := 0; n < b.N || len(more) < 2; n += requests {
		var t [2]time.Duration
		for i := range t {
			side := (i + len(more)) % 2
			t[side] = []way{one, many}[side].round(b)
		}
		more = append(more, 100*(float64(t[1])/float64(t[0])-1))
		cost = append(cost, float64(t[1]-t[0])/requests/float64(time.Microsecond))
	}
	b.StopTimer()
	spent = [2]time.Duration{used(b, one) - before[0], used(b, many) - before[1]}
	done := float64(len(more) * requests)
	b.ReportMetric(median(more), "%more/op")
	b.ReportMetric(median(cost), "µs-more/op")
	b.ReportMetric(float64(spent[0].Microseconds())/done, "cpu-µs-one/op")
	b.ReportMetric(float64(spent[1].Microseconds())/done, "cpu-µs-many/op")
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// used is the processor time of a server so far.
func used(b *testing.B, w way) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // the unit of /proc on Linux, USER_HZ
}
