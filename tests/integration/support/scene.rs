//! A small export that faults are put into: invoices, a change that a run is about to publish, and
//! further changes that make what a dead run wrote wrong. All can be played again from where it was kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::exporter::Exporter;
use super::rounds::Dice;
use super::table::{Row, Table};

pub(crate) const FULL: [&str; 5] = ["run", "--mode", "full", "--writers", "1"];
pub(crate) const INCREMENTAL: [&str; 5] = ["run", "--mode", "incremental", "--writers", "1"];

/// Every call by which a run changes something, or goes to look.
pub(crate) const CALLS: [&str; 15] = [
    "linkat",
    "write",
    "openat",
    "openat2",
    "syncfs",
    "fsync",
    "renameat",
    "renameat2",
    "rename",
    "mkdirat",
    "mkdir",
    "unlinkat",
    "unlink",
    "pwrite64",
    "ftruncate",
];

const MINUTE: Duration = Duration::from_secs(60);
const ROWS: i64 = 60;

/// Invoices in some folders, and one that cannot be exported.
pub(crate) fn filled() -> Table {
    let table = Table::embedded();
    fill(&table);
    table
}

/// An export, and a change that the next run is about to publish.
pub(crate) fn changed(table: &Table) -> Exporter<'_> {
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(3);
    change(table);
    exporter
}

fn fill(table: &Table) {
    let time = table.ago(50 * MINUTE);
    for id in 1..=ROWS {
        let (tenant, country) = (["1", "10", "89"][id as usize % 3], ["CN", "DE"][id as usize % 2]);
        let (number, document) = (format!("INV{id}"), format!("{{\"id\": {id}}}"));
        let row = Row {
            id,
            tenant,
            country: Some(country),
            number: &number,
            document: &document,
            time: &time,
            ..Row::default()
        };
        table.insert(&row);
    }
    table.insert(&Row { id: 100, number: "BAD", document: "not json", time: &time, ..Row::default() });
}

/// Updates, moves, a swap, new rows: what a run is about to publish when it dies.
pub(crate) fn change(table: &Table) {
    update_all(
        table,
        40,
        &[
            "fext_field = '{\"version\": 2}' WHERE fid IN (1, 2, 3, 4)",
            "fissue_date = '2025-12-01' WHERE fid IN (5, 6, 7, 8)",
            "fcountry = 'IT' WHERE fid IN (9, 10)",
            "finvoice_no = CASE fid WHEN 12 THEN 'INV18' ELSE 'INV12' END WHERE fid IN (12, 18)",
        ],
    );
    let time = table.ago(40 * MINUTE);
    for id in [101, 102] {
        table.insert(&Row { id, tenant: "new", number: &format!("INV{id}"), time: &time, ..Row::default() });
    }
}

/// Back to earlier documents, on to third paths: nothing that the dead run wrote is right now.
pub(crate) fn change_again(table: &Table) {
    update_all(
        table,
        30,
        &[
            "fext_field = '{\"id\": ' || fid || '}' WHERE fid IN (1, 2)",
            "fissue_date = '2025-12-02' WHERE fid IN (5, 6)",
            "fissue_date = '2025-11-28' WHERE fid IN (7, 8)",
            "fcountry = 'FR' WHERE fid IN (9)",
            "finvoice_no = 'INV' || fid WHERE fid IN (12, 18)",
        ],
    );
}

/// Some invoices get another version, move, flip back or swap their numbers; later calls, with fewer
/// minutes, make later versions. No two invoices want one path afterwards.
pub(crate) fn change_at_random(table: &Table, dice: &mut Dice, minutes: u32) {
    for _ in 0..=dice.below(8) {
        // Swapped numbers stay in their folder: an invoice that gets another number and moves leaves its
        // old file for `verify --prune`, as one that gets another tenant does. `change` swaps 12 and 18.
        let id = 1 + dice.below(48);
        let id = if [12, 18].contains(&id) { id + 1 } else { id };
        let (one, other) = (49 + dice.below(6), "fid + CASE WHEN fid < 55 THEN 6 ELSE -6 END");
        let change = match dice.below(5) {
            0 => format!("fext_field = '{{\"id\": {id}}}' WHERE fid = {id}"),
            1 => format!("fext_field = '{{\"id\": {id}, \"minute\": {minutes}}}' WHERE fid = {id}"),
            2 => format!("fissue_date = '2025-11-{}' WHERE fid = {id}", 28 + dice.below(3)),
            3 => format!("fcountry = '{}' WHERE fid = {id}", dice.one_of(&["CN", "DE", "IT", "FR"])),
            _ => format!(
                "finvoice_no = 'INV' || CASE finvoice_no WHEN 'INV' || fid THEN {other} ELSE fid END
                 WHERE fid IN ({one}, {one} + 6)"
            ),
        };
        update_all(table, minutes, &[&change]);
    }
}

/// Changes with one source time, so many minutes ago.
pub(crate) fn update_all(table: &Table, minutes: u32, changes: &[&str]) {
    let time = table.ago(minutes * MINUTE);
    for change in changes {
        table.execute(&format!("UPDATE t_invoice SET fupdate_time = '{time}', {change}"));
    }
}

/// An export and its embedded source as they were at one moment.
pub(crate) struct Kept {
    copy: TempDir,
    /// What was copied, and the name of its copy.
    parts: Vec<(PathBuf, &'static str)>,
}

impl Kept {
    pub(crate) fn of(exporter: &Exporter<'_>) -> Self {
        let copy = tempfile::tempdir().expect("make a folder for the copy");
        let url = exporter.table().url();
        let source = url.strip_prefix("sqlite:").expect("only an embedded source can be put back");
        let kept = Self { copy, parts: vec![(source.into(), "source"), (exporter.output(), "output")] };
        kept.parts.iter().filter(|(original, _)| original.exists()).for_each(|(original, name)| {
            copy_all(original, &kept.copy.path().join(name));
        });
        kept
    }

    /// Puts everything back.
    pub(crate) fn restore(&self) {
        for (original, name) in &self.parts {
            let copy = self.copy.path().join(name);
            if copy.is_file() {
                // Another inode would be another source.
                fs::copy(&copy, original).expect("put the source back");
                continue;
            }
            let _ = fs::remove_dir_all(original);
            if copy.exists() {
                copy_all(&copy, original);
            }
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("start cp");
    assert!(copied.success(), "copy {} to {}", from.display(), to.display());
}
