//! The check of one row, in several threads at once: whether it can be exported and whether its file is right already.
//! If not, its document is written to staging.

use serde::de::IgnoredAny;

use super::ticket::Rewrite;
use crate::invoice::{Digest, Fetched, Invoice, InvoiceId, Reason, Row, SourceTime, Tenant};
use crate::refusal::Trouble;
use crate::state::ledger::Entry;
use crate::state::todo::Reject;
use crate::tree::name::TreePath;
use crate::tree::publish::concerns_one_tenant;
use crate::tree::stage::{Naming, Stage, StagedDocument};
use crate::tree::{FileComparison, Tree};

/// Where documents are compared and staged. A dry run has no stage, and no tree if there is none yet.
#[derive(Clone, Copy)]
pub(super) struct Checker<'a> {
    pub tree: Option<&'a Tree>,
    pub stage: Option<&'a Stage>,
    pub presence: Presence,
    /// Bytes.
    pub max_document: u64,
}

/// Whether the file of a row that is as the ledger says is looked for before the row counts as unchanged. Every run
/// compares the file with the document where the ledger says something else, or marks its row `recheck`: an operator
/// set the watermark back, or the state was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Full runs and backfills put back files that were taken away.
    Checked,
    /// Incremental runs do not look: a consumer that takes files away is not given them again.
    Assumed,
}

/// An exportable invoice and what its file needs.
#[derive(Debug)]
pub(super) struct Candidate {
    pub invoice: Invoice,
    pub path: TreePath,
    pub digest: Digest,
    pub size: u64,
    pub file: FileState,
}

impl Candidate {
    /// Whether the file is right already, or assumed to be.
    pub(super) fn has_right_file(&self) -> bool {
        matches!(self.file, FileState::Unchanged | FileState::Adopted)
    }
}

#[derive(Debug)]
pub(super) enum FileState {
    /// The ledger has it at this path with this document, and the file is there or assumed to be.
    Unchanged,
    /// The file is right, but the ledger does not know the invoice, or has it at another path or with another document.
    Adopted,
    /// It must be written. None without a stage: in a dry run, for `why` and for `verify`.
    Staged(Option<StagedDocument>, Before),
}

/// What was at the path of a file that must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    AFile,
}

#[derive(Debug)]
pub(super) enum CheckResult {
    Candidate(Candidate),
    Reject(Reject),
    /// Something on our side that concerns this tenant only.
    Trouble {
        invoice: Invoice,
        trouble: Trouble,
    },
}

impl CheckResult {
    pub(super) fn id(&self) -> &InvoiceId {
        match self {
            Self::Candidate(Candidate { invoice, .. }) | Self::Trouble { invoice, .. } => &invoice.id,
            Self::Reject(reject) => &reject.id,
        }
    }

    pub(super) fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::Candidate(Candidate { invoice, .. }) | Self::Trouble { invoice, .. } => Some(&invoice.tenant),
            Self::Reject(reject) => reject.tenant.as_ref(),
        }
    }

    pub(super) fn time(&self) -> Option<&SourceTime> {
        match self {
            Self::Candidate(Candidate { invoice, .. }) | Self::Trouble { invoice, .. } => invoice.time.as_ref(),
            Self::Reject(reject) => reject.time.as_ref(),
        }
    }

    /// NULL is no time, nor is the zero date that MySQL may hold. A reject is named as such.
    pub(super) fn is_timeless(&self) -> bool {
        let is_usable = |time: &SourceTime| !time.as_str().starts_with("0000-");
        !matches!(self, Self::Reject(_)) && !self.time().is_some_and(is_usable)
    }
}

impl Checker<'_> {
    /// Finds out whether a row can be exported, and what its file needs. `known` is what the ledger says of it.
    ///
    /// # Errors
    /// What ends the run: staging failed, or a folder cannot be looked at for a reason that concerns every tenant.
    pub(super) fn check(
        &self,
        fetched: Fetched,
        known: Option<&Entry>,
        rewrite: Rewrite,
    ) -> anyhow::Result<CheckResult> {
        let Row { invoice, document } = match fetched {
            Fetched::Row(row) => row,
            Fetched::Unreadable { id, tenant, number, time, reason } => {
                return Ok(CheckResult::Reject(Reject { id, tenant, number, time, reason }));
            }
        };
        if let Err(reason) = self.has_date_and_size(&invoice, &document) {
            return Ok(reject(invoice, reason));
        }
        let digest = Digest::of(&document);
        // A settled document was found to be JSON when it was entered.
        let is_known_json = known.is_some_and(|known| known.settled && known.digest == digest);
        if !is_known_json && let Err(reason) = is_json(&document) {
            return Ok(reject(invoice, reason));
        }
        self.compare_and_stage(Row { invoice, document }, digest, known, rewrite)
    }

    /// Compares the file of an invoice that can be exported, and stages the document if the file is not right.
    fn compare_and_stage(
        &self,
        row: Row,
        digest: Digest,
        known: Option<&Entry>,
        rewrite: Rewrite,
    ) -> anyhow::Result<CheckResult> {
        let Row { invoice, document } = row;
        let path = TreePath::of(&invoice.tenant, invoice.country.as_deref(), &invoice.date, &invoice.number);
        let size = document.len() as u64;
        let file = match self.file_state(&path, digest, &document, known, rewrite) {
            Ok(FileComparison::Same) if known.is_some_and(|known| known.path == path && known.digest == digest) => {
                FileState::Unchanged
            }
            Ok(FileComparison::Same) => FileState::Adopted,
            Ok(there @ (FileComparison::Nothing | FileComparison::Other)) => {
                let before = if there == FileComparison::Other { Before::AFile } else { Before::Nothing };
                let staged = self.stage.map(|stage| stage.write(&document, self.naming(&path))).transpose()?;
                FileState::Staged(staged, before)
            }
            Ok(FileComparison::Blocked) => return Ok(reject(invoice, Reason::PathBlocked { path: path.to_string() })),
            Err(error) if concerns_one_tenant(&error) => {
                let trouble = Trouble::NotSeen { path: path.to_string(), detail: Trouble::detail(&error) };
                return Ok(CheckResult::Trouble { invoice, trouble });
            }
            Err(error) => return Err(anyhow::Error::new(error).context(format!("cannot look at {path}"))),
        };
        Ok(CheckResult::Candidate(Candidate { invoice, path, digest, size, file }))
    }

    /// A staged document is not needed after all.
    pub(super) fn discard(&self, staged: &StagedDocument) {
        if let Some(stage) = self.stage {
            stage.discard(staged);
        }
    }

    fn naming(&self, path: &TreePath) -> Naming {
        let is_ours = self.tree.is_some_and(|tree| tree.is_in_new_folder(path));
        if is_ours { Naming::AtTheEnd } else { Naming::AtOnce }
    }

    fn has_date_and_size(&self, invoice: &Invoice, document: &[u8]) -> Result<(), Reason> {
        let date = &invoice.date;
        if date.len() != 8
            || !date.bytes().all(|byte| byte.is_ascii_digit())
            || chrono::NaiveDate::parse_from_str(date, "%Y%m%d").is_err()
        {
            return Err(Reason::ImpossibleDate { date: date.clone() });
        }
        if document.len() as u64 > self.max_document {
            return Err(Reason::TooLarge { bytes: document.len() as u64 });
        }
        Ok(())
    }

    /// Whether the right file is there. What the ledger says is enough where it may be believed.
    fn file_state(
        &self,
        path: &TreePath,
        digest: Digest,
        document: &[u8],
        known: Option<&Entry>,
        rewrite: Rewrite,
    ) -> std::io::Result<FileComparison> {
        let Some(tree) = self.tree else { return Ok(FileComparison::Nothing) };
        let size = document.len() as u64;
        match known {
            // What a dead run has put there counts as the work of this one: no run has counted it.
            _ if rewrite == Rewrite::Always => Ok(match tree.compare(path, document)? {
                FileComparison::Same if known.is_none_or(|known| known.path != *path) => FileComparison::Nothing,
                FileComparison::Same => FileComparison::Other,
                other => other,
            }),
            Some(known) if known.path == *path && known.digest == digest && !known.recheck => {
                let there = self.presence == Presence::Assumed || tree.has_file(path, size)?;
                if there { Ok(FileComparison::Same) } else { tree.compare(path, document) }
            }
            _ => tree.compare(path, document),
        }
    }
}

/// JSON in UTF-8, looked at and not kept.
fn is_json(document: &[u8]) -> Result<(), Reason> {
    // The JSON check alone would let broken UTF-8 inside a string pass.
    let text =
        simdutf8::compat::from_utf8(document).map_err(|error| Reason::NotUtf8 { offset: error.valid_up_to() })?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(_) if text.starts_with('\u{feff}') => Err(Reason::ByteOrderMark),
        Err(error) => Err(Reason::NotJson { detail: error.to_string() }),
    }
}

fn reject(invoice: Invoice, reason: Reason) -> CheckResult {
    let Invoice { id, tenant, number, time, .. } = invoice;
    CheckResult::Reject(Reject { id, tenant: Some(tenant), number: Some(number), time, reason })
}
