// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// all walks an answer by a dotted path, through each entry of the lists on it, and gives what it comes to as text.
func all(v any, dotted string) (found []string) {
	if list, ok := v.([]any); ok {
		for _, one := range list {
			found = append(found, all(one, dotted)...)
		}
		return found
	}
	if dotted == "" {
		return []string{fmt.Sprint(v)}
	}
	part, rest, _ := strings.Cut(dotted, ".")
	if m, ok := v.(map[string]any); ok {
		return all(m[part], rest)
	}
	return nil
}

// A private endpoint has an address for the registry, for its home's data endpoint and for that of each further region: required members, interface, DNS configuration, records of the
// zone group and data host names say the same. An endpoint from before a region was declared asks to be made anew, and goes on.
func TestRegions(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		replica := func(name, location string) {
			t.Helper()
			b.Must(t, 201, "PUT", registry+"/replications/"+name+acr, `{"location":"`+location+`"}`)
		}
		const zone, one = nets + "/privateDnsZones/privatelink.azurecr.localhost", nets + "/privateEndpoints/one"
		b.Must(t, 201, "PUT", zone+"?api-version=2020-06-01", `{"location":"global"}`)
		check := func(when string, regions ...string) {
			t.Helper()
			members, hosts, labels := []string{"registry"}, []string{"registryone.azurecr.localhost"}, []string{"registryone"}
			for _, r := range regions {
				members, hosts, labels = append(members, "registry_data_"+r), append(hosts, "registryone."+r+".data.azurecr.localhost"), append(labels, "registryone."+r+".data")
			}
			e := b.Must(t, 200, "GET", one+version, "")
			_, nicID, _ := strings.Cut(all(e, "properties.networkInterfaces.id")[0], "/resourceGroups/")
			nic := b.Must(t, 200, "GET", "/subscriptions/{sub}/resourceGroups/"+nicID+version, "")
			records := b.Must(t, 200, "GET", one+"/privateDnsZoneGroups/default"+version, "")
			const ips, sets = "properties.ipConfigurations.properties.", "properties.privateDnsZoneConfigs.properties.recordSets."
			addresses := all(nic, ips+"privateIPAddress")
			var kept []string
			for _, label := range labels {
				kept = append(kept, all(b.Must(t, 200, "GET", zone+"/A/"+label+"?api-version=2020-06-01", ""), "properties.aRecords.ipv4Address")...)
			}
			for what, c := range map[string][2][]string{
				"required members":    {all(b.Must(t, 200, "GET", registry+"/privateLinkResources"+acr, ""), "value.properties.requiredMembers"), members},
				"interface":           {all(nic, ips+"privateLinkConnectionProperties.requiredMemberName"), members},
				"interface's names":   {all(nic, ips+"privateLinkConnectionProperties.fqdns"), hosts},
				"DNS configuration":   {all(e, "properties.customDnsConfigs.fqdn"), hosts},
				"its addresses":       {all(e, "properties.customDnsConfigs.ipAddresses"), addresses},
				"records":             {all(records, sets+"recordSetName"), labels},
				"their addresses":     {all(records, sets+"ipAddresses"), addresses},
				"records of the zone": {kept, addresses},
				"data host names":     {all(b.Must(t, 200, "GET", registry+acr, ""), "properties.dataEndpointHostNames"), hosts[1:]},
			} {
				slices.Sort(c[0])
				slices.Sort(c[1])
				if len(c[0]) == 0 || !slices.Equal(c[0], c[1]) {
					t.Errorf("%s: %s: %q, want %q", when, what, c[0], c[1])
				}
			}
		}
		asks := func(when, want string) {
			t.Helper()
			c := b.Must(t, 200, "GET", links+"/"+b.endpoint(t, "one").Connection+acr, "")
			if got := fmt.Sprint(all(c, "properties.privateLinkServiceConnectionState.actionsRequired")); got != want || len(b.row(t).Endpoints) != 1 {
				t.Errorf("%s: it asks %s, want %s; decisions read %q", when, got, want, b.row(t).Endpoints)
			}
		}
		make := func() {
			t.Helper()
			b.create(t, "one", auto)
			b.Must(t, 201, "PUT", one+"/privateDnsZoneGroups/default"+version, `{"properties":{"privateDnsZoneConfigs":[{"name":"z","properties":{"privateDnsZoneId":"`+zone+`"}}]}}`)
		}
		make()
		check("at home alone", "westus")
		asks("at home alone", "[<nil>]")
		row := b.row(t)
		replica("eastus", "East US")
		replica("europe", "northeurope")
		asks("with further regions", "[Recreate]")
		if now := b.row(t); now.Epoch != row.Epoch {
			t.Errorf("a region raised the epoch from %d to %d", row.Epoch, now.Epoch)
		}
		b.Must(t, 201, "PUT", links+"/"+b.endpoint(t, "one").Connection+acr, `{"properties":{"privateLinkServiceConnectionState":{"status":"Approved","description":"seen","actionsRequired":"None"}}}`)
		asks("approved again", "[Recreate]")
		b.Must(t, 200, "DELETE", registry+"/replications/eastus"+acr, "")
		asks("with one of them", "[Recreate]")
		b.Must(t, 200, "DELETE", registry+"/replications/europe"+acr, "")
		asks("with them gone", "[<nil>]")
		replica("eastus", "East US")
		replica("europe", "northeurope")
		b.Must(t, 200, "DELETE", one+version, "")
		make()
		check("made anew", "westus", "eastus", "northeurope")
		asks("made anew", "[<nil>]")

		static := func(member string) string {
			return strings.Replace(endpointBody(auto), `"properties":{`, `"properties":{"ipConfigurations":[{"name":"a","properties":{"groupId":"registry","memberName":"`+member+`","privateIPAddress":"10.0.0.77"}}],`, 1)
		}
		if a := b.Must(t, 400, "PUT", nets+"/privateEndpoints/two"+version, static("registry_data_japaneast")); !strings.Contains(fmt.Sprint(a), "'registry_data_northeurope'") {
			t.Error(a)
		}
		b.Must(t, 201, "PUT", nets+"/privateEndpoints/two"+version, static("registry_data_northeurope"))
	})
}
