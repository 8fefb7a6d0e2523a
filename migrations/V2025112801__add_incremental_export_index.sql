-- The index of incremental exports: t_invoice (ftenant_id, fissue_status, fupdate_time).
--
-- What it is for: with it a run reads keys from the index alone and costs what changed; without it
-- every run reads the whole table.
--
-- Online: the table is read and written while the index is built; where the server cannot do that,
-- it refuses instead of locking. If another session holds the table for longer than
-- lock_wait_timeout below, the statement gives up (error 1205) before writers pile up behind it:
-- repeat it at a quieter time, under Flyway after `flyway repair`.
-- Safe to run twice: an index that is there with these columns is left alone. An index of this name
-- with other columns is an error (1061): drop it first.
-- One file for MySQL 8 and 9 and MariaDB.
--
-- Applied already, by the installation of the export script? Keep your copy. Flyway compares the
-- checksum of a file with the one it has recorded for the version, so a copy with other text, even
-- with the same effect, fails `flyway validate`. Yours and this one create the same index.
--
-- By hand, as a user with the ALTER and INDEX privileges:
--   mysql -h HOST -u USER -p DATABASE < V2025112801__add_incremental_export_index.sql

SET @invoice_export_wait = @@SESSION.lock_wait_timeout;
SET SESSION lock_wait_timeout = 15;

SET @invoice_export_columns = (
  SELECT GROUP_CONCAT(column_name ORDER BY seq_in_index)
  FROM information_schema.statistics
  WHERE table_schema = DATABASE() AND table_name = 't_invoice' AND index_name = 'idx_incremental_export'
);
SET @invoice_export_statement = IF(
  @invoice_export_columns = 'ftenant_id,fissue_status,fupdate_time',
  'DO 0',
  'ALTER TABLE t_invoice ADD INDEX idx_incremental_export (ftenant_id, fissue_status, fupdate_time), ALGORITHM=INPLACE, LOCK=NONE'
);
PREPARE invoice_export_index FROM @invoice_export_statement;
EXECUTE invoice_export_index;
DEALLOCATE PREPARE invoice_export_index;

SET SESSION lock_wait_timeout = @invoice_export_wait;
