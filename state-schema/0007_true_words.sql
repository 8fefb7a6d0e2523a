-- What the history says is true for its readers: starts that failed, verifications, what became of files, which
-- account it was, and from where on a tenant has been read without a gap.

-- The boundary may be missing, and a CHECK or NOT NULL cannot be changed in place, so the table is made anew.
-- Triggers that ask it stand aside.
DROP TRIGGER run_tenant_is_final;
DROP TRIGGER run_tenant_is_complete;
DROP TRIGGER entry_comes_now;
DROP TRIGGER entry_moves_now;
DROP TRIGGER file_past_is_complete;
ALTER TABLE run RENAME TO run_6;
CREATE TABLE run (
  id           INTEGER PRIMARY KEY,
  kind         TEXT NOT NULL CHECK (kind IN ('full', 'incremental', 'backfill', 'verify')),
  status       TEXT NOT NULL CHECK (status IN ('running', 'success', 'partial', 'failed', 'cancelled', 'interrupted')),
  started      TEXT NOT NULL,
  finished     TEXT,             -- NULL while running; of an interrupted run: when that was noticed
  since        TEXT,             -- backfill, verification: its window, as asked for, is (since, until]
  until        TEXT,             -- NULL: open at that end, not known by then, or up to schema 6
  boundary     TEXT,             -- NULL: the start failed before there was one, or a verification
  user         TEXT NOT NULL,    -- the name of the account; up to schema 6 a variable of the environment
  uid          INTEGER,          -- the account's number; NULL: up to schema 6
  sudo_user    TEXT,             -- SUDO_USER or DOAS_USER: a claim of the environment
  host         TEXT NOT NULL,
  pid          INTEGER NOT NULL,
  command_line TEXT NOT NULL,
  version      TEXT NOT NULL,    -- of this program
  tenants      INTEGER NOT NULL DEFAULT 0,
  seen         INTEGER NOT NULL DEFAULT 0,   -- = written + unchanged + rejected + gone
  written      INTEGER NOT NULL DEFAULT 0,   -- = new + replaced + moved
  new          INTEGER DEFAULT 0,  -- there was no file at the path before; NULL here and below: up to schema 6
  replaced     INTEGER DEFAULT 0,  -- a file with other content was
  moved        INTEGER DEFAULT 0,  -- the invoice's file was at another path
  unchanged    INTEGER NOT NULL DEFAULT 0,
  taken_over   INTEGER DEFAULT 0,  -- of the unchanged ones: files that were right and that the state knew nothing of
  rejected     INTEGER NOT NULL DEFAULT 0,
  gone         INTEGER NOT NULL DEFAULT 0,
  late         INTEGER NOT NULL DEFAULT 0,   -- of the seen ones: in what earlier runs had read, and not there then
  late_by      INTEGER NOT NULL DEFAULT 0,   -- seconds that the latest of them lay below the watermark
  removed      INTEGER NOT NULL DEFAULT 0,
  bytes        INTEGER NOT NULL DEFAULT 0,
  retries      INTEGER NOT NULL DEFAULT 0,   -- attempts after a lost connection
  error        TEXT,
  source_table INTEGER,          -- source_table.n that it read; NULL: not known
  error_zh     TEXT              -- the error in Chinese; NULL: there is none, or up to schema 6
) STRICT;
INSERT INTO run (id, kind, status, started, finished, since, boundary, user, host, pid, command_line, version, tenants,
                 seen, written, new, replaced, moved, unchanged, taken_over, rejected, gone, late, late_by, removed,
                 bytes, retries, error, source_table)
  SELECT id, kind, status, started, finished, since, boundary, user, host, pid, command_line, version, tenants,
         seen, written, NULL, NULL, NULL, unchanged, NULL, rejected, gone, late, late_by, removed,
         bytes, retries, error, source_table FROM run_6;
DROP TABLE run_6;
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
CREATE TRIGGER entry_comes_now BEFORE INSERT ON entry
WHEN (SELECT status FROM run WHERE id = new.run) IS NOT 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER entry_moves_now BEFORE UPDATE OF folder, name, run, adopted ON entry
WHEN (old.folder, old.name, old.run, old.adopted) IS NOT (new.folder, new.name, new.run, new.adopted)
  AND (SELECT status FROM run WHERE id = new.run) IS NOT 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER file_past_is_complete BEFORE INSERT ON file_past
WHEN (SELECT status FROM run WHERE id = new.run) IS NOT 'running' AND NOT EXISTS (
  SELECT 1 FROM entry e WHERE e.folder = new.folder AND e.name = new.name AND +e.run = new.run
    AND new.action = CASE e.adopted WHEN 1 THEN 'adopted' ELSE 'written' END)
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;

-- The counts of a run for one tenant; NULL: up to schema 6.
ALTER TABLE run_tenant ADD COLUMN new INTEGER;
ALTER TABLE run_tenant ADD COLUMN replaced INTEGER;
ALTER TABLE run_tenant ADD COLUMN moved INTEGER;
ALTER TABLE run_tenant ADD COLUMN taken_over INTEGER;

-- Errors in Chinese, as in `run`.
ALTER TABLE run_tenant ADD COLUMN error_zh TEXT;
ALTER TABLE reject ADD COLUMN detail_zh TEXT;   -- NULL: last refused up to schema 6

-- How `run` has counted the invoice: 0 new, 1 replaced, 2 moved to where no file was, 3 moved to where one was,
-- 4 taken over, 5 unchanged. NULL: up to schema 6, or a file that is believed to be as a dead run left it.
ALTER TABLE entry ADD COLUMN counted INTEGER CHECK (counted BETWEEN 0 AND 5);

-- An invoice whose file was removed and that comes back is not new.
CREATE INDEX file_past_removed ON file_past (name, folder) WHERE action = 'removed';

-- As in `run`.
ALTER TABLE state_change ADD COLUMN uid INTEGER;
ALTER TABLE state_change ADD COLUMN sudo_user TEXT;
-- restore: 1 if watermark_change has every watermark that it moved; NULL: the replaced state could not be read, or up to
-- schema 6. Other changes have all of theirs.
ALTER TABLE state_change ADD COLUMN watermarks_known INTEGER CHECK (watermarks_known = 1);

-- From this source time on our runs have read the tenant without a gap, up to the watermark: an invoice in there that
-- they did not see came late. '': from the beginning. NULL: no run has; what is found is caught up.
ALTER TABLE tenant ADD COLUMN read_from TEXT;
-- The first incremental run read everything, and each later one began below the end of the one before. That holds no
-- more where an operator moved the watermark, where the source or the state was exchanged, or where that is in doubt
-- and not yet read again (no look-back).
UPDATE tenant SET read_from = '' WHERE watermark IS NOT NULL AND look_back IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM state_change WHERE kind IN ('restore', 'adopt-source'))
  AND n NOT IN (SELECT w.tenant FROM watermark_change w JOIN state_change c ON c.n = w.change WHERE c.kind <> 'pull-back');
-- A full run reads every invoice of the tenants that it meets.
CREATE TRIGGER run_has_read_all AFTER UPDATE OF status ON run
WHEN new.kind = 'full' AND new.status IN ('success', 'partial')
BEGIN
  UPDATE tenant SET read_from = '' WHERE read_from IS NOT ''
    AND n IN (SELECT tenant FROM run_tenant WHERE run = new.id AND error IS NULL);
END;

-- What a run of the kind 'verify' compared, and what it found in total.
CREATE TABLE verification (
  run         INTEGER PRIMARY KEY,   -- run.id
  against     TEXT NOT NULL CHECK (against IN ('ledger', 'keys', 'documents')),  -- what the tree was compared with
  content     TEXT NOT NULL CHECK (content IN ('size', 'hash')),                 -- how files were compared with the ledger
  all_tenants INTEGER NOT NULL CHECK (all_tenants IN (0, 1)),  -- 0: it was limited to those of verification_tenant
  last_tenant INTEGER NOT NULL,      -- the greatest tenant.n then: a tenant that came later was not verified
  files       INTEGER NOT NULL,      -- ledger entries compared with their files
  pending     INTEGER NOT NULL,      -- invoices that the next run exports
  rejected    INTEGER NOT NULL,      -- invoices with an open reject
  differences INTEGER NOT NULL       -- found in total, before any repair
) STRICT;

-- The tenants that a verification was limited to; of all tenants, those with pending or rejected invoices.
CREATE TABLE verification_tenant (
  run       INTEGER NOT NULL,
  tenant    INTEGER NOT NULL,        -- tenant.n; 0: the tenant is not known
  pending   INTEGER NOT NULL,        -- its part of verification.pending
  in_doubt  INTEGER NOT NULL,        -- of these, what a dead run left in doubt: it was not compared
  rejected  INTEGER NOT NULL,        -- its part of verification.rejected
  watermark TEXT,                    -- of the tenant then; NULL: it had none
  PRIMARY KEY (run, tenant)
) STRICT, WITHOUT ROWID;

-- What differed. A tenant without a row here differed in nothing. A difference between two tenants counts in both.
CREATE TABLE verification_finding (
  run         INTEGER NOT NULL,
  tenant      INTEGER NOT NULL,      -- tenant.n; 0: the tenant is not known
  difference  TEXT NOT NULL,         -- a word: lost, stale, moved, missing, altered, ...
  number      INTEGER NOT NULL CHECK (number > 0),
  PRIMARY KEY (run, tenant, difference)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER verification_is_final BEFORE UPDATE ON verification
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER verification_stays BEFORE DELETE ON verification
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER verification_is_complete BEFORE INSERT ON verification
WHEN (SELECT status FROM run WHERE id = new.run) IS NOT 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER verification_tenant_is_final BEFORE UPDATE ON verification_tenant
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER verification_tenant_stays BEFORE DELETE ON verification_tenant
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER verification_tenant_is_complete BEFORE INSERT ON verification_tenant
WHEN (SELECT status FROM run WHERE id = new.run) IS NOT 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER verification_finding_is_final BEFORE UPDATE ON verification_finding
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER verification_finding_stays BEFORE DELETE ON verification_finding
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER verification_finding_is_complete BEFORE INSERT ON verification_finding
WHEN (SELECT status FROM run WHERE id = new.run) IS NOT 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;

-- Conditions that hold from run to run (no PROCESS privilege, no index, a replica, times ahead): a run warns of them
-- when they begin, change or end, and once a day.
CREATE TABLE standing_condition (
  name     TEXT PRIMARY KEY,         -- a word, with the tenant where it is one's
  detail   TEXT NOT NULL,            -- what was said of it last; another detail is said at once
  warned   TEXT NOT NULL             -- when a run warned of it last, RFC 3339
) STRICT, WITHOUT ROWID;
