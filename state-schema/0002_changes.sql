-- What was done to the state other than by a run's ordinary progress, and the indexes that the history
-- is filtered by.

-- One row per change: a command of an operator, or a watermark that a run pulled back.
CREATE TABLE state_change (
  n            INTEGER PRIMARY KEY,
  kind         TEXT NOT NULL CHECK (kind IN ('set', 'reset', 'import', 'restore', 'adopt-source', 'pull-back', 'upgrade')),
  at           TEXT NOT NULL,
  last_run     INTEGER NOT NULL, -- the last run there was then; of a pull-back: the run that did it
  user         TEXT NOT NULL,
  host         TEXT NOT NULL,
  command_line TEXT,             -- NULL where a run did it, or it was not recorded yet
  reason       TEXT,             -- --reason, or why a run did it
  file         TEXT,             -- what was imported or restored
  sha256       TEXT,             -- of that file, in hex
  lines        INTEGER,          -- of an imported file
  old          TEXT,             -- adopt-source: the source; upgrade: the schema's version; restore: where the replaced state lies
  new          TEXT              -- adopt-source: the source; upgrade: the schema's version
) STRICT;
CREATE INDEX state_change_kind ON state_change (kind, n);
CREATE INDEX state_change_at ON state_change (at);

-- The watermarks that a change moved.
ALTER TABLE watermark_change RENAME TO watermark_change_1;
CREATE TABLE watermark_change (
  change  INTEGER NOT NULL,      -- state_change.n
  tenant  INTEGER NOT NULL,      -- tenant.n
  old     TEXT,                  -- NULL: none
  new     TEXT,                  -- NULL: taken away
  PRIMARY KEY (change, tenant)
) STRICT, WITHOUT ROWID;
CREATE INDEX watermark_change_tenant ON watermark_change (tenant, change);

-- Until now only runs changed watermarks, by pulling them back.
INSERT INTO state_change (kind, at, last_run, user, host, reason)
  SELECT 'pull-back', min(at), run, min(user), min(host), min(why) FROM watermark_change_1 GROUP BY run;
INSERT OR IGNORE INTO watermark_change (change, tenant, old, new)
  SELECT c.n, w.tenant, w.old, w.new FROM watermark_change_1 w
  JOIN state_change c ON c.kind = 'pull-back' AND c.last_run = w.run;
DROP TABLE watermark_change_1;

CREATE TRIGGER state_change_is_final BEFORE UPDATE ON state_change
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER state_change_stays BEFORE DELETE ON state_change
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER watermark_change_is_final BEFORE UPDATE ON watermark_change
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER watermark_change_stays BEFORE DELETE ON watermark_change
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;

CREATE INDEX run_kind ON run (kind, id);
CREATE INDEX run_started ON run (started);
CREATE INDEX reject_last_run ON reject (last_run);
CREATE INDEX reject_open_since ON reject (opened_run, id) WHERE closed_run IS NULL;

-- INSERT OR REPLACE deletes without asking the triggers that refuse a DELETE.
CREATE TRIGGER run_is_not_replaced BEFORE INSERT ON run WHEN EXISTS (SELECT 1 FROM run WHERE id = new.id)
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER file_log_is_complete BEFORE INSERT ON file_log
WHEN (SELECT status FROM run WHERE id = new.run) <> 'running'
BEGIN SELECT RAISE(ABORT, 'a finished run is history and cannot be changed'); END;
CREATE TRIGGER state_change_is_not_replaced BEFORE INSERT ON state_change
WHEN EXISTS (SELECT 1 FROM state_change WHERE n = new.n)
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER watermark_change_is_not_replaced BEFORE INSERT ON watermark_change
WHEN EXISTS (SELECT 1 FROM watermark_change WHERE (change, tenant) = (new.change, new.tenant))
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;

-- 1: an operator moved the watermark, so files of unsettled invoices that are not there are written
-- again. An incremental run does not do so otherwise: somebody may have taken them away.
ALTER TABLE tenant ADD COLUMN recheck INTEGER NOT NULL DEFAULT 0 CHECK (recheck IN (0, 1));
