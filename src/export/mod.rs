//! Where source, tree and state meet, and nowhere else.
//!
//! ## How a row travels from the server's table to the disk
//!
//! 1. `source/rows.rs` makes a `Fetched` of the server's cells: a `Row`, or `Unreadable` with a `Reason`.
//! 2. `diff.rs` (`Reader::fetch`, of a full run `Reader::read_rows`) adds a `Ticket`: the ledger's entry, the part of
//!    the run, how late the row is. `outbox.rs` sends both as a `Job`. The ledger is asked before the fetch, but of the
//!    rows of a full run only here, when their packet goes.
//! 3. `check.rs` (`Checker::check`, several threads) makes a `CheckResult` of it: a `Candidate` with its path, after
//!    staging the document if the file is not right; a `Reject`; or a `Trouble` of the tenant.
//! 4. `drive.rs` hands it as `Checked` to `Decider::on_row`. `Decider::claim` lets it wait in `Conflicts` if another
//!    invoice stands against it; otherwise `Decisions::accept` puts an `Entry` and a `Placement` into the open `Batch`.
//! 5. `Decider::submit_batch` submits the batch as `Changes`. The threads of `commit.rs` sync the staged documents
//!    (`SyncedBatch`) and put them in place (`Published`, the proof that they are durable).
//! 6. `Decisions::close` counts the rows of the batch, and `Committer::record` writes its `Record` in one transaction.
//!
//! What to change for a new refusal: `docs/CONTRIBUTING.md`.
//!
//! ## Where a late commit is found
//!
//! A transaction may commit a row after a run has moved the watermark past its source time.
//!
//! 1. `ask_server` in `server.rs` asks for open work (`Source::open_work`, for MySQL and MariaDB `source/open_work.rs`)
//!    before any row is read. What had committed by then is visible to every later read; the rest is in `OpenWork`.
//! 2. `advances` in `decide/parts.rs` has `window::look_back` say where the next run begins to read keys, and
//!    `State::record` keeps that beside the watermark. `work_was_open` says that work was open then.
//! 3. `Decisions::entry_of` settles an entry of the ledger only if its time lies below `window::settled_below`: a
//!    second version with the time of the first could still commit.
//! 4. In the next run `Incremental::keys_to_read` in `plan.rs` begins at the look-back, also of a tenant with nothing
//!    new if work is open or was. `Reader::unsettled` in `diff.rs` drops the keys that the ledger holds settled
//!    (`LedgerReader::match_keys`), and the documents of the others are fetched.
//! 5. `Reader::wanted` sets `Ticket::late_by` for a row if its source time lies between `KnownTenant::read_from` and the
//!    watermark, which runs have read, and if the ledger does not have its id. `Decider::count_late` counts the row if it
//!    needs a file. `Journal::finish` warns if a row came later than half the overlap. A row that a run finds after a
//!    doubt, an import or an operator's change is not late: `state/watermarks.rs` empties `read_from` then. The next read
//!    without a lower bound sets it again, in `decide/parts.rs`; a trigger of the schema does so after a full run.
//!
//! The lower bound is lifted, so that all keys of a tenant are compared, where the look-back proves nothing:
//! `doubts.rs` finds clocks or a server that changed, or a restored state; `window::look_back` knows no start for open
//! work, or no time of the tenant; `plan.rs` or `Reader::read_group` meets an unknown spelling; an operator resets a
//! watermark or adopts another source. A row that no run reads, because it was committed later than all of this allows
//! for, is found by `verify --against-source` (`verify/source.rs`).
//!
//! ## The files
//!
//! | file | what it owns |
//! |---|---|
//! | `options.rs` | what the operator wants of a run |
//! | `plan.rs` | whether a run may start here and which keys it reads, without I/O |
//! | `gone_back.rs` | which tenants show an older newest time than before, without I/O |
//! | `doubts.rs` | whether clocks and server are those of the last run, without I/O |
//! | `retry.rs` | when a server that went away is tried again |
//! | `server.rs` | the questions to the server before any row is read |
//! | `conditions.rs` | whether a condition of the source is news, without I/O |
//! | `attach.rs` | whether a tree and a state belong together |
//! | `tenant_families.rs` | which spellings are one tenant to the source |
//! | `writing.rs` | the right to change tree and state, for one run |
//! | `mirror.rs` | the script's state file |
//! | `metrics.rs` | what is measured of a run, and its summary |
//! | `session.rs` | a run on record, from the lock to its end |
//! | `starts.rs` | starts that fail, on record |
//! | `abandon.rs` | questions that a signal ends |
//! | `in_doubt.rs` | what a dead run left in doubt, for commands that look |
//! | `ticket.rs` | what goes along with a row from reading to deciding |
//! | `check.rs` | whether a row can be exported, and whether its file is right |
//! | `one_by_one.rs` | rows that a server does not return |
//! | `budget.rs` | the bound on bytes in memory |
//! | `outbox.rs` | rows on their way to the threads that check them |
//! | `diff.rs` | the thread that reads: keys against the ledger, then documents |
//! | `drive.rs` | the threads that read and check, and the messages to the one that decides |
//! | `decide/` | the thread that gives out paths |
//! | `commit.rs` | where decisions go: the threads that publish, and the records of batches |
//! | `carry_out.rs` | the work of a run: scope, to-do list, threads |
//! | `run.rs`, `dry_run.rs` | one run or dry run, from start to summary |
//! | `verify.rs`, `verify/` | tree, ledger and source compared, with the same parts |
//! | `lag.rs`, `why.rs`, `why/` | how far tenants lag behind; what became of one invoice |

pub use self::options::{
    Backups, CommonOptions, ExportOptions, Margins, Mirror, Mode, Paths, Rejects, SourceOptions, Surroundings,
    WorkOptions,
};
pub use self::run::run;
pub use self::server::{ServerSession, refuse_other_source};

mod abandon;
mod budget;
mod carry_out;
mod check;
mod commit;
mod conditions;
mod gone_back;
pub mod in_doubt;
mod metrics;
mod decide;
mod diff;
mod doubts;
mod drive;
mod dry_run;
mod server;
mod tenant_families;
pub mod lag;
mod mirror;
mod one_by_one;
mod options;
mod outbox;
mod retry;
pub mod plan;
mod run;
mod session;
pub mod starts;
mod ticket;
pub mod attach;
pub mod verify;
pub mod why;
mod writing;
