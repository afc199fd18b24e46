-- SPDX-License-Identifier: Apache-2.0
-- The first schema. One text for SQLite and PostgreSQL: BIGINT microseconds, TEXT ids and JSON, BOOLEAN. BYTEA has no affinity on SQLite,
-- so bytes stay bytes. Each table is named in SQL by its owning package alone.

-- +goose Up

-- == meta ==
CREATE TABLE nodes (
    id          TEXT PRIMARY KEY,
    lease_until BIGINT NOT NULL,
    epoch_seen  BIGINT NOT NULL
);
CREATE TABLE installation (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE secrets (
    name   TEXT PRIMARY KEY,
    key_id TEXT NOT NULL,
    sealed BYTEA NOT NULL
);
CREATE TABLE registries (
    id                   TEXT PRIMARY KEY,
    resource_id          TEXT NOT NULL,
    resource_key         TEXT NOT NULL UNIQUE,
    name                 TEXT NOT NULL UNIQUE,
    login_server         TEXT NOT NULL UNIQUE,
    location             TEXT NOT NULL,
    sku                  TEXT NOT NULL,
    epoch                BIGINT NOT NULL,
    exports              BOOLEAN NOT NULL,
    public_access        BOOLEAN NOT NULL,
    default_deny         BOOLEAN NOT NULL,
    ip_rules             TEXT NOT NULL,
    bypass               BOOLEAN NOT NULL,
    admin_enabled        BOOLEAN NOT NULL,
    anonymous_pull       BOOLEAN NOT NULL,
    abac_mode            BOOLEAN NOT NULL,
    arm_tokens           BOOLEAN NOT NULL,
    data_endpoint        BOOLEAN NOT NULL,
    tokens_valid_from_us BIGINT NOT NULL
);

-- == identity ==
CREATE TABLE subscriptions (
    id     TEXT PRIMARY KEY,
    name   TEXT NOT NULL,
    tenant TEXT NOT NULL,
    state  TEXT NOT NULL
);
CREATE TABLE principals (
    id         TEXT PRIMARY KEY,
    app_id     TEXT NOT NULL,
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    name_key   TEXT NOT NULL,
    enabled    BOOLEAN NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE UNIQUE INDEX principals_app ON principals (app_id);
CREATE UNIQUE INDEX principals_name ON principals (name_key);
CREATE TABLE principal_secrets (
    id         TEXT PRIMARY KEY,
    principal  TEXT NOT NULL,
    hash       TEXT NOT NULL,
    hint       TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL
);
CREATE INDEX principal_secrets_of ON principal_secrets (principal);
CREATE INDEX principal_secrets_hash ON principal_secrets (hash);
CREATE TABLE role_definitions (
    id         TEXT PRIMARY KEY,
    scope_key  TEXT NOT NULL,
    doc        TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE TABLE role_assignments (
    id         TEXT PRIMARY KEY,
    scope      TEXT NOT NULL,
    scope_key  TEXT NOT NULL,
    principal  TEXT NOT NULL,
    role_id    TEXT NOT NULL,
    doc        TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE INDEX role_assignments_of ON role_assignments (principal);
CREATE UNIQUE INDEX role_assignments_once ON role_assignments (principal, scope_key, role_id);
CREATE TABLE signing_keys (
    kid        TEXT PRIMARY KEY,
    sealed     BYTEA NOT NULL,
    state      TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE TABLE admin_passwords (
    registry   TEXT NOT NULL,
    name       TEXT NOT NULL,
    sealed     BYTEA NOT NULL,
    created_us BIGINT NOT NULL,
    PRIMARY KEY (registry, name)
);

-- == job ==
CREATE TABLE jobs (
    id           TEXT PRIMARY KEY,
    kind         TEXT NOT NULL,
    subject      TEXT NOT NULL,
    registry     TEXT NOT NULL,
    args         TEXT NOT NULL,
    caller       TEXT NOT NULL,
    correlation  TEXT NOT NULL,
    status       TEXT NOT NULL,
    percent      BIGINT NOT NULL,
    result       TEXT NOT NULL,
    fault_code   TEXT NOT NULL,
    fault_text   TEXT NOT NULL,
    attempt      BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    run_at_us    BIGINT NOT NULL,
    lease_until  BIGINT NOT NULL,
    owner        TEXT NOT NULL,
    cancel       BOOLEAN NOT NULL,
    created_us   BIGINT NOT NULL,
    started_us   BIGINT NOT NULL,
    ended_us     BIGINT NOT NULL
);
CREATE INDEX jobs_due ON jobs (status, run_at_us);
CREATE INDEX jobs_subject ON jobs (subject);

-- == audit ==
CREATE TABLE audit (
    node     TEXT NOT NULL,
    node_seq BIGINT NOT NULL,
    time_us  BIGINT NOT NULL,
    leaf     BYTEA NOT NULL,
    PRIMARY KEY (node, node_seq)
);
CREATE INDEX audit_time ON audit (time_us);

-- == arm ==
CREATE TABLE resources (
    key             TEXT PRIMARY KEY,
    id              TEXT NOT NULL,
    type            TEXT NOT NULL,
    name            TEXT NOT NULL,
    root_key        TEXT NOT NULL,
    parent_key      TEXT NOT NULL,
    subscription    TEXT NOT NULL,
    resource_group  TEXT NOT NULL,
    location        TEXT NOT NULL,
    state           TEXT NOT NULL,
    doc             TEXT NOT NULL,
    created_us      BIGINT NOT NULL,
    created_by      TEXT NOT NULL,
    created_by_type TEXT NOT NULL,
    changed_us      BIGINT NOT NULL,
    changed_by      TEXT NOT NULL,
    changed_by_type TEXT NOT NULL
);
CREATE INDEX resources_parent ON resources (parent_key, type, key);
CREATE INDEX resources_subscription ON resources (subscription, type, key);
CREATE INDEX resources_group ON resources (subscription, resource_group, key);
CREATE INDEX resources_root ON resources (root_key);
CREATE TABLE resource_names (
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    key  TEXT NOT NULL,
    PRIMARY KEY (type, name)
);
CREATE INDEX resource_names_key ON resource_names (key);
CREATE TABLE scope_tags (
    scope TEXT PRIMARY KEY,
    tags  TEXT NOT NULL
);

-- == blob ==
CREATE TABLE blobs (
    domain     TEXT NOT NULL,
    digest     TEXT NOT NULL,
    object_key TEXT NOT NULL UNIQUE,
    size       BIGINT NOT NULL,
    state      TEXT NOT NULL,
    PRIMARY KEY (domain, digest)
);
CREATE TABLE uploads (
    id         TEXT PRIMARY KEY,
    owner      TEXT NOT NULL,
    object_key TEXT NOT NULL,
    size       BIGINT NOT NULL,
    hash_state BYTEA NOT NULL,
    created_us BIGINT NOT NULL,
    touched_us BIGINT NOT NULL
);
CREATE INDEX uploads_touched ON uploads (touched_us);

-- == registry ==
CREATE TABLE repositories (
    id         TEXT PRIMARY KEY,
    registry   TEXT NOT NULL,
    name       TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    UNIQUE (registry, name)
);
CREATE TABLE manifests (
    repository    TEXT NOT NULL,
    digest        TEXT NOT NULL,
    media_type    TEXT NOT NULL,
    artifact_type TEXT NOT NULL,
    subject       TEXT NOT NULL,
    annotations   TEXT NOT NULL,
    config_digest TEXT NOT NULL,
    size          BIGINT NOT NULL,
    created_us    BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX manifests_subject ON manifests (repository, subject, digest);
CREATE TABLE manifest_refs (
    repository TEXT NOT NULL,
    digest     TEXT NOT NULL,
    child      TEXT NOT NULL,
    kind       TEXT NOT NULL,
    PRIMARY KEY (repository, digest, child, kind)
);
CREATE INDEX manifest_refs_child ON manifest_refs (repository, child);
CREATE TABLE blob_links (
    repository TEXT NOT NULL,
    digest     TEXT NOT NULL,
    size       BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX blob_links_digest ON blob_links (digest);
CREATE TABLE tags (
    repository TEXT NOT NULL,
    name       TEXT NOT NULL,
    digest     TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (repository, name)
);
CREATE INDEX tags_digest ON tags (repository, digest);

