//! Whether the id of a row is proof that it is the invoice that was exported: only of the same tenant and number, and
//! in a table that is provably the one of before. Where it is not, an old file is never removed for a new one.

use anyhow::Context;

use super::one_by_one::Asks;
use super::pipeline::Clerk;
use crate::invoice::Invoice;
use crate::run::WhyKept;
use crate::state::ledger::Entry;
use crate::state::todo::{Content, Leftover};
use crate::tree::name::TreePath;
use crate::tree::publish::{Cause, Changes, Removal};

impl Clerk<'_> {
    /// The number of the source's table, if the row was read in it with the document and at the path that the ledger
    /// has. A row that is as it was keeps what is known of it where the source shows nothing.
    pub(super) fn table_of(&self, entry: &Entry, before: Option<&Entry>) -> Option<i64> {
        let same = before.filter(|before| (&before.path, before.digest) == (&entry.path, entry.digest));
        self.table.or_else(|| same.and_then(|before| before.table))
    }

    /// The invoice leaves its old path. The file goes if the row is provably the one that was exported.
    pub(super) fn supersede(&mut self, before: &Entry, instead: &TreePath, invoice: &Invoice) -> anyhow::Result<()> {
        // What a dead run may have written there is cleared up once everything in doubt was read again.
        if self.doubted.contains_key(&before.path) || !self.owners(Some(&before.id), &before.path)?.is_empty() {
            return Ok(());
        }
        let (path, id, digest) = (before.path.clone(), before.id.clone(), before.digest);
        let why = if !before.path.same_number(&invoice.number) {
            Some(WhyKept::Number)
        } else if before.tenant != invoice.tenant {
            Some(WhyKept::Tenant)
        } else {
            self.unless_proven(before.table)
        };
        match why {
            None => {
                let instead = Some(instead.clone());
                self.batch.remove(Removal { path, instead, digest, cause: Cause::Superseded(id) });
            }
            why => self.leave_if_there(Leftover { path, id, digest, why }),
        }
        Ok(())
    }

    /// A file at a path in doubt that no invoice names goes if it is what the dead run wrote, or what it was to
    /// replace, and the invoice is either gone or still the same one.
    pub(super) fn clear_unnamed(&mut self, path: &TreePath, content: &Content) -> anyhow::Result<()> {
        let (id, digest) = (content.id.clone(), content.digest);
        let why = match self.current(&id)? {
            Some(now) if !now.path.same_invoice(path) => Some(WhyKept::Number),
            Some(now) if now.path.tenant() != path.tenant() => Some(WhyKept::Tenant),
            Some(_) | None => self.unless_proven(content.table),
        };
        let path = path.clone();
        match why {
            None => {
                self.batch.remove(Removal { path, instead: None, digest, cause: Cause::InDoubt(id) });
            }
            why => self.leave_if_there(Leftover { path, id, digest, why }),
        }
        Ok(())
    }

    /// A file that is gone already is not left behind.
    fn leave_if_there(&mut self, leftover: Leftover) {
        let is_gone = self.desk.tree.is_none_or(|tree| matches!(tree.inspect(&leftover.path), Ok(None)));
        if !is_gone {
            self.batch.leave(leftover);
        }
    }

    fn unless_proven(&self, table: Option<i64>) -> Option<WhyKept> {
        (self.table.is_none() || self.table != table).then_some(WhyKept::Table)
    }

    /// A table may be emptied or exchanged while it is read. The rows of a batch were read before this asks, so that
    /// they are of the table of the run's start if it is still there. If not, the batch removes nothing.
    pub(super) fn keep_unless_table_lasts(&mut self, changes: &mut Changes) -> anyhow::Result<()> {
        if changes.removals.is_empty() || self.table_lasts()? {
            return Ok(());
        }
        self.table = None;
        for Removal { path, digest, cause, .. } in std::mem::take(&mut changes.removals) {
            let (Cause::Superseded(id) | Cause::InDoubt(id)) = cause;
            self.leave_if_there(Leftover { path, id, digest, why: Some(WhyKept::Table) });
        }
        Ok(())
    }

    fn table_lasts(&mut self) -> anyhow::Result<bool> {
        let Some(before) = self.settings.table.clone() else { return Ok(false) };
        let now =
            self.ask(|source| source.table_identity()).context("cannot see whether the table is still the same")?;
        Ok(now.is_some_and(|now| before.lasts(&now)))
    }
}
