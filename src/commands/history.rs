//! `history`: runs and changes of the state, newest first; one of them in full; the files of a run.

use super::past::{Lives, change_details, entry_columns, run_details, tenant_columns};
use super::surroundings;
use crate::cli::{Common, History};
use crate::event::Life;
use crate::given_time::{GivenWindow, OwnZone};
use crate::lang::Text;
use crate::refusal::Refusal;
use crate::report::Reporter;
use crate::report::table::Columns;
use crate::run::{RunId, rfc3339};
use crate::state::State;
use crate::state::changes::MovedWatermark;
use crate::state::history::{LoggedFile, PastChange, RunInFull};
use crate::state::pages::{HistoryFilter, OfKind};
use crate::state::replaced::{PastNumber, Whereabouts};

/// Entries and files that are read at once.
const PAGE: usize = 1_000;

/// Shows the list, one entry of it, or the files of a run.
pub(super) fn run(common: &Common, args: &History, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = surroundings::open_read_only(common)?;
    match &args.which {
        None => list(&state, args, surroundings::own_zone(common), reporter)?,
        Some(which) => match (find(&state, which)?, args.files) {
            (HistoryItem::Run(run), true) => files(&state, run.run.id, args, reporter)?,
            (HistoryItem::Change(..), true) => {
                return Err(Refusal::usage(text!(
                    "{which} is a change, and only runs have files",
                    "{which} 是一次变更，只有运行才有文件"
                )));
            }
            (HistoryItem::Run(run), false) => reporter.details(&run_details(*run, &Lives::of_state(&state))),
            (HistoryItem::Change(change, moved), false) => reporter.details(&change_details(&change, &moved)),
        },
    }
    Ok(0)
}

/// One entry of the history in full.
enum HistoryItem {
    Run(Box<RunInFull>),
    Change(Box<PastChange>, Vec<MovedWatermark>),
}

/// The run or change that an operator names.
fn find(state: &State, which: &str) -> anyhow::Result<HistoryItem> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some(number) = which.strip_prefix('c').and_then(number) {
        let Some((change, moved)) = state.change_in_full(number)? else {
            let missing = text!("there is no change {which} in this state", "此状态文件中没有变更 {which}");
            return Err(not_here(state, missing, which, PastNumber::Change(number)));
        };
        return Ok(HistoryItem::Change(Box::new(change), moved));
    }
    let id = match which {
        "last" => state.newest_run()?.ok_or_else(|| text!("there is no run yet", "还没有任何运行").into()),
        "last-failed" => {
            newest_trouble(state)?.ok_or_else(|| text!("no run failed, in no way", "没有失败或未完成的运行").into())
        }
        _ => number(which).map(RunId).ok_or_else(|| {
            Refusal::usage(message! {
                "{which:?} is no run", "{which:?} 不是运行";
                "give its number, `last`, `last-failed` or a change such as c3",
                "请给出运行编号、`last`、`last-failed` 或变更编号，例如 c3"
            })
        }),
    }?;
    match state.run_in_full(id)? {
        Some(run) => Ok(HistoryItem::Run(Box::new(run))),
        None => {
            let missing = text!("there is no run {id} in this state", "此状态文件中没有运行 {id}");
            Err(not_here(state, missing, which, PastNumber::Run(id.0)))
        }
    }
}

/// Says where the run or change may be found that this state does not have.
fn not_here(state: &State, missing: Text, which: &str, number: PastNumber) -> anyhow::Error {
    let whereabouts = match state.whereabouts(number) {
        Ok(whereabouts) => whereabouts,
        Err(error) => return error,
    };
    let in_range = |first, last| match number {
        PastNumber::Run(_) => text!("runs {first} to {last}", "运行 {first} 至 {last}"),
        PastNumber::Change(_) => text!("changes c{first} to c{last}", "变更 c{first} 至 c{last}"),
    };
    Refusal::usage(match whereabouts {
        None => missing.with_hint(text!("list them with `history`", "请用 `history` 查看列表")),
        Some(Whereabouts::In(file)) => {
            let file = file.display();
            message! {
                "{missing}: it is in {file}, the state that this one has replaced",
                "{missing}；它在被替换的状态文件 {file} 中";
                "copy that file (and {file}-wal, if there is one) to state.db in an empty folder, and ask `history {which} --state-dir FOLDER`",
                "请将该文件（若有 {file}-wal，一并复制）复制到空目录中并命名为 state.db，再执行 `history {which} --state-dir 目录`";
                missing
            }
        }
        Some(Whereabouts::Unreadable { first, last, files }) => {
            let files = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
            let range = in_range(first, last);
            text!(
                "{missing}: {range} belong to a state that this one has replaced, and what lies beside it cannot be read: {files}",
                "{missing}；{range} 属于被替换的状态文件，而旁边的文件无法读取: {files}";
                missing, range
            )
            .into()
        }
        Some(Whereabouts::Skipped { first, last }) => {
            let range = in_range(first, last);
            text!(
                "{missing}: {range} belong to a state that this one has replaced, and that is not beside it any more",
                "{missing}；{range} 属于被替换的状态文件，而它已不在旁边";
                missing, range
            )
            .with_hint(text!("look in the copies of your backups", "请在备份副本中查找"))
        }
    })
}

/// A run that died counts as well, also before a later run has noticed.
fn newest_trouble(state: &State) -> anyhow::Result<Option<RunId>> {
    let dead =
        state.unfinished_run()?.filter(|run| Lives::of_state(state).of(run) == Some(Life::Dead)).map(|run| run.id);
    Ok(state.newest_trouble()?.max(dead))
}

/// Shows the entries that the filter lets through, page by page.
fn list(state: &State, args: &History, zone: OwnZone, reporter: &Reporter) -> anyhow::Result<()> {
    let filter = filter(args, zone)?;
    let of_tenant = filter.tenant.clone();
    let Some(mut pages) = state.history(filter)? else {
        return Err(Refusal::TenantNotInState(of_tenant.map(|tenant| tenant.0).unwrap_or_default()).into());
    };
    let mut remaining = if args.limit == 0 { usize::MAX } else { args.limit as usize };
    let lives = Lives::of_state(state);
    let columns = entry_columns(&lives, surroundings::now());
    let columns = if of_tenant.is_some() { columns.and(tenant_columns()) } else { columns };
    reporter.pages(&columns, || {
        let page = pages.next(remaining.min(PAGE))?;
        remaining -= page.len();
        Ok(page)
    })
}

/// Which entries the flags ask for.
fn filter(args: &History, zone: OwnZone) -> anyhow::Result<HistoryFilter> {
    let window = GivenWindow::parse(args.since.as_deref(), args.until.as_deref())?;
    let [since, until] = window.own_moments(surroundings::now(), zone)?.map(|moment| moment.map(rfc3339));
    if args.status.is_some() && matches!(args.kind, Some(OfKind::Change(_))) {
        return Err(Refusal::usage(message! {
            "changes have no --status", "变更没有 --status";
            "leave it out, or name a kind of run", "请去掉它，或指定一种运行类型"
        }));
    }
    let tenant = args.tenant.as_deref().map(Into::into);
    Ok(HistoryFilter { tenant, kind: args.kind, status: args.status, since, until })
}

/// Shows what a run did to files, or for `-0` the paths alone.
fn files(state: &State, run: RunId, args: &History, reporter: &Reporter) -> anyhow::Result<()> {
    let listing = if args.null { state.files_that_stayed(run)? } else { state.files(run)? };
    let mut last: Option<LoggedFile> = None;
    let mut page = || {
        let page = listing.page(last.as_ref(), PAGE)?;
        last = page.last().cloned().or(last.take());
        anyhow::Ok(page)
    };
    if args.null {
        loop {
            let page = page()?;
            if page.is_empty() || !reporter.is_read() {
                return Ok(());
            }
            reporter.raw(&page.iter().flat_map(|file| [file.path.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>());
        }
    }
    if !reporter.prints_text() {
        let columns = Columns::default().column("action", "操作", |file: &LoggedFile| file.action.into()).column(
            "path",
            "路径",
            |file| (&file.path).into(),
        );
        return reporter.pages(&columns, page);
    }
    loop {
        // Names hold no control characters, so each stays on its line.
        let lines = page()?
            .into_iter()
            .map(|LoggedFile { action, path }| text!("{action}  {path}", "{action}  {path}"; action));
        let Some(lines) =
            lines.filter(|_| reporter.is_read()).reduce(|all, line| text!("{all}\n{line}", "{all}\n{line}"; all, line))
        else {
            return Ok(());
        };
        reporter.line(&lines);
    }
}
