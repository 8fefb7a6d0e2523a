//! Removes the files of withdrawn invoices. Such an invoice was not found by primary key after the scan and is looked
//! for once more; its file goes only if it holds what this program wrote. A source that looks older than the ledger
//! removes nothing. If the table is not provably the one that was exported, the operator is asked.

use std::collections::HashSet;

use super::findings::Findings;
use super::task::{Confirm, Leftovers, PruneOrder};
use crate::event::{Event, Notice};
use crate::export::options::SourceOptions;
use crate::export::retry::RetryPolicy;
use crate::export::server::{ServerSession, second_source_until};
use crate::export::session::Session;
use crate::export::writing::Writing;
use crate::invoice::{Digest, InvoiceId};
use crate::refusal::Refusal;
use crate::run::{Cancel, Counts};
use crate::state::State;
use crate::state::ledger::Entry;
use crate::state::record::Record;
use crate::state::todo::Leftover;
use crate::tree::name::TreePath;
use crate::tree::publish::{Cause, Changes, NotRemoved, NotRemovedReason, Published, Removal};

/// Files that are removed without asking the operator: at most so many, and at most one in a hundred invoices.
const HARMLESS: u64 = 1_000;
const HARMLESS_PART: u64 = 100;
/// Invoices or files handled at a time.
const PAGE: usize = 500;

/// Refuses a source that looks older than the ledger, and asks the operator if more would go than is harmless.
pub(super) fn refuse(
    source: &SourceOptions,
    findings: &Findings,
    session: &Session,
    with: PruneOrder,
    confirm: Confirm<'_>,
    cancel: &Cancel,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    let leftovers = if with.leftovers == Leftovers::Removed { findings.reused() } else { &[] };
    let files = (findings.withdrawn().len() + findings.superseded().len() + leftovers.len()) as u64;
    if files == 0 {
        return Ok(());
    }
    let (invoices, exported) = session.state.extent()?;
    let listed = session.snapshot.listed.iter();
    let newest = listed.filter_map(|listed| listed.ahead.clone().or_else(|| listed.newest.clone())).max();
    if let Some(exported) = exported
        && newest.as_ref() < Some(&exported)
    {
        return Err(Refusal::SourceOlder { source: newest, exported }.into());
    }
    let harmless = match with.at_most {
        Some(at_most) => at_most,
        None if !leftovers.is_empty() || !is_proven(source, findings, session, cancel, tell)? => 0,
        None => HARMLESS.min(invoices / HARMLESS_PART),
    };
    if files > harmless { confirm(files, invoices) } else { Ok(()) }
}

/// Whether all missing invoices were exported from this very table, and it was not replaced during the scan. After a
/// TRUNCATE or an exchange of the table every exported invoice looks withdrawn.
fn is_proven(
    source: &SourceOptions,
    findings: &Findings,
    session: &Session,
    cancel: &Cancel,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<bool> {
    if findings.withdrawn().is_empty() {
        return Ok(true);
    }
    let Session { state, snapshot, .. } = session;
    let Some(before) = &snapshot.parameters.table else { return Ok(false) };
    let Some(table) = state.source_table(Some(before))? else { return Ok(false) };
    for id in findings.withdrawn() {
        if state.entry(id)?.is_some_and(|entry| entry.table_no != Some(table)) {
            return Ok(false);
        }
    }
    let mut retry = RetryPolicy::new(source.retry_for, cancel);
    let now =
        retry.run(tell, || second_source_until(cancel, &source.access, &snapshot.server, None)?.table_identity())?;
    Ok(now.is_some_and(|now| before.lasts(&now)))
}

/// Removes the files of withdrawn invoices, and leftovers. Returns the counts of it.
pub(super) fn prune(
    mut server_session: ServerSession,
    findings: &Findings,
    leftovers: Leftovers,
    state: &mut State,
    writing: &mut Writing<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Counts> {
    let mut pruned = Counts::default();
    for ids in findings.withdrawn().chunks(PAGE) {
        let mut back = HashSet::new();
        server_session.ask(tell, |source| {
            source.documents(ids, &mut |fetched| {
                back.insert(fetched.id().clone());
                Ok(())
            })
        })?;
        let gone = ids.iter().filter(|id| !back.contains(*id)).map(|id| state.entry(id));
        let gone: Vec<Entry> = gone.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
        remove_withdrawn(&gone, state, writing, &mut pruned, tell)?;
    }
    let reused = if leftovers == Leftovers::Removed { findings.reused() } else { &[] };
    for paths in findings.superseded().chunks(PAGE).chain(reused.chunks(PAGE)) {
        remove_leftovers(paths, state, writing, &mut pruned, tell)?;
    }
    Ok(pruned)
}

/// Removes the files of one page of withdrawn invoices, then their rows in the ledger.
fn remove_withdrawn(
    gone: &[Entry],
    state: &mut State,
    writing: &mut Writing<'_>,
    pruned: &mut Counts,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    let ids: HashSet<&InvoiceId> = gone.iter().map(|entry| &entry.id).collect();
    let mut removals = Vec::new();
    for entry in gone {
        // Another invoice with the same path keeps the file, unless it is withdrawn too and on the same page. On a later
        // page it takes the file along.
        if state.owners(&entry.path, None)?.iter().all(|owner| ids.contains(&owner.id)) {
            removals.push(removal(&entry.id, &entry.path, entry.digest));
        }
    }
    let published = publish(removals, writing, pruned, tell)?;
    let left: HashSet<&InvoiceId> = published.not_removed().iter().map(|left| &left.id).collect();
    let mut record = Record { totals: *pruned, ..Record::default() };
    for entry in gone.iter().filter(|entry| !left.contains(&entry.id)) {
        record.withdrawn.push(entry.id.clone());
        let removed = u64::from(published.movers().any(|mover| *mover == entry.id));
        record.tenants.entry(entry.tenant.clone()).or_default().removed += removed;
    }
    writing.record(state, &published, &record)
}

/// Removes one page of leftovers that no invoice names.
fn remove_leftovers(
    paths: &[TreePath],
    state: &mut State,
    writing: &mut Writing<'_>,
    pruned: &mut Counts,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    let mut removals = Vec::new();
    for path in paths {
        if let Some(Leftover { path, id, digest, .. }) = state.leftover(path)?
            && state.owners(&path, None)?.is_empty()
        {
            removals.push(removal(&id, &path, digest));
        }
    }
    let published = publish(removals, writing, pruned, tell)?;
    let left: HashSet<&TreePath> = published.not_removed().iter().map(|left| &left.path).collect();
    let resolved_leftovers = paths.iter().filter(|path| !left.contains(path)).cloned().collect();
    writing.record(state, &published, &Record { resolved_leftovers, totals: *pruned, ..Record::default() })
}

fn removal(id: &InvoiceId, path: &TreePath, digest: Digest) -> Removal {
    Removal { path: path.clone(), instead: Vec::new(), digest, cause: Cause::Superseded(id.clone()) }
}

/// Carries out the removals. Files that stay are named to the operator.
fn publish(
    removals: Vec<Removal>,
    writing: &mut Writing<'_>,
    pruned: &mut Counts,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Published> {
    let published = writing.publish(Changes { removals, ..Changes::default() })?;
    pruned.removed += published.removed().count() as u64;
    for NotRemoved { path, why, .. } in published.not_removed() {
        let path = path.to_string();
        tell(Event::Notice(match why {
            NotRemovedReason::Foreign => Notice::LeftInPlace { path },
            NotRemovedReason::Stuck(detail) => Notice::NotRemoved { path, detail: detail.clone() },
        }));
    }
    Ok(published)
}
