// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"

	"github.com/embargo-registry/embargo/fault"
)

// SQLite's result codes for a disk without space: SQLITE_FULL, and SQLITE_IOERR_SHMSIZE, the file that its log's index is in can't grow (https://www.sqlite.org/rescode.html).
const (
	sqliteFull    = 13
	sqliteShmSize = 4874
)

// diskFull is PostgreSQL's SQLSTATE disk_full.
const diskFull = "53100"

// named makes StorageFull of a database's error that its disk is full. Any other error stays what it is.
func named(err error) error {
	var lite *sqlite.Error
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &lite) && (lite.Code() == sqliteFull || lite.Code() == sqliteShmSize):
	case errors.As(err, &pg) && pg.Code == diskFull:
	default:
		return err
	}
	return fault.New(fault.StorageFull, "The disk of the registry's database is full: this was not recorded, nothing else is lost. Free space or enlarge that disk, then try again.").Because(err)
}
