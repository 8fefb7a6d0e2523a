//! The script's state file: one line `tenant|time|count|status` for each tenant. Reads it, writes it,
//! and takes its watermarks over.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::changes::{Change, Moved, note};
use super::{State, history, tenants, watermarks};
use crate::invoice::{SourceTime, Tenant};
use crate::lang::{Text, Word, shortened};
use crate::window::{self, moment};

/// The name of the script's state file in its state folder.
pub const FILE: &str = ".last_export_time";

const BOM: &[u8] = b"\xef\xbb\xbf";
/// Characters of a wrong line that are quoted.
const QUOTED_AT_MOST: usize = 200;

/// What the file says of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyEntry {
    pub tenant: Tenant,
    pub time: SourceTime,
    /// Files that its last run wrote.
    pub count: u64,
    pub status: LegacyStatus,
}

words! {
    /// How a tenant's last run ended, in the words of the script.
    pub enum LegacyStatus {
        Success = "SUCCESS", "成功";
        Failed = "FAILED", "失败";
    }
}

impl LegacyStatus {
    /// A tenant that no run has dealt with has not failed either.
    fn of(outcome: Option<history::RunStatus>) -> Self {
        if outcome == Some(history::RunStatus::Failed) { Self::Failed } else { Self::Success }
    }

    fn outcome(self) -> history::RunStatus {
        match self {
            Self::Success => history::RunStatus::Success,
            Self::Failed => history::RunStatus::Failed,
        }
    }
}

/// A whole file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedFile {
    /// Each tenant once, in the order of the file.
    pub entries: Vec<LegacyEntry>,
    /// With empty lines and comments.
    pub lines: u64,
}

/// A line that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    pub number: u64,
    pub what: Text,
    /// Its text, or the beginning of it.
    pub text: String,
}

/// The first line of a tenant.
struct FirstLine<'a> {
    number: u64,
    line: &'a [u8],
    /// Its place among the entries; None: it is wrong.
    entry: Option<usize>,
}

/// Reads a file, or says of every wrong line everything that is wrong. No time may lie after `latest`: the next
/// run would pull it back, and it would not be known what was exported up to it.
pub fn parse(bytes: &[u8], latest: &SourceTime) -> Result<ParsedFile, Vec<BadLine>> {
    let mut entries: Vec<LegacyEntry> = Vec::new();
    let mut first_lines: HashMap<Tenant, FirstLine<'_>> = HashMap::new();
    let (mut bad, mut lines) = (Vec::new(), 0);
    for line in lines_of(bytes) {
        lines += 1;
        let mut wrong = |what| {
            bad.push(BadLine { number: lines, what, text: shortened(&String::from_utf8_lossy(line), QUOTED_AT_MOST) });
        };
        let fields = match fields(line) {
            Ok(None) => continue,
            Ok(Some(fields)) => fields,
            Err(what) => {
                wrong(what);
                continue;
            }
        };
        let (entry, mut faults) = match entry(fields, latest) {
            Ok(entry) => (Some(entry), Vec::new()),
            Err(faults) => (None, faults),
        };
        match first_lines.get(&Tenant::from(fields[0])) {
            Some(first) if first.line == line => {}
            Some(FirstLine { entry: Some(at), .. }) if entry.as_ref() == Some(&entries[*at]) => {}
            Some(FirstLine { number, .. }) => faults.push(text!(
                "its tenant stands in line {number} already, with other values",
                "该租户已在第 {number} 行出现，且值不同"
            )),
            None => {
                let at = entry.is_some().then_some(entries.len());
                first_lines.insert(Tenant::from(fields[0]), FirstLine { number: lines, line, entry: at });
                entries.extend(entry);
            }
        }
        faults.into_iter().reduce(|all, one| text!("{all}; {one}", "{all}；{one}"; all, one)).map(wrong);
    }
    if bad.is_empty() { Ok(ParsedFile { entries, lines }) } else { Err(bad) }
}

/// The lines without what ends them. What an editor of another system leaves at the beginning of the
/// file and at the end of each line does not count.
fn lines_of(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let lines = (!bytes.is_empty()).then(|| bytes.split(|byte| *byte == b'\n'));
    lines.into_iter().flatten().map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The fields of a line; None for an empty line or a comment.
fn fields(line: &[u8]) -> Result<Option<[&str; 4]>, Text> {
    let line = std::str::from_utf8(line)
        .map_err(|error| text!("it is not UTF-8 at byte {}", "第 {} 字节处不是 UTF-8", error.valid_up_to()))?;
    if line.starts_with('#') || line.trim().is_empty() {
        return Ok(None);
    }
    let fields: Vec<&str> = line.split('|').collect();
    let number = fields.len();
    fields.try_into().map(Some).map_err(|_| {
        text!(
            "it has {number} fields; tenant|time|count|status are four",
            "有 {number} 个字段；应为 tenant|time|count|status 四个"
        )
    })
}

/// What the fields say, or everything that is wrong with them.
fn entry([tenant, time, count, status]: [&str; 4], latest: &SourceTime) -> Result<LegacyEntry, Vec<Text>> {
    match (self::tenant(tenant), self::time(time, latest), number(count), word(status)) {
        (Ok(tenant), Ok(time), Ok(count), Ok(status)) => Ok(LegacyEntry { tenant, time, count, status }),
        (tenant, time, count, status) => {
            Err([tenant.err(), time.err(), count.err(), status.err()].into_iter().flatten().collect())
        }
    }
}

fn tenant(text: &str) -> Result<Tenant, Text> {
    match text {
        "" => Err(text!("its tenant is empty", "租户为空")),
        _ if text.contains('\r') => Err(text!("there is a carriage return in its tenant", "租户中有回车符")),
        _ => Ok(Tenant::from(text)),
    }
}

fn time(text: &str, latest: &SourceTime) -> Result<SourceTime, Text> {
    let time = SourceTime::from(text);
    match moment(&time) {
        None => Err(text!(
            "{time:?} is no time; write \"2025-11-28 16:30:00\"",
            "{time:?} 不是时间；格式为 \"2025-11-28 16:30:00\""
        )),
        Some(_) if time > *latest => Err(text!("{time} lies in the future", "{time} 晚于当前时间")),
        Some(_) => Ok(time),
    }
}

fn number(text: &str) -> Result<u64, Text> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // The state's integers are signed.
    text.parse::<i64>()
        .ok()
        .filter(|_| digits)
        .map(i64::cast_unsigned)
        .ok_or_else(|| text!("{text:?} is no number of records", "{text:?} 不是记录数"))
}

fn word(text: &str) -> Result<LegacyStatus, Text> {
    LegacyStatus::parse(text).ok_or_else(|| {
        text!("{text:?} is no status; it can be SUCCESS or FAILED", "{text:?} 不是状态；只能是 SUCCESS 或 FAILED")
    })
}

/// The file as the script would have written it.
pub fn render(entries: &[LegacyEntry]) -> Result<String, UnwritableTenant> {
    if let Some(entry) = entries.iter().find(|entry| !fits(&entry.tenant)) {
        return Err(UnwritableTenant(entry.tenant.clone()));
    }
    let line = |LegacyEntry { tenant, time, count, status }: &LegacyEntry| {
        format!("{tenant}|{time}|{count}|{}\n", status.as_str())
    };
    Ok(entries.iter().map(line).collect())
}

/// A tenant that would make a line which no program could read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwritableTenant(pub Tenant);

impl std::fmt::Display for UnwritableTenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the tenant {:?} cannot stand in the script's state file, whose lines are tenant|time|count|status",
            self.0
        )
    }
}

impl std::error::Error for UnwritableTenant {}

fn fits(tenant: &Tenant) -> bool {
    let name = tenant.as_str();
    !name.is_empty() && !name.starts_with(['#', '\u{feff}']) && !name.contains(['|', '\n', '\r'])
}

words! {
    /// Which direction an import moves a watermark.
    pub enum Direction {
        New = "new", "新增";
        Forward = "forward", "前进";
        Backward = "backward", "后退";
        Same = "same", "相同";
    }
}

impl Direction {
    /// Whether a watermark that was known is lost.
    pub fn moves(self) -> bool {
        matches!(self, Self::Forward | Self::Backward)
    }
}

words! {
    /// Why it is not known that everything up to a time of the file was exported.
    pub enum ImportDoubt {
        /// Another program than the script wrote the line, and the run that failed may have moved the time.
        Failed = "failed", "上次失败";
        /// The time lies ahead of the clock.
        Ahead = "ahead of the clock", "晚于时钟";
    }
}

/// What an import does to one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportStep {
    pub entry: LegacyEntry,
    pub old: Option<SourceTime>,
    pub direction: Direction,
    /// The next incremental run compares all keys of such a tenant. None: it reads keys from the overlap below the time.
    pub doubt: Option<ImportDoubt>,
    /// Not even the count or the status differs.
    pub idle: bool,
}

impl ImportStep {
    /// By how much the watermark moves.
    pub fn seconds(&self) -> Option<i64> {
        let old = moment(self.old.as_ref()?)?;
        Some((moment(&self.entry.time)? - old).num_seconds())
    }
}

/// What an import of these entries would do to a state that says this. `now` is the latest time that the script can
/// have read.
pub fn steps(state: &[LegacyEntry], entries: Vec<LegacyEntry>, now: &SourceTime) -> Vec<ImportStep> {
    let known: HashMap<&Tenant, &LegacyEntry> = state.iter().map(|entry| (&entry.tenant, entry)).collect();
    let step = |entry: LegacyEntry| {
        let before = known.get(&entry.tenant);
        let direction = match before.map(|before| entry.time.cmp(&before.time)) {
            None => Direction::New,
            Some(std::cmp::Ordering::Less) => Direction::Backward,
            Some(std::cmp::Ordering::Equal) => Direction::Same,
            Some(std::cmp::Ordering::Greater) => Direction::Forward,
        };
        let idle = before.is_some_and(|before| **before == entry);
        let doubt = match entry.status {
            LegacyStatus::Failed => Some(ImportDoubt::Failed),
            LegacyStatus::Success => (entry.time > *now).then_some(ImportDoubt::Ahead),
        };
        let doubt = doubt.filter(|_| direction != Direction::Same);
        ImportStep { old: before.map(|before| before.time.clone()), direction, doubt, idle, entry }
    };
    entries.into_iter().map(step).collect()
}

impl State {
    /// The tenants with a watermark, as the script's state file says it.
    pub fn legacy_entries(&self) -> anyhow::Result<Vec<LegacyEntry>> {
        self.read(|conn| {
            let mut query = conn.prepare(
                "SELECT name, watermark, last_written, last_outcome FROM tenant WHERE watermark IS NOT NULL ORDER BY n",
            )?;
            let rows = query.query_map([], |row| {
                Ok(LegacyEntry {
                    tenant: row.get(0)?,
                    time: row.get(1)?,
                    count: row.get(2)?,
                    status: LegacyStatus::of(row.get(3)?),
                })
            })?;
            rows.collect()
        })
    }

    /// Takes these watermarks over, all or none. The next incremental run reads keys from the overlap
    /// below them, or all keys where a step is in doubt.
    pub fn import_legacy(
        &mut self,
        steps: &[ImportStep],
        overlap: Duration,
        change: &Change<'_>,
    ) -> anyhow::Result<Moved> {
        self.transaction(|tx| {
            let mut moved = Moved::default();
            let n = note(tx, change)?;
            for step in steps.iter().filter(|step| !step.idle) {
                take(tx, n, step, overlap, &mut moved)?;
            }
            Ok(moved)
        })
    }
}

fn take(
    tx: &Transaction<'_>,
    change: i64,
    step: &ImportStep,
    overlap: Duration,
    moved: &mut Moved,
) -> rusqlite::Result<()> {
    let ImportStep { entry: LegacyEntry { tenant, time, count, status }, old, direction, doubt, .. } = step;
    let n = tenants::get_or_insert(tx, tenant)?;
    let below = if doubt.is_some() { None } else { window::earlier(time, overlap) };
    match direction {
        Direction::Same => {}
        Direction::Backward => watermarks::set(tx, change, tenant, Some(time), below, moved)?,
        Direction::New | Direction::Forward => watermarks::put(tx, change, n, old.as_ref(), Some(time), below)?,
    }
    tx.prepare_cached("UPDATE tenant SET last_written = ?2, last_outcome = ?3 WHERE n = ?1")?.execute(params![
        n,
        count,
        status.outcome()
    ])?;
    Ok(())
}
