//! Owns the proof that an old file may be removed for a new one: the row is the invoice that was exported. An id proves
//! that only with the same tenant, the same number in the same year, and a table that is provably the one of before.
//! Without proof the old file stays, on record as a leftover.
//!
//! A server shows no difference between a row that was updated and one that was deleted and inserted again with its id.
//! Numbers commonly begin anew each year, so an id with the number of another year is taken for another invoice, though
//! a date may have been corrected across the end of a year; the file that stays then is a leftover. An id that comes
//! again with tenant, number and year counts as the same invoice. Nothing in the database could say otherwise.

use super::decisions::Decisions;
use crate::invoice::{Digest, Invoice};
use crate::run::KeptReason;
use crate::state::ledger::Entry;
use crate::state::todo::{DoubtedContent, Leftover};
use crate::tree::name::TreePath;
use crate::tree::publish::{Cause, Removal};

impl Decisions<'_> {
    /// The number of the source's table, if the row was read in it with the document and at the path that the ledger
    /// has. A row that is as it was keeps what is known of it where the source shows nothing.
    pub(super) fn table_no_of(&self, path: &TreePath, digest: Digest, before: Option<&Entry>) -> Option<i64> {
        let same = before.filter(|before| (&before.path, before.digest) == (path, digest));
        self.table_no.or_else(|| same.and_then(|before| before.table_no))
    }

    /// The invoice leaves its old path. The file goes if the row is provably the one that was exported.
    pub(super) fn supersede(&mut self, before: &Entry, instead: &TreePath, invoice: &Invoice) -> anyhow::Result<()> {
        // What a dead run may have written there is cleared up once everything in doubt was read again.
        if self.doubted.contains_key(&before.path)
            || self.view.owners(&before.path)?.iter().any(|owner| owner.id != before.id)
        {
            return Ok(());
        }
        let (path, id, digest) = (before.path.clone(), before.id.clone(), before.digest);
        let why = if !before.path.same_number(&invoice.number) {
            Some(KeptReason::Number)
        } else if before.tenant != invoice.tenant {
            Some(KeptReason::Tenant)
        } else {
            self.unless_proven(before.table_no, &path, instead)
        };
        match why {
            None => {
                let instead = self.view.moved_from(&path)?.chain([instead.clone()]).collect();
                self.view.batch.remove(Removal { path, instead, digest, cause: Cause::Superseded(id) });
            }
            why => self.add_leftover_if_there(Leftover { path, id, digest, why }),
        }
        Ok(())
    }

    /// A file at a path in doubt that no invoice names goes if it is what the dead run wrote, or what it was to
    /// replace, and the invoice is either gone or still the same one.
    pub(super) fn clear_unnamed(&mut self, path: &TreePath, content: &DoubtedContent) -> anyhow::Result<()> {
        let (id, digest) = (content.id.clone(), content.digest);
        let why = match self.view.entry(&id)? {
            Some(now) if !now.path.same_invoice(path) => Some(KeptReason::Number),
            Some(now) if now.path.tenant() != path.tenant() => Some(KeptReason::Tenant),
            Some(now) => self.unless_proven(content.table_no, path, &now.path),
            None => self.unless_proven(content.table_no, path, path),
        };
        let path = path.clone();
        match why {
            None => {
                let cause = Cause::InDoubt(id);
                self.view.batch.remove(Removal { path, instead: Vec::new(), digest, cause });
            }
            why => self.add_leftover_if_there(Leftover { path, id, digest, why }),
        }
        Ok(())
    }

    /// A file that is gone already is not left behind.
    pub(super) fn add_leftover_if_there(&mut self, leftover: Leftover) {
        let is_gone = self.checker.tree.is_none_or(|tree| matches!(tree.inspect(&leftover.path), Ok(None)));
        if !is_gone {
            self.view.batch.add_leftover(leftover);
        }
    }

    /// Why it is not proven that a row of this table, which led to one path, is the one that leads to the other now.
    fn unless_proven(&self, table: Option<i64>, before: &TreePath, now: &TreePath) -> Option<KeptReason> {
        if self.table_no.is_none() || self.table_no != table {
            return Some(KeptReason::Table);
        }
        (!before.same_year(now)).then_some(KeptReason::Number)
    }
}
