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
