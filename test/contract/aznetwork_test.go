// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// The Azure CLI's commands for networks and private endpoints, against the built binary.
func TestAzureCLINetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("the Azure CLI takes a second for each command")
	}
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	const zone = "privatelink.azurecr.localhost"
	az(t, s, []step{
		{"network vnet create -g GROUP -n net --address-prefixes 10.0.0.0/16 --subnet-name default --subnet-prefixes 10.0.0.0/24 --query newVNet.subnets[0].addressPrefix -o tsv", "10.0.0.0/24"},
		{"network vnet subnet update -g GROUP --vnet-name net -n default --disable-private-endpoint-network-policies true --query privateEndpointNetworkPolicies -o tsv", "Disabled"},
		{"network vnet subnet create -g GROUP --vnet-name net -n bad --address-prefixes 10.0.0.128/25", "!NetcfgSubnetRangesOverlap"},
		{"network vnet subnet create -g GROUP --vnet-name net -n bad --address-prefixes 10.0.1.1/24", "!InvalidCIDRNotation"},
		{"network vnet subnet create -g GROUP --vnet-name net -n second --address-prefixes 10.0.1.0/24 --query provisioningState -o tsv", "Succeeded"},
		{"network vnet subnet delete -g GROUP --vnet-name net -n second", ""},
		{"network vnet show -g GROUP -n net --query 'length(subnets)'", "1"},
		{"$ID=acr show -n REG --query id -o tsv", ""},
		{"network private-link-resource list --id $ID --query [0].properties.requiredMembers -o tsv", "registry_data_centralus"},
		{"network private-endpoint create -g GROUP -n pe --vnet-name net --subnet default --private-connection-resource-id $ID --group-id registry --connection-name link --query privateLinkServiceConnections[0].privateLinkServiceConnectionState.status -o tsv", "Approved"},
		{"$NIC=network private-endpoint show -g GROUP -n pe --query networkInterfaces[0].id -o tsv", "networkInterfaces/pe.nic."},
		{`resource show --ids $NIC --api-version 2022-01-01 --query "properties.ipConfigurations[?properties.privateLinkConnectionProperties.requiredMemberName=='registry'].properties.privateIPAddress" -o tsv`, "10.0.0.4"},
		{`resource show --ids $NIC --api-version 2022-01-01 --query "properties.ipConfigurations[?properties.privateLinkConnectionProperties.requiredMemberName=='registry_data_centralus'].properties.privateLinkConnectionProperties.fqdns[0]" -o tsv`, instance.Open + ".centralus.data.azurecr.localhost"},
		{"acr show -n REG --query dataEndpointEnabled", "true"},
		{"acr show-endpoints -n REG --query dataEndpoints[0].region -o tsv", "centralus"},
		{"network vnet subnet delete -g GROUP --vnet-name net -n default", "!InUseSubnetCannotBeDeleted"},
		{"acr show-usage -n REG --query value[].name -o tsv", "PrivateEndpointConnections"},
		{"acr update -n REG --sku Standard", "!private endpoint connections"},

		{"network private-endpoint create -g GROUP -n asks --vnet-name net --subnet default --private-connection-resource-id $ID --group-id registry --connection-name link --manual-request true --request-message please --query manualPrivateLinkServiceConnections[0].privateLinkServiceConnectionState.status -o tsv", "Pending"},
		{`$PEC=acr private-endpoint-connection list -r REG --query "[?privateLinkServiceConnectionState.status=='Pending'].name|[0]" -o tsv`, instance.Open + "."},
		{"acr private-endpoint-connection show -r REG -n $PEC --query privateLinkServiceConnectionState.description -o tsv", "please"},
		{"acr private-endpoint-connection approve -r REG -n $PEC --description 'of course' --query privateLinkServiceConnectionState.status -o tsv", "Approved"},
		{"network private-endpoint show -g GROUP -n asks --query manualPrivateLinkServiceConnections[0].privateLinkServiceConnectionState.description -o tsv", "of course"},
		{"acr private-endpoint-connection reject -r REG -n $PEC --description no --query privateLinkServiceConnectionState.status -o tsv", "Rejected"},
		{"acr private-endpoint-connection approve -r REG -n $PEC", "!Approving rejected private endpoint connections is not supported"},
		{"acr private-endpoint-connection delete -r REG -n $PEC", ""},
		{"network private-endpoint show -g GROUP -n asks --query manualPrivateLinkServiceConnections[0].privateLinkServiceConnectionState.status -o tsv", "Disconnected"},
		{"network private-endpoint delete -g GROUP -n asks", ""},

		{"network private-endpoint create -g GROUP -n asks2 --vnet-name net --subnet default --private-connection-resource-id $ID --group-id registry --connection-name link --manual-request true --query customDnsConfigs[0].ipAddresses[0] -o tsv", "10.0.0.6"},
		{`$LINK=network private-endpoint-connection list --id $ID --query "[?properties.privateLinkServiceConnectionState.status=='Pending'].id|[0]" -o tsv`, "privateEndpointConnections"},
		{"network private-endpoint-connection approve --id $LINK --description yes --query properties.privateLinkServiceConnectionState.status -o tsv", "Approved"},
		{"network private-endpoint-connection reject --id $LINK --description no --query properties.privateLinkServiceConnectionState.status -o tsv", "Rejected"},
		{"network private-endpoint-connection delete --id $LINK --yes", ""},

		{"network private-dns zone create -g GROUP -n " + zone + " --query provisioningState -o tsv", "Succeeded"},
		{"network private-dns link vnet create -g GROUP -z " + zone + " -n net -v net -e false --query virtualNetworkLinkState -o tsv", "Completed"},
		{"network private-dns record-set a create -g GROUP -z " + zone + " -n mine --query fqdn -o tsv", "mine." + zone + "."},
		{"network private-dns record-set a add-record -g GROUP -z " + zone + " -n mine -a 10.9.0.1 --query aRecords[0].ipv4Address -o tsv", "10.9.0.1"},
		{"network private-dns record-set a create -g GROUP -z " + zone + " -n mine", "!PreconditionFailed"},
		{"network private-dns record-set list -g GROUP -z " + zone + " --query [].name -o tsv", "@\nmine"},
		{"network private-endpoint dns-zone-group create -g GROUP --endpoint-name pe -n default --private-dns-zone " + zone + " --zone-name zone --query provisioningState -o tsv", "Succeeded"},
		{"network private-dns record-set a list -g GROUP -z " + zone + " --query [].name -o tsv", instance.Open + ".centralus.data"},
		{"network private-dns record-set a show -g GROUP -z " + zone + " -n REG --query aRecords[0].ipv4Address -o tsv", "10.0.0.4"},

		{"acr network-rule add -n REG --ip-address 203.0.113.7/32 --query networkRuleSet.ipRules[0].ipAddressOrRange -o tsv", "203.0.113.7"},
		{"acr network-rule add -n REG --ip-address 198.51.100.1/24", "!CIDR"},
		{"acr network-rule add -n REG --ip-address 198.51.100.0/24 --query 'length(networkRuleSet.ipRules)'", "2"},
		{"acr network-rule list -n REG --query ipRules[1].ipAddressOrRange -o tsv", "198.51.100.0/24"},
		{"acr network-rule remove -n REG --ip-address 203.0.113.7 --query 'length(networkRuleSet.ipRules)'", "1"},

		{"network private-endpoint delete -g GROUP -n pe", ""},
		{"network private-dns record-set a list -g GROUP -z " + zone + " --query [].name -o tsv", "mine"},
		{"group delete -n GROUP --yes", ""},
	})
}
