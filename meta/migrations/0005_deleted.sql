-- SPDX-License-Identifier: Apache-2.0
-- A deletion looks for what names a manifest and for what refers to it, also among what was deleted before. What is restored is locked as it was.
-- manifests.pushed_us is when one was last pushed, 0 once it has lost a tag since.

-- +goose Up
DROP INDEX manifest_refs_child;
CREATE INDEX manifest_refs_child ON manifest_refs (repository, child, digest, kind);
CREATE INDEX deleted_manifests_subject ON deleted_manifests (repository, subject);
ALTER TABLE deleted_manifests ADD COLUMN locks BIGINT NOT NULL DEFAULT 0;
ALTER TABLE deleted_tags ADD COLUMN locks BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifests ADD COLUMN pushed_us BIGINT NOT NULL DEFAULT 0;
