//! The deciding side of a run: one thread that gives out paths, over the ledger and the batches that it does not know
//! of yet.
//!
//! | file | what it owns |
//! |---|---|
//! | `decider.rs` | the order of steps: row by row, part by part, batch by batch |
//! | `decisions.rs` | what becomes of one row; `removal_proof.rs` adds to its `Decisions` what becomes of the old file |
//! | `ledger_view.rs` | where each invoice lies, over ledger, batch in flight and open batch |
//! | `batch.rs` | what is published and recorded together, and its counts |
//! | `conflicts.rs` | rows that wait because two invoices want one path |
//! | `parts.rs` | whether all rows of a part have arrived, and how watermarks move |
//! | `doubted.rs` | the paths that a dead run left in doubt |
//! | `removal_proof.rs` | whether an old file may be removed: only if its row is provably the one that was exported |
//! | `tally.rs` | that a row which is decided twice counts once |
//! | `journal.rs` | what is said, and what came of the run |
//! | `decider_source.rs` | the deciding thread's connection to the source |
//! | `bloom.rs` | which ids and paths an empty ledger need not be asked for |

pub(super) use self::bloom::BloomFilter;
pub(super) use self::decider::Decider;
pub(super) use self::decider_source::DeciderSource;
pub(super) use self::decisions::Decisions;
pub(super) use self::journal::Journal;
pub(super) use self::ledger_view::LedgerView;
pub(super) use self::tally::Tally;

mod batch;
mod bloom;
mod conflicts;
mod decider;
mod decisions;
mod doubted;
mod journal;
mod ledger_view;
mod parts;
mod decider_source;
mod removal_proof;
mod tally;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::export::server::RunParameters;
    use crate::invoice::SourceTime;
    use crate::run::Kind;
    use crate::window::OpenWork;

    /// Of a run with the boundary 10:30 and an overlap of a minute, beside which no work is open.
    pub(super) fn parameters(kind: Kind) -> RunParameters {
        let boundary = SourceTime::from("2025-11-28 10:30:00");
        RunParameters {
            kind,
            settled_below: boundary.clone(),
            boundary,
            since: None,
            work: OpenWork::None,
            overlap: Duration::from_secs(60),
            table: None,
        }
    }
}
