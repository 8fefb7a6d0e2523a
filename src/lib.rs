//! # invoice-export
//!
//! Exports issued invoices from MySQL or MariaDB to one JSON file each, completely or only what changed, for many
//! tenants, and keeps its state in one SQLite file. This page is the map: read the modules in the order in which they
//! stand here. `docs/architecture.md` has the words, the entry points, and a table of what to change where. The reason
//! for a decision stands beside the code that follows it.
//!
//! ## What is promised, and who keeps it
//!
//! 1. **Nothing is lost.** [`window`] says from where on keys are read again, [`state::watermarks`] keeps that for the
//!    next run, and `export::diff` compares the keys with the ledger. [`export`] tells step by step where a late commit
//!    is found. [`export::verify`] proves it, and finds what no run can see.
//! 2. **Nothing is half.** [`tree::publish`]: stage, sync, rename, sync, and only then [`state::record`]. The lists of a
//!    dead run ([`tree::stage`]) say which of its files are in doubt.
//! 3. **Nothing is silent.** [`run::Counts`] balance: written + unchanged + rejected + gone = seen. `export::drive` counts
//!    the rows that it hands over; `export::decide` counts each row when its batch is closed. [`state::todo`] keeps the
//!    rejects, which each run reads again, 50,000 at most.
//! 4. **Nothing is touched for nothing.** `export::check` compares before it writes. `export::decide` asks for proof that
//!    an old file is superseded before the file goes ([`source::TableIdentity`]).
//! 5. **Everything is on record.** [`state::runs`] and [`state::changes`]; triggers refuse changes to what is finished.
//!    [`state::history`] and [`state::trace`] read it back.
//! 6. **It costs what changed.** Keys come from the index alone, documents by primary key. `export::budget` bounds the
//!    documents in memory by bytes, and channels bound the rows behind them by number.
//!
//! ## The way of an invoice
//!
//! ```text
//!  source ──keys──▶ diff ──rows──▶ outbox ──packets──▶ check ──▶ decide ──batches──▶ commit
//!                   asks the       asks the ledger     several   one thread:         two threads:
//!                   ledger for     for the rows of     threads:  paths, conflicts    sync, then put
//!                   these keys     a full run          JSON,                         in place
//!                                                      SHA-256,  records a batch ◀── published
//!                                                      staging   in the state
//! ```
//!
//! [`export::run`] is where it starts, and [`export`] tells which file does which step. Each step is ahead of the next
//! by a bounded amount.
//!
//! ## The modules
//!
//! | module | what it owns |
//! |---|---|
//! | [`lang`] [`invoice`] [`window`] [`given_time`] [`run`] [`event`] [`effort`] [`refusal`] [`panics`] | the words; pure types, no I/O |
//! | [`fs`] | what tree, lock and state share of the file system |
//! | [`source`] | where rows come from: MySQL and MariaDB, or an SQLite file |
//! | [`tree`] | the output: names, staging, publishing, the mark |
//! | [`lock`] | one run at a time, of this program and of the script |
//! | [`state`] | the memory: watermarks, ledger, to-do, history |
//! | [`export`] | where source, tree and state meet, and nowhere else |
//! | [`cli`] [`config`] | the command line, and what it means |
//! | [`report`] | the only printer: bars, lines in two languages, JSON |
//! | [`commands`] | what each subcommand does: open, call, report |
//!
//! Imports point upwards in this table only, and `report` sees the words alone;
//! `tests/integration/architecture.rs` keeps it so.

#[macro_use]
pub mod lang;
pub mod invoice;
pub mod window;
pub mod given_time;
pub mod run;
pub mod event;
pub mod effort;
pub mod refusal;
pub mod panics;
pub mod fs;
pub mod source;
pub mod tree;
pub mod lock;
pub mod state;
pub mod export;
pub mod cli;
pub mod config;
pub mod report;
pub mod commands;
