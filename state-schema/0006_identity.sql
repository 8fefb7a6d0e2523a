-- The identity of the source's table, and the digests of what a dead run may have published: a file is removed only
-- if it is provably of the invoice that left it.

-- The source's tables that were read, each as the facts by which it is recognised.
CREATE TABLE source_table (
  n          INTEGER PRIMARY KEY,
  first_run  INTEGER NOT NULL,   -- the run that met it first
  identity   TEXT NOT NULL,      -- as the source tells it: another one after TRUNCATE, ALTER, reload or restart
  next_id    INTEGER             -- ids from here on were not given out yet when it was met last; NULL: not known
) STRICT;

-- The table that a run read; NULL: the source does not show which one it is, or the run is older than this column.
ALTER TABLE run ADD COLUMN source_table INTEGER;

-- The table in which the row held this document at this path, when it was read last. NULL: not known, so that the
-- file stays where the row leads elsewhere. The first full run says it of every row.
ALTER TABLE entry ADD COLUMN source_table INTEGER;

-- Why the file stays: its id carries another `number` or another `tenant` now, it is not proven that the `table` is
-- the one in which the row was read, or the file is superseded and was `not-removed`. NULL: not known, since the file
-- was left before there was this column.
ALTER TABLE leftover ADD COLUMN why TEXT CHECK (why IN ('number', 'tenant', 'table', 'not-removed'));
CREATE INDEX leftover_run ON leftover (run);
CREATE INDEX leftover_id ON leftover (id);

-- What may lie at a path in doubt: the documents that the dead run was to put there, and those that the ledger had
-- there. Anything else is not ours to remove.
CREATE TABLE doubt_content (
  path          TEXT NOT NULL,
  sha256        BLOB NOT NULL CHECK (length(sha256) = 32),
  id            TEXT NOT NULL,   -- the invoice
  source_table  INTEGER,         -- source_table.n of the row, where it is known
  PRIMARY KEY (path, sha256)
) STRICT, WITHOUT ROWID;
