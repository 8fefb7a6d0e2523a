//! Recording a published batch: ledger, to-do, rejects, totals and watermarks in one transaction.

use std::collections::{HashMap, HashSet};

use rusqlite::{Transaction, params};

use super::ledger::{Entry, EntryWriter, get_or_insert_folder};
use super::origin::Origin;
use super::runs::{OpenRun, put_counts, put_tenant, take_back};
use super::stored::{FolderNo, TenantNo};
use super::tenants::Advance;
use super::todo::{Closing, Leftover, Reject, TodoReason};
use super::{State, ledger, tenants, todo, watermarks};
use crate::invoice::{InvoiceId, SourceTime, Tenant};
use crate::run::Counts;
use crate::tree::name::TreePath;
use crate::tree::publish::Published;

/// What a batch changes in the state.
#[derive(Debug, Default)]
pub struct Record {
    pub entries: HashMap<InvoiceId, (Entry, Origin)>,
    /// Invoices that lost their path to another one. They are read again by the next run.
    pub displaced: HashSet<InvoiceId>,
    pub rejects: HashMap<InvoiceId, Reject>,
    /// Rows that are no invoice any more, and their tenants. Their ledger rows stay for `verify`.
    pub gone: HashMap<InvoiceId, Option<Tenant>>,
    /// Files that were left though no invoice names them any more.
    pub leftovers: HashMap<TreePath, Leftover>,
    /// Invoices that are withdrawn: the ledger forgets them.
    pub withdrawn: Vec<InvoiceId>,
    /// Leftovers that were dealt with.
    pub resolved_leftovers: Vec<TreePath>,
    /// Files that a dead run left to invoices that are none any more, or cannot be exported now.
    pub recovered: Vec<Entry>,
    /// Doubt about these files is settled.
    pub resolved_doubts: Vec<TreePath>,
    /// What was done for each tenant since the last record.
    pub tenants: HashMap<Tenant, Counts>,
    /// Of what earlier records of the run have counted: what is counted otherwise now.
    pub taken_back: HashMap<Tenant, Counts>,
    /// The run's totals so far.
    pub totals: Counts,
    pub advances: Vec<Advance>,
}

impl Record {
    /// Whether nothing but the watermark changes for the tenant. Such tenants are recorded by one statement, because all
    /// watermarks of one run move to its boundary.
    fn moves_only_the_watermark(&self, advance: &Advance) -> bool {
        let boundary = self.advances.first().map(|first| &first.watermark);
        advance.unchanged.is_some() && advance.written == 0 && boundary == Some(&advance.watermark)
    }
}

impl State {
    /// Records what was published. `Published` is the proof that the files are durable.
    pub fn record(&mut self, run: &OpenRun, published: &Published, record: &Record) -> anyhow::Result<()> {
        self.transaction(|tx| {
            if published.changed_the_tree() {
                tx.prepare_cached("UPDATE meta SET published_run = ?1")?.execute([run.id])?;
            }
            for id in &record.displaced {
                let tenant = ledger::tenant(tx, id)?;
                ledger::forget(tx, id)?;
                todo::put(tx, run.id, id, TodoReason::Displaced, tenant)?;
            }
            enter_all(tx, run, &record.entries)?;
            for reject in record.rejects.values() {
                todo::open_reject(tx, run.id, reject)?;
            }
            for id in record.gone.keys() {
                todo::close(tx, run.id, id, Closing::Gone)?;
            }
            for id in &record.withdrawn {
                ledger::forget(tx, id)?;
                todo::close(tx, run.id, id, Closing::Gone)?;
            }
            for entry in &record.recovered {
                ledger::correct(tx, run.id, entry)?;
            }
            put_paths(tx, run, published, record)?;
            put_progress(tx, run, record)
        })
    }
}

fn enter_all(
    tx: &Transaction<'_>,
    run: &OpenRun,
    entries: &HashMap<InvoiceId, (Entry, Origin)>,
) -> rusqlite::Result<()> {
    // In the order of the ledger's key, so that SQLite fills its pages one after the other.
    let mut entries: Vec<&(Entry, Origin)> = entries.values().collect();
    entries.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    let mut tenants: HashMap<&Tenant, TenantNo> = HashMap::new();
    let mut folders: HashMap<&str, FolderNo> = HashMap::new();
    let mut writer = EntryWriter::begin(tx, run.id)?;
    let [any_todo, any_leftover] = [is_filled(tx, "todo")?, is_filled(tx, "leftover")?];
    for (entry, origin) in entries {
        let tenant = match tenants.get(&entry.tenant) {
            Some(n) => *n,
            None => *tenants.entry(&entry.tenant).or_insert(tenants::get_or_insert(tx, &entry.tenant)?),
        };
        let folder = match folders.get(entry.path.folder()) {
            Some(n) => *n,
            None => *folders.entry(entry.path.folder()).or_insert(get_or_insert_folder(tx, &entry.path)?),
        };
        writer.enter(tenant, folder, entry, *origin)?;
        if any_todo {
            todo::close(tx, run.id, &entry.id, Closing::Exported)?;
        }
        if any_leftover && *origin != Origin::Kept {
            remove_leftover(tx, &entry.path)?;
        }
    }
    Ok(())
}

/// Lists that are empty in most runs are asked once, not for each invoice.
fn is_filled(tx: &Transaction<'_>, list: &str) -> rusqlite::Result<bool> {
    tx.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {list})"), [], |row| row.get(0))
}

fn remove_leftover(tx: &Transaction<'_>, path: &TreePath) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM leftover WHERE path = ?1")?.execute([path.as_str()])?;
    Ok(())
}

fn put_paths(tx: &Transaction<'_>, run: &OpenRun, published: &Published, record: &Record) -> rusqlite::Result<()> {
    for path in published.removed() {
        note_removal(tx, run, path)?;
    }
    for leftover in record.leftovers.values() {
        todo::add_leftover(tx, run.id, leftover)?;
    }
    for path in &record.resolved_leftovers {
        remove_leftover(tx, path)?;
    }
    for path in &record.resolved_doubts {
        todo::clear_doubt(tx, path)?;
    }
    Ok(())
}

fn put_progress(tx: &Transaction<'_>, run: &OpenRun, record: &Record) -> rusqlite::Result<()> {
    put_counts(tx, run.id, &record.totals)?;
    // Before the watermarks move, since a tenant's row keeps the old one.
    for (tenant, added) in record.tenants.iter().filter(|(_, added)| **added != Counts::default()) {
        put_tenant(tx, run.id, tenant, added)?;
    }
    for (tenant, counted) in &record.taken_back {
        take_back(tx, run.id, tenant, counted)?;
    }
    let (unchanged, moving): (Vec<&Advance>, Vec<&Advance>) =
        record.advances.iter().partition(|advance| record.moves_only_the_watermark(advance));
    let numbers: Vec<TenantNo> = unchanged.iter().filter_map(|advance| advance.unchanged).collect();
    if let Some(Advance { watermark, .. }) = unchanged.first() {
        watermarks::advance_unchanged(tx, run.id, watermark, &numbers)?;
    }
    for advance in moving {
        // Its row may stem from an earlier batch; a tenant with nothing new has none.
        note_advance(tx, run, &advance.tenant, &advance.watermark)?;
        watermarks::advance(tx, run.id, advance)?;
    }
    Ok(())
}

fn note_advance(tx: &Transaction<'_>, run: &OpenRun, tenant: &Tenant, to: &SourceTime) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE run_tenant SET new_watermark = ?3 WHERE run = ?1 AND tenant = (SELECT n FROM tenant WHERE name = ?2)",
    )?
    .execute(params![run.id, tenant.as_str(), to.as_str()])?;
    Ok(())
}

fn note_removal(tx: &Transaction<'_>, run: &OpenRun, path: &TreePath) -> rusqlite::Result<()> {
    let folder = get_or_insert_folder(tx, path)?;
    tx.prepare_cached("INSERT INTO file_past VALUES (?1, ?2, ?3, 'removed') ON CONFLICT DO NOTHING")?
        .execute(params![run.id, folder, path.stem()])?;
    Ok(())
}
