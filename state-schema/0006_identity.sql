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

-- The clocks at the start of the last run, in milliseconds. Server and exporter may be set together, which only
-- the time since the machine was started shows. Beside them: whether all that passed between runs is known.
ALTER TABLE meta ADD COLUMN server_ms INTEGER;      -- the server's clock, since 1970; NULL: no run has read it
ALTER TABLE meta ADD COLUMN shown_ms INTEGER;       -- what the server's clock shows, its zone included, as if that were UTC
ALTER TABLE meta ADD COLUMN own_ms INTEGER;         -- our clock, since 1970
ALTER TABLE meta ADD COLUMN host TEXT;              -- the machine that the exporter ran on
ALTER TABLE meta ADD COLUMN boot TEXT;              -- the kernel's name for its start; NULL: unknown
ALTER TABLE meta ADD COLUMN uptime_ms INTEGER;      -- CLOCK_BOOTTIME; NULL: unknown
ALTER TABLE meta ADD COLUMN unproven_runs INTEGER NOT NULL DEFAULT 0;  -- runs since `compared` that began on another host or start than the run before
ALTER TABLE meta ADD COLUMN compared TEXT;          -- when a run last began to compare all keys, RFC 3339
UPDATE meta SET server_ms = server_unix * 1000, own_ms = server_unix * 1000, shown_ms = (server_unix + clock_offset) * 1000;
ALTER TABLE meta DROP COLUMN server_unix;
ALTER TABLE meta DROP COLUMN clock_offset;

-- tenant.newest is the greatest source time up to the boundary from here on. Where one of the future was taken for
-- it, the look-back may lie above rows that no run has read.
UPDATE tenant SET look_back = NULL WHERE newest > watermark;
