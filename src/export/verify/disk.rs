//! Compares tree and ledger: first every file that the ledger names, then every file and folder in the tree.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::path::PathBuf;

use chrono::DateTime;

use super::findings::{Difference, Findings, Place};
use super::session::Sight;
use super::task::{ContentCheck, Task};
use crate::event::Event;
use crate::export::in_doubt::{Blame, InDoubt};
use crate::fs::private::{PRIVATE, PrivateFolder};
use crate::invoice::Tenant;
use crate::lang::Text;
use crate::refusal::Refusal;
use crate::run::{Cancel, RunId};
use crate::state::State;
use crate::state::ledger::Entry;
use crate::tree::name::TreePath;
use crate::tree::stage::{self, Writer};
use crate::tree::walk::{self, TreeEntryKind};
use crate::tree::{Due, Facts, Tree};

/// Rows of the ledger read at a time.
const PAGE: usize = 10_000;
const PROGRESS_EVERY: u64 = 1_000;
/// Seconds by which a file may be newer than the end of the run that wrote it: file systems have coarse clocks.
const GRACE: i64 = 2;

/// Compares the selected rows of the ledger with their files, then looks for files that the ledger does not name.
pub(super) fn compare(
    task: &Task,
    Sight { tree, state, .. }: Sight<'_>,
    in_doubt: &InDoubt,
    cancel: &Cancel,
    findings: &mut Findings,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    let lookup = state.lookup()?;
    tell(Event::Expected(state.extent()?.0));
    let mut inspector = Inspector { tree, state, content: task.content, owner: tree.owner()?, ends: HashMap::new() };
    let mut after = None;
    loop {
        if let Some(signal) = cancel.signal() {
            return Err(Refusal::Cancelled { signal }.into());
        }
        let page = lookup.page(after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.id.clone());
        for (entry, run) in page.iter().filter(|(entry, _)| task.common.selection.holds(entry)) {
            findings.files += 1;
            if let Some((difference, detail)) = inspector.inspect(entry, *run)? {
                match in_doubt.judge(entry, tree) {
                    Blame::NotTheRun => findings.record_entry(difference, entry, detail),
                    Blame::Perhaps => {
                        findings.record_entry(difference, entry, detail.then(&in_doubt.excuse()));
                        findings.note_found_in_doubt(&entry.id);
                    }
                    // The next run puts it on record.
                    Blame::ItsDocument => {
                        let writers = in_doubt.writers_at(&entry.path).unwrap_or_default();
                        findings.note_in_doubt(Place::Tenant(entry.tenant.clone()), writers);
                    }
                }
            }
            if findings.files.is_multiple_of(PROGRESS_EVERY) {
                tell(Event::Progress { invoices: findings.files });
            }
        }
    }
    look_around(task, tree, state, in_doubt, findings)
}

/// What a dead run left in doubt. The lock is held, so no run is at work.
pub(super) fn in_doubt(tree: &Tree, state: &State) -> anyhow::Result<InDoubt> {
    let private = PrivateFolder::open_existing(&tree.output().join(PRIVATE))?;
    InDoubt::of(private.as_ref().map(stage::unrecorded).transpose()?.unwrap_or_default(), Writer::Died, state)
}

struct Inspector<'a> {
    tree: &'a Tree,
    state: &'a State,
    content: ContentCheck,
    /// The user that exports.
    owner: u32,
    /// When each run ended, in seconds since 1970.
    ends: HashMap<RunId, Option<i64>>,
}

impl Inspector<'_> {
    /// How a file differs from its row in the ledger, by the cheapest check that shows it.
    fn inspect(&mut self, entry: &Entry, run: RunId) -> anyhow::Result<Option<(Difference, Text)>> {
        let facts = match self.tree.inspect(&entry.path) {
            Ok(Some(facts)) => facts,
            Ok(None) => return Ok(Some((Difference::Missing, text!("nothing lies there", "该处没有文件")))),
            Err(error) => {
                let detail = text!("it cannot be looked at: {error}", "无法查看: {error}");
                return Ok(Some((Difference::Altered, detail)));
            }
        };
        if !facts.is_file {
            let detail = text!("something that is not a file lies there", "该处不是普通文件");
            return Ok(Some((Difference::Altered, detail)));
        }
        if facts.size != entry.size {
            let (size, exported) = (facts.size, entry.size);
            let detail =
                text!("it has {size} bytes, {exported} were exported", "文件有 {size} 字节，导出时为 {exported} 字节");
            return Ok(Some((Difference::Altered, detail)));
        }
        let suspicious = self.content == ContentCheck::ByHash || !self.is_as_old_as(facts.modified, run)?;
        if suspicious && let Some(detail) = self.other_content(entry) {
            return Ok(Some((Difference::Altered, detail)));
        }
        Ok(self.permissions(&facts).map(|detail| (Difference::Permissions, detail)))
    }

    /// Whether a file was last modified before its run ended. Every file that a run wrote or took over was.
    fn is_as_old_as(&mut self, modified: i64, run: RunId) -> anyhow::Result<bool> {
        let end = match self.ends.get(&run) {
            Some(end) => *end,
            None => {
                let end = self.state.end_of(run)?.and_then(|end| DateTime::parse_from_rfc3339(&end).ok());
                *self.ends.entry(run).or_insert(end.map(|end| end.timestamp()))
            }
        };
        Ok(end.is_some_and(|end| modified <= end + GRACE))
    }

    /// How the bytes of a file differ from the exported ones.
    fn other_content(&self, entry: &Entry) -> Option<Text> {
        match self.tree.digest(&entry.path) {
            Ok(Some(digest)) if digest == entry.digest => None,
            Ok(_) => Some(text!("it has other content than was exported", "内容与导出时不同")),
            Err(error) => Some(text!("it cannot be read: {error}", "无法读取: {error}")),
        }
    }

    /// What is wrong with the owner, the group, the mode or the ACL of a file.
    fn permissions(&self, facts: &Facts) -> Option<Text> {
        let Due { group, mode: expected, has_acl } = facts.due;
        if facts.owner != self.owner {
            let (theirs, owner) = (facts.owner, self.owner);
            return Some(text!(
                "it belongs to user {theirs}, user {owner} exports",
                "属于用户 {theirs}，导出用户是 {owner}"
            ));
        }
        if let Some(due) = group.filter(|due| *due != facts.group) {
            let group = facts.group;
            return Some(text!(
                "its group is {group}, its folder hands down {due}",
                "属组为 {group}，按其目录应为 {due}"
            ));
        }
        let mode = facts.mode;
        if mode != expected {
            return Some(text!(
                "its mode is {mode:04o}, its folder's asks for {expected:04o}",
                "权限为 {mode:04o}，按其目录应为 {expected:04o}"
            ));
        }
        (!has_acl)
            .then(|| text!("its ACL is not the one that its folder hands down", "其 ACL 与其目录的默认 ACL 不一致"))
    }
}

/// Finds the files that no invoice and no leftover names, and the folders in which a run could not work.
fn look_around(
    task: &Task,
    tree: &Tree,
    state: &State,
    in_doubt: &InDoubt,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let (selection, owner) = (&task.common.selection, tree.owner()?);
    let chosen: HashSet<String> = selection.tenants.iter().map(folder_of).collect();
    // The walk yields a folder and then the error of reading it; one finding for both is enough.
    let mut troubled: Option<PathBuf> = None;
    let mut files = Vec::new();
    for found in walk::everything(tree.output()) {
        let found = found?;
        let tenant = found.path.iter().next().unwrap_or_default().to_str();
        if !chosen.is_empty() && !tenant.is_some_and(|tenant| chosen.contains(tenant)) {
            continue;
        }
        let trouble = match found.kind {
            TreeEntryKind::Folder { owner: theirs, mode } => folder_trouble(theirs, mode, owner),
            TreeEntryKind::Closed if troubled.as_ref() == Some(&found.path) => None,
            TreeEntryKind::Closed => Some(text!("the folder cannot be read", "无法读取目录")),
            // An unknown file has no source time, so it belongs to no window.
            TreeEntryKind::File if selection.has_window() => None,
            TreeEntryKind::File => {
                match found.path.to_str().and_then(TreePath::parse) {
                    Some(path) => files.push(path),
                    None => {
                        let detail = text!("no invoice has such a path", "不会有发票使用这样的路径");
                        findings.record_path(Difference::Foreign, found.path.display(), detail);
                    }
                }
                None
            }
        };
        if let Some(detail) = trouble {
            findings.record_path(Difference::Permissions, found.path.display(), detail);
            troubled = Some(found.path);
        }
        if files.len() >= PAGE {
            find_strangers(mem::take(&mut files), in_doubt, state, findings)?;
        }
    }
    find_strangers(files, in_doubt, state, findings)
}

/// Finds the files that no invoice of the ledger has.
fn find_strangers(
    files: Vec<TreePath>,
    in_doubt: &InDoubt,
    state: &State,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let strangers = state.without_invoice(files)?;
    let rejected = rejected_numbers(&strangers, state)?;
    for path in strangers {
        // The next run clears up what a dead run left.
        if let Some(writers) = in_doubt.writers_at(&path) {
            findings.note_in_doubt(Place::of_path(&path.to_string()), writers);
            continue;
        }
        if let Some(leftover) = state.leftover(&path)? {
            findings.record_leftover(&leftover);
        } else if let Some(number) = rejected.get(&(path.tenant().to_owned(), path.ending().to_owned())) {
            let detail = text!(
                "it may be the last good file of the rejected invoice {number}; keep it",
                "可能是无法导出的发票 {number} 的最后一个正确文件，请保留"
            );
            findings.record_path(Difference::LastGood, path, detail);
        } else {
            let detail = text!("no invoice of the ledger has this path", "台账中没有发票使用此路径");
            findings.record_path(Difference::Foreign, path, detail);
        }
    }
    Ok(())
}

/// The numbers of open rejects that these files spell, by the tenant's folder and the ending of the file's name. A file
/// of before this state may be the last good one of an invoice that no run could export since.
fn rejected_numbers(files: &[TreePath], state: &State) -> anyhow::Result<HashMap<(String, String), String>> {
    let names: HashSet<(&str, &str)> = files.iter().map(|path| (path.tenant(), path.ending())).collect();
    let (mut last, mut numbers) = (None, HashMap::new());
    while !names.is_empty() {
        let page = state.open_rejects_from(last.as_ref(), PAGE)?;
        for reject in &page {
            if let (Some(tenant), Some(number)) = (&reject.tenant, &reject.number) {
                let (folder, ending) = (folder_of(tenant), TreePath::ending_of(number));
                if names.contains(&(folder.as_str(), ending.as_str())) {
                    numbers.insert((folder, ending), number.clone());
                }
            }
        }
        match page.into_iter().next_back() {
            Some(end) => last = Some(end),
            None => break,
        }
    }
    Ok(numbers)
}

/// The name of a tenant's folder.
pub(super) fn folder_of(tenant: &Tenant) -> String {
    TreePath::of(tenant, None, "20000101", "1").tenant().to_owned()
}

/// Why a run could not work in a folder.
fn folder_trouble(theirs: u32, mode: u32, owner: u32) -> Option<Text> {
    if theirs != owner {
        return Some(text!(
            "the folder belongs to user {theirs}, user {owner} exports",
            "目录属于用户 {theirs}，导出用户是 {owner}"
        ));
    }
    (mode & 0o700 != 0o700).then(|| {
        text!("the folder's mode is {mode:04o}, in which nothing can be exported", "目录权限为 {mode:04o}，无法写入")
    })
}
