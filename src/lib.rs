//! # invoice-export
//!
//! Exports issued invoices from MySQL or MariaDB to one JSON file each, completely or only what
//! changed, for many tenants, and keeps its state in one SQLite file. This page is the map; read the
//! modules in the order in which they stand here.
//!
//! ## What is promised, and who keeps it
//!
//! 1. **Nothing is lost.** [`window`] says from where on keys are read again and when they are read without a lower
//!    bound, [`state::watermarks`] keeps that for the next run, and `export::diff` compares the keys with the ledger.
//!    [`export`] tells step by step where a late commit is found. [`export::verify`] proves it, and finds what no run
//!    can see.
//! 2. **Nothing is half.** [`tree::publish`]: stage, sync, rename, sync, and only then
//!    [`state::record`]. What a dead run left in doubt is known from its lists ([`tree::stage`]).
//! 3. **Nothing is silent.** [`run::Counts`] balance: written + unchanged + rejected + gone = seen.
//!    Rows that are handed over are counted again where they arrive (`export::drive`); a row counts when the batch
//!    that decides it is closed (`export::decide`). Rejects are kept in [`state::todo`]; each run reads those of its
//!    tenants again, 50,000 at most.
//! 4. **Nothing is touched for nothing.** `export::check` compares before it writes, `export::decide` asks for
//!    proof that an old file is superseded before it goes ([`source::TableIdentity`]).
//! 5. **Everything is on record.** [`state::runs`] and [`state::changes`]; triggers refuse changes to what
//!    is finished. [`state::history`] and [`state::trace`] read it back.
//! 6. **It costs what changed.** Keys come from the index alone, documents by primary key.
//!    Documents in memory are bounded in bytes (`export::budget`), what follows them in number.
//!
//! ## The words
//!
//! | word | meaning |
//! |---|---|
//! | script | the shell script that this program replaces; its lock and its state file are still respected |
//! | boundary | the end of what a run may read: the server's clock minus the safety lag |
//! | watermark | up to here a tenant is exported and on record |
//! | look-back | the source time from which a tenant's next run reads keys, at or below the watermark |
//! | ledger, to-do list | the exported invoices with their files; the ids that the next run reads whatever their time |
//! | settled | an entry of the ledger, if its row cannot change any more without a new source time; only these are skipped |
//! | spelling | a tenant's name to the byte, as in `acme` and `ACME`, which the source may call equal |
//! | doubt | a reason to read keys without a lower bound; a path *in doubt* is one that a dead run may have written |
//! | dead run | a run without an end on record: its process or its machine stopped |
//! | mark | the record in the tree of its state and of the last run that wrote to it |
//! | reject, trouble, refusal | what keeps one row, one tenant, or the whole run from being done; `Reason` says why a row is a reject |
//! | rival, mover, twin | another invoice that wants the path, that leaves it, or that shares the file there |
//! | group, family | spellings that are read together, and those that the source calls equal |
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
//! by a bounded amount. The deciding thread notices a signal: it publishes and records its decisions and
//! leaves; a reader that waits for the server is left behind (`export::drive`).
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
//!
//! ## Decisions that the code alone does not explain
//!
//! * A row counts as settled only if its source time lies below the oldest open work **by the overlap, and by a minute
//!   at least**. A statement that waits for a metadata lock has a source time before the start that the
//!   server shows, so a second version of the same second could otherwise pass for the first. Work
//!   that began after the boundary, of which a busy server always has some, leaves rows settled; their tenants' keys
//!   are only read once more.
//! * A running SELECT is open work too, unless its text proves that it only reads (`source::select_text`): it may call
//!   a function that writes, and the server may show it in place of the statement that called it.
//! * Open work that the server does not tell reliably lifts every lower bound. Where only the privilege is missing, the
//!   overlap alone covers late commits, since else every run would read everything.
//! * A tenant is read once more if work was open while its keys were read, after that work has ended,
//!   even though its newest source time did not change: the work may have committed older rows.
//! * Doubt (another server, a clock that moved, a restored state) empties every look-back in the
//!   transaction that opens the run. So it outlives a run that dies in between.
//! * Source times of the future say nothing of what a tenant has shown: its newest time is the greatest up to
//!   the boundary, for which the index is scanned once more where there are others.
//! * After a restart, or on another host, nothing tells whether both clocks were set in between. All keys are
//!   compared then, but no document is read again: a row that changes once more and gets the very second of its
//!   old version, while the clock was put back over a restart, is found by `verify --against-source --documents`.
//! * Rows with NULL for a tenant are in no tenant's keys. Incremental runs read them by primary key, so that they are
//!   rejects on record; a thousand at the most, since a full run reads all.
//! * A clock that shows another time zone has moved, though time has not: source times are what it shows.
//! * After a restore every invoice is compared with its file, not only its key with the ledger: a source may
//!   have come back to what the ledger knows while the tree holds what was exported in between.
//! * Which files must be looked at (after a restore, or when an operator moved a watermark) stands in the ledger beside
//!   each invoice until it is done: a run may move the watermark before it gets to read the row.
//! * If a clock moved, rows with source times that may come again are settled no longer: a new version may carry the
//!   very time of the old one.
//! * The mark in the tree also says whether the run that it names came to its end: a copy of the tree that was
//!   made before that is not the tree that the state describes. Of a run that failed or died this is not known.
//! * When a spelling of a tenant turns up that the state does not know, the keys below the window are
//!   read in the same run, not in the next one.
//! * Spellings that came in by an import, which no scan has met, are put with the listed spelling that the
//!   source calls equal before the run reads any keys (`export::tenant_families`).
//! * A watermark that an operator moves never raises the look-back, and files of the period that are gone
//!   are written again, which an ordinary incremental run does not do: a consumer may have taken them away.
//! * `state restore` gives no number of a run twice, so that the mark, old logs and an auditor mean the
//!   same run by it.
//! * Times that no run can have left (a look-back above its watermark, one that is no date) are damage:
//!   SQLite has no checksums, and a run that believed them could start too late.
//! * A prepared transaction that no client holds lifts every lower bound until it ends: after a restart the
//!   server dates it by the restart.
//! * SQLite opens by path. Where another user can change the way to the state, its files are compared with those
//!   in the open folder before each write (`state::file`), and none is removed by its path after an error.
//! * `verify` holds the lock though it may only look: while a run is at work, its files and its records
//!   disagree for a moment. Every verification is a run in the history, and one run with what it mends.
//! * `verify` calls an invoice lost if its source time is at or below the tenant's watermark, or missing. Above the
//!   watermark it is pending, since the next run exports it.
//! * While one batch is put in place, the next one is synced, and the deciding thread decides the one after or records
//!   the one before. So a run that dies may leave two in doubt, each with its list. A batch that removes files has nothing beside it.
//! * The names of a batch are made durable by one more `syncfs`, not by a sync of each folder: where ext4
//!   has no journal, those do not keep a file that got its first name just now, and a full export over 1,000
//!   tenants took twice as long with them.
//! * Where the kernel does not pass a `syncfs` on to the file server (FUSE, SMB, 9p), `--durability file` is
//!   taken by itself: `batch` would record what a power cut takes.
//! * In folders that a run made itself, files have no name before they are published: the calls that write and
//!   name a file took a fourth less system time without a name in staging to move it away from.
//! * A tenant that has shown no source time has no look-back: there is nothing to count the overlap from, so
//!   its next run reads all its keys.
//! * A superseded file that cannot be removed fails its tenant alone. Its invoice is on record at the new
//!   path, and the old file stays listed for `verify --prune`.
//! * A restart of the server ends what is proven of a table: a backup that was put back in between shows nowhere else.
//!   Old files of invoices that move stay from then on, until their rows were read anew.
//! * The ledger says which run wrote a file or took it over, and a log keeps only what the ledger says no more;
//!   triggers see to it. A path stands in the state as the number of its folder and the file's name, an id that
//!   is a whole number as such. That saves a third of the state, and a statement for each file. Readers without
//!   this program have the views `ledger` and `file_log`.
//! * A document is not parsed again if the ledger holds it settled with the same hash: it was found to be JSON then.
//! * A first run asks the ledger, which was empty when it began, nothing of ids and paths that it has surely not
//!   given out itself; a megabyte of bits remembers which these are. That spares two of three statements for each file.
//! * The C library's allocator has threads wait for each other, since what one allocates for a row another one
//!   frees; so the program brings its own (`main.rs`).
//! * The server converts no result by itself: with each answer come the types and collations of the columns, so that a
//!   table that was swapped for another one is noticed. Other character sets are converted in the statement.
//! * If no row of a page can be read, the table is to blame and the tenant fails; rows become rejects
//!   only while others can still be read.

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
