//! Paths at which a run that died may have written. Once everything in doubt was read again, files that no invoice
//! names stem from the dead run.

use super::decisions::Decisions;
use crate::event::Notice;
use crate::invoice::InvoiceId;
use crate::state::ledger::Entry;
use crate::state::todo::{DoubtedPath, Leftover};
use crate::tree::name::TreePath;
use crate::tree::publish::concerns_one_tenant;

/// Clears the paths in doubt. The caller has published and recorded everything, so that no file appears meanwhile.
/// After a tenant has failed nothing is cleared: rows in doubt may be unread, and the next run tries again.
pub(super) fn clear_doubt(decisions: &mut Decisions<'_>) -> anyhow::Result<()> {
    if !decisions.journal.outcome.failed.is_empty() {
        return Ok(());
    }
    for (path, doubted) in std::mem::take(&mut decisions.doubted) {
        match clear_path(decisions, &path, &doubted) {
            Ok(()) => decisions.view.batch.record.resolved_doubts.push(path),
            // A folder that is not ours to read holds up no other tenant.
            Err(error) if error.downcast_ref().is_some_and(concerns_one_tenant) => {
                let (path, detail) = (path.to_string(), format!("{error:#}"));
                decisions.journal.notice(Notice::NotRemoved { path, detail });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn clear_path(decisions: &mut Decisions<'_>, path: &TreePath, doubted: &DoubtedPath) -> anyhow::Result<()> {
    let DoubtedPath { writer, contents } = doubted;
    let owners = decisions.view.owners(path)?;
    for owner in &owners {
        adopt_file(decisions, &owner.id, path)?;
    }
    let is_kept = match writer {
        Some(writer) if owners.is_empty() => lost_its_file(decisions, writer)? && adopt_file(decisions, writer, path)?,
        _ => !owners.is_empty(),
    };
    let Some(tree) = decisions.checker.tree.filter(|_| !is_kept) else { return Ok(()) };
    if tree.inspect(path)?.is_none_or(|facts| !facts.is_file) {
        return Ok(());
    }
    let there = tree.digest(path)?;
    match (contents.iter().find(|content| Some(content.digest) == there), there, writer) {
        (Some(content), ..) => decisions.clear_unnamed(path, content),
        (None, Some(digest), Some(writer)) if !doubted.is_content_known() => {
            let (path, id) = (path.clone(), writer.clone());
            decisions.view.batch.add_leftover(Leftover { path, id, digest, why: None });
            Ok(())
        }
        _ => {
            decisions.journal.notice(Notice::LeftInPlace { path: path.to_string() });
            Ok(())
        }
    }
}

/// Whether an invoice that was withdrawn, or cannot be exported any more, after the dead run had moved its
/// file, has none where the ledger says.
fn lost_its_file(decisions: &Decisions<'_>, id: &InvoiceId) -> anyhow::Result<bool> {
    let (Some(tree), Some(entry)) = (decisions.checker.tree, entry_if_undecided(decisions, id)?) else {
        return Ok(false);
    };
    Ok(tree.inspect(&entry.path)?.is_none())
}

/// An invoice that could not be read again keeps the file that the dead run wrote for it: the ledger takes over the
/// content that lies there. Returns whether there is such a file.
fn adopt_file(decisions: &mut Decisions<'_>, id: &InvoiceId, path: &TreePath) -> anyhow::Result<bool> {
    let (Some(tree), Some(entry)) = (decisions.checker.tree, entry_if_undecided(decisions, id)?) else {
        return Ok(false);
    };
    let Some(facts) = tree.inspect(path)?.filter(|facts| facts.is_file) else { return Ok(false) };
    let Some(digest) = tree.digest(path)? else { return Ok(false) };
    if (&entry.path, entry.digest) != (path, digest) {
        let entry = Entry { path: path.clone(), digest, size: facts.size, settled: false, ..entry };
        decisions.view.batch.record.recovered.push(entry);
    }
    Ok(true)
}

/// What the ledger says of an invoice about which nothing was decided since.
fn entry_if_undecided(decisions: &Decisions<'_>, id: &InvoiceId) -> anyhow::Result<Option<Entry>> {
    if decisions.view.is_overruled(id) { Ok(None) } else { decisions.view.entry(id) }
}
