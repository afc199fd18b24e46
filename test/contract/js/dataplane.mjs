// SPDX-License-Identifier: Apache-2.0

// Drives a registry with the Azure SDK for JavaScript: content, lists by pages, properties, locks, deletes. It ends with 1 at the first thing that
// is not as said. The registry is ENDPOINT, reached through the CONNECT proxy PROXY; TOKEN is a token of the authority; NODE_EXTRA_CA_CERTS
// holds the installation's authority.
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { ContainerRegistryClient, ContainerRegistryContentClient } from "@azure/container-registry";

const { ENDPOINT, PROXY, TOKEN } = process.env;
const proxy = new URL(PROXY);
const options = {
  audience: "https://containerregistry.azure.net",
  proxyOptions: { host: `${proxy.protocol}//${proxy.hostname}`, port: Number(proxy.port) },
  retryOptions: { maxRetries: 0 },
};
const credential = { getToken: async () => ({ token: TOKEN, expiresOnTimestamp: Date.now() + 3_000_000 }) };
const client = new ContainerRegistryClient(ENDPOINT, credential, options);
const content = new ContainerRegistryContentClient(ENDPOINT, "app/one", credential, options);
const status = (code) => (err) => err.statusCode === code;
const all = async (list) => {
  const items = [];
  for await (const item of list) items.push(item);
  return items;
};

// Content. A blob of more than 4 MiB goes in several chunks.
const bytes = Buffer.alloc(9 << 20, "cargo");
const layer = await content.uploadBlob(Readable.from([bytes.subarray(0, 5 << 20), bytes.subarray(5 << 20)]));
assert.equal(layer.sizeInBytes, bytes.length);
const digests = [];
for (const tag of ["v1", "v2", "v3"]) {
  const config = Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [] }, author: tag }));
  const uploaded = await content.uploadBlob(config);
  const set = await content.setManifest(
    {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: uploaded.digest, size: uploaded.sizeInBytes },
      layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar", digest: layer.digest, size: layer.sizeInBytes }],
    },
    { tag },
  );
  digests.push(set.digest);
}
const got = await content.getManifest("v1");
assert.equal(got.digest, digests[0]);
assert.equal(got.manifest.layers[0].digest, layer.digest);
const parts = await all((await content.downloadBlob(layer.digest)).content);
assert.ok(Buffer.concat(parts).equals(bytes), "the blob is another");

// Lists, a page at a time.
await new ContainerRegistryContentClient(ENDPOINT, "app/two", credential, options).uploadBlob(Buffer.from("alone"));
const pages = await all(client.listRepositoryNames().byPage({ maxPageSize: 1 }));
assert.ok(pages.flat().includes("app/one") && pages.every((page) => page.length <= 1));
const repository = client.getRepository("app/one");
const artifact = repository.getArtifact(digests[0]);
const manifests = await all(repository.listManifestProperties({ order: "LastUpdatedOnDescending" }).byPage({ maxPageSize: 2 }));
assert.deepEqual(manifests.map((page) => page.map((m) => m.digest)), [[digests[2], digests[1]], [digests[0]]]);
assert.deepEqual(manifests[1][0].tags, ["v1"]);
const tags = await all(artifact.listTagProperties({ order: "LastUpdatedOnDescending" }).byPage({ maxPageSize: 2 }));
assert.deepEqual(tags.map((page) => page.map((tag) => tag.name)), [["v3", "v2"], ["v1"]]);

// Properties and locks.
const shown = await repository.getProperties();
assert.equal(shown.tagCount, 3);
assert.equal(shown.manifestCount, 3);
assert.equal((await repository.updateProperties({ canDelete: false })).canDelete, false);
await assert.rejects(repository.delete(), status(405));
assert.equal((await repository.updateProperties({ canDelete: true })).canDelete, true);
assert.equal((await artifact.updateTagProperties("v1", { canDelete: false, canWrite: false })).canWrite, false);
await assert.rejects(artifact.deleteTag("v1"), status(405));
assert.equal((await artifact.updateTagProperties("v1", { canDelete: true, canWrite: true })).canDelete, true);
assert.equal((await artifact.getTagProperties("v1")).digest, digests[0]);
assert.equal((await artifact.updateManifestProperties({ canDelete: false })).canDelete, false);
await assert.rejects(artifact.delete(), status(405));
await artifact.updateManifestProperties({ canDelete: true });
assert.equal((await artifact.getManifestProperties()).architecture, "amd64");

// Deletes.
await artifact.deleteTag("v1");
await assert.rejects(artifact.getTagProperties("v1"), status(404));
await artifact.delete();
await assert.rejects(content.getManifest(digests[0]), status(404));
await content.deleteManifest(digests[1]);
await repository.delete();
await assert.rejects(repository.getProperties(), status(404));
console.log("done");
