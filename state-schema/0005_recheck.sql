-- Whether a file must be looked at stands beside its invoice: a tenant's own mark was taken away by the first run that
-- moved its watermark, also from invoices that this run did not read. The tenant's says from here on that an operator
-- has moved its watermark, or a state was restored, since a run did.
ALTER TABLE entry ADD COLUMN recheck INTEGER NOT NULL DEFAULT 0 CHECK (recheck IN (0, 1));
UPDATE entry SET recheck = 1 WHERE settled = 0 AND tenant IN (SELECT n FROM tenant WHERE recheck = 1);
