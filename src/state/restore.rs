//! Putting a backup in the place of the state. The new state is built beside the old one and renamed
//! over it: whoever dies in between leaves the old one or the new one.
//!
//! A log of the old state must never lie beside the new one, because SQLite would play it back into
//! it. So it is emptied first, or, where the old state is damaged, moved aside with it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rusqlite::Connection;

use super::backup::{self, Occasion, unusable};
use super::changes::{Change, ChangeKind, ReadFile, note};
use super::file::StateFile;
use super::open::{self, Access, Found, connect_to};
use super::runs::last_time;
use super::{State, explain};
use crate::refusal::Refusal;
use crate::run::Starter;
use crate::tree::mark::Mark;
use crate::tree::publish::digest_of;

/// What became of the state that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplacedState {
    /// There was none.
    Nothing,
    BackedUp(PathBuf),
    /// It is damaged: set aside with everything that belongs to it.
    SetAside(PathBuf),
}

/// What is known of the tree that a restored state is to describe.
#[derive(Clone, Copy, Debug)]
pub enum RestoredTree<'a> {
    /// It has this mark.
    Marked { output: &'a Path, mark: Option<&'a Mark> },
    /// An operator says that it is this state's. It is marked so afterwards.
    Operator,
}

/// Restores a backup. The keys of all tenants are compared by the next run, so what happened since is
/// read again and nothing is lost.
pub(crate) fn restore(
    state: &StateFile,
    from: &Path,
    tree: RestoredTree<'_>,
    starter: &Starter,
    reason: Option<&str>,
) -> anyhow::Result<ReplacedState> {
    let file = backup::named(state, from)?.ok_or_else(|| no_backup(from))?;
    let backup = open_backup(&file, from)?;
    if let RestoredTree::Marked { output, mark } = tree {
        // A backup of another tree must not replace the state of this one, nor one that is newer than it.
        let last = last_time(&backup).map_err(|error| unusable(from, explain(error, from)))?;
        last.refuse_other_tree(mark, output, from)?;
    }
    let (replaced, last_run) = keep_old(state, starter)?;
    let aside = state.with_suffix(".new");
    aside.remove_with_companions()?;
    let file = ReadFile { path: from.display().to_string(), sha256: sha256(&file, from)?, lines: None };
    let old = match &replaced {
        ReplacedState::Nothing => None,
        ReplacedState::BackedUp(path) | ReplacedState::SetAside(path) => Some(path.display().to_string()),
    };
    let change = Change { file: Some(&file), old, last_run, ..Change::new(ChangeKind::Restore, starter, reason) };
    let built = build_beside(&aside, &backup, &change, from);
    if built.is_err() {
        // What went wrong first is what counts. A full disk is not to stay full of this.
        let _ = aside.remove_with_companions();
    }
    built?;
    if let ReplacedState::SetAside(_) = &replaced {
        state.move_companions(&open::aside(state, starter.at))?;
    }
    state.remove_companions()?;
    aside.rename(state)?;
    state.folder().sync()?;
    Ok(replaced)
}

fn build_beside(aside: &StateFile, backup: &Connection, change: &Change<'_>, from: &Path) -> anyhow::Result<()> {
    let file = aside.create().with_context(|| format!("cannot create {}", aside.path().display()))?;
    backup::copy(backup, connect_to(aside)?, |copy| {
        note(copy, change)?;
        copy.execute("UPDATE tenant SET look_back = NULL", [])?;
        Ok(())
    })
    .map_err(|error| match explain(error, from) {
        damage if damage.is::<Refusal>() => unusable(from, damage),
        trouble => trouble.context(format!("cannot restore {} to {}", from.display(), aside.path().display())),
    })?;
    file.sync_all().with_context(|| format!("cannot sync {}", aside.path().display()))
}

fn open_backup(file: &StateFile, from: &Path) -> anyhow::Result<Connection> {
    match open::inspect(file).map_err(|error| unusable(from, error))? {
        Found::Nothing => Err(no_backup(from)),
        Found::State => open::connect(file, Access::ReadOnly).map_err(|error| unusable(from, error)),
    }
}

fn no_backup(from: &Path) -> anyhow::Error {
    let from = from.display();
    Refusal::Usage(text!(
        "there is no backup {from}; see `invoice-export state backups`",
        "没有备份 {from}；请用 `invoice-export state backups` 查看"
    ))
    .into()
}

/// A state that is whole is backed up and its log emptied; a damaged one gets a second name. Returns its
/// last run too, as far as that can be read.
fn keep_old(state: &StateFile, starter: &Starter) -> anyhow::Result<(ReplacedState, i64)> {
    if !state.is_there()? {
        return Ok((ReplacedState::Nothing, 0));
    }
    // The new state would be ours, and the owner of the old one locked out.
    open::refuse_what_we_cannot_keep(state)?;
    match back_up_and_close(state, starter) {
        Ok((path, last_run)) => Ok((ReplacedState::BackedUp(path), last_run)),
        Err(error) if error.downcast_ref::<Refusal>().is_some_and(is_damage) => {
            let aside = open::aside(state, starter.at);
            let (from, to) = (state.path().display(), aside.path().display());
            match state.link(&aside) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    Err(error).with_context(|| format!("cannot keep {from} as {to}"))
                }
                _ => Ok((ReplacedState::SetAside(aside.path().to_path_buf()), 0)),
            }
        }
        Err(error) => Err(error),
    }
}

fn is_damage(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::StateDamaged { .. })
}

fn back_up_and_close(state: &StateFile, starter: &Starter) -> anyhow::Result<(PathBuf, i64)> {
    open::inspect(state)?;
    let old = State::open_as_it_is(state)?;
    old.assert_whole()?;
    let path = old.back_up(Occasion::Before(ChangeKind::Restore), starter.at)?;
    let last_run = old.last_run_on_record()?;
    old.empty_log()?;
    old.close()?;
    Ok((path, last_run))
}

fn sha256(file: &StateFile, from: &Path) -> anyhow::Result<String> {
    let opened = file.open()?.ok_or_else(|| no_backup(from))?;
    digest_of(opened).map(|digest| digest.to_string()).with_context(|| format!("cannot read {}", from.display()))
}

impl State {
    /// Also of the states that this one replaced, so that no number is given to two runs.
    fn last_run_on_record(&self) -> anyhow::Result<i64> {
        self.read(|conn| {
            conn.query_row(
                "SELECT max((SELECT coalesce(max(id), 0) FROM run), (SELECT coalesce(max(last_run), 0) FROM state_change))",
                [],
                |row| row.get(0),
            )
        })
    }

    /// Everything into the one file. Readers can stand in the way; they are waited for.
    fn empty_log(&self) -> anyhow::Result<()> {
        let blocked: bool =
            self.read(|conn| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)))?;
        ensure!(!blocked, "somebody is reading the state {}; try again", self.path().display());
        Ok(())
    }
}
