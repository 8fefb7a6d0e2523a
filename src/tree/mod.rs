//! The output: `<tenant>/<country>/<yyyymmdd>+<number>.json`.
//!
//! | | |
//! |---|---|
//! | `name`, `asked` | which path an invoice has, and which files a text may name |
//! | `output` | an open output: what its paths hold; `handles` keeps folders open, `walk` lists the files |
//! | `stage`, `tmpfile` | documents before they are published, and files without a name |
//! | `publish`, `sync`, `sync_gate` | puts files in place so that a reader sees a whole old or a whole new one, even after a power cut |
//! | `mark` | ties the tree to its state |
//!
//! Below the output everything is reached relative to directory handles, and no symbolic link is followed; the output
//! itself may be one.

pub mod asked;
mod handles;
pub mod mark;
pub mod name;
mod tmpfile;
pub mod publish;
pub mod stage;
mod output;
mod sync;
mod sync_gate;
pub mod walk;

pub use self::output::{Due, Durability, Facts, FileComparison, Tree};
pub use handles::make_room;
