//! The lock: one run at a time for an output and its state.
//!
//! It is a `flock` on `.export_state/lock`, which the kernel frees on any death of the process; the file is never
//! deleted. A state folder outside the output has such a lock too. Whether a run is at work is asked of that lock and not
//! of its process id, which means nothing in another container or on another machine. While the locks are held, the script's
//! lock folder is held as well, so that the script and this program keep out of each other's way. A folder that the
//! script made is never removed: nothing tells whether the script is alive.
//!
//! `sharers.rs` names the readers that share it.
//!
//! The file has three sectors: the tree's mark (`tree::mark`), the holder, and the last numbers that a run and a
//! change got.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FileType;
use serde_json::{Value, json};

use crate::event::{Event, Notice};
use crate::fs::file::{PrivateFile, name_of};
use crate::fs::identity::Identity;
use crate::fs::kind;
use crate::fs::private::{FileAccess, PRIVATE, PrivateFolder, parent};
use crate::fs::readers::{OWNER_ONLY, StateMode};
use crate::lang::Explain;
use crate::refusal::{self, Distrust, Holder, Refusal};
use crate::run::{Cancel, LastNumbers, RunId, Starter, rfc3339};
use crate::tree::Tree;
use crate::tree::mark::{self, Mark, SECTOR};

mod sharers;

const SCRIPT_LOCK: &str = ".export.lock";
/// The names of this program's folder before it becomes the script's lock, and after it was that.
const NEW_SCRIPT_LOCK: &str = ".export.lock.new";
const OLD_SCRIPT_LOCK: &str = ".export.lock.old";
const OWNER: &str = "owner";
/// Where the lock file names its holder.
const HOLDER_AT: u64 = SECTOR;
/// Where it has the last numbers that a run and a change got.
const NUMBERS_AT: u64 = 2 * SECTOR;
/// The purpose for which the state alone is locked. Every command waits for it, since it is over in a moment.
pub const RECORDING: &str = "record";
/// How often a waiting run tries again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How often a run tries again before it waits, if the lock is only shared: `ask` has it for a moment.
const SHARED_TRIES: u32 = 20;
const SHARED_INTERVAL: Duration = Duration::from_millis(10);

/// The lock, held until this is dropped: the proof that tree and state may be changed.
#[derive(Debug)]
pub struct ExportLock {
    file: File,
    /// The lock of a state folder outside the output.
    state_lock: Option<File>,
    private: Arc<PrivateFolder>,
    state: PrivateFile,
    starter: Starter,
    mode: Option<StateMode>,
}

impl ExportLock {
    /// Who may read the state from now on; None: those who may now.
    pub fn mode(&self) -> Option<StateMode> {
        self.mode
    }

    /// `.export_state` of the output.
    pub fn private(&self) -> &Arc<PrivateFolder> {
        &self.private
    }

    /// The file of the state, which need not exist.
    pub fn state(&self) -> &PrivateFile {
        &self.state
    }

    /// Who took the lock.
    pub fn starter(&self) -> &Starter {
        &self.starter
    }

    /// The mark of the tree; None before the first run.
    pub fn mark(&self) -> anyhow::Result<Option<Mark>> {
        mark::read(&self.file)
    }

    /// The last numbers that were given, as far as output and state folder know: a state that was lost, or brought
    /// back by hand, does not.
    pub fn last_numbers(&self) -> anyhow::Result<LastNumbers> {
        let mark = LastNumbers { run: self.mark()?.map_or(0, |mark| mark.run), change: 0 };
        self.files().try_fold(mark, |last, file| Ok(last.max(read_numbers(file)?)))
    }

    /// Keeps numbers that were given.
    pub fn note_numbers(&self, given: LastNumbers) -> anyhow::Result<()> {
        self.files().try_for_each(|file| write_numbers(file, given))
    }

    /// The readers of the state may read the lock too. No other user may: a lock that is shared keeps runs away.
    fn admit_readers(&self) -> anyhow::Result<()> {
        let Some(mode) = self.mode.map(StateMode::bits) else { return Ok(()) };
        self.state.folder().decide_file_mode(mode);
        for folder in [&self.private, self.state.folder()] {
            folder.set_mode(mark::FILE, mode)?;
            folder.admit(mode)?;
        }
        Ok(())
    }

    /// Tells where the mode lets a group read that some files of the state do not have.
    fn tell_of_other_groups(&self, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
        if self.mode != Some(StateMode::Group) {
            return Ok(());
        }
        let of_output = self.state_lock.as_ref().map(|_| &self.private);
        for folder in [Some(self.state.folder()), of_output].into_iter().flatten() {
            let group = folder.group()?;
            if let Some(example) = folder.with_another_group(group)? {
                let folder = folder.path().to_path_buf();
                tell(Event::Notice(Notice::StateNotShared { folder, group, example }));
            }
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = &File> {
        [Some(&self.file), self.state_lock.as_ref()].into_iter().flatten()
    }

    /// Makes another mark of the tree durable.
    pub fn write_mark(&self, mark: &Mark) -> anyhow::Result<()> {
        mark::write(&self.file, mark)
    }
}

/// The lock of the state's folder alone, held until this is dropped: the proof that something may be put on record.
/// Each process that holds an [`ExportLock`] holds this one too. It does not permit a change of the tree.
#[derive(Debug)]
pub struct StateLock {
    file: File,
    state: PrivateFile,
    starter: Starter,
}

impl StateLock {
    /// The file of the state.
    pub fn state(&self) -> &PrivateFile {
        &self.state
    }

    /// Who took the lock.
    pub fn starter(&self) -> &Starter {
        &self.starter
    }
}

impl StateLock {
    /// The last number that a run got, as far as the state's folder knows.
    pub fn last_number(&self) -> anyhow::Result<i64> {
        Ok(read_numbers(&self.file)?.run)
    }

    /// Keeps the number that a run got.
    pub fn note_number(&self, run: RunId) -> anyhow::Result<()> {
        write_numbers(&self.file, LastNumbers { run: run.0, change: 0 })
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        let _ = write_holder(&self.file, &Value::Null);
    }
}

/// How long a lock is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience<'a> {
    pub time: Duration,
    /// Ends the wait when a signal asks to stop; None where a signal ends the process.
    pub cancel: Option<&'a Cancel>,
}

impl Patience<'_> {
    /// Waits so long, whatever signal comes.
    pub fn of(time: Duration) -> Self {
        Self { time, cancel: None }
    }
}

/// Who asks for a lock, and how long it may take.
struct LockRequest<'a> {
    /// `full`, `state set`
    purpose: &'a str,
    starter: &'a Starter,
    holder: Value,
    patience: Patience<'a>,
    since: Instant,
    is_waiting: bool,
    /// How often the lock was only shared.
    met_shared: u32,
}

/// What is known of the lock beside a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockState {
    Free,
    /// None where the holder has not left its name yet.
    Held(Option<Holder>),
    Unknown,
}

/// Asks the kernel whether a process holds the lock beside a state, in any container and of any user. Unknown is what
/// it does not answer: of a lock that is missing or closed to this user, and of one on a file system that does not show
/// every lock.
pub fn ask(state: &Path) -> LockState {
    let ask = || -> anyhow::Result<LockState> {
        let Some(folder) = PrivateFolder::open_existing(parent(state))? else { return Ok(LockState::Unknown) };
        let Some(file) = folder.open(mark::FILE, FileAccess::Read)? else { return Ok(LockState::Unknown) };
        Ok(match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => LockState::Held(read_holder(&file)?),
            Ok(()) if kind::shows_every_lock(&folder.file_system()?) => LockState::Free,
            Ok(()) | Err(TryLockError::Error(_)) => LockState::Unknown,
        })
    };
    ask().unwrap_or(LockState::Unknown)
}

impl<'a> LockRequest<'a> {
    fn new(purpose: &'a str, starter: &'a Starter, patience: Patience<'a>) -> Self {
        let holder = json!({
            "kind": purpose, "pid": starter.pid, "host": starter.host, "user": starter.account.name,
            "since": rfc3339(starter.at),
        });
        let since = Instant::now();
        Self { purpose, starter, holder, patience, since, is_waiting: false, met_shared: 0 }
    }

    /// The holder with its time in the zone of the one who asks.
    fn shown(&self, holder: Option<Holder>) -> Option<Holder> {
        let shown = |since: String| self.starter.zone.shown_text(&since);
        holder.map(|holder| Holder { since: holder.since.map(shown), ..holder })
    }

    /// Whether it waits for this holder.
    fn waits_for(&self, holder: Option<&Holder>) -> bool {
        self.purpose == RECORDING || refusal::may_wait(self.purpose, holder)
    }
}

/// Creates the output if it is missing and takes its lock and that of the state's folder.
///
/// # Errors
/// A lock that is held for the same purpose is refused at once, one that is held for another purpose after
/// `patience`. The script's lock folder is refused at once.
pub fn acquire(
    output: &Path,
    state: &Path,
    purpose: &str,
    starter: &Starter,
    patience: Patience<'_>,
    mode: Option<StateMode>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<(Tree, ExportLock)> {
    fs::create_dir_all(output).explain(|| text!("cannot create {}", "无法创建 {}", output.display()))?;
    let tree = Tree::open(output)?;
    let private = Arc::new(tree.create_private_folder()?);
    let mut request = LockRequest::new(purpose, starter, patience);
    let file = take_lock(&private, &mut request, tell)?;
    let folder = state_folder(state, &private)?;
    let state_lock = if Arc::ptr_eq(&folder, &private) { None } else { Some(take_lock(&folder, &mut request, tell)?) };
    let state = PrivateFile::new(&folder, name_of(state)?);
    take_script_lock(&private, &request.holder)?;
    let lock = ExportLock { file, state_lock, private, state, starter: starter.clone(), mode };
    lock.admit_readers()?;
    lock.tell_of_other_groups(tell)?;
    Ok((tree, lock))
}

/// The lock of an output, shared with other readers until this is dropped: no run is at work there.
#[derive(Debug)]
pub struct SharedLock {
    _file: File,
}

/// Shares the lock of an output that this user may only read; None where there has been no run.
///
/// # Errors
/// Refuses a lock that a run holds, as [`acquire`] does.
pub fn share(
    output: &Path,
    purpose: &str,
    starter: &Starter,
    patience: Patience<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Option<SharedLock>> {
    let Some(private) = PrivateFolder::open_existing(&output.join(PRIVATE))? else { return Ok(None) };
    let Some(file) = private.open(mark::FILE, FileAccess::Read)? else { return Ok(None) };
    let path = private.path_of(mark::FILE);
    let mut request = LockRequest::new(purpose, starter, patience);
    loop {
        match file.try_lock_shared() {
            Ok(()) => {
                has_left_folder(&private)?;
                return Ok(Some(SharedLock { _file: file }));
            }
            Err(TryLockError::WouldBlock) => wait(&file, &path, &mut request, tell)?,
            Err(TryLockError::Error(error)) => return Err(not_lockable(&path, error)),
        }
    }
}

/// Takes the lock of a state that is there, to put something on record; None where there is no state. No folder is
/// made, and the script, which knows nothing of the state, is not kept out.
///
/// # Errors
/// Refuses a lock that is still held after `patience`.
pub fn acquire_state(state: &Path, starter: &Starter, patience: Patience<'_>) -> anyhow::Result<Option<StateLock>> {
    let Some(folder) = PrivateFolder::open_existing(parent(state))?.map(Arc::new) else { return Ok(None) };
    let file = PrivateFile::new(&folder, name_of(state)?);
    if !file.exists()? {
        return Ok(None);
    }
    let mut request = LockRequest::new(RECORDING, starter, patience);
    let lock = take_lock(&folder, &mut request, &mut |_| ())?;
    Ok(Some(StateLock { file: lock, state: file, starter: starter.clone() }))
}

/// The folder of the state, which may be the output's.
fn state_folder(state: &Path, private: &Arc<PrivateFolder>) -> anyhow::Result<Arc<PrivateFolder>> {
    let path = parent(state);
    if path == private.path() {
        return Ok(Arc::clone(private));
    }
    let folder = PrivateFolder::create(path)?;
    Ok(if folder.identity()? == private.identity()? { Arc::clone(private) } else { Arc::new(folder) })
}

/// Locks a folder's lock file and writes into it who holds it.
fn take_lock(
    folder: &PrivateFolder,
    request: &mut LockRequest<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<File> {
    let path = &folder.path_of(mark::FILE);
    loop {
        let Some(file) = open_or_create(folder)? else { continue };
        folder.refuse_foreign_file(mark::FILE, &file)?;
        match file.try_lock() {
            Ok(()) if Identity::is_named(&file, folder.handle(), mark::FILE).is_ok_and(|is_named| is_named) => {
                write_holder(&file, &request.holder)
                    .explain(|| text!("cannot write who holds the lock", "无法写入锁的持有者"))?;
                return Ok(file);
            }
            // Another process put another file in its place between opening and locking.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => wait(&file, path, request, tell)?,
            Err(TryLockError::Error(error)) => return Err(not_lockable(path, error)),
        }
    }
}

fn not_lockable(path: &Path, error: std::io::Error) -> anyhow::Error {
    let path = path.display();
    text!("cannot lock {path} (does its file system know locks?)", "无法锁定 {path}（该文件系统是否支持文件锁？）")
        .caused_by(error)
}

/// The holder has the second sector of the lock file.
fn write_holder(file: &File, holder: &Value) -> std::io::Result<()> {
    mark::write_sector(file, HOLDER_AT, holder)
}

/// None if another run created the file in this moment.
fn open_or_create(folder: &PrivateFolder) -> anyhow::Result<Option<File>> {
    if let Some(file) = folder.open(mark::FILE, FileAccess::Write)? {
        return Ok(Some(file));
    }
    match folder.create_file(mark::FILE, OWNER_ONLY) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        created => {
            let path = folder.path_of(mark::FILE);
            created.map(Some).explain(|| text!("cannot create {}", "无法创建 {}", path.display()))
        }
    }
}

fn read_numbers(file: &File) -> anyhow::Result<LastNumbers> {
    let numbers = mark::read_sector(file, NUMBERS_AT).explain(|| text!("cannot read the lock", "无法读取锁文件"))?;
    let number = |name| numbers.as_ref().and_then(|numbers| numbers.get(name)?.as_i64()).unwrap_or_default();
    Ok(LastNumbers { run: number("run"), change: number("change") })
}

/// A number that is kept already and is greater stays.
fn write_numbers(file: &File, given: LastNumbers) -> anyhow::Result<()> {
    let kept = read_numbers(file)?;
    let LastNumbers { run, change } = kept.max(given);
    if kept == (LastNumbers { run, change }) {
        return Ok(());
    }
    let written = mark::write_sector(file, NUMBERS_AT, &json!({ "run": run, "change": change }));
    written.explain(|| text!("cannot write the lock", "无法写入锁文件"))
}

fn read_holder(file: &File) -> std::io::Result<Option<Holder>> {
    Ok(mark::read_sector(file, HOLDER_AT)?.as_ref().and_then(parse_holder))
}

/// Whether the processes that hold the lock share it: they only read.
fn is_shared(file: &File) -> bool {
    file.try_lock_shared().is_ok() && file.unlock().is_ok()
}

/// Waits a moment, or refuses if the time is up or this purpose does not wait.
fn wait(file: &File, path: &Path, request: &mut LockRequest<'_>, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
    let is_shared = is_shared(file);
    if is_shared && request.met_shared < SHARED_TRIES {
        request.met_shared += 1;
        std::thread::sleep(SHARED_INTERVAL);
        return Ok(());
    }
    let holder = read_holder(file).explain(|| text!("cannot read {}", "无法读取 {}", path.display()))?;
    let holder = holder.filter(|_| !is_shared);
    let named = || if is_shared { sharers::sharer(file, &request.starter.host) } else { request.shown(holder.clone()) };
    if !request.waits_for(holder.as_ref()) || request.since.elapsed() >= request.patience.time {
        return Err(Refusal::Locked { holder: named().map(Box::new), lock: path.to_path_buf() }.into());
    }
    if !request.is_waiting {
        let holder = named();
        request.is_waiting = true;
        tell(Event::Waiting { holder, at_most: request.patience.time });
    }
    let pause = RETRY_INTERVAL.min(request.patience.time);
    let Some(cancel) = request.patience.cancel else {
        std::thread::sleep(pause);
        return Ok(());
    };
    cancel.sleep(pause);
    cancel.signal().map_or(Ok(()), |signal| Err(Refusal::Cancelled { signal }.into()))
}

/// None where the lock's holder has not written who it is yet.
fn parse_holder(holder: &Value) -> Option<Holder> {
    let text = |name: &str| Some(holder.get(name)?.as_str()?.to_owned());
    Some(Holder {
        purpose: text("kind")?,
        pid: holder.get("pid")?.as_u64()?,
        host: text("host")?,
        user: text("user"),
        since: Some(text("since")?),
    })
}

/// Moves a folder with an owner file to where the script makes its own. A plain rename would replace
/// the script's empty folder.
fn take_script_lock(private: &PrivateFolder, holder: &Value) -> anyhow::Result<()> {
    // The lock is held, so no other run uses this name.
    private.remove_folder(NEW_SCRIPT_LOCK)?;
    write_owner(private, holder)
        .explain(|| text!("cannot write {}", "无法写入 {}", private.path_of(NEW_SCRIPT_LOCK).display()))?;
    let taken = rename_or_reclaim(private);
    if taken.is_err() {
        // What went wrong first is what counts.
        let _ = private.remove_folder(NEW_SCRIPT_LOCK);
    }
    taken
}

fn rename_or_reclaim(private: &PrivateFolder) -> anyhow::Result<()> {
    let lock = private.path_of(SCRIPT_LOCK);
    let lock = lock.display();
    for _ in 0..2 {
        match private.rename_to_new(NEW_SCRIPT_LOCK, SCRIPT_LOCK) {
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {
                reclaim(private)?;
            }
            taken => return taken.explain(|| text!("cannot make the lock folder {lock}", "无法创建锁目录 {lock}")),
        }
    }
    Err(text!("the lock folder {lock} comes back as soon as it is removed", "锁目录 {lock} 删除后立即又出现").into())
}

fn write_owner(private: &PrivateFolder, holder: &Value) -> anyhow::Result<()> {
    private.create_folder(NEW_SCRIPT_LOCK)?;
    let folder = private.open_subfolder(NEW_SCRIPT_LOCK)?.explain(|| text!("it is gone again", "它随即又消失了"))?;
    let mut owner = holder.clone();
    owner["program"] = json!("invoice-export");
    Ok(folder.create_file(OWNER, 0o666)?.write_all(format!("{owner}\n").as_bytes())?)
}

/// Removes a lock folder that a dead run of this program left. The lock is held, so that run cannot be alive.
fn reclaim(private: &PrivateFolder) -> anyhow::Result<()> {
    if has_left_folder(private)? { release(private) } else { Ok(()) }
}

/// Whether a run of this program left its lock folder.
///
/// # Errors
/// Refuses the script's own.
fn has_left_folder(private: &PrivateFolder) -> anyhow::Result<bool> {
    let folder = private.path_of(SCRIPT_LOCK);
    let Some(stat) = private.stat(SCRIPT_LOCK)? else { return Ok(false) };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {}
        FileType::Symlink => return Err(Refusal::Untrusted { path: folder, why: Distrust::Link }.into()),
        _ => return Err(script_locked(folder, stat.st_mtime)),
    }
    let Some(lock) = private.open_subfolder(SCRIPT_LOCK)? else { return Ok(false) };
    if lock.stat(OWNER)?.is_some() { Ok(true) } else { Err(script_locked(folder, stat.st_mtime)) }
}

/// The script is at work, or has left its folder behind. `created` is in seconds since 1970.
fn script_locked(folder: PathBuf, created: i64) -> anyhow::Error {
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(created).unwrap_or_default());
    let age = Duration::from_secs(created.elapsed().unwrap_or_default().as_secs().max(1));
    Refusal::ScriptLocked { folder, age }.into()
}

/// Moves the folder away before it is emptied: an empty one under its name would look like the
/// script's.
fn release(private: &PrivateFolder) -> anyhow::Result<()> {
    private.remove_folder(OLD_SCRIPT_LOCK)?;
    let renamed = private.rename(SCRIPT_LOCK, OLD_SCRIPT_LOCK);
    renamed.explain(|| text!("cannot rename {}", "无法改名 {}", private.path_of(SCRIPT_LOCK).display()))?;
    private.remove_folder(OLD_SCRIPT_LOCK)
}

impl Drop for ExportLock {
    fn drop(&mut self) {
        // The lock itself goes with the file. A folder that stays is reclaimed by the next run.
        let _ = release(&self.private);
        // A run that comes before the next holder has written its name would be refused in the name of this one.
        for file in self.files() {
            let _ = write_holder(file, &Value::Null);
        }
    }
}
