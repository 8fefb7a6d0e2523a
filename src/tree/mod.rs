//! The output: `<tenant>/<country>/<yyyymmdd>+<number>.json`.
//!
//! `name.rs` says where an invoice lies, `publish.rs` puts files there so that a reader sees a whole
//! old or a whole new one even after a power cut (`sync.rs`), `mark.rs` ties the tree to its state and `walk.rs`
//! walks it, `handles.rs` keeps its folders open. `private.rs` is the folder of our own files, which the state uses
//! too. Below the output everything is reached relative to directory handles and no symlink is
//! followed; the output itself may be one.

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

pub use self::output::{Durability, Facts, FileComparison, Tree};
