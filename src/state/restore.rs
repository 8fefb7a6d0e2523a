//! Putting a backup in the place of the state. The new state is built beside the old one and renamed
//! over it: a process that dies in between leaves the old one or the new one.
//!
//! A log of the old state must never lie beside the new one, because SQLite would play it back into
//! it. So it is emptied first, or, where the old state is damaged, moved aside with it.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::backup::{self, Occasion, unusable};
use super::changes::{Change, ChangeKind, ReadFile, note};
use super::connect::{StateAccess, connect, connect_to};
use super::damage::explain;
use super::runs::last_time;
use super::watermarks::{self, Watermarks};
use super::{State, file, numbers, open};
use crate::fs::digest_of;
use crate::fs::file::{PrivateFile, UnfinishedFile, name_of};
use crate::lang::Explain;
use crate::lock::ExportLock;
use crate::refusal::Refusal;
use crate::run::{LastNumbers, Starter};
use crate::tree::Tree;
use crate::tree::mark::{self, Mark, Written};

/// What became of the state that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplacedState {
    /// There was none.
    Nothing,
    BackedUp(PathBuf),
    /// It is damaged: set aside with everything that belongs to it.
    SetAside(PathBuf),
}

/// Restores a backup of this tree's state. The keys of all tenants are compared by the next run, so what happened
/// since is read again and nothing is lost.
///
/// # Errors
/// Refuses a backup of another tree, and one that is newer than the tree.
pub fn restore(lock: &ExportLock, tree: &Tree, from: &Path, reason: Option<&str>) -> anyhow::Result<ReplacedState> {
    let mark = lock.mark()?;
    replace(lock, from, reason, |backup| {
        let last = last_time(backup).map_err(|error| unusable(from, explain(error, from)))?;
        Ok(last.refuse_other_tree(mark.as_ref(), tree.output(), from)?)
    })
}

/// Restores a backup and makes the tree its own, also one with another mark. The tree may hold anything, so it is
/// marked as newer than the state: every invoice is compared with its file.
pub fn restore_and_adopt_tree(
    lock: &ExportLock,
    tree: &Tree,
    from: &Path,
    reason: Option<&str>,
) -> anyhow::Result<ReplacedState> {
    // It may lie on another disk than before.
    mark::refuse_folded_names(lock.private(), tree.output())?;
    let marked_run = lock.mark()?.map_or(0, |mark| mark.run);
    let replaced = replace(lock, from, reason, |_| Ok(()))?;
    if let Some(state) = State::open(lock)? {
        let last = state.last_time()?;
        let run = last.last_run.max(last.published_run).max(marked_run) + 1;
        lock.write_mark(&Mark { state_id: last.state_id, run, written: Written::Whole })?;
        numbers::close(state, lock)?;
    }
    Ok(replaced)
}

fn replace(
    lock: &ExportLock,
    from: &Path,
    reason: Option<&str>,
    judge: impl FnOnce(&Connection) -> anyhow::Result<()>,
) -> anyhow::Result<ReplacedState> {
    let (state, starter) = (lock.state(), lock.starter());
    let file = backup::named(state, from)?.ok_or_else(|| no_backup(from))?;
    let backup = open_backup(&file, from)?;
    judge(&backup)?;
    let (replaced, last) = keep_old(state, starter)?;
    lock.note_numbers(last.max(numbers::beside(state)?))?;
    let before = watermarks_before(&replaced, state)?;
    let unfinished = open::begin_beside(state)?;
    let file = ReadFile { path: from.display().to_string(), sha256: sha256(&file, from)?, lines: None };
    let old = match &replaced {
        ReplacedState::Nothing => None,
        ReplacedState::BackedUp(path) | ReplacedState::SetAside(path) => Some(path.display().to_string()),
    };
    let change = Change::under(lock, ChangeKind::Restore, reason)?;
    let change = Change { file: Some(&file), old, watermarks_known: before.is_some(), ..change };
    build(&unfinished, &backup, &change, before.as_ref(), from)?;
    unfinished.put_in_place(state, || {
        if let ReplacedState::SetAside(path) = &replaced {
            file::move_companions(state, &PrivateFile::new(state.folder(), name_of(path)?))?;
        }
        file::remove_companions(state)
    })?;
    Ok(replaced)
}

/// The watermarks of the state that is to be replaced. None: it is damaged, and not to be believed.
fn watermarks_before(replaced: &ReplacedState, state: &PrivateFile) -> anyhow::Result<Option<Watermarks>> {
    match replaced {
        ReplacedState::Nothing => Ok(Some(Watermarks::new())),
        ReplacedState::BackedUp(_) => {
            let explained = |error| explain(error, state.path());
            let read = watermarks::all(&connect(state, StateAccess::ReadOnly)?).map_err(explained);
            read.map(Some)
        }
        ReplacedState::SetAside(_) => Ok(None),
    }
}

/// `before` has the watermarks of the state that is replaced, if they are known.
fn build(
    unfinished: &UnfinishedFile,
    backup: &Connection,
    change: &Change<'_>,
    before: Option<&Watermarks>,
    from: &Path,
) -> anyhow::Result<()> {
    backup::copy(backup, connect_to(unfinished.place())?, |copy| {
        let n = note(copy, change)?;
        if let Some(before) = before {
            watermarks::note_replaced(copy, n, before)?;
        }
        watermarks::forget_look_backs(copy)
    })
    .map_err(|error| match explain(error, from) {
        damage if damage.is::<Refusal>() => unusable(from, damage),
        trouble => {
            let (from, to) = (from.display(), unfinished.place().path().display());
            text!("cannot restore {from} to {to}", "无法将 {from} 恢复到 {to}").caused_by(trouble)
        }
    })
}

fn open_backup(file: &PrivateFile, from: &Path) -> anyhow::Result<Connection> {
    if !open::is_state(file).map_err(|error| unusable(from, error))? {
        return Err(no_backup(from));
    }
    connect(file, StateAccess::ReadOnly).map_err(|error| unusable(from, error))
}

fn no_backup(from: &Path) -> anyhow::Error {
    Refusal::usage(message! {
        "there is no backup {}", "没有备份 {}", from.display();
        "see `invoice-export state backups`", "请用 `invoice-export state backups` 查看"
    })
}

/// A state that is whole is backed up and its log emptied; a damaged one gets a second name. Returns its
/// last numbers too, as far as they can be read.
fn keep_old(state: &PrivateFile, starter: &Starter) -> anyhow::Result<(ReplacedState, LastNumbers)> {
    if !state.exists()? {
        return Ok((ReplacedState::Nothing, LastNumbers::default()));
    }
    // The new state would belong to this user, and the owner of the old one be locked out.
    open::refuse_unfit(state)?;
    match back_up_and_close(state, starter) {
        Ok((path, last)) => Ok((ReplacedState::BackedUp(path), last)),
        Err(error) if error.chain().any(is_damage) => {
            let aside = open::free_aside(state, starter.at)?;
            let (from, to) = (state.path().display(), aside.path().display());
            state.link(&aside).explain(|| text!("cannot keep {from} as {to}", "无法将 {from} 保留为 {to}"))?;
            Ok((ReplacedState::SetAside(aside.path().to_path_buf()), numbers::of_file(state)))
        }
        Err(error) => Err(error),
    }
}

fn is_damage(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(Refusal::StateDamaged { .. }))
}

fn back_up_and_close(state: &PrivateFile, starter: &Starter) -> anyhow::Result<(PathBuf, LastNumbers)> {
    open::is_state(state)?;
    let old = State::open_as_it_is(state)?;
    old.assert_whole()?;
    let path = old.back_up(Occasion::Before(ChangeKind::Restore), starter.at)?;
    let last = old.read(numbers::of_state)?;
    old.empty_log()?;
    old.close()?;
    Ok((path, last))
}

fn sha256(file: &PrivateFile, from: &Path) -> anyhow::Result<String> {
    let digest = digest_of(file.open()?.ok_or_else(|| no_backup(from))?);
    Ok(digest.explain(|| text!("cannot read {}", "无法读取 {}", from.display()))?.to_string())
}

impl State {
    /// Everything into the one file. Readers can stand in the way; they are waited for.
    fn empty_log(&self) -> anyhow::Result<()> {
        let blocked: bool =
            self.read(|conn| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)))?;
        if blocked {
            let path = self.path().display();
            return Err(message! {
                "another process is reading the state {path}", "另一个进程正在读取状态文件 {path}";
                "try again", "请重试"
            }
            .into());
        }
        Ok(())
    }
}
