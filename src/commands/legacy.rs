//! `import-legacy-state` and `export-legacy-state`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use chrono::TimeDelta;

use super::consent;
use crate::cli::{Common, ExportLegacyState, ImportLegacyState};
use crate::config;
use crate::export::attach::{Attached, Location};
use crate::export::plan::{Purpose, StatePolicy};
use crate::fs::file::PrivateFile;
use crate::fs::private::{PRIVATE, parent};
use crate::invoice::{Digest, SourceTime};
use crate::lang::Explain;
use crate::lock;
use crate::refusal::{LegacyFault, Refusal};
use crate::report::Reporter;
use crate::report::table::{Cell, Details, Table};
use crate::run::Starter;
use crate::state::State;
use crate::state::backup::Occasion;
use crate::state::changes::{Change, ChangeKind, ReadFile};
use crate::state::legacy::{self, Direction, Entry, ImportStep};
use crate::state::legacy_file::{self, BackupPolicy, Replacement};
use crate::tree::mark;

/// Wrong lines that are told one by one, and tenants that are named in one line.
const TOLD_AT_MOST: usize = 20;
const COLUMNS: &[&str] = &["tenant", "old", "new", "change", "difference_seconds"];

/// A file that is to be imported, and what that would do.
struct Import {
    file: ReadFile,
    steps: Vec<ImportStep>,
}

pub(super) fn import(common: &Common, args: &ImportLegacyState, reporter: &Reporter) -> anyhow::Result<u8> {
    let starter = super::starter();
    let state = config::state_path(common);
    let file = args.file.clone().unwrap_or_else(|| config::legacy_path(common));
    if !common.output.is_dir() {
        let output = common.output.display();
        return Err(Refusal::Usage(format!("there is no output {output} to import into; check --output").into()).into());
    }
    let place =
        Location { output: &common.output, state: &state, policy: StatePolicy::Ordinary, purpose: Purpose::Import };
    let planned = plan(&file, &known(&place)?, &starter, reporter)?;
    if args.dry_run {
        reporter.table(&table(planned.steps.iter()));
        if refuse_going_back(&planned, args).is_err() {
            reporter.line("some watermarks would go back, which takes --overwrite");
        }
        return Ok(0);
    }
    refuse_going_back(&planned, args)?;
    if planned.steps.iter().all(|step| step.idle) {
        reporter.details(&planned.details(0, None));
        reporter.line(&format!("nothing to change: the state says the same as {}", file.display()));
        return Ok(0);
    }
    let moving: Vec<&ImportStep> = planned.steps.iter().filter(|step| step.direction.moves()).collect();
    if !moving.is_empty() {
        let question = format!("move the watermarks of {} known tenants: {}?", moving.len(), names(&moving));
        consent::agreed(reporter, &args.changing, &question)?;
    }
    let mut tell = |event| reporter.event(&event);
    let (tree, held) =
        lock::acquire(&common.output, &state, "import-legacy-state", &starter, args.changing.lock_wait, &mut tell)?;
    // Whoever held the lock before us may have moved watermarks, or written the very file.
    let Import { file: read, steps } = plan(&file, &known(&place)?, &starter, reporter)?;
    if steps != planned.steps {
        bail!("the state or {} changed in this moment; nothing was changed; import again", file.display());
    }
    let existed = held.state().exists()?;
    let Attached { mut state, .. } = place.attach(&tree, &held, &mut tell)?;
    let backup = existed.then(|| state.back_up(Occasion::Before(ChangeKind::Import), starter.at)).transpose()?;
    let reason = args.changing.reason.as_deref();
    let change = Change { file: Some(&read), ..Change::new(ChangeKind::Import, &starter, reason) };
    let moved = state.import_legacy(&steps, args.overlap, &change)?;
    state.close()?;
    reporter.details(&planned.details(moved.unsettled, backup.as_deref()));
    reporter.line(
        "the script's files are taken into the ledger, and what it lost is exported, by: invoice-export run --mode full (what is right is not rewritten)",
    );
    reporter.line("after that everything is checked by: invoice-export verify --against-source");
    Ok(0)
}

/// What the state says, if it may be used for this output at all.
fn known(place: &Location<'_>) -> anyhow::Result<Vec<Entry>> {
    let state = State::open_read_only(place.state)?;
    let last = state.as_ref().map(State::last_time).transpose()?;
    place.judge(last.as_ref(), mark::of_output(place.output)?.as_ref())?;
    state.as_ref().map_or(Ok(Vec::new()), State::legacy_entries)
}

fn plan(file: &Path, known: &[Entry], starter: &Starter, reporter: &Reporter) -> anyhow::Result<Import> {
    let cannot = || format!("cannot read the script's state file {}", file.display());
    let bytes = read(file).with_context(cannot)?;
    // Our clock and that of the source may differ by their zones, but not by more.
    let latest = (starter.at + TimeDelta::days(1)).format("%Y-%m-%d %H:%M:%S").to_string();
    let refused = |fault| Refusal::NotLegacyState { file: file.to_path_buf(), fault };
    let parsed = legacy::parse(&bytes, &SourceTime(latest)).map_err(|bad| {
        for line in bad.iter().take(TOLD_AT_MOST) {
            reporter.problem(&format!("{}:{}: {}: {}", file.display(), line.number, line.what, line.text));
        }
        let numbers: Vec<String> = bad.iter().take(TOLD_AT_MOST).map(|line| line.number.to_string()).collect();
        let more = if bad.len() > TOLD_AT_MOST { ", ..." } else { "" };
        refused(LegacyFault::WrongLines { lines: bad.len(), numbers: numbers.join(", ") + more })
    })?;
    if parsed.entries.is_empty() {
        return Err(refused(LegacyFault::NoTenant).into());
    }
    let file = ReadFile {
        path: std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf()).to_string_lossy().into_owned(),
        sha256: Digest::of(&bytes).to_string(),
        lines: Some(parsed.lines),
    };
    Ok(Import { file, steps: legacy::steps(known, parsed.entries) })
}

/// A file that an operator names is reached as they say, the script's own only beneath the output.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if !file.parent().is_some_and(|folder| folder.ends_with(PRIVATE)) {
        return Ok(fs::read(file)?);
    }
    let read = PrivateFile::at(file)?.map_or(Ok(None), |file| legacy_file::read(&file))?;
    Ok(read.ok_or(std::io::Error::from(ErrorKind::NotFound))?)
}

fn refuse_going_back(planned: &Import, args: &ImportLegacyState) -> anyhow::Result<()> {
    let back: Vec<&ImportStep> = planned.steps.iter().filter(|step| step.direction == Direction::Backward).collect();
    if back.is_empty() || args.overwrite {
        return Ok(());
    }
    let file = PathBuf::from(&planned.file.path);
    Err(Refusal::GoesBack { file, tenants: back.len(), names: names(&back) }.into())
}

/// The first of them.
fn names(steps: &[&ImportStep]) -> String {
    let names: Vec<&str> = steps.iter().take(TOLD_AT_MOST).map(|step| step.entry.tenant.as_str()).collect();
    names.join(", ") + if steps.len() > TOLD_AT_MOST { ", ..." } else { "" }
}

fn table<'a>(steps: impl Iterator<Item = &'a ImportStep>) -> Table {
    let row = |step: &ImportStep| {
        vec![
            Cell::text(step.entry.tenant.as_str()),
            step.old.as_ref().map(SourceTime::as_str).into(),
            Cell::text(step.entry.time.as_str()),
            Cell::text(step.direction.as_str()),
            step.seconds().map_or(Cell::None, Cell::Seconds),
        ]
    };
    Table { columns: COLUMNS, rows: steps.map(row).collect() }
}

fn number(count: usize) -> Cell {
    Cell::Number(i64::try_from(count).unwrap_or(i64::MAX))
}

impl Import {
    /// Watermarks that are new need no table: the file itself lists them.
    fn details(&self, unsettled: u64, backup: Option<&Path>) -> Details {
        let of = |direction| number(self.steps.iter().filter(|step| step.direction == direction).count());
        let ReadFile { path, sha256, lines } = &self.file;
        Details {
            facts: vec![
                ("file", Cell::text(path)),
                ("sha256", Cell::text(sha256)),
                ("lines", lines.map(u64::cast_signed).into()),
                ("tenants", number(self.steps.len())),
                (Direction::New.as_str(), of(Direction::New)),
                (Direction::Forward.as_str(), of(Direction::Forward)),
                (Direction::Backward.as_str(), of(Direction::Backward)),
                (Direction::Same.as_str(), of(Direction::Same)),
                ("compared_again_by_the_next_incremental_run", Cell::Number(unsettled.cast_signed())),
                ("state_before", backup.map(|backup| backup.display().to_string()).into()),
            ],
            tables: vec![("moved", table(self.steps.iter().filter(|step| step.direction.moves())))],
        }
    }
}

pub(super) fn export(common: &Common, args: &ExportLegacyState, reporter: &Reporter) -> anyhow::Result<u8> {
    let entries = super::look(common)?.legacy_entries()?;
    let text = legacy::render(&entries)?;
    if args.file.as_deref() == Some(Path::new("-")) {
        reporter.raw(text.as_bytes());
        return Ok(0);
    }
    let file = args.file.clone().unwrap_or_else(|| config::legacy_path(common));
    let target = PrivateFile::at(&file)?.explain(|| {
        let folder = parent(&file).display();
        text!("there is no folder {folder}", "目录 {folder} 不存在")
    })?;
    let replaced = legacy_file::replace(&target, text.as_bytes(), BackupPolicy::All, super::now())?;
    let before = match &replaced {
        Replacement::Written { backup } => backup.as_deref(),
        Replacement::Same => None,
    };
    reporter.details(&Details {
        facts: vec![
            ("file", Cell::text(file.display().to_string())),
            ("tenants", number(entries.len())),
            ("file_before", before.map(|backup| backup.display().to_string()).into()),
        ],
        tables: Vec::new(),
    });
    if matches!(replaced, Replacement::Same) {
        reporter.line(&format!("nothing to change: {} says so already", file.display()));
    }
    Ok(0)
}
