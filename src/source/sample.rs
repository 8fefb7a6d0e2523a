//! Owns the sample source of the demo: a small SQLite file with invoices of three tenants, and the changes of one day.
//! The same call always makes the same rows.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::sqlite::{self, RunStatement};
use crate::invoice::SourceTime;
use crate::lang::Explain;
use crate::window::earlier;

const ROWS: u64 = 300;
const NEW_ROWS: u64 = 3;
/// Rows with a multiple of this for an id are not issued.
const NOT_ISSUED: u64 = 33;
/// The issued invoices of the sample, before it is changed.
pub const ISSUED: u64 = ROWS - ROWS / NOT_ISSUED;
/// The first invoice changed this long before the sample is made.
const SPREAD: Duration = Duration::from_secs(27 * 86_400);
/// Ids of an invoice that [`change`] updates, and of the one that it spoils.
const UPDATED: u64 = 42;
const SPOILED: u64 = 200;

const TABLE: &str = "CREATE TABLE t_invoice (
  fid INTEGER PRIMARY KEY AUTOINCREMENT, ftenant_id TEXT NOT NULL, fcountry TEXT, fissue_date TEXT, finvoice_no TEXT,
  fissue_status INTEGER NOT NULL, fext_field TEXT, fupdate_time TEXT NOT NULL
)";
const INDEX: &str = "CREATE INDEX idx_incremental_export ON t_invoice (ftenant_id, fissue_status, fupdate_time)";

const TENANTS: [&str; 6] = ["1", "10", "1", "89", "10", "1"];
const COUNTRIES: [&str; 5] = ["CN", "DE", "US", "FR", "JP"];
const GOODS: [&str; 8] = [
    "办公用品",
    "差旅服务",
    "Büromaterial",
    "Cloud hosting",
    "コンサルティング",
    "Électricité",
    "软件许可费",
    "Freight & customs",
];

/// The numbers of rows that [`change`] changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleChanges {
    pub updated: u64,
    pub inserted: u64,
    /// Moved to another issue date, and so to another file name.
    pub moved: u64,
    /// Got a document that is not JSON.
    pub spoiled: u64,
}

/// Makes a file with invoices that changed in the weeks before `now`.
///
/// # Errors
/// The file exists already.
pub fn create(path: &Path, now: &str) -> anyhow::Result<()> {
    (!path.exists()).then_some(()).explain(|| text!("{} exists already", "{} 已存在", path.display()))?;
    let now = SourceTime::from(now);
    sqlite::write(path, |run| {
        run(TABLE, &[])?;
        run(INDEX, &[])?;
        (1..=ROWS).try_for_each(|id| Sample::new(id, &changed_at(id, &now)?)?.put(run))
    })
}

/// SampleChanges a few invoices as a day of work would. `at` is their source time.
///
/// # Errors
/// The file does not exist.
pub fn change(path: &Path, at: &str) -> anyhow::Result<SampleChanges> {
    path.exists().then_some(()).explain(|| text!("there is no sample at {}", "{} 处没有样例", path.display()))?;
    let time = SourceTime::from(at);
    sqlite::write(path, |run| {
        let corrected = &format!(
            "UPDATE t_invoice SET fext_field = json_set(fext_field, '$.remark', 'corrected: 数量已更正'), \
             fupdate_time = ? WHERE fid IN (7, {UPDATED}, 77, 120, 281)"
        );
        // A date of another year would leave the old file behind.
        let other_day = "strftime('%Y-%m-', fissue_date) || iif(strftime('%d', fissue_date) = '15', '16', '15')";
        let moved = &format!(
            "UPDATE t_invoice SET fext_field = json_set(fext_field, '$.issueDate', {other_day}), \
             fissue_date = {other_day}, fupdate_time = ? WHERE fid = 150"
        );
        let spoiled = &format!(
            "UPDATE t_invoice SET fext_field = substr(fext_field, 1, 200), fupdate_time = ? WHERE fid = {SPOILED}"
        );
        (ROWS + 1..=ROWS + NEW_ROWS).try_for_each(|id| Sample::new(id, &time)?.put(run))?;
        Ok(SampleChanges {
            updated: run(corrected, &[at])?,
            inserted: NEW_ROWS,
            moved: run(moved, &[at])?,
            spoiled: run(spoiled, &[at])?,
        })
    })
}

/// The number of an invoice that [`change`] updates.
#[must_use]
pub fn updated_number() -> String {
    number(UPDATED)
}

/// The number of the invoice that [`change`] spoils.
#[must_use]
pub fn spoiled_number() -> String {
    number(SPOILED)
}

fn number(id: u64) -> String {
    format!("INV{id:09}")
}

/// One row before it is written.
struct Sample {
    id: u64,
    number: String,
    date: String,
    time: SourceTime,
}

impl Sample {
    fn new(id: u64, time: &SourceTime) -> anyhow::Result<Self> {
        Ok(Self { id, number: number(id), date: day(time, 1 + scrambled(id) % 20)?, time: time.clone() })
    }

    fn tenant(&self) -> &'static str {
        pick(&TENANTS, self.id)
    }

    fn country(&self) -> &'static str {
        pick(&COUNTRIES, scrambled(self.id))
    }

    /// An invoice as JSON.
    fn document(&self) -> String {
        let lines: Vec<_> = (1..=3 + scrambled(self.id) % 10)
            .map(|line| {
                let mixed = scrambled(self.id * 100 + line);
                let price = 100 + mixed % 1_000_000;
                json!({
                    "lineNo": line,
                    "name": pick(&GOODS, mixed),
                    "qty": 1 + mixed % 99,
                    "unitPrice": format!("{}.{:02}", price / 100, price % 100),
                    "taxRate": "0.13",
                })
            })
            .collect();
        json!({
            "invoiceNo": self.number,
            "tenant": self.tenant(),
            "country": self.country(),
            "issueDate": self.date,
            "seller": { "name": "示例供应商有限公司", "taxNo": format!("{:018}", scrambled(self.id) % 1_000_000_000) },
            "buyer": { "name": "Beispiel GmbH", "taxNo": format!("DE{:09}", scrambled(self.id + 7) % 1_000_000_000) },
            "lines": lines,
            "remark": "第一行\n第二行\t\"quoted\" \\ back",
        })
        .to_string()
    }

    /// Writes the row.
    fn put(&self, run: &mut RunStatement<'_>) -> anyhow::Result<()> {
        let status = if self.id.is_multiple_of(NOT_ISSUED) { "1" } else { "3" };
        let row = [
            &self.id.to_string(),
            self.tenant(),
            self.country(),
            &self.date,
            &self.number,
            status,
            &self.document(),
            self.time.as_str(),
        ];
        run("INSERT OR REPLACE INTO t_invoice VALUES (?, ?, ?, ?, ?, ?, ?, ?)", &row)?;
        Ok(())
    }
}

/// The source time of an invoice. Later ids changed later, the last one ten minutes before `now`, so that no lag
/// hides it.
fn changed_at(id: u64, now: &SourceTime) -> anyhow::Result<SourceTime> {
    let ago = SPREAD.as_secs() * (ROWS - id) / ROWS + 600 + scrambled(id) % 3600 * (ROWS - id) / ROWS;
    before(now, ago)
}

fn day(time: &SourceTime, days_before: u64) -> anyhow::Result<String> {
    Ok(before(time, days_before * 86_400)?.0.chars().take(10).collect())
}

fn before(time: &SourceTime, seconds: u64) -> anyhow::Result<SourceTime> {
    earlier(time, Duration::from_secs(seconds))
        .explain(|| text!("{time} is no time like 2025-11-28 16:30:00", "{time} 不是 2025-11-28 16:30:00 那样的时间"))
}

fn pick(from: &[&'static str], by: u64) -> &'static str {
    from[(by % from.len() as u64) as usize]
}

/// Spreads neighbouring numbers, in the same way every time.
fn scrambled(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 17
}
