//! `import-legacy-state` and `export-legacy-state`.

use std::path::{Path, PathBuf};

use chrono::{Local, TimeDelta};
use rustix::io::Errno;

use super::{consent, surroundings};
use crate::cli::{Common, ExportLegacyState, ImportLegacyState};
use crate::config;
use crate::export::attach::{Attached, Location};
use crate::export::plan::{Purpose, StatePolicy};
use crate::fs::file::PrivateFile;
use crate::fs::input::read_input;
use crate::fs::private::{PRIVATE, parent};
use crate::fs::readers::StateMode;
use crate::invoice::{Digest, SourceTime};
use crate::lang::Word;
use crate::lock::{self, Patience};
use crate::refusal::{LegacyFault, Refusal, TextMark};
use crate::report::Reporter;
use crate::report::table::{Cell, Columns, Details, Table, TimeBy};
use crate::run::Starter;
use crate::state::backup::Occasion;
use crate::state::changes::{Change, ChangeKind, ReadFile};
use crate::state::legacy::{self, BadLine, Direction, ImportDoubt, ImportStep, LegacyEntry};
use crate::state::legacy_file::{self, BackupPolicy, Replacement};
use crate::state::{State, numbers};
use crate::tree::mark;

/// Wrong lines that are told one by one, and tenants that are named in one line.
const TOLD_AT_MOST: usize = 20;

/// By how much the clock of the script's source may be ahead of this machine's. A time further ahead is of another zone,
/// or wrong, which cannot be told here: its tenant is in doubt.
const CLOCK_MARGIN: TimeDelta = TimeDelta::minutes(5);
const TIME: &str = "%Y-%m-%d %H:%M:%S";

/// A file that is to be imported, and what that would do.
struct Import {
    file: ReadFile,
    steps: Vec<ImportStep>,
}

/// Takes the watermarks of the script's state file over.
pub(super) fn import(common: &Common, args: &ImportLegacyState, reporter: &Reporter) -> anyhow::Result<u8> {
    let starter = surroundings::starter(surroundings::own_zone(common));
    let state = config::state_path(common);
    let file = args.file.clone().unwrap_or_else(|| config::legacy_path(common));
    if !common.output.is_dir() {
        let output = common.output.display();
        return Err(Refusal::usage(message! {
            "there is no output {output} to import into", "没有导出目录 {output}，无法导入";
            "check --output", "请检查 --output"
        }));
    }
    let place =
        Location { output: &common.output, state: &state, policy: StatePolicy::Ordinary, purpose: Purpose::Import };
    let planned = plan(&file, &known(&place)?, &starter, reporter)?;
    if args.dry_run {
        show(&planned, args, reporter);
        return Ok(0);
    }
    refuse_going_back(&planned, args)?;
    if planned.steps.iter().all(|step| step.idle) {
        reporter.changed(&planned.details(0, None));
        let file = file.display();
        reporter
            .remark(&text!("nothing to change: the state says the same as {file}", "无需更改: 状态文件与 {file} 一致"));
        return Ok(0);
    }
    ask(&planned, args, reporter)?;
    carry_out(&planned, &file, &place, &starter, args, common.state_mode, reporter)
}

/// Says for which tenants it is not known that everything up to the time in the file was exported.
fn say_doubts(steps: &[ImportStep], reporter: &Reporter) {
    for (doubt, ..) in ImportDoubt::WORDS {
        let doubted: Vec<&ImportStep> = steps.iter().filter(|step| step.doubt == Some(*doubt)).collect();
        if doubted.is_empty() {
            continue;
        }
        let names = names(&doubted);
        let why = match doubt {
            ImportDoubt::Failed => text!("their last run failed", "上次运行失败"),
            ImportDoubt::Ahead => {
                text!("their time lies ahead of this machine's clock", "其时间晚于本机时钟")
            }
        };
        reporter.remark(&text!(
            "the next incremental run compares all keys of these tenants, since {why}: {names}",
            "下次增量导出会比对以下租户的全部键，因为{why}: {names}";
            why
        ));
    }
}

/// Says what an import would do.
fn show(planned: &Import, args: &ImportLegacyState, reporter: &Reporter) {
    reporter.table(&table(&planned.steps));
    say_doubts(&planned.steps, reporter);
    if refuse_going_back(planned, args).is_err() {
        reporter.line(&text!(
            "some watermarks would go back, which takes --overwrite",
            "部分水位线会后退，需要加 --overwrite"
        ));
    }
}

/// Asks if watermarks are to move that the state has already.
fn ask(planned: &Import, args: &ImportLegacyState, reporter: &Reporter) -> anyhow::Result<()> {
    let moving: Vec<&ImportStep> = planned.steps.iter().filter(|step| step.direction.moves()).collect();
    if moving.is_empty() {
        return Ok(());
    }
    let (number, names) = (moving.len(), names(&moving));
    let question =
        text!("move the watermarks of {number} known tenants: {names}?", "移动 {number} 个已有租户的水位线: {names}？");
    consent::ask_unless_agreed(reporter, &args.changing, &question)
}

/// Imports what was planned, if nothing has changed until the lock was taken.
fn carry_out(
    planned: &Import,
    file: &Path,
    place: &Location<'_>,
    starter: &Starter,
    args: &ImportLegacyState,
    mode: Option<StateMode>,
    reporter: &Reporter,
) -> anyhow::Result<u8> {
    let mut tell = |event| reporter.event(&event);
    let (tree, export_lock) = lock::acquire(
        place.output,
        place.state,
        "import-legacy-state",
        starter,
        Patience::of(args.changing.lock_wait),
        mode,
        &mut tell,
    )?;
    // The process that held the lock before may have moved watermarks, or written the very file.
    let Import { file: read, steps } = plan(file, &known(place)?, starter, reporter)?;
    if steps != planned.steps {
        return Err(message! {
            "the state or {} changed in this moment; nothing was imported",
            "状态文件或 {} 刚刚被其他进程改动；没有导入任何内容", file.display();
            "import again", "请重新导入"
        }
        .into());
    }
    let existed = export_lock.state().exists()?;
    let Attached { mut state, .. } = place.attach(&tree, &export_lock, &mut tell)?;
    let backup = existed.then(|| state.back_up(Occasion::Before(ChangeKind::Import), starter.at)).transpose()?;
    let reason = args.changing.reason.as_deref();
    let change = Change { file: Some(&read), ..Change::under(&export_lock, ChangeKind::Import, reason)? };
    let moved = state.import_legacy(&steps, args.overlap, &change)?;
    numbers::close(state, &export_lock)?;
    reporter.changed(&planned.details(moved.unsettled, backup.as_deref()));
    say_doubts(&planned.steps, reporter);
    reporter.remark(&text!(
        "the script's files are taken into the ledger, and what it lost is exported, by: invoice-export run --mode full (what is right is not rewritten)",
        "接下来请运行 invoice-export run --mode full: 它把脚本导出的文件登记入台账，并补导漏掉的发票（正确的文件不会重写）"
    ));
    reporter.remark(&text!(
        "after that everything is checked by: invoice-export verify --against-source",
        "之后请用 invoice-export verify --against-source 核对全部数据"
    ));
    Ok(0)
}

/// What the state says, if it may be used for this output at all.
fn known(place: &Location<'_>) -> anyhow::Result<Vec<LegacyEntry>> {
    let state = State::open_read_only(place.state)?;
    let last = state.as_ref().map(State::last_time).transpose()?;
    place.judge(last.as_ref(), mark::of_output(place.output)?.as_ref())?;
    state.as_ref().map_or(Ok(Vec::new()), State::legacy_entries)
}

/// Reads the file and compares it with the state.
fn plan(file: &Path, known: &[LegacyEntry], starter: &Starter, reporter: &Reporter) -> anyhow::Result<Import> {
    let cannot = || text!("cannot read the script's state file {}", "无法读取脚本的状态文件 {}", file.display());
    let bytes = read(file).map_err(|error| Refusal::usage_because(cannot(), error))?;
    // Our clock and that of the source may differ by their zones, but not by more.
    let latest = (starter.at + TimeDelta::days(1)).format(TIME).to_string();
    let now = (starter.at.with_timezone(&Local) + CLOCK_MARGIN).format(TIME).to_string();
    let refused = |fault| Refusal::NotLegacyState { file: file.to_path_buf(), fault };
    if TextMark::of(&bytes) == Some(TextMark::Utf16) {
        return Err(refused(LegacyFault::Marked(TextMark::Utf16)).into());
    }
    let parsed = legacy::parse(&bytes, &SourceTime(latest)).map_err(|bad| {
        for line in bad.iter().take(TOLD_AT_MOST) {
            let BadLine { number, what, text } = line;
            let file = file.display();
            reporter.problem(&text!("{file}:{number}: {what}: {text}", "{file}:{number}: {what}: {text}"; what));
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
    Ok(Import { file, steps: legacy::steps(known, parsed.entries, &SourceTime(now)) })
}

/// A file that an operator names is reached as they say, the script's own only beneath the output.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if !file.parent().is_some_and(|folder| folder.ends_with(PRIVATE)) {
        return read_input(file);
    }
    let read = PrivateFile::at(file)?.map_or(Ok(None), |file| legacy_file::read(&file))?;
    Ok(read.ok_or(Errno::NOENT)?)
}

/// Refuses to move watermarks back, unless `--overwrite` is given.
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

/// Where each watermark goes.
fn table<'a>(steps: impl IntoIterator<Item = &'a ImportStep>) -> Table {
    Columns::default()
        .column("tenant", "租户", |step: &ImportStep| (&step.entry.tenant).into())
        .column("old", "原水位线", |step| step.old.as_ref().into())
        .by(TimeBy::Source)
        .column("new", "新水位线", |step| (&step.entry.time).into())
        .by(TimeBy::Source)
        .column("change", "变化", |step| step.direction.into())
        .column("difference_seconds", "差值", |step| step.seconds().map_or(Cell::None, Cell::Seconds))
        .column("doubt", "存疑", |step| step.doubt.into())
        .table(steps)
}

impl Import {
    /// Watermarks that are new need no table: the file itself lists them.
    fn details(&self, unsettled: u64, backup: Option<&Path>) -> Details {
        let of = |direction| self.steps.iter().filter(|step| step.direction == direction).count();
        let ReadFile { path, sha256, lines } = &self.file;
        let mut details = Details::default()
            .fact("file", "文件", path)
            .fact("sha256", "SHA-256", sha256)
            .fact("lines", "行数", *lines)
            .fact("tenants", "租户数", self.steps.len());
        for (direction, word, zh) in Direction::WORDS {
            details = details.fact(word, zh, of(*direction));
        }
        details
            .fact("in_doubt", "存疑的租户", self.steps.iter().filter(|step| step.doubt.is_some()).count())
            .fact("compared_again_by_the_next_incremental_run", "下次增量导出将重新比对的发票数", unsettled)
            .fact("state_before", "原状态文件备份", backup)
            .table("moved", "移动的水位线", table(self.steps.iter().filter(|step| step.direction.moves())))
    }
}

/// Writes the watermarks as the script's state file.
pub(super) fn export(common: &Common, args: &ExportLegacyState, reporter: &Reporter) -> anyhow::Result<u8> {
    let entries = surroundings::open_read_only(common)?.legacy_entries()?;
    let text = legacy::render(&entries)?;
    if args.file.as_deref() == Some(Path::new("-")) {
        reporter.raw(text.as_bytes());
        return Ok(0);
    }
    let file = args.file.clone().unwrap_or_else(|| config::legacy_path(common));
    let no_folder = || Refusal::usage(text!("there is no folder {}", "目录 {} 不存在", parent(&file).display()));
    let target = PrivateFile::at(&file)?.ok_or_else(no_folder)?;
    let replaced = legacy_file::replace(&target, text.as_bytes(), BackupPolicy::All, surroundings::now())?;
    let before = match &replaced {
        Replacement::Written { backup } => backup.as_deref(),
        Replacement::Same => None,
    };
    reporter.changed(
        &Details::default().fact("file", "文件", file.as_path()).fact("tenants", "租户数", entries.len()).fact(
            "file_before",
            "原文件备份",
            before,
        ),
    );
    if matches!(replaced, Replacement::Same) {
        let file = file.display();
        reporter.remark(&text!("nothing to change: {file} says so already", "无需更改: {file} 的内容已经如此"));
    }
    Ok(0)
}
