//! One verdict on one invoice, from everything we know: the row as it is now, what the state says, and
//! the file. It asks what a run would ask and decides as a run would.

use std::path::Path;
use std::time::Duration;

use crate::invoice::{InvoiceId, Reason, SourceTime, Tenant};
use crate::source::{Listed, Sighting, Source};
use crate::state::State;
use crate::state::ledger::Entry;
use crate::state::tenants::KnownTenant;
use crate::state::todo::Leftover;
use crate::state::trace::Trace;
use crate::tree::Tree;
use crate::window::{OpenWork, Span};

use super::check::{Checker, FileState, Presence, Verdict as Checked};
use super::plan::{self, HowToRead, Incremental, Reading};
use super::ticket::Trust;

/// The answer to "why is it (not) there?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub standing: Standing,
    pub because: String,
    pub next: Option<String>,
}

/// How an invoice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The tree holds it as it is in the source.
    Exported,
    /// The tree holds an older version of it.
    Stale,
    /// A run will export it.
    Waiting,
    NotExported,
    /// The tree holds it, but the source does not (any more).
    Orphaned,
}

impl Standing {
    /// The word in JSON and in front of the sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Stale => "stale",
            Self::Waiting => "waiting",
            Self::NotExported => "not exported",
            Self::Orphaned => "orphaned",
        }
    }
}

/// Everything that is known of one invoice.
#[derive(Clone, Debug)]
pub struct Case {
    /// None: no row with this id or number.
    pub row: Option<Sighting>,
    pub trace: Trace,
    pub tenant: Option<KnownTenant>,
    pub file: Option<FileNow>,
    /// Files that were left where the id was before.
    pub left_behind: Vec<Leftover>,
    pub verdict: Verdict,
}

/// The file that the ledger names, against what the ledger says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileNow {
    Intact,
    Missing,
    Altered,
}

impl FileNow {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Missing => "missing",
            Self::Altered => "altered",
        }
    }
}

/// What the source says now; without it only the state is asked.
pub struct Now {
    pub source: Box<dyn Source>,
    pub boundary: SourceTime,
    pub work: OpenWork,
    pub listed: Vec<Listed>,
    pub overlap: Duration,
    /// Bytes.
    pub max_document: u64,
}

impl Now {
    /// In the order of a run.
    pub fn ask(
        mut source: Box<dyn Source>,
        lag: Duration,
        overlap: Duration,
        max_document: u64,
    ) -> anyhow::Result<Self> {
        let boundary = source.clock()?.boundary(lag);
        let work = source.open_work()?;
        let listed = source.tenants(&boundary)?.tenants;
        Ok(Self { source, boundary, work, listed, overlap, max_document })
    }
}

/// Every invoice that has, or had when it was exported, this number.
pub fn why(
    number: &str,
    tenant: Option<&Tenant>,
    state: &State,
    output: &Path,
    mut now: Option<&mut Now>,
) -> anyhow::Result<Vec<Case>> {
    let known = state.tenants()?;
    let mut ids = state.ids_of(number)?;
    let rows = now.as_deref_mut().map_or_else(|| Ok(Vec::new()), |now| now.source.find(number, &ids))?;
    ids.extend(rows.iter().filter(|row| !ids.contains(&row.id)).map(|row| row.id.clone()).collect::<Vec<_>>());
    let tree = Tree::open_existing(output)?;
    let mut cases = Vec::new();
    for id in ids {
        let row = rows.iter().find(|row| row.id == id).cloned();
        let trace = state.trace(&id)?;
        let whose = whose(row.as_ref(), &trace);
        if tenant.is_some_and(|tenant| whose.as_ref() != Some(tenant)) {
            continue;
        }
        let file = trace.entry.as_ref().map(|entry| file_now(tree.as_ref(), entry)).transpose()?;
        let tenant = known.iter().find(|known| Some(&known.tenant) == whose.as_ref()).cloned();
        let verdict = match now.as_deref_mut() {
            None => judge_without_source(&trace, file),
            Some(now) => match &row {
                None => judge_gone(&trace),
                Some(row) => judge_row(row, &trace, file, tenant.as_ref(), &known, tree.as_ref(), now)?,
            },
        };
        let left_behind = state.left_behind(&trace.id)?;
        cases.push(Case { row, trace, tenant, file, left_behind, verdict });
    }
    Ok(cases)
}

fn whose(row: Option<&Sighting>, trace: &Trace) -> Option<Tenant> {
    let rejected = || trace.reject.as_ref().and_then(|reject| reject.tenant.clone());
    let exported = || trace.entry.as_ref().map(|entry| entry.tenant.clone());
    row.and_then(|row| row.tenant.clone()).or_else(exported).or_else(rejected)
}

fn file_now(tree: Option<&Tree>, entry: &Entry) -> anyhow::Result<FileNow> {
    let digest = tree.map_or(Ok(None), |tree| tree.digest(&entry.path))?;
    Ok(match digest {
        None => FileNow::Missing,
        Some(digest) if digest == entry.digest => FileNow::Intact,
        Some(_) => FileNow::Altered,
    })
}

fn verdict(standing: Standing, because: impl Into<String>, next: Option<&str>) -> Verdict {
    Verdict { standing, because: because.into(), next: next.map(str::to_owned) }
}

const FULL_RUN: &str = "a full run (run --mode full) writes it again";
const MEND: &str = "mend the row; every run reads it again until then";

fn judge_without_source(trace: &Trace, file: Option<FileNow>) -> Verdict {
    if let Some(reject) = &trace.reject {
        let standing = if trace.entry.is_some() { Standing::Stale } else { Standing::NotExported };
        return verdict(standing, &reject.detail, Some(mend_elsewhere(&reject.reason).unwrap_or(MEND)));
    }
    let next = Some("the source was not asked: whether the row changed since is not known");
    match file {
        Some(FileNow::Intact) => verdict(Standing::Exported, "its file is as it was exported", next),
        Some(file) => verdict(Standing::NotExported, format!("its file is {}", file.as_str()), Some(FULL_RUN)),
        None => verdict(Standing::NotExported, "the state knows nothing of it", next),
    }
}

fn judge_gone(trace: &Trace) -> Verdict {
    match (&trace.entry, &trace.reject) {
        (Some(_), _) => verdict(
            Standing::Orphaned,
            "its row is not in the source any more; the file stays",
            Some("verify --against-source lists such files"),
        ),
        (None, Some(reject)) => verdict(
            Standing::NotExported,
            format!("{}; its row is not in the source any more", reject.detail),
            Some("the next run closes the reject"),
        ),
        (None, None) => verdict(Standing::NotExported, "there is no such row", None),
    }
}

fn judge_row(
    row: &Sighting,
    trace: &Trace,
    file: Option<FileNow>,
    tenant: Option<&KnownTenant>,
    known: &[KnownTenant],
    tree: Option<&Tree>,
    now: &mut Now,
) -> anyhow::Result<Verdict> {
    if let Some(lacking) = lacking(row) {
        return Ok(match trace.entry {
            Some(_) => verdict(
                Standing::Orphaned,
                format!("it was exported, but now {lacking}; the file stays"),
                Some("verify --against-source lists such files"),
            ),
            None => verdict(
                Standing::NotExported,
                lacking,
                Some("it is exported once that is mended and its source time has moved"),
            ),
        });
    }
    match document_now(&row.id, trace, tree, now)? {
        Document::Gone => Ok(verdict(Standing::Waiting, "its row is changing right now", Some("ask again"))),
        Document::Rejected(reason) => {
            let standing = if trace.entry.is_some() { Standing::Stale } else { Standing::NotExported };
            Ok(verdict(standing, reason.to_string(), Some(mend_elsewhere(reason.code()).unwrap_or(MEND))))
        }
        Document::Same if file == Some(FileNow::Intact) => Ok(settled(trace)),
        Document::Same => Ok(match file {
            Some(file) => verdict(Standing::NotExported, format!("its file is {}", file.as_str()), Some(FULL_RUN)),
            None => waits(row, trace, tenant, known, now, "its file is right already, but not on record"),
        }),
        Document::Other if trace.entry.is_none() => Ok(waits(row, trace, tenant, known, now, "")),
        Document::Other if file == Some(FileNow::Missing) => {
            Ok(verdict(Standing::NotExported, "its file is missing", Some(FULL_RUN)))
        }
        Document::Other => Ok(waits(row, trace, tenant, known, now, "the row changed after it was exported")),
    }
}

fn settled(trace: &Trace) -> Verdict {
    if let Some(reject) = &trace.reject {
        return verdict(
            Standing::Stale,
            format!("{}; the row has been mended", reject.detail),
            Some("the next run exports it"),
        );
    }
    verdict(Standing::Exported, "its file is intact and holds the document as it is in the source", None)
}

/// What keeps a row from being an invoice.
fn lacking(row: &Sighting) -> Option<String> {
    let status = row.status.as_deref().unwrap_or("NULL");
    let parts = [
        (!row.issued).then(|| format!("its status is {status}, so it is not issued")),
        (!row.has_document).then(|| "it has no document".to_owned()),
        (!row.has_date).then(|| "it has no issue date".to_owned()),
        row.number.is_none().then(|| "it has no number".to_owned()),
        row.tenant.is_none().then(|| "it has no tenant".to_owned()),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

/// The document as it is now, against the file and the ledger.
enum Document {
    /// Not an invoice any more, since the row was looked at.
    Gone,
    Rejected(Reason),
    Same,
    Other,
}

fn document_now(id: &InvoiceId, trace: &Trace, tree: Option<&Tree>, now: &mut Now) -> anyhow::Result<Document> {
    let desk = Checker { tree, stage: None, presence: Presence::Checked, max_document: now.max_document };
    let mut found = Document::Gone;
    now.source.documents(std::slice::from_ref(id), &mut |fetched| {
        found = match desk.check(fetched, trace.entry.as_ref(), Trust::Ledger)? {
            Checked::Reject(reject) => Document::Rejected(reject.reason),
            Checked::Trouble { trouble, .. } => anyhow::bail!("{trouble}"),
            Checked::Candidate(candidate) => match candidate.file {
                FileState::Unchanged | FileState::Adopted => Document::Same,
                FileState::Staged(_) => match &trace.entry {
                    Some(entry) if entry.path == candidate.path && entry.digest == candidate.digest => Document::Same,
                    _ => Document::Other,
                },
            },
        };
        Ok(())
    })?;
    Ok(found)
}

/// What keeps a row from being exported though its document is right.
fn mend_elsewhere(reason: &str) -> Option<&'static str> {
    match reason {
        "path-taken" => Some("every run reads it again until the other invoice has another path"),
        "too-large" => Some("run with a greater --max-document; every run reads it again until then"),
        _ => None,
    }
}

/// Which run will take it, decided as the next incremental run would.
fn waits(
    row: &Sighting,
    trace: &Trace,
    tenant: Option<&KnownTenant>,
    known: &[KnownTenant],
    now: &Now,
    first: &str,
) -> Verdict {
    let standing = if trace.entry.is_some() { Standing::Stale } else { Standing::Waiting };
    let say = |text: String, next: &str| {
        let because = if first.is_empty() { text } else { format!("{first}; {text}") };
        verdict(standing, because, Some(next))
    };
    if let Some(reject) = &trace.reject
        && let Some(mend) = mend_elsewhere(&reject.reason)
    {
        let standing = if trace.entry.is_some() { Standing::Stale } else { Standing::NotExported };
        return verdict(standing, &reject.detail, Some(mend));
    }
    if trace.reject.is_some() || trace.on_todo_list {
        return say("it is on the to-do list".to_owned(), "the next run reads it, whatever its window");
    }
    let Some(time) = row.time.as_ref().filter(|time| crate::window::earlier(time, Duration::ZERO).is_some()) else {
        return say("it has no usable source time".to_owned(), "only a full run (run --mode full) exports it");
    };
    if *time > now.boundary {
        return say(
            format!("its source time {time} lies after the boundary {}", now.boundary),
            "an incremental run exports it once the boundary has passed that time",
        );
    }
    let watermark = tenant.and_then(|tenant| tenant.watermark.as_ref());
    if watermark.is_none_or(|watermark| time > watermark) {
        let from = watermark.map_or("the beginning", SourceTime::as_str);
        return say(
            format!("its source time {time} lies in the next window ({from} to {})", now.boundary),
            "the next incremental run exports it",
        );
    }
    let same = trace.entry.as_ref().is_some_and(|entry| entry.settled && entry.time.as_ref() == Some(time));
    if same {
        return say(
            format!("its source time {time} did not move, so incremental runs do not see the change"),
            FULL_RUN,
        );
    }
    let look_back = match reading(row, known, now) {
        Reading::Keys(Span { after, .. }) => after.is_none_or(|after| *time > after),
        Reading::Nothing => false,
    };
    let late =
        format!("its source time {time} lies below the watermark: it was committed late, or its time set by hand");
    if look_back {
        return say(late, "the next incremental run exports it: it reads keys from before that time");
    }
    say(
        format!("{late}, and below what the next incremental run reads"),
        "export it with run --mode full, or with run --since and a time before it",
    )
}

fn reading(row: &Sighting, known: &[KnownTenant], now: &Now) -> Reading {
    let Now { boundary, work, overlap, listed, .. } = now;
    let how = HowToRead::Incremental(Incremental { known, boundary, work, overlap: *overlap });
    let chosen: Vec<Tenant> = row.tenant.iter().cloned().collect();
    let groups = plan::groups(listed, &chosen, known, &how);
    groups.into_iter().next().map_or(Reading::Nothing, |group| group.reading)
}
