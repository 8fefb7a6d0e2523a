//! The lock: one run at a time for a tree and its state.
//!
//! Ours is `flock` on `.export_state/lock`, which the kernel frees on any death; the file is never
//! deleted. While it is held, the script's lock folder is held too, so that the script and we keep
//! out of each other's way. The script's own folder is never broken: we cannot know whether it lives.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use rustix::fs::FileType;
use serde_json::{Value, json};

use crate::event::Event;
use crate::refusal::{self, Distrust, Holder, Refusal};
use crate::run::Starter;
use crate::state::file::StateFile;
use crate::state::restore::{ReplacedState, RestoredTree, restore};
use crate::state::{State, backup};
use crate::tree::Tree;
use crate::tree::mark::{self, Mark, SECTOR, Written};
use crate::tree::private::{Access, Identity, PrivateFolder};

const SCRIPT_LOCK: &str = ".export.lock";
/// Our own folder before it gets that name, and after it.
const ASIDE: &str = ".export.lock.new";
const OLD: &str = ".export.lock.old";
const OWNER: &str = "owner";
/// How often a waiting run asks again.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The lock, held until this is dropped. Whatever changes tree or state needs it.
#[derive(Debug)]
pub struct ExportLock {
    file: File,
    /// The lock of a state folder that does not lie in the output.
    state_lock: Option<File>,
    private: Arc<PrivateFolder>,
    state: StateFile,
    starter: Starter,
}

impl ExportLock {
    /// `.export_state` of the output.
    pub fn private(&self) -> &Arc<PrivateFolder> {
        &self.private
    }

    pub fn mark(&self) -> anyhow::Result<Option<Mark>> {
        mark::read(&self.file)
    }

    pub fn write_mark(&self, mark: &Mark) -> anyhow::Result<()> {
        mark::write(&self.file, mark)
    }

    pub fn open_state(&self) -> anyhow::Result<Option<State>> {
        State::open(&self.state, &self.starter)
    }

    pub fn has_state(&self) -> anyhow::Result<bool> {
        self.state.is_there()
    }

    pub fn create_state(&self) -> anyhow::Result<State> {
        State::create(&self.state, &self.starter)
    }

    pub fn restore_state(&self, tree: &Tree, from: &Path, reason: Option<&str>) -> anyhow::Result<ReplacedState> {
        let mark = self.mark()?;
        let tree = RestoredTree::Marked { output: tree.output(), mark: mark.as_ref() };
        restore(&self.state, from, tree, &self.starter, reason)
    }

    /// Restores a state and makes the tree its own, whatever mark it has. The tree may hold anything, so it is
    /// marked as newer than the state: every invoice is compared with its file.
    pub fn restore_state_and_adopt_tree(
        &self,
        tree: &Tree,
        from: &Path,
        reason: Option<&str>,
    ) -> anyhow::Result<ReplacedState> {
        // It may lie on another disk than before.
        mark::refuse_folded_names(&self.private, tree.output())?;
        let marked_run = self.mark()?.map_or(0, |mark| mark.run);
        let replaced = restore(&self.state, from, RestoredTree::Operator, &self.starter, reason)?;
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
) -> anyhow::Result<(Tree, ExportLock)> {
    fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
    let tree = Tree::open(output)?;
    let private = Arc::new(PrivateFolder::create_in(&tree)?);
    let holder = json!({
        "kind": purpose, "pid": starter.pid, "host": starter.host,
        "since": starter.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    });
    let mut waiting = Waiting { purpose, patience, since: Instant::now(), told: false };
    let file = lock_file(&private, &mut waiting, tell)?;
    mark::write_sector(&file, SECTOR, &holder).context("cannot write who holds the lock")?;
    let folder = state_folder(state, &private)?;
    let state_lock = if Arc::ptr_eq(&folder, &private) {
        None
    } else {
        let file = lock_file(&folder, &mut waiting, tell)?;
        mark::write_sector(&file, SECTOR, &holder).context("cannot write who holds the lock")?;
        Some(file)
    };
    let name = state.file_name().with_context(|| format!("{} is no name of a file", state.display()))?;
    let state = StateFile::within(&folder, name);
    take_script_lock(&private, &holder)?;
    Ok((tree, ExportLock { file, state_lock, private, state, starter: starter.clone() }))
}

/// The folder of the state, which may be the output's.
fn state_folder(state: &Path, private: &Arc<PrivateFolder>) -> anyhow::Result<Arc<PrivateFolder>> {
    let path = state.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path == private.path() {
        return Ok(Arc::clone(private));
    }
    let folder = PrivateFolder::create(path)?;
    Ok(if folder.identity()? == private.identity()? { Arc::clone(private) } else { Arc::new(folder) })
}

struct Waiting<'a> {
    purpose: &'a str,
    patience: Duration,
    since: Instant,
    told: bool,
}

fn lock_file(folder: &PrivateFolder, waiting: &mut Waiting<'_>, tell: &mut dyn FnMut(Event)) -> anyhow::Result<File> {
    let path = &folder.path_of(mark::FILE);
    loop {
        let Some(file) = open_or_create(folder)? else { continue };
        folder.refuse_foreign_file(mark::FILE, &file)?;
        match file.try_lock() {
            Ok(()) if is_still(&file, folder) => return Ok(file),
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

/// None if another run made the file in this moment.
fn open_or_create(folder: &PrivateFolder) -> anyhow::Result<Option<File>> {
    if let Some(file) = folder.open(mark::FILE, Access::Write)? {
        return Ok(Some(file));
    }
    match folder.create_file(mark::FILE, 0o666) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        created => {
            Ok(Some(created.with_context(|| format!("cannot create {}", folder.path_of(mark::FILE).display()))?))
        }
    }
}

fn is_still(file: &File, folder: &PrivateFolder) -> bool {
    match (rustix::fs::fstat(file), folder.stat(mark::FILE)) {
        (Ok(ours), Ok(Some(there))) => Identity::of(&ours) == Identity::of(&there),
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

/// Moves a folder with an owner file to where the script makes its own. A plain rename would replace
/// the script's empty folder.
fn take_script_lock(private: &PrivateFolder, holder: &Value) -> anyhow::Result<()> {
    // The name is ours alone, since we hold the lock.
    private.remove_folder(ASIDE)?;
    write_owner(private, holder).with_context(|| format!("cannot write {}", private.path_of(ASIDE).display()))?;
    for _ in 0..2 {
        match private.rename_to_new(ASIDE, SCRIPT_LOCK) {
            Ok(()) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {
                if let Err(error) = reclaim(private) {
                    private.remove_folder(ASIDE)?;
                    return Err(error);
                }
            }
            Err(error) => {
                let lock = private.path_of(SCRIPT_LOCK);
                return Err(error).with_context(|| format!("cannot make the lock folder {}", lock.display()));
            }
        }
    }
    private.remove_folder(ASIDE)?;
    bail!("the lock folder {} comes back as soon as it is removed", private.path_of(SCRIPT_LOCK).display());
}

fn write_owner(private: &PrivateFolder, holder: &Value) -> anyhow::Result<()> {
    private.make_folder(ASIDE)?;
    let aside = private.open_subfolder(ASIDE)?.context("it is gone again")?;
    let mut owner = holder.clone();
    owner["program"] = json!("invoice-export");
    Ok(aside.create_file(OWNER, 0o666)?.write_all(format!("{owner}\n").as_bytes())?)
}

/// Removes a lock folder that a dead run of ours left: we hold the lock, so it cannot be alive.
fn reclaim(private: &PrivateFolder) -> anyhow::Result<()> {
    let folder = private.path_of(SCRIPT_LOCK);
    let Some(stat) = private.stat(SCRIPT_LOCK).with_context(|| format!("cannot look at {}", folder.display()))? else {
        return Ok(());
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {}
        FileType::Symlink => return Err(Refusal::Untrusted { path: folder, why: Distrust::Link }.into()),
        _ => return Err(script_locked(folder, stat.st_mtime)),
    }
    let Some(lock) = private.open_subfolder(SCRIPT_LOCK)? else { return Ok(()) };
    if lock.stat(OWNER).with_context(|| format!("cannot look at {}", folder.display()))?.is_some() {
        return release(private);
    }
    Err(script_locked(folder, stat.st_mtime))
}

/// The script is at work, or has left its folder behind.
fn script_locked(folder: PathBuf, made: i64) -> anyhow::Error {
    let made = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(made).unwrap_or_default());
    let age = Duration::from_secs(made.elapsed().unwrap_or_default().as_secs().max(1));
    Refusal::ScriptLocked { folder, age }.into()
}

/// Moves the folder away before it is emptied: an empty one under its name would look like the
/// script's.
fn release(private: &PrivateFolder) -> anyhow::Result<()> {
    private.remove_folder(OLD)?;
    let lock = || format!("cannot rename {}", private.path_of(SCRIPT_LOCK).display());
    private.rename(SCRIPT_LOCK, OLD).with_context(lock)?;
    private.remove_folder(OLD)
}

impl Drop for ExportLock {
    fn drop(&mut self) {
        // The lock itself goes with the file. A folder that stays is reclaimed by the next run.
        let _ = release(&self.private);
        // Whoever comes while the next holder has not said its name yet would be refused in ours.
        for file in [Some(&self.file), self.state_lock.as_ref()].into_iter().flatten() {
            let _ = mark::write_sector(file, SECTOR, &Value::Null);
        }
    }
}
