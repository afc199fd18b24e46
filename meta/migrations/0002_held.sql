-- SPDX-License-Identifier: Apache-2.0
-- A restored copy that may be older than what was in force is held: its registries let nothing out until an owner confirms it.

-- +goose Up
ALTER TABLE registries ADD COLUMN held BOOLEAN NOT NULL DEFAULT FALSE;
