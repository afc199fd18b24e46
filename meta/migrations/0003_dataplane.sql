-- SPDX-License-Identifier: Apache-2.0
-- What the registry's own interface shows and changes: locks, the platform of images, when a manifest lost its last tag; tokens and scope maps; webhooks and their events; cache rules, their credentials, and the tags that came by them; whom signatures are trusted from. A lock is a bit: 1 delete, 2 write, 4 list,
-- 8 read is forbidden.

-- +goose Up

-- == meta ==
ALTER TABLE registries ADD COLUMN quarantine BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE registries ADD COLUMN trust BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE registries ADD COLUMN retention BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE registries ADD COLUMN retention_days BIGINT NOT NULL DEFAULT 7;
ALTER TABLE registries ADD COLUMN retention_since_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE registries ADD COLUMN soft_delete BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE registries ADD COLUMN soft_delete_days BIGINT NOT NULL DEFAULT 7;

-- == registry ==
ALTER TABLE repositories ADD COLUMN locks BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tags ADD COLUMN locks BIGINT NOT NULL DEFAULT 0;
CREATE INDEX tags_updated ON tags (repository, updated_us, name);
ALTER TABLE manifests ADD COLUMN locks BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifests ADD COLUMN config_media_type TEXT NOT NULL DEFAULT '';
ALTER TABLE manifests ADD COLUMN architecture TEXT NOT NULL DEFAULT '';
ALTER TABLE manifests ADD COLUMN os TEXT NOT NULL DEFAULT '';
ALTER TABLE manifests ADD COLUMN image_size BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifests ADD COLUMN quarantine TEXT NOT NULL DEFAULT '';
ALTER TABLE manifests ADD COLUMN quarantine_details TEXT NOT NULL DEFAULT '';
ALTER TABLE manifests ADD COLUMN updated_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifests ADD COLUMN untagged_us BIGINT NOT NULL DEFAULT 0;
UPDATE manifests SET updated_us = created_us;
CREATE INDEX manifests_untagged ON manifests (untagged_us);
CREATE TABLE deleted_manifests (
    repository        TEXT NOT NULL,
    digest            TEXT NOT NULL,
    media_type        TEXT NOT NULL,
    artifact_type     TEXT NOT NULL,
    subject           TEXT NOT NULL,
    annotations       TEXT NOT NULL,
    config_digest     TEXT NOT NULL,
    size              BIGINT NOT NULL,
    created_us        BIGINT NOT NULL,
    config_media_type TEXT NOT NULL,
    architecture      TEXT NOT NULL,
    os                TEXT NOT NULL,
    image_size        BIGINT NOT NULL,
    quarantine        TEXT NOT NULL,
    quarantine_details TEXT NOT NULL,
    deleted_us        BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX deleted_manifests_digest ON deleted_manifests (digest);
CREATE INDEX deleted_manifests_time ON deleted_manifests (deleted_us);
CREATE TABLE deleted_tags (
    repository TEXT NOT NULL,
    name       TEXT NOT NULL,
    digest     TEXT NOT NULL,
    deleted_us BIGINT NOT NULL,
    PRIMARY KEY (repository, name, digest)
);
CREATE INDEX deleted_tags_time ON deleted_tags (deleted_us);
CREATE INDEX manifests_digest ON manifests (digest);
ALTER TABLE blob_links ADD COLUMN touched_us BIGINT NOT NULL DEFAULT 0;
UPDATE blob_links SET touched_us = created_us;
CREATE INDEX manifests_updated ON manifests (repository, updated_us, digest);

-- == blob ==
ALTER TABLE blobs ADD COLUMN freed_us BIGINT NOT NULL DEFAULT 0;
CREATE INDEX blobs_freed ON blobs (freed_us);
ALTER TABLE uploads ADD COLUMN storage_state BYTEA NOT NULL DEFAULT '';

-- == identity ==
CREATE TABLE scope_maps (
    registry    TEXT NOT NULL,
    name_key    TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    actions     TEXT NOT NULL,
    created_us  BIGINT NOT NULL,
    PRIMARY KEY (registry, name_key)
);
CREATE TABLE registry_tokens (
    id         TEXT PRIMARY KEY,
    registry   TEXT NOT NULL,
    name_key   TEXT NOT NULL,
    name       TEXT NOT NULL,
    scope_map  TEXT NOT NULL,
    enabled    BOOLEAN NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE UNIQUE INDEX registry_tokens_name ON registry_tokens (registry, name_key);
CREATE INDEX registry_tokens_map ON registry_tokens (registry, scope_map);
CREATE TABLE token_passwords (
    token      TEXT NOT NULL,
    name       TEXT NOT NULL,
    hash       TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    PRIMARY KEY (token, name)
);


-- == webhook ==
CREATE TABLE webhooks (
    id           TEXT PRIMARY KEY,
    registry     TEXT NOT NULL,
    resource_id  TEXT NOT NULL,
    resource_key TEXT NOT NULL UNIQUE,
    enabled      BOOLEAN NOT NULL,
    scope        TEXT NOT NULL,
    actions      TEXT NOT NULL,
    failures     BIGINT NOT NULL,
    resume_us    BIGINT NOT NULL,
    next_job     TEXT NOT NULL,
    created_us   BIGINT NOT NULL
);
CREATE INDEX webhooks_registry ON webhooks (registry);
CREATE TABLE webhook_events (
    id          TEXT PRIMARY KEY,
    webhook     TEXT NOT NULL,
    content     TEXT NOT NULL,
    repository  TEXT NOT NULL,
    digest      TEXT NOT NULL,
    correlation TEXT NOT NULL,
    state       TEXT NOT NULL,
    attempt     BIGINT NOT NULL,
    due_us      BIGINT NOT NULL,
    created_us  BIGINT NOT NULL,
    request     TEXT NOT NULL,
    response    TEXT NOT NULL
);
CREATE INDEX webhook_events_due ON webhook_events (webhook, state, due_us);
CREATE INDEX webhook_events_recent ON webhook_events (webhook, created_us);

-- == trust ==
CREATE TABLE trust_stores (
    resource_key TEXT PRIMARY KEY,
    resource_id  TEXT NOT NULL,
    registry     TEXT NOT NULL,
    certificates TEXT NOT NULL,
    identities   TEXT NOT NULL,
    generation   TEXT NOT NULL
);
CREATE INDEX trust_stores_registry ON trust_stores (registry);

-- == upstream ==
CREATE TABLE cache_rules (
    id             TEXT PRIMARY KEY,
    registry       TEXT NOT NULL,
    resource_id    TEXT NOT NULL,
    resource_key   TEXT NOT NULL UNIQUE,
    source         TEXT NOT NULL,
    target         TEXT NOT NULL,
    credential_set TEXT NOT NULL
);
CREATE INDEX cache_rules_registry ON cache_rules (registry);
CREATE TABLE credential_sets (
    id           TEXT PRIMARY KEY,
    resource_key TEXT NOT NULL UNIQUE,
    host         TEXT NOT NULL
);
CREATE TABLE cached_tags (
    repository TEXT NOT NULL,
    name       TEXT NOT NULL,
    digest     TEXT NOT NULL,
    due_us     BIGINT NOT NULL,
    PRIMARY KEY (repository, name)
);
