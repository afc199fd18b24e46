-- SPDX-License-Identifier: Apache-2.0
-- Webhooks, and the events that are to be sent or were. Destination, headers and signing key of a webhook are a sealed secret, webhook/ID.

-- +goose Up

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
