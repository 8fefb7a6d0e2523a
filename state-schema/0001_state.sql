-- The state of one exported tree: who was exported up to where, which file belongs to which invoice,
-- what is still to be done, and every run there was.
--
-- This file is never edited once it was released; a change is a new file with the next number.
-- Times that come from the source are its own text ("2025-11-28 16:30:00", all decimals). Times of
-- our own are RFC 3339 in UTC.

-- What is true of the state as a whole: exactly one row.
CREATE TABLE meta (
  only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
  state_id       TEXT NOT NULL,               -- the tree's mark carries it too
  source         TEXT,                        -- the source it belongs to, without secrets; NULL before the first run
  server         TEXT,                        -- which server answered last time
  server_unix    INTEGER,                     -- that server's clock then, seconds since 1970
  clock_offset   INTEGER,                     -- the server's clock minus ours then, seconds
  published_run  INTEGER NOT NULL DEFAULT 0   -- the last run that changed the tree
) STRICT;

-- One row per spelling of ftenant_id, compared as bytes.
CREATE TABLE tenant (
  n          INTEGER PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  family     INTEGER NOT NULL,   -- n of the first of the spellings that the source's collation calls equal
  watermark  TEXT,               -- exported and recorded up to here; NULL: nothing yet
  look_back  TEXT,               -- the next run reads keys from here on; NULL: from the beginning
  newest     TEXT,               -- the greatest source time the tenant has shown
  held       INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1)),  -- 1: work was open when its keys were read last
  last_run   INTEGER,            -- the last incremental run that dealt with it
  last_written INTEGER NOT NULL DEFAULT 0,  -- files it wrote then
  last_outcome TEXT CHECK (last_outcome IN ('success', 'failed'))
) STRICT;

-- One row per exported invoice. A path may stand in several rows, if their documents are the same.
CREATE TABLE ledger (
  id         TEXT PRIMARY KEY,   -- the source's primary key, as the server prints it
  tenant     INTEGER NOT NULL,   -- tenant.n
  time       TEXT,               -- fupdate_time of the exported version
  path       TEXT NOT NULL,      -- relative to the output
  sha256     BLOB NOT NULL CHECK (length(sha256) = 32),
  size       INTEGER NOT NULL,
  first_run  INTEGER NOT NULL,   -- the run that entered the invoice
  run        INTEGER NOT NULL,   -- the run that wrote the file, or took it over
  settled    INTEGER NOT NULL CHECK (settled IN (0, 1))  -- 1: this version counts as seen, later runs skip it
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_path ON ledger (path);

-- Ids that the next run reads by primary key, whatever its window.
CREATE TABLE todo (
  id      TEXT PRIMARY KEY,
  why     TEXT NOT NULL CHECK (why IN ('reject', 'displaced', 'doubt')),
  tenant  INTEGER,               -- tenant.n where it is known
  run     INTEGER NOT NULL       -- the run that put it here
) STRICT, WITHOUT ROWID;

-- Files that a run which died may have written. They are removed if no invoice names them once
-- everything in doubt was read again.
CREATE TABLE doubt_path (
  path  TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Invoices that could not be exported. Open until closed_run is set.
CREATE TABLE reject (
  id          TEXT NOT NULL,
  opened_run  INTEGER NOT NULL,
  tenant      TEXT,
  number      TEXT,
  time        TEXT,              -- source time of the version that was refused last
  reason      TEXT NOT NULL,     -- a word: not-json, not-utf8, path-taken, ...
  detail      TEXT NOT NULL,     -- a sentence, without any of the document
  last_run    INTEGER NOT NULL,  -- the last run that refused it
  closed_run  INTEGER,
  closed_how  TEXT CHECK (closed_how IN ('exported', 'gone')),
  PRIMARY KEY (id, opened_run)
) STRICT, WITHOUT ROWID;
CREATE INDEX reject_open ON reject (id) WHERE closed_run IS NULL;
CREATE INDEX reject_run ON reject (opened_run);

-- Files that no invoice names any more but that were left where they are, for `verify --prune`.
CREATE TABLE leftover (
  path    TEXT PRIMARY KEY,
  id      TEXT NOT NULL,         -- the invoice that had it
  sha256  BLOB NOT NULL,
  run     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The history: one row per run.
CREATE TABLE run (
  id           INTEGER PRIMARY KEY,
  kind         TEXT NOT NULL CHECK (kind IN ('full', 'incremental', 'backfill')),
  status       TEXT NOT NULL CHECK (status IN ('running', 'success', 'partial', 'failed', 'cancelled', 'interrupted')),
  started      TEXT NOT NULL,
  finished     TEXT,             -- NULL while running; of an interrupted run: when that was noticed
  since        TEXT,             -- backfill: its window is (since, boundary]
  boundary     TEXT NOT NULL,
  user         TEXT NOT NULL,
  host         TEXT NOT NULL,
  pid          INTEGER NOT NULL,
  command_line TEXT NOT NULL,
  version      TEXT NOT NULL,    -- of this program
  tenants      INTEGER NOT NULL DEFAULT 0,
  seen         INTEGER NOT NULL DEFAULT 0,   -- = written + unchanged + rejected + gone
  written      INTEGER NOT NULL DEFAULT 0,
  unchanged    INTEGER NOT NULL DEFAULT 0,
  rejected     INTEGER NOT NULL DEFAULT 0,
  gone         INTEGER NOT NULL DEFAULT 0,
  late         INTEGER NOT NULL DEFAULT 0,   -- of the seen ones: below the watermark, unseen by earlier runs
  removed      INTEGER NOT NULL DEFAULT 0,
  bytes        INTEGER NOT NULL DEFAULT 0,
  retries      INTEGER NOT NULL DEFAULT 0,   -- attempts after a lost connection
  error        TEXT
) STRICT;
CREATE INDEX run_status ON run (status, id);

-- What a run did for one tenant; tenants with nothing new have no row.
CREATE TABLE run_tenant (
  run          INTEGER NOT NULL,
  tenant       INTEGER NOT NULL,
  old_watermark TEXT,
  new_watermark TEXT,            -- NULL: it did not move
  seen         INTEGER NOT NULL,
  written      INTEGER NOT NULL,
  unchanged    INTEGER NOT NULL,
  rejected     INTEGER NOT NULL,
  gone         INTEGER NOT NULL,
  late         INTEGER NOT NULL,
  removed      INTEGER NOT NULL,
  bytes        INTEGER NOT NULL,
  error        TEXT,             -- why the tenant failed
  PRIMARY KEY (run, tenant)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_tenant_tenant ON run_tenant (tenant, run);

-- Watermarks that moved otherwise than by a run's ordinary progress (for that: run, run_tenant).
CREATE TABLE watermark_change (
  n       INTEGER PRIMARY KEY,
  at      TEXT NOT NULL,
  run     INTEGER,
  tenant  INTEGER NOT NULL,
  old     TEXT,
  new     TEXT,
  why     TEXT NOT NULL,
  user    TEXT NOT NULL,
  host    TEXT NOT NULL
) STRICT;

-- Which run wrote, took over or removed which file.
CREATE TABLE file_log (
  run     INTEGER NOT NULL,
  path    TEXT NOT NULL,
  action  TEXT NOT NULL CHECK (action IN ('written', 'adopted', 'removed')),
  PRIMARY KEY (run, path, action)
) STRICT, WITHOUT ROWID;

-- History is append-only. These triggers stop mistakes, not whoever owns the file.
CREATE TRIGGER run_is_final BEFORE UPDATE ON run WHEN old.status <> 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER run_stays BEFORE DELETE ON run
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER run_tenant_is_final BEFORE UPDATE ON run_tenant
WHEN (SELECT status FROM run WHERE id = old.run) <> 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER run_tenant_stays BEFORE DELETE ON run_tenant
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER run_tenant_is_complete BEFORE INSERT ON run_tenant
WHEN (SELECT status FROM run WHERE id = new.run) <> 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER watermark_change_is_final BEFORE UPDATE ON watermark_change
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER watermark_change_stays BEFORE DELETE ON watermark_change
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER file_log_is_final BEFORE UPDATE ON file_log
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER file_log_stays BEFORE DELETE ON file_log
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
