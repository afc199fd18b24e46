-- SPDX-License-Identifier: Apache-2.0
-- Private endpoints: the connection of each to its registry, and the addresses of its network that it stands for. registries.endpoints is the projection that
-- decisions read: the ids of the approved ones.

-- +goose Up
ALTER TABLE registries ADD COLUMN endpoints TEXT NOT NULL DEFAULT '[]';
CREATE TABLE private_endpoints (
    id            TEXT PRIMARY KEY,
    resource_id   TEXT NOT NULL,
    resource_key  TEXT NOT NULL UNIQUE,
    registry      TEXT NOT NULL,
    connection    TEXT NOT NULL,
    status        TEXT NOT NULL,
    description   TEXT NOT NULL,
    actions       TEXT NOT NULL,
    network       TEXT NOT NULL,
    subnet        TEXT NOT NULL,
    created_us    BIGINT NOT NULL,
    UNIQUE (registry, connection)
);
CREATE TABLE private_addresses (
    network  TEXT NOT NULL,
    address  TEXT NOT NULL,
    subnet   TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    member   TEXT NOT NULL,
    PRIMARY KEY (network, address)
);
CREATE INDEX private_addresses_endpoint ON private_addresses (endpoint);
