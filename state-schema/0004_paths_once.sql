-- Each path is stored once: folders have numbers, and what the ledger says of a run's files is not logged
-- besides.

-- The folders of the tree.
CREATE TABLE folder (
  n     INTEGER PRIMARY KEY,
  path  TEXT NOT NULL UNIQUE     -- tenant/country
) STRICT;

-- One row per exported invoice. A file may belong to several, if their documents are the same. To be read
-- by people: the view `ledger`.
CREATE TABLE entry (
  id         ANY PRIMARY KEY,    -- the source's primary key, as the server prints it; an integer if it is one
  tenant     INTEGER NOT NULL,   -- tenant.n
  time       TEXT,               -- fupdate_time of the exported version
  folder     INTEGER NOT NULL,   -- folder.n
  name       TEXT NOT NULL,      -- of the file, without .json
  sha256     BLOB NOT NULL CHECK (length(sha256) = 32),
  size       INTEGER NOT NULL,
  first_run  INTEGER NOT NULL,   -- the run that entered the invoice
  run        INTEGER NOT NULL,   -- the run that wrote the file, or took it over
  adopted    INTEGER NOT NULL CHECK (adopted IN (0, 1)),  -- 1: it took it over
  settled    INTEGER NOT NULL CHECK (settled IN (0, 1))   -- 1: this version counts as seen, later runs skip it
) STRICT, WITHOUT ROWID;

-- What runs did to files as far as the ledger does not say so, or says so no more. All of it: the view
-- `file_log`.
CREATE TABLE file_past (
  run     INTEGER NOT NULL,
  folder  INTEGER NOT NULL,      -- folder.n
  name    TEXT NOT NULL,
  action  TEXT NOT NULL CHECK (action IN ('written', 'adopted', 'removed')),
  PRIMARY KEY (run, folder, name, action)
) STRICT, WITHOUT ROWID;

-- An invoice whose file no log says anything of counts as taken over by its run; no program left such.
-- What stands in front of the last slash is left when every other character is taken off the end.
INSERT INTO folder (path)
  SELECT rtrim(rtrim(path, replace(path, '/', '')), '/') FROM ledger UNION
  SELECT rtrim(rtrim(path, replace(path, '/', '')), '/') FROM file_log;
INSERT INTO entry
  SELECT CASE WHEN CAST(CAST(l.id AS INTEGER) AS TEXT) = l.id THEN CAST(l.id AS INTEGER) ELSE l.id END,
         l.tenant, l.time, f.n, substr(l.path, length(f.path) + 2, length(l.path) - length(f.path) - 6),
         l.sha256, l.size, l.first_run, l.run,
         NOT EXISTS (SELECT 1 FROM file_log w WHERE (w.run, w.path, w.action) = (l.run, l.path, 'written')), l.settled
  FROM ledger l JOIN folder f ON f.path = rtrim(rtrim(l.path, replace(l.path, '/', '')), '/');
CREATE INDEX entry_path ON entry (folder, name);
CREATE INDEX entry_run ON entry (run);
INSERT INTO file_past
  SELECT l.run, f.n, substr(l.path, length(f.path) + 2, length(l.path) - length(f.path) - 6), l.action
  FROM file_log l JOIN folder f ON f.path = rtrim(rtrim(l.path, replace(l.path, '/', '')), '/');
-- By the path: a run may have as many files as there are. The plus keeps SQLite from looking them all up.
DELETE FROM file_past WHERE action <> 'removed' AND EXISTS (
  SELECT 1 FROM entry e WHERE e.folder = file_past.folder AND e.name = file_past.name
    AND +e.run = file_past.run AND e.adopted = (file_past.action = 'adopted'));
DROP TABLE ledger;
DROP TABLE file_log;

CREATE VIEW ledger AS
  SELECT CAST(e.id AS TEXT) AS id, e.tenant, e.time, f.path || '/' || e.name || '.json' AS path, e.sha256, e.size,
         e.first_run, e.run, e.adopted, e.settled
  FROM entry e LEFT JOIN folder f ON f.n = e.folder;
CREATE VIEW file_log AS
  SELECT run, path, CASE adopted WHEN 1 THEN 'adopted' ELSE 'written' END AS action FROM ledger UNION
  SELECT p.run, f.path || '/' || p.name || '.json', p.action FROM file_past p LEFT JOIN folder f ON f.n = p.folder;

-- What a run did to a file stays on record when the ledger has something newer to say of the invoice.
CREATE TRIGGER entry_moves BEFORE UPDATE OF folder, name, run, adopted ON entry
WHEN (old.folder, old.name, old.run, old.adopted) IS NOT (new.folder, new.name, new.run, new.adopted)
BEGIN
  INSERT INTO file_past
    VALUES (old.run, old.folder, old.name, CASE old.adopted WHEN 1 THEN 'adopted' ELSE 'written' END)
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER entry_goes BEFORE DELETE ON entry
BEGIN
  INSERT INTO file_past
    VALUES (old.run, old.folder, old.name, CASE old.adopted WHEN 1 THEN 'adopted' ELSE 'written' END)
    ON CONFLICT DO NOTHING;
END;

-- Only a run at work does anything to files.
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
CREATE TRIGGER file_past_is_final BEFORE UPDATE ON file_past
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER file_past_stays BEFORE DELETE ON file_past
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER folder_is_final BEFORE UPDATE ON folder
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
CREATE TRIGGER folder_stays BEFORE DELETE ON folder
BEGIN SELECT RAISE(ABORT, 'history cannot be deleted'); END;
CREATE TRIGGER folder_is_not_replaced BEFORE INSERT ON folder WHEN EXISTS (SELECT 1 FROM folder WHERE n = new.n)
BEGIN SELECT RAISE(ABORT, 'history cannot be changed'); END;
