//! Where source, tree and state meet, and nowhere else.
//!
//! | file | what it owns |
//! |---|---|
//! | `options.rs` | what the operator wants of a run |
//! | `plan.rs` | whether a run may start and which keys it reads, without I/O |
//! | `doubts.rs` | whether clocks and server are those of the last run, without I/O |
//! | `retry.rs` | when a server that went away is tried again |
//! | `server.rs` | the questions to the server before any row is read |
//! | `attach.rs` | whether a tree and a state belong together |
//! | `tenant_families.rs` | which spellings are one tenant to the source |
//! | `writing.rs` | the right to change tree and state, for one run |
//! | `mirror.rs` | the script's state file |
//! | `metrics.rs` | what is measured of a run, and its summary |
//! | `session.rs` | a run on record, from the lock to its end |
//! | `ticket.rs` | what goes along with a row from reading to deciding |
//! | `check.rs` | whether a row can be exported, and whether its file is right |
//! | `one_by_one.rs` | rows that a server does not return |
//! | `budget.rs` | the bound on bytes in memory |
//! | `outbox.rs` | rows on their way to the threads that check them |
//! | `diff.rs` | the thread that reads: keys against the ledger, then documents |
//! | `drive.rs` | the threads that read and check, and the messages to the one that decides |
//! | `decide/` | the thread that gives out paths |
//! | `commit.rs` | the threads that publish, and the records of batches |
//! | `carry_out.rs` | the work of a run: scope, to-do list, threads |
//! | `run.rs`, `dry_run.rs` | one run or dry run, from start to summary |
//! | `verify.rs`, `verify/` | tree, ledger and source compared, with the same parts |
//! | `lag.rs`, `why.rs` | how far tenants lag behind; what became of one invoice |

pub use self::options::{
    Backups, CommonOptions, ExportOptions, Margins, Mirror, Mode, Paths, Rejects, SourceOptions, Surroundings,
    WorkOptions,
};
pub use self::run::run;
pub use self::server::{ServerSession, refuse_other_source};

mod budget;
mod carry_out;
mod check;
mod commit;
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
mod ticket;
pub mod attach;
pub mod verify;
pub mod why;
mod writing;
