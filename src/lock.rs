//! The lock: one run at a time for a tree and its state.
//!
//! Ours is `flock` on `.export_state/lock`, which the kernel frees on any death; the file is never
//! deleted. While it is held, the script's lock folder is held too, so that the script and we keep
//! out of each other's way. The script's own folder is never broken: we cannot know whether it lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, CWD, Mode, RenameFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::event::Event;
use crate::refusal::{self, Holder, Refusal};
use crate::run::Starter;
use crate::state::restore::{Replaced, TreeOf, restore};
use crate::state::{State, backup};
use crate::tree::mark::{self, Mark, SECTOR, Written};
use crate::tree::{PRIVATE, Tree, remove_folder};

const SCRIPT_LOCK: &str = ".export.lock";
const OWNER: &str = "owner";
/// How often a waiting run asks again.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The lock, held until this is dropped. Whatever changes tree or state needs it.
#[derive(Debug)]
pub struct Held {
    file: File,
    /// The lock of a state folder that does not lie in the output.
    state_lock: Option<File>,
    script_lock: PathBuf,
    state: PathBuf,
    starter: Starter,
}

impl Held {
    pub fn mark(&self) -> anyhow::Result<Option<Mark>> {
        mark::read(&self.file)
    }

    pub fn write_mark(&self, mark: &Mark) -> anyhow::Result<()> {
        mark::write(&self.file, mark)
    }

    pub fn open_state(&self) -> anyhow::Result<Option<State>> {
        State::open(&self.state, &self.starter)
    }

    pub fn create_state(&self) -> anyhow::Result<State> {
        State::create(&self.state, &self.starter)
    }

    pub fn restore_state(&self, tree: &Tree, from: &Path, reason: Option<&str>) -> anyhow::Result<Replaced> {
        let mark = self.mark()?;
        let tree = TreeOf::Marked { output: tree.output(), mark: mark.as_ref() };
        restore(&self.state, from, tree, &self.starter, reason)
    }

    /// Restores a state and makes the tree its own, whatever mark it has. The tree may hold anything, so it is
    /// marked as newer than the state: every invoice is compared with its file.
    pub fn restore_state_and_adopt_tree(
        &self,
        tree: &Tree,
        from: &Path,
        reason: Option<&str>,
    ) -> anyhow::Result<Replaced> {
        // It may lie on another disk than before.
        mark::refuse_folded_names(tree)?;
        let marked_run = self.mark()?.map_or(0, |mark| mark.run);
        let replaced = restore(&self.state, from, TreeOf::Operator, &self.starter, reason)?;
        if let Some(state) = self.open_state()? {
            let last = state.last_time()?;
            let run = last.last_run.max(last.published_run).max(marked_run) + 1;
            self.write_mark(&Mark { state_id: last.state_id, run, written: Written::Whole })?;
            state.close()?;
        }
        Ok(replaced)
    }

    /// Removes the oldest automatic backups beyond a number.
    pub fn prune_backups(&self, keep: usize) -> anyhow::Result<()> {
        backup::prune(&self.state, keep)
    }

    pub fn set_state_aside(&self) -> anyhow::Result<Option<PathBuf>> {
        crate::state::open::set_aside(&self.state, self.starter.at)
    }
}

/// Creates the output if it is missing and takes its lock. Waits for whoever holds it for another
/// purpose (`full`, `state set`) for at most `patience`; refuses at once for one of its own.
pub fn acquire(
    output: &Path,
    state: &Path,
    purpose: &str,
    starter: &Starter,
    patience: Duration,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<(Tree, Held)> {
    let private = output.join(PRIVATE);
    fs::create_dir_all(&private).with_context(|| format!("cannot create {}", private.display()))?;
    let tree = Tree::open(output)?;
    let holder = json!({
        "kind": purpose, "pid": starter.pid, "host": starter.host,
        "since": starter.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    });
    let mut waiting = Waiting { purpose, patience, since: Instant::now(), told: false };
    let file = lock_file(&private.join(mark::FILE), &mut waiting, tell)?;
    mark::write_sector(&file, SECTOR, &holder).context("cannot write who holds the lock")?;
    let state_folder = state.parent().unwrap_or(Path::new("."));
    let state_lock = if same_folder(state_folder, &private) {
        None
    } else {
        fs::create_dir_all(state_folder).with_context(|| format!("cannot create {}", state_folder.display()))?;
        let file = lock_file(&state_folder.join(mark::FILE), &mut waiting, tell)?;
        mark::write_sector(&file, SECTOR, &holder).context("cannot write who holds the lock")?;
        Some(file)
    };
    let script_lock = take_script_lock(&private, &holder)?;
    let (state, starter) = (state.to_path_buf(), starter.clone());
    Ok((tree, Held { file, state_lock, script_lock, state, starter }))
}

struct Waiting<'a> {
    purpose: &'a str,
    patience: Duration,
    since: Instant,
    told: bool,
}

fn lock_file(path: &Path, waiting: &mut Waiting<'_>, tell: &mut dyn FnMut(Event)) -> anyhow::Result<File> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("cannot open the lock {}", path.display()))?;
        match file.try_lock() {
            Ok(()) if is_still(&file, path) => return Ok(file),
            // Somebody put another file in its place between opening and locking.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => wait(&file, path, waiting, tell)?,
            Err(TryLockError::Error(error)) => {
                return Err(error)
                    .with_context(|| format!("cannot lock {} (does its file system know locks?)", path.display()));
            }
        }
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Waits a moment, or refuses if waiting is over or was never allowed.
fn wait(file: &File, path: &Path, waiting: &mut Waiting<'_>, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
    let holder = mark::read_sector(file, SECTOR).with_context(|| format!("cannot read {}", path.display()))?;
    let holder = holder.as_ref().and_then(told_holder);
    if !refusal::may_wait(waiting.purpose, holder.as_ref()) || waiting.since.elapsed() >= waiting.patience {
        return Err(Refusal::Locked { holder, lock: path.to_path_buf() }.into());
    }
    if !waiting.told {
        waiting.told = true;
        tell(Event::Waiting { holder, at_most: waiting.patience });
    }
    std::thread::sleep(ASK_EVERY.min(waiting.patience));
    Ok(())
}

fn told_holder(told: &Value) -> Option<Holder> {
    let text = |name: &str| Some(told.get(name)?.as_str()?.to_owned());
    Some(Holder { purpose: text("kind")?, pid: told.get("pid")?.as_u64()?, host: text("host")?, since: text("since")? })
}

fn same_folder(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// Moves a folder with an owner file to where the script makes its own. A plain rename would replace
/// the script's empty folder.
fn take_script_lock(private: &Path, holder: &Value) -> anyhow::Result<PathBuf> {
    let lock = private.join(SCRIPT_LOCK);
    let aside = aside(&lock);
    remove_folder(&aside)?;
    fs::create_dir(&aside).with_context(|| format!("cannot create {}", aside.display()))?;
    let mut owner = holder.clone();
    owner["program"] = json!("invoice-export");
    fs::write(aside.join(OWNER), format!("{owner}\n")).with_context(|| format!("cannot write {}", aside.display()))?;
    for _ in 0..2 {
        match rename_to_new(&aside, &lock) {
            Ok(()) => return Ok(lock),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                if let Err(error) = reclaim(&lock) {
                    remove_folder(&aside)?;
                    return Err(error);
                }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot make the lock folder {}", lock.display())),
        }
    }
    remove_folder(&aside)?;
    bail!("the lock folder {} comes back as soon as it is removed", lock.display());
}

/// Renames a folder, but replaces nothing. NFS, 9p and some servers of FUSE cannot do both at once; there the name is
/// claimed by a folder of ours first, which a rename may replace since it is empty. Who dies in between leaves it
/// behind, and it looks like the script's.
fn rename_to_new(folder: &Path, name: &Path) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(CWD, folder, CWD, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL) => {
            rustix::fs::mkdirat(CWD, name, Mode::from_raw_mode(0o777))?;
            rustix::fs::renameat(CWD, folder, CWD, name).inspect_err(|_| {
                let _ = rustix::fs::unlinkat(CWD, name, AtFlags::REMOVEDIR);
            })
        }
        result => result,
    }
}

/// Removes a lock folder that a dead run of ours left: we hold the lock, so it cannot be alive.
fn reclaim(lock: &Path) -> anyhow::Result<()> {
    if lock.join(OWNER).try_exists().with_context(|| format!("cannot look at {}", lock.display()))? {
        return release(lock);
    }
    let age = fs::metadata(lock).and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
    let age = Duration::from_secs(age.unwrap_or_default().as_secs().max(1));
    Err(Refusal::ScriptLocked { folder: lock.to_path_buf(), age }.into())
}

/// Moves the folder away before it is emptied: an empty one under its name would look like the
/// script's.
fn release(lock: &Path) -> anyhow::Result<()> {
    let aside = aside(lock).with_extension("old");
    remove_folder(&aside)?;
    fs::rename(lock, &aside).with_context(|| format!("cannot rename {}", lock.display()))?;
    remove_folder(&aside)
}

/// Beside the lock; the name is ours alone, since we hold the lock.
fn aside(lock: &Path) -> PathBuf {
    lock.with_file_name(format!("{SCRIPT_LOCK}.new"))
}

impl Drop for Held {
    fn drop(&mut self) {
        // The lock itself goes with the file. A folder that stays is reclaimed by the next run.
        let _ = release(&self.script_lock);
        // Whoever comes while the next holder has not said its name yet would be refused in ours.
        for file in [Some(&self.file), self.state_lock.as_ref()].into_iter().flatten() {
            let _ = mark::write_sector(file, SECTOR, &Value::Null);
        }
    }
}
