-- Runs of `verify`, and how late late arrivals were.

-- A CHECK cannot be changed in place, so the table is made anew. Triggers that ask it stand aside.
DROP TRIGGER run_tenant_is_final;
DROP TRIGGER run_tenant_is_complete;
DROP TRIGGER file_log_is_complete;
ALTER TABLE run RENAME TO run_2;
CREATE TABLE run (
  id           INTEGER PRIMARY KEY,
  kind         TEXT NOT NULL CHECK (kind IN ('full', 'incremental', 'backfill', 'verify')),
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
  late_by      INTEGER NOT NULL DEFAULT 0,   -- seconds that the latest of them lay below the watermark
  removed      INTEGER NOT NULL DEFAULT 0,
  bytes        INTEGER NOT NULL DEFAULT 0,
  retries      INTEGER NOT NULL DEFAULT 0,   -- attempts after a lost connection
  error        TEXT
) STRICT;
INSERT INTO run (id, kind, status, started, finished, since, boundary, user, host, pid, command_line, version, tenants,
                 seen, written, unchanged, rejected, gone, late, removed, bytes, retries, error)
  SELECT id, kind, status, started, finished, since, boundary, user, host, pid, command_line, version, tenants,
         seen, written, unchanged, rejected, gone, late, removed, bytes, retries, error FROM run_2;
DROP TABLE run_2;
CREATE INDEX run_status ON run (status, id);
CREATE INDEX run_kind ON run (kind, id);
CREATE INDEX run_started ON run (started);

CREATE TRIGGER run_is_final BEFORE UPDATE ON run WHEN old.status <> 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER run_stays BEFORE DELETE ON run
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER run_is_not_replaced BEFORE INSERT ON run WHEN EXISTS (SELECT 1 FROM run WHERE id = new.id)
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER run_tenant_is_final BEFORE UPDATE ON run_tenant
WHEN (SELECT status FROM run WHERE id = old.run) <> 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER run_tenant_is_complete BEFORE INSERT ON run_tenant
WHEN (SELECT status FROM run WHERE id = new.run) <> 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER file_log_is_complete BEFORE INSERT ON file_log
WHEN (SELECT status FROM run WHERE id = new.run) <> 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;

-- The invoice that a dead run wrote there. It may be withdrawn before anybody looks, and keeps its file.
ALTER TABLE doubt_path ADD COLUMN id TEXT;

ALTER TABLE run_tenant ADD COLUMN late_by INTEGER NOT NULL DEFAULT 0;
CREATE INDEX run_tenant_late ON run_tenant (tenant, run, late_by) WHERE late > 0;
