//! One verdict on one invoice, from everything we know: the row as it is now, what the state says, and
//! the file. It asks what a run would ask and decides as a run would (`verdict.rs`).

use std::path::Path;

use crate::export::in_doubt::{Blame, InDoubt};
use crate::invoice::{InvoiceId, Tenant};
use crate::refusal::Refusal;
use crate::source::RowSummary;
use crate::state::State;
use crate::state::file_past::FilePast;
use crate::state::history::FileAction;
use crate::state::ledger::Entry;
use crate::state::tenants::KnownTenant;
use crate::state::todo::Leftover;
use crate::state::trace::{RunNote, Trace};
use crate::tree::Tree;
use crate::tree::asked::AskedFiles;
use crate::tree::name::TreePath;
use crate::tree::walk;

mod verdict;

use verdict::Clues;
pub use verdict::{FileNow, InvoiceStatus, SourceSnapshot, Verdict};

/// Everything that is known of one invoice.
#[derive(Clone, Debug)]
pub struct Case {
    /// None: no row with this id or number.
    pub row: Option<RowSummary>,
    pub trace: Trace,
    pub tenant: Option<KnownTenant>,
    /// Of the ledger, else the one at which a run that died may have written the invoice.
    pub path: Option<TreePath>,
    pub file: Option<FileNow>,
    /// What runs did to the file, the oldest first, where one of them removed it and it came back.
    pub past: Vec<(RunNote, FileAction)>,
    /// Files that are not on record and spell the number of an invoice that no run could export.
    pub last_good: Vec<TreePath>,
    /// Files that were left where the id was before.
    pub left_behind: Vec<Leftover>,
    pub verdict: Verdict,
}

impl Case {
    /// Whether the invoice has this file, or would get it.
    fn has(&self, path: &TreePath) -> bool {
        let left_behind = self.left_behind.iter().map(|leftover| &leftover.path);
        self.path.iter().chain(&self.verdict.due).chain(left_behind).any(|own| own == path)
    }

    /// The tenant of the row, else of the ledger, else of the reject, else of the file in doubt.
    fn tenant(&self) -> Option<Tenant> {
        tenant_of(self.row.as_ref(), &self.trace, self.path.as_ref())
    }
}

/// The answer to a question by a number or by the path of a file.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub cases: Vec<Case>,
    /// Files that were asked for and that no invoice has any more.
    pub past: Vec<FilePast>,
    /// The past was found by the number, which no invoice has.
    pub is_number_known_from_past: bool,
    /// Files that were asked for, are there, and are not on record.
    pub strays: Vec<TreePath>,
    /// How many invoices have the number of such a file, and another file.
    pub elsewhere: usize,
}

/// What an answer is found in.
pub struct Evidence<'a> {
    pub state: &'a State,
    pub in_doubt: &'a InDoubt,
    pub output: &'a Path,
}

/// Every invoice that has, or had when it was exported, this number, and those of these files. Of a file that is not on
/// record, those with the number that its name spells.
pub fn why(
    number: &str,
    asked: &AskedFiles,
    tenant: Option<&Tenant>,
    Evidence { state, in_doubt, output }: Evidence<'_>,
    mut now: Option<&mut SourceSnapshot<'_>>,
) -> anyhow::Result<Answer> {
    let (known, tree) = (state.tenants()?, Tree::open_existing(output)?);
    let inquiry = Inquiry { state, in_doubt, tenant, known: &known, tree: tree.as_ref() };
    let mut ids = state.ids_with_files(asked)?;
    ids.extend(in_doubt.writers(|path| asked.names(path)));
    let cases = inquiry.cases(number, ids, now.as_deref_mut())?;
    let is_wanted = |past: &FilePast| tenant.is_none() || past.path.tenant_name().as_ref() == tenant;
    let past: Vec<FilePast> = state.past_of_files(asked)?.into_iter().filter(is_wanted).collect();
    let mut answer = Answer { cases, past, ..Answer::default() };
    if answer.cases.is_empty() && answer.past.is_empty() {
        answer.past = state.past_of_number(number)?.into_iter().filter(is_wanted).collect();
        answer.is_number_known_from_past = !answer.past.is_empty();
    }
    if answer.cases.is_empty()
        && answer.past.is_empty()
        && let Some(number) = asked.number()
    {
        answer = inquiry.by_name(&number, asked, now.as_deref_mut())?;
    }
    if let Some(tenant) = tenant.filter(|_| answer.cases.is_empty() && answer.past.is_empty()) {
        refuse_unknown_tenant(tenant, &known, now)?;
    }
    Ok(answer)
}

/// What all questions of one answer share.
struct Inquiry<'a> {
    state: &'a State,
    in_doubt: &'a InDoubt,
    /// Only this tenant.
    tenant: Option<&'a Tenant>,
    known: &'a [KnownTenant],
    tree: Option<&'a Tree>,
}

impl Inquiry<'_> {
    /// The invoices with a number and those with these ids.
    fn cases(
        &self,
        number: &str,
        ids: Vec<InvoiceId>,
        mut now: Option<&mut SourceSnapshot<'_>>,
    ) -> anyhow::Result<Vec<Case>> {
        let mut all = self.state.ids_of(number)?;
        let in_doubt = self.in_doubt.writers(|path| path.number().as_deref() == Some(number));
        let rows = |ids: &[InvoiceId], now: Option<&mut SourceSnapshot<'_>>| match now {
            Some(now) => now.ask(|source| source.find(number, ids)),
            None => Ok(Vec::new()),
        };
        add(&mut all, ids.into_iter().chain(in_doubt));
        let rows = rows(&all, now.as_deref_mut())?;
        add(&mut all, rows.iter().map(|row| row.id.clone()));
        let mut cases = Vec::new();
        for id in all {
            let row = rows.iter().find(|row| row.id == id).cloned();
            cases.extend(self.case(&id, row, now.as_deref_mut())?);
        }
        Ok(cases)
    }

    /// One invoice. None: it is another tenant's than the one that was asked for.
    fn case(
        &self,
        id: &InvoiceId,
        row: Option<RowSummary>,
        now: Option<&mut SourceSnapshot<'_>>,
    ) -> anyhow::Result<Option<Case>> {
        let trace = self.state.trace(id)?;
        let (path, file) = self.file_of(id, trace.entry.as_ref())?;
        let owner = tenant_of(row.as_ref(), &trace, path.as_ref());
        if self.tenant.is_some_and(|tenant| owner.as_ref() != Some(tenant)) {
            return Ok(None);
        }
        let tenant = self.known.iter().find(|known| Some(&known.tenant) == owner.as_ref()).cloned();
        let clues = Clues {
            trace: &trace,
            file,
            in_doubt: self.in_doubt,
            tenant: tenant.as_ref(),
            known: self.known,
            tree: self.tree,
        };
        let verdict = verdict::judge(row.as_ref(), &clues, now)?;
        let left_behind = self.state.leftovers_of(id)?;
        let own = trace.entry.as_ref().map(|entry| &entry.path);
        let past = own.map_or(Ok(Vec::new()), |path| self.state.removed_past(path))?;
        let last_good = self.last_good(&trace, owner.as_ref())?;
        Ok(Some(Case { row, trace, tenant, path, file, past, last_good, left_behind, verdict }))
    }

    /// The files that may be the last good ones of an invoice that no run could export: from before this state.
    fn last_good(&self, trace: &Trace, tenant: Option<&Tenant>) -> anyhow::Result<Vec<TreePath>> {
        let number = trace.reject.as_ref().filter(|_| trace.entry.is_none()).and_then(|it| it.number.as_ref());
        let (Some(number), Some(tenant), Some(tree)) = (number, tenant, self.tree) else { return Ok(Vec::new()) };
        self.state.without_invoice(walk::of_number(tree.output(), tenant, number))
    }

    /// The file of the ledger, unless a run that died has written another one.
    fn file_of(&self, id: &InvoiceId, entry: Option<&Entry>) -> anyhow::Result<(Option<TreePath>, Option<FileNow>)> {
        let is_there = |path: &TreePath| self.tree.map_or(Ok(None), |tree| tree.inspect(path)).map(|it| it.is_some());
        match (entry, self.in_doubt.path_of(id)) {
            (Some(entry), Some(path)) if entry.path != *path && is_there(path)? => {}
            (Some(entry), _) => return Ok((Some(entry.path.clone()), Some(self.file_now(entry)?))),
            (None, None) => return Ok((None, None)),
            (None, Some(_)) => {}
        }
        Ok((self.in_doubt.path_of(id).cloned(), Some(FileNow::InDoubt)))
    }

    /// Compares the file with what the ledger says of it.
    fn file_now(&self, entry: &Entry) -> anyhow::Result<FileNow> {
        let Some(tree) = self.tree else { return Ok(FileNow::Missing) };
        let file = match tree.digest(&entry.path)? {
            Some(digest) if digest == entry.digest => return Ok(FileNow::Intact),
            Some(_) => FileNow::Altered,
            None => FileNow::Missing,
        };
        Ok(if self.in_doubt.judge(entry, tree) == Blame::NotTheRun { file } else { FileNow::InDoubt })
    }

    /// The invoices with the number that a file's name spells. Where the file is there, all of its tenant, if there are
    /// some; else those that may be meant.
    fn by_name(
        &self,
        number: &str,
        asked: &AskedFiles,
        now: Option<&mut SourceSnapshot<'_>>,
    ) -> anyhow::Result<Answer> {
        let mut cases = self.cases(number, Vec::new(), now)?;
        let mut strays = Vec::new();
        for path in &asked.paths {
            if self.tree.map_or(Ok(None), |tree| tree.inspect(path))?.is_some_and(|facts| facts.is_file) {
                strays.push(path.clone());
            }
        }
        let all = cases.len();
        let of_tenant = |case: &Case| asked.paths.iter().any(|path| path.tenant_name() == case.tenant());
        if strays.is_empty() {
            cases.retain(|case| match (&case.path, &case.verdict.due) {
                (Some(_), _) => false,
                (None, Some(due)) => asked.names(due),
                (None, None) => asked.paths.is_empty() || of_tenant(case),
            });
        } else if cases.iter().any(of_tenant) {
            cases.retain(of_tenant);
        }
        strays.retain(|path| !cases.iter().any(|case| case.has(path)));
        let elsewhere = all - cases.len();
        Ok(Answer { cases, strays, elsewhere, ..Answer::default() })
    }
}

/// Adds the ids that are not there yet.
fn add(all: &mut Vec<InvoiceId>, more: impl Iterator<Item = InvoiceId>) {
    for id in more {
        if !all.contains(&id) {
            all.push(id);
        }
    }
}

/// Where there is no answer, a tenant that neither the state nor the source knows is a mistype.
fn refuse_unknown_tenant(
    tenant: &Tenant,
    known: &[KnownTenant],
    now: Option<&mut SourceSnapshot<'_>>,
) -> anyhow::Result<()> {
    if known.iter().any(|known| known.tenant == *tenant) {
        return Ok(());
    }
    let Some(now) = now else { return Err(Refusal::TenantNotInState(tenant.to_string()).into()) };
    let is_there = now.ask(|source| source.has_tenant(tenant))?;
    if is_there { Ok(()) } else { Err(Refusal::UnknownTenant(tenant.to_string()).into()) }
}

/// The tenant of the row, else of the ledger, else of the reject, else of the file.
fn tenant_of(row: Option<&RowSummary>, trace: &Trace, path: Option<&TreePath>) -> Option<Tenant> {
    let rejected = || trace.reject.as_ref().and_then(|reject| reject.tenant.clone());
    let exported = || trace.entry.as_ref().map(|entry| entry.tenant.clone());
    let of_file = || path.and_then(TreePath::tenant_name);
    row.and_then(|row| row.tenant.clone()).or_else(exported).or_else(rejected).or_else(of_file)
}
