//! Publishing a batch: the order of steps that survives a power cut.
//!
//! 1. the documents and the list of their targets lie in staging
//! 2. one sync makes both durable
//! 3. rename each document into place, or give it its only name (`tmpfile.rs`)
//! 4. remove the paths that their invoices left
//! 5. one sync makes the names durable: the folders touched, and the parents of new ones
//!
//! Only then the batch may be recorded; `Published` is the proof. After step 2 it is `SyncedBatch`: that step waits
//! for the disk, so it may be taken while the batch before is at step 3. A sync that fails ends the run (`sync.rs`):
//! asked a second time the kernel may answer that all is well though the data is lost.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::handles::is_out_of_handles;
use super::name::TreePath;
use super::output::{NewFolder, Tree};
use super::stage::{List, Stage, StagedDocument};
use crate::fs::identity::Identity;
use crate::fs::inherit::{Inherited, is_not_permitted};
use crate::fs::{create_folder_if_missing, digest_of, open_beneath, open_file};
use crate::invoice::{Digest, InvoiceId, Tenant};
use crate::lang::{Explain, Message};
use crate::refusal::Trouble;

/// A staged document and where it goes.
#[derive(Debug)]
pub struct Placement {
    pub id: InvoiceId,
    pub tenant: Tenant,
    pub path: TreePath,
    pub digest: Digest,
    pub staged: StagedDocument,
}

/// A path that its invoice left.
#[derive(Clone, Debug)]
pub struct Removal {
    pub path: TreePath,
    /// Where the invoices that had it are now. It stays if one of these files cannot be put in place.
    pub instead: Vec<TreePath>,
    /// Of what this program wrote there; another file is left.
    pub digest: Digest,
    pub cause: Cause,
}

/// Why a file is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This invoice left the path, or is withdrawn.
    Superseded(InvoiceId),
    /// A dead run may have put it there for this invoice, and no invoice names it.
    InDoubt(InvoiceId),
}

impl Removal {
    /// The invoice that leaves the path.
    pub fn mover(&self) -> Option<&InvoiceId> {
        match &self.cause {
            Cause::Superseded(id) => Some(id),
            Cause::InDoubt(_) => None,
        }
    }
}

/// What a batch does to the tree.
#[derive(Debug, Default)]
pub struct Changes {
    pub placements: Vec<Placement>,
    /// Files that were there with the right bytes, however recently they were written: they are
    /// synced with the batch.
    pub adopted: Vec<TreePath>,
    pub removals: Vec<Removal>,
}

impl Changes {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.removals.is_empty() && self.adopted.is_empty()
    }
}

/// A batch of which the documents and the list of their targets are durable, and nothing is in place yet.
#[derive(Debug)]
pub struct SyncedBatch {
    changes: Changes,
    list: List,
}

/// Proof that a batch is durable, and what became of it.
#[derive(Debug, Default)]
pub struct Published {
    /// The name of the list of its targets.
    list: Option<String>,
    removed: Vec<(Option<InvoiceId>, TreePath)>,
    not_removed: Vec<NotRemoved>,
    /// What a dead run may have written and could not be removed, with the words of the operating system.
    in_doubt: Vec<(TreePath, String)>,
    failed: Vec<Failure>,
    /// A folder whose files do not get what it hands down, with the words of the operating system; the first of a run.
    ungiven: Option<(String, String)>,
}

/// A folder that a batch puts files into.
struct OpenFolder {
    handle: Arc<OwnedFd>,
    /// What its files are given.
    gives: Option<Inherited>,
}

/// A superseded file that is still there.
#[derive(Debug)]
pub struct NotRemoved {
    pub id: InvoiceId,
    pub path: TreePath,
    /// Of what this program wrote.
    pub digest: Digest,
    pub why: NotRemovedReason,
}

/// Why a superseded file is still there.
#[derive(Debug)]
pub enum NotRemovedReason {
    /// It holds something else than what this program wrote.
    Foreign,
    /// This user may not write to its folder, or it is no folder. The words of the operating system.
    Stuck(String),
}

/// A file that could not be put in place for a reason that concerns its tenant only.
#[derive(Debug)]
pub struct Failure {
    pub tenant: Tenant,
    pub path: TreePath,
    pub trouble: Trouble,
}

impl Failure {
    fn of(placement: &Placement, detail: Message) -> Self {
        let (tenant, path) = (placement.tenant.clone(), placement.path.clone());
        Self { trouble: Trouble::NotInPlace { path: path.to_string(), detail }, tenant, path }
    }
}

impl Placement {
    fn target(&self) -> (&InvoiceId, &TreePath, Digest) {
        (&self.id, &self.path, self.digest)
    }
}

impl Published {
    /// A batch without files, which is durable by nature.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Whether anything was written, taken over or removed.
    pub fn changed_the_tree(&self) -> bool {
        self.list.is_some()
    }

    /// The superseded files that were removed.
    pub fn removed(&self) -> impl Iterator<Item = &TreePath> {
        self.removed.iter().map(|(_, path)| path)
    }

    /// The invoices of the old files that were removed.
    pub fn movers(&self) -> impl Iterator<Item = &InvoiceId> {
        self.removed.iter().filter_map(|(id, _)| id.as_ref())
    }

    /// The superseded files that are still there.
    pub fn not_removed(&self) -> &[NotRemoved] {
        &self.not_removed
    }

    /// What a dead run may have written and could not be removed, with the words of the operating system.
    pub fn in_doubt(&self) -> &[(TreePath, String)] {
        &self.in_doubt
    }

    /// A folder whose files do not get what it hands down, with the words of the operating system.
    pub fn ungiven(&self) -> Option<(&str, &str)> {
        self.ungiven.as_ref().map(|(folder, detail)| (folder.as_str(), detail.as_str()))
    }

    /// The files that could not be put in place.
    pub fn failed(&self) -> &[Failure] {
        &self.failed
    }

    fn note(&mut self, removal: &Removal, ownership: &Ownership) {
        let path = removal.path.clone();
        match (ownership, &removal.cause) {
            (Ownership::Ours(_), _) => self.removed.push((removal.mover().cloned(), path)),
            (Ownership::Foreign, Cause::Superseded(id)) => {
                let id = id.clone();
                self.not_removed.push(NotRemoved { id, path, digest: removal.digest, why: NotRemovedReason::Foreign });
            }
            (Ownership::Foreign, Cause::InDoubt(_)) | (Ownership::Missing, _) => {}
        }
    }

    /// An obstacle in the folders of one tenant does not keep the others from going on.
    fn note_trouble(&mut self, removal: &Removal, error: io::Error) -> anyhow::Result<()> {
        if !concerns_one_tenant(&error) {
            return Err(text!("cannot remove {}", "无法删除 {}", removal.path).caused_by(error));
        }
        let (path, detail) = (removal.path.clone(), error.to_string());
        match &removal.cause {
            Cause::Superseded(id) => {
                let id = id.clone();
                self.not_removed.push(NotRemoved {
                    id,
                    path,
                    digest: removal.digest,
                    why: NotRemovedReason::Stuck(detail),
                });
            }
            Cause::InDoubt(_) => self.in_doubt.push((path, detail)),
        }
        Ok(())
    }
}

impl Stage {
    /// The batch is recorded: nothing of it is in doubt any more.
    pub fn drop_list(&self, published: &Published) -> anyhow::Result<()> {
        let Some(list) = &published.list else { return Ok(()) };
        let removed = self.remove_list(list);
        removed.explain(|| text!("cannot remove the list {list} in staging", "无法删除暂存目录中的清单 {list}"))
    }

    /// Nothing of the batch was put in place, nor will be. If its list stays, the next run examines files
    /// that no process has touched.
    pub fn withdraw_list(&self, synced: &SyncedBatch) {
        let _ = self.remove_list(&synced.list.name);
    }
}

impl Tree {
    /// Publishes a batch. An error means that nothing of it may be recorded.
    pub fn publish(&self, stage: &Stage, changes: Changes) -> anyhow::Result<Published> {
        if changes.is_empty() {
            return Ok(Published::nothing());
        }
        self.put_in_place(stage, self.sync(stage, changes)?)
    }

    /// Steps 1 and 2.
    pub fn sync(&self, stage: &Stage, changes: Changes) -> anyhow::Result<SyncedBatch> {
        let movers = changes.removals.iter().filter_map(Removal::mover);
        let list = stage.write_list(changes.placements.iter().map(Placement::target), movers)?;
        let synced = SyncedBatch { changes, list };
        if let Err(error) = self.sync_staged(stage, &synced.list.file, &synced.changes.adopted) {
            stage.withdraw_list(&synced);
            return Err(error);
        }
        Ok(synced)
    }

    /// Steps 3 to 5. An error means that nothing of the batch may be recorded.
    pub fn put_in_place(&self, stage: &Stage, synced: SyncedBatch) -> anyhow::Result<Published> {
        let SyncedBatch { changes, list: List { file, name } } = synced;
        let mut touched = BTreeSet::new();
        let mut published = Published { list: Some(name), ..Published::default() };
        self.put_all(stage, &changes.placements, &mut published, &mut touched)?;
        self.remove_all(&changes.removals, &mut published, &mut touched)?;
        touched.extend(changes.adopted.iter().map(|path| path.folder().to_owned()));
        touched.extend(changes.adopted.iter().flat_map(|path| [path.tenant().to_owned(), String::new()]));
        self.sync_names(stage, &file, &touched)?;
        Ok(published)
    }

    fn put_all(
        &self,
        stage: &Stage,
        placements: &[Placement],
        published: &mut Published,
        touched: &mut BTreeSet<String>,
    ) -> anyhow::Result<()> {
        let (mut open, mut moved) = (HashMap::new(), BTreeSet::new());
        for placement in placements {
            let mut put = self.put(stage, placement, &mut open, touched);
            if put.as_ref().is_err_and(is_out_of_handles) {
                moved.extend(self.moved_away(&mut open)?);
                put = self.put(stage, placement, &mut open, touched);
            }
            match put {
                Ok(None) => {}
                Ok(Some(error)) => {
                    if !stage.has_told.swap(true, Ordering::Relaxed) {
                        published.ungiven = Some((placement.path.folder().to_owned(), error.to_string()));
                    }
                }
                Err(error) if concerns_one_tenant(&error) => {
                    stage.discard(&placement.staged);
                    published.failed.push(Failure::of(placement, Trouble::detail(&error)));
                }
                Err(error) => {
                    let path = &placement.path;
                    return Err(text!("cannot put {path} in place", "无法将 {path} 放到目标位置").caused_by(error));
                }
            }
            if open.len() >= self.folders.at_most {
                moved.extend(self.moved_away(&mut open)?);
            }
        }
        moved.extend(self.moved_away(&mut open)?);
        for placement in placements.iter().filter(|placement| moved.contains(placement.path.folder())) {
            touched.remove(placement.path.folder());
            let detail = text!(
                "its folder was moved away or replaced meanwhile, and took the file along",
                "其目录在此期间被移走或替换，文件也随之移走"
            );
            published.failed.push(Failure::of(placement, detail.into()));
        }
        Ok(())
    }

    /// Puts a document where it goes, and keeps the first handle of its folder. Returns why the file did not get what
    /// its folder hands down.
    fn put<'a>(
        &self,
        stage: &Stage,
        placement: &'a Placement,
        open: &mut HashMap<&'a str, OpenFolder>,
        touched: &mut BTreeSet<String>,
    ) -> io::Result<Option<io::Error>> {
        let path = &placement.path;
        let mut put = || -> io::Result<Option<io::Error>> {
            let is_first = !open.contains_key(path.folder());
            if is_first {
                self.forget_if_moved(path.folder())?;
            }
            let folder = self.make_folder(path, touched)?;
            let first = if is_first { stage.unlike_staging(&folder)? } else { None };
            let gives = open.get(path.folder()).map_or(first.as_ref(), |known| known.gives.as_ref());
            let given = gives.map_or(Ok(()), |gives| stage.give(&placement.staged, gives));
            let ungiven = given.map_or_else(
                |error| if is_not_permitted(&error) { Ok(Some(error)) } else { Err(error) },
                |()| Ok(None),
            )?;
            stage.put(&placement.staged, &folder, path.file())?;
            if is_first {
                open.insert(path.folder(), OpenFolder { handle: folder, gives: first });
                touched.insert(path.folder().to_owned());
            }
            Ok(ungiven)
        };
        match put() {
            // Its folder was removed meanwhile, and is made again.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.forget_folder(path.folder());
                put()
            }
            result => result,
        }
    }

    /// A folder that is moved away keeps its open handle: what is put there from then on is not where it
    /// belongs. Says which of these folders that befell, and forgets their handles. They are asked while they are
    /// open, since their inodes are not given out again until then.
    fn moved_away<'a>(&self, open: &mut HashMap<&'a str, OpenFolder>) -> anyhow::Result<Vec<&'a str>> {
        let mut moved = Vec::new();
        for (folder, open) in open.drain() {
            match self.is_there(folder, &open.handle) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) if concerns_one_tenant(&error) => {}
                Err(error) => {
                    return Err(text!("cannot look at the folder {folder}", "无法查看目录 {folder}").caused_by(error));
                }
            }
            self.forget_folder(folder);
            moved.push(folder);
        }
        Ok(moved)
    }

    /// Whether a folder is still where it was opened.
    fn is_there(&self, folder: &str, handle: &OwnedFd) -> io::Result<bool> {
        Identity::is_named(handle, &self.root, folder)
    }

    /// A handle may be as old as the run.
    fn forget_if_moved(&self, folder: &str) -> io::Result<()> {
        match self.folders.get(folder) {
            Some(handle) if !self.is_there(folder, &handle)? => {
                self.forget_folder(folder);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Opens the folder of a path, and makes it where it is missing.
    fn make_folder(&self, path: &TreePath, touched: &mut BTreeSet<String>) -> io::Result<Arc<OwnedFd>> {
        if let Some(folder) = self.folder(path.folder())? {
            self.forget_if_made_by_others(path);
            return Ok(folder);
        }
        if create_folder_if_missing(&self.root, path.tenant())? {
            touched.insert(String::new());
        }
        let tenant = self.folders.with_room(|| open_beneath(&self.root, path.tenant()))?;
        if create_folder_if_missing(&tenant, path.country())? {
            touched.insert(path.tenant().to_owned());
            self.new_folders_mut().insert(path.folder().to_owned(), NewFolder::Made);
        }
        self.forget_if_made_by_others(path);
        self.folder(path.folder())?.ok_or_else(|| io::Error::from(Errno::NOENT))
    }

    fn forget_if_made_by_others(&self, path: &TreePath) {
        // Mostly there is nothing to forget, and then no thread that checks is kept waiting. Only this thread says
        // that one is made.
        let is_missing = self.new_folders().get(path.folder()) == Some(&NewFolder::Missing);
        if is_missing {
            self.new_folders_mut().remove(path.folder());
        }
    }

    fn remove_all(
        &self,
        removals: &[Removal],
        published: &mut Published,
        touched: &mut BTreeSet<String>,
    ) -> anyhow::Result<()> {
        let failed: HashSet<TreePath> = published.failed.iter().map(|failure| failure.path.clone()).collect();
        let is_in_place = |removal: &&Removal| !removal.instead.iter().any(|path| failed.contains(path));
        // Where the new file is not in place, the old one stays.
        for removal in removals.iter().filter(is_in_place) {
            match self.remove(removal) {
                Ok(ownership) => {
                    if let Ownership::Ours(_) = &ownership {
                        touched.insert(removal.path.folder().to_owned());
                    }
                    published.note(removal, &ownership);
                }
                Err(error) => published.note_trouble(removal, error)?,
            }
        }
        Ok(())
    }

    /// Removes a superseded file, if it is what this program wrote.
    fn remove(&self, removal: &Removal) -> io::Result<Ownership> {
        let ownership = self.ownership(removal)?;
        if let Ownership::Ours(folder) = &ownership {
            rustix::fs::unlinkat(&**folder, removal.path.file(), AtFlags::empty())?;
        }
        Ok(ownership)
    }

    /// What publishing these removals would do. Nothing is changed.
    pub fn would_remove(&self, removals: &[Removal]) -> anyhow::Result<Published> {
        let mut published = Published::nothing();
        for removal in removals {
            match self.ownership(removal) {
                Ok(ownership) => published.note(removal, &ownership),
                Err(error) => published.note_trouble(removal, error)?,
            }
        }
        Ok(published)
    }

    /// Whether a superseded file is still what this program wrote.
    fn ownership(&self, removal: &Removal) -> io::Result<Ownership> {
        self.forget_if_moved(removal.path.folder())?;
        let Some(folder) = self.folder(removal.path.folder())? else { return Ok(Ownership::Missing) };
        let content = match self.folders.with_room(|| open_file(&folder, removal.path.file())) {
            Ok(content) => content,
            Err(Errno::NOENT) => return Ok(Ownership::Missing),
            Err(Errno::LOOP) => return Ok(Ownership::Foreign),
            Err(error) => return Err(error.into()),
        };
        let ours = content.metadata()?.is_file() && digest_of(content)? == removal.digest;
        Ok(if ours { Ownership::Ours(folder) } else { Ownership::Foreign })
    }
}

enum Ownership {
    /// The handle of its folder.
    Ours(Arc<OwnedFd>),
    Foreign,
    /// It is not there.
    Missing,
}

/// A tenant's folder that is a file, a symlink, a mount point or that this user may not write to holds up this
/// tenant; a full or broken disk holds up the run.
pub fn concerns_one_tenant(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    const LOCAL: [Errno; 7] =
        [Errno::ACCESS, Errno::PERM, Errno::NOTDIR, Errno::ISDIR, Errno::LOOP, Errno::XDEV, Errno::NOTEMPTY];
    errno.is_some_and(|errno| LOCAL.contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tree::stage::Naming;
    use crate::tree::{Durability, FileComparison};

    #[test]
    fn a_folder_that_others_make_meanwhile_is_looked_into_again() {
        let output = tempfile::tempdir().unwrap();
        let tree = Tree::open(output.path()).unwrap();
        let private = Arc::new(tree.create_private_folder().unwrap());
        let stage = Stage::create(&tree, &private, Durability::Batch).unwrap();
        let [ours, theirs] =
            ["1/CN/20251128+A.json", "1/CN/20251128+B.json"].map(|path| TreePath::parse(path).unwrap());
        assert_eq!(tree.compare(&ours, b"{}").unwrap(), FileComparison::Nothing);
        let staged = stage.write(b"{}", Naming::AtTheEnd).unwrap();

        fs::create_dir_all(output.path().join("1/CN")).unwrap();
        for path in [&ours, &theirs] {
            fs::write(output.path().join(path.as_str()), "of others").unwrap();
        }
        let (id, tenant) = (InvoiceId("1".into()), Tenant("1".into()));
        let placement = Placement { id, tenant, path: ours.clone(), digest: Digest::of(b"{}"), staged };
        let published = tree.publish(&stage, Changes { placements: vec![placement], ..Changes::default() }).unwrap();

        assert!(published.failed().is_empty(), "{published:?}");
        assert_eq!(fs::read_to_string(output.path().join(ours.as_str())).unwrap(), "{}");
        assert!(!tree.is_in_new_folder(&ours));
        assert_eq!(tree.compare(&theirs, b"{}").unwrap(), FileComparison::Other);
    }
}
