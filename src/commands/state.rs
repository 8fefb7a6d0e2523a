//! `state`: correct, back up, restore and check what the runs remember.

use std::path::Path;

use clap::ArgMatches;

use super::{consent, past, surroundings};
use crate::cli::{AdoptSource, Backup, Changing, Check, Common, Reset, Restore, Set, StateCommand};
use crate::event::{Event, Life};
use crate::export::ServerSession;
use crate::given_time::GivenTime;
use crate::invoice::{SourceTime, Tenant};
use crate::lang::{Lang, Text, Word};
use crate::lock::{self, ExportLock, Patience};
use crate::refusal::Refusal;
use crate::report::Reporter;
use crate::report::table::{Cell, Columns, Details, TimeBy};
use crate::run::{Starter, rfc3339};
use crate::state::backup::{self, Occasion};
use crate::state::changes::{Change, ChangeKind, Moved};
use crate::state::integrity::{Depth, StateFinding, run_again_hint};
use crate::state::restore::{self, ReplacedState};
use crate::state::{State, numbers};
use crate::tree::{Tree, mark};
use crate::window::{BASELINE, earlier};
use crate::{config, export};

/// `state check` found something.
const FOUND: u8 = 6;

/// Carries out one of the subcommands.
pub(super) fn run(
    common: &Common,
    command: &StateCommand,
    matches: &ArgMatches,
    reporter: &Reporter,
) -> anyhow::Result<u8> {
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    match command {
        StateCommand::Set(args) => set(common, args, matches, reporter),
        StateCommand::Reset(args) => reset(common, args, reporter),
        StateCommand::Backup(args) => back_up(common, args, reporter),
        StateCommand::Backups => backups(common, reporter),
        StateCommand::Restore(args) => restore(common, args, reporter),
        StateCommand::Check(args) => check(common, args, reporter),
        StateCommand::AdoptSource(args) => adopt_source(common, args, matches, reporter),
    }
}

/// Moves the watermark of one tenant.
fn set(common: &Common, args: &Set, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let tenant = Tenant(args.tenant.clone());
    let given = GivenTime::required(&args.time, "TIME")?;
    let state = surroundings::open_read_only(common)?;
    let tell = &mut |event| reporter.event(&event);
    let access = config::access(common, &args.names, matches)?;
    let mut server_session = ServerSession::open(&access, args.retries.retry_for, tell)?;
    export::refuse_other_source(state.path(), &state.last_time()?, server_session.name())?;
    let old = known_watermark(&state, &tenant, &mut server_session, tell)?;
    let (to, now) = server_session.point(&given, tell)?;
    if to > now {
        let refused = text!("{to} lies ahead of the server's clock ({now})", "{to} 晚于数据库时钟（{now}）");
        return Err(Refusal::usage(refused));
    }
    let from = old.as_ref().map_or(BASELINE, SourceTime::as_str);
    let meaning = if old.as_ref() < Some(&to) {
        text!(
            "what lies in between counts as exported, but for what must still be read again",
            "两者之间的数据视为已导出，仍待重新读取的除外"
        )
    } else {
        text!("what lies above will be fetched and compared again", "此后的数据会重新读取并比对")
    };
    let question = text!(
        "move the watermark of tenant {tenant} from {from} to {to} ({meaning})?",
        "把租户 {tenant} 的水位线从 {from} 移到 {to}（{meaning}）？";
        meaning
    );
    consent::ask_unless_agreed(reporter, &args.changing, &question)?;
    let (export_lock, mut state, starter) = locked(common, "state set", &args.changing, reporter)?;
    let backup = state.back_up(Occasion::Before(ChangeKind::Set), starter.at)?;
    let below = earlier(&to, args.margins.overlap);
    let change = Change::under(&export_lock, ChangeKind::Set, args.changing.reason.as_deref())?;
    let moved = state.set_watermark(&tenant, &to, below, &change)?;
    numbers::close(state, &export_lock)?;
    drop(export_lock);
    reporter.changed(&moved_details(&moved, &backup));
    Ok(0)
}

/// The tenant's watermark; a tenant that neither the state nor the source knows is a mistype.
fn known_watermark(
    state: &State,
    tenant: &Tenant,
    server_session: &mut ServerSession,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Option<SourceTime>> {
    let known = state.tenants()?.into_iter().find(|known| known.tenant == *tenant);
    match known {
        Some(known) => Ok(known.watermark),
        None if server_session.ask(tell, |source| source.has_tenant(tenant))? => Ok(None),
        None => Err(Refusal::UnknownTenant(tenant.to_string()).into()),
    }
}

/// Takes watermarks away.
fn reset(common: &Common, args: &Reset, reporter: &Reporter) -> anyhow::Result<u8> {
    if args.tenant.is_none() && !args.all {
        return Err(Refusal::usage(message! {
            "no tenant is named", "没有指定租户";
            "name a tenant, or --all for every tenant", "请指定租户，或用 --all 表示所有租户"
        }));
    }
    let known: Vec<Tenant> =
        surroundings::open_read_only(common)?.tenants()?.into_iter().map(|known| known.tenant).collect();
    let chosen = match &args.tenant {
        None => known,
        Some(name) if known.iter().any(|tenant| tenant.as_str() == name) => vec![Tenant(name.clone())],
        Some(name) => return Err(Refusal::TenantNotInState(name.clone()).into()),
    };
    let which = match &args.tenant {
        None => text!("the watermarks of all {} tenants", "全部 {} 个租户的水位线", chosen.len()),
        Some(tenant) => text!("the watermark of tenant {tenant}", "租户 {tenant} 的水位线"),
    };
    let question = text!(
        "take away {which} (the next incremental run fetches and compares every invoice)?",
        "清除{which}（下次增量导出会读取并比对每张发票）？";
        which
    );
    consent::ask_unless_agreed(reporter, &args.changing, &question)?;
    let (export_lock, mut state, starter) = locked(common, "state reset", &args.changing, reporter)?;
    let backup = state.back_up(Occasion::Before(ChangeKind::Reset), starter.at)?;
    let change = Change::under(&export_lock, ChangeKind::Reset, args.changing.reason.as_deref())?;
    let moved = state.reset_watermarks(&chosen, &change)?;
    numbers::close(state, &export_lock)?;
    drop(export_lock);
    reporter.changed(&moved_details(&moved, &backup));
    Ok(0)
}

/// What moving watermarks came to.
fn moved_details(moved: &Moved, backup: &Path) -> Details {
    Details::default()
        .fact("compared_again_by_the_next_incremental_run", "下次增量导出将重新比对的发票数", moved.unsettled)
        .fact("state_before", "原状态文件备份", backup)
        .table("watermarks", "水位线", past::moves(&moved.watermarks))
}

/// Makes a backup beside the state, or where the operator says.
fn back_up(common: &Common, args: &Backup, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = surroundings::open_read_only(common)?;
    let path = match &args.file {
        Some(file) => state.back_up_to(file).map(|()| file.clone()),
        None => state.back_up(Occasion::Manual, surroundings::now()),
    }?;
    reporter.changed(&Details::default().fact("backup", "备份", path.as_path()));
    Ok(0)
}

/// Lists the backups beside the state.
fn backups(common: &Common, reporter: &Reporter) -> anyhow::Result<u8> {
    let columns = Columns::default()
        .column("made", "备份时间", |backup: &backup::FinishedBackup| Cell::Moment(rfc3339(backup.made)))
        .by(TimeBy::Own)
        .column("occasion", "起因", |backup| occasion(&backup.occasion).into())
        .column("bytes", "大小", |backup| Cell::Bytes(backup.size))
        .column("file", "文件", |backup| backup.path.as_path().into());
    reporter.table(&columns.table(&backup::list(&config::state_path(common))?));
    Ok(0)
}

/// What the name of a backup says.
fn occasion(name: &str) -> Text {
    match (name, name.strip_prefix("before-").and_then(ChangeKind::parse)) {
        (_, Some(change)) => Text::new(name, format!("{}之前", Text::from(change).in_lang(Lang::Zh))),
        (backup::REGULAR, None) => Text::new(name, "定期"),
        ("manual", None) => Text::new(name, "手动"),
        (_, None) => Text::same(name),
    }
}

/// Puts a backup in the place of the state.
fn restore(common: &Common, args: &Restore, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = config::state_path(common);
    let latest = args.file.as_os_str() == "latest";
    let from = if latest { backup::latest(&state)? } else { Some(args.file.clone()) };
    let Some(from) = from else {
        return Err(Refusal::usage(message! {
            "there is no backup beside {}", "{} 旁边没有备份", state.display();
            "check --output and --state-dir (is the volume mounted?); name a backup that is kept elsewhere with `state restore FILE`; where there is none, `run --mode full` without --require-state takes the files over, and `run --fresh` starts anew",
            "请检查 --output 和 --state-dir（磁盘是否已挂载？）；备份若在别处，请用 `state restore FILE` 指定；若没有备份，请用不带 --require-state 的 `run --mode full` 接管已有文件，或用 `run --fresh` 重新开始"
        }));
    };
    refuse_other_output(common, args, &from)?;
    let question = restore_question(common, args, &from, &state);
    consent::ask_unless_agreed(reporter, &args.changing, &question)?;
    let starter = surroundings::starter(surroundings::own_zone(common));
    let (tree, export_lock) = lock(common, "state restore", &args.changing, &starter, reporter)?;
    let reason = args.changing.reason.as_deref();
    let (replaced, next) = if args.adopt_tree {
        let next = text!(
            "run --mode full: it puts back what the tree lacks, and compares every file",
            "请运行 run --mode full: 补回目录中缺少的文件，并比对每个文件"
        );
        (restore::restore_and_adopt_tree(&export_lock, &tree, &from, reason)?, next)
    } else {
        let next = text!(
            "the next incremental run reads what happened since; if the tree is newer than the backup, it compares every invoice with its file",
            "下次增量导出会读取此后的变化；若导出目录比备份新，则每张发票都与其文件比对"
        );
        (restore::restore(&export_lock, &tree, &from, reason)?, next)
    };
    let replaced = match &replaced {
        ReplacedState::Nothing => None,
        ReplacedState::BackedUp(path) | ReplacedState::SetAside(path) => Some(path.as_path()),
    };
    let restored = Details::default()
        .fact("restored", "已恢复", from.as_path())
        .fact("state_before", "原状态文件备份", replaced)
        .fact("next", "下一步", next);
    reporter.changed(&with_moves_of_newest_change(restored, &state)?);
    drop(export_lock);
    Ok(0)
}

/// With the watermarks that a restore moved, which it put on record as the newest change of the restored state.
fn with_moves_of_newest_change(details: Details, state: &Path) -> anyhow::Result<Details> {
    let restored = State::open_read_only(state)?.map(|state| state.newest_change()).transpose()?.flatten();
    let Some((change, moved)) = restored else { return Ok(details) };
    let unknown = change.watermarks.is_none();
    let unknown = unknown.then(|| text!("not known which watermarks moved", "无法得知移动了哪些水位线"));
    let details = details.fact("change", "变更编号", past::change_id(&change)).fact("remark", "备注", unknown);
    Ok(details.table("watermarks", "水位线", past::moves(&moved)))
}

/// Refuses an output that cannot be the state's tree.
fn refuse_other_output(common: &Common, args: &Restore, from: &Path) -> anyhow::Result<()> {
    // Looking for the lock would make folders in a mistyped output.
    if args.adopt_tree {
        if !common.output.is_dir() {
            let output = common.output.display();
            let refused = message! {
                "there is no folder {output}", "没有目录 {output}"; "check --output", "请检查 --output"
            };
            return Err(Refusal::usage(refused));
        }
    } else if mark::of_output(&common.output)?.is_none() {
        return Err(Refusal::MarkMissing { output: common.output.clone(), state: from.to_path_buf() }.into());
    }
    Ok(())
}

/// What is to be agreed to before a restore.
fn restore_question(common: &Common, args: &Restore, from: &Path, state: &Path) -> Text {
    let (backup, replaced, output) = (from.display(), state.display(), common.output.display());
    let adopting = match args.adopt_tree {
        true => {
            text!(
                " and make {output} its tree, whatever mark that has",
                "，并把 {output} 作为它的导出目录（不论其标记）"
            )
        }
        false => Text::same(""),
    };
    text!(
        "put {backup} in the place of {replaced}{adopting} (what happened since is read again)?",
        "用 {backup} 替换 {replaced}{adopting}（此后发生的变化会重新读取）？";
        adopting
    )
}

/// Shows what is wrong with the state and between state and tree.
fn check(common: &Common, args: &Check, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = surroundings::open_read_only(common)?;
    let mut findings = state.check(if args.deep { Depth::Deep } else { Depth::Quick })?;
    findings.extend(tree_findings(common, &state)?);
    let result = match findings.is_empty() {
        true => text!("whole, and it holds together", "完好，内容一致"),
        false => text!("something was found", "发现问题"),
    };
    let columns = Columns::default()
        .column("finding", "问题", |finding: &StateFinding| finding.what.clone().into())
        .column("what_to_do", "处理办法", |finding| finding.remedy.clone().into());
    reporter.details(&Details::default().fact("state", "状态文件", state.path()).fact("result", "结果", result).table(
        "findings",
        "问题",
        columns.table(&findings),
    ));
    Ok(if findings.is_empty() { 0 } else { FOUND })
}

/// Whether state and tree belong together, and what a dead run left between them.
fn tree_findings(common: &Common, state: &State) -> anyhow::Result<Vec<StateFinding>> {
    let mut findings = Vec::new();
    let (last, mark) = (state.last_time()?, mark::of_output(&common.output)?);
    if last.published_run > 0 || mark.is_some() {
        let refused = last.refuse_other_tree(mark.as_ref(), &common.output, state.path()).err();
        findings.extend(refused.as_ref().map(StateFinding::from));
    }
    // A verification leaves nothing that must be made good.
    let unfinished = state.unfinished_run()?.filter(|run| run.boundary.is_some());
    if let Some(run) = unfinished.filter(|run| past::Lives::of_state(state).of(run) == Some(Life::Dead)) {
        let (id, kind) = (run.id, run.kind);
        let what = text!("run {id} ({kind}) died", "运行 {id}（{kind}）意外终止"; kind);
        findings.push(StateFinding { what, remedy: run_again_hint() });
    }
    Ok(findings)
}

/// Lets the state belong to another source.
fn adopt_source(common: &Common, args: &AdoptSource, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = surroundings::open_read_only(common)?;
    let access = config::access(common, &args.names, matches)?;
    let server_session = ServerSession::open(&access, args.retries.retry_for, &mut |event| reporter.event(&event))?;
    let given = server_session.name().0.clone();
    let recorded = state.last_time()?.source;
    if recorded.as_ref() == Some(&given) {
        return Err(text!(
            "the state belongs to {given} already; nothing was changed",
            "状态文件本来就属于 {given}；没有做任何更改"
        )
        .into());
    }
    let from = recorded.as_ref().map_or_else(|| text!("no source", "无数据源"), Text::same);
    let question = text!(
        "let the state belong to {given} instead of {from} (it must be the same table; the next incremental run compares all keys)?",
        "让状态文件改属 {given}，不再属于 {from}（必须是同一张表；下次增量导出会核对全部记录）？";
        from
    );
    consent::ask_unless_agreed(reporter, &args.changing, &question)?;
    let (export_lock, mut state, starter) = locked(common, "state adopt-source", &args.changing, reporter)?;
    let backup = state.back_up(Occasion::Before(ChangeKind::AdoptSource), starter.at)?;
    let change = Change::under(&export_lock, ChangeKind::AdoptSource, args.changing.reason.as_deref())?;
    state.adopt_source(&given, &change)?;
    numbers::close(state, &export_lock)?;
    drop(export_lock);
    reporter.changed(
        &Details::default().fact("source_before", "原数据源", recorded).fact("source", "数据源", given).fact(
            "state_before",
            "原状态文件备份",
            backup.as_path(),
        ),
    );
    Ok(0)
}

/// The lock, and the state to be changed.
fn locked(
    common: &Common,
    purpose: &str,
    changing: &Changing,
    reporter: &Reporter,
) -> anyhow::Result<(ExportLock, State, Starter)> {
    let starter = surroundings::starter(surroundings::own_zone(common));
    let (_, export_lock) = lock(common, purpose, changing, &starter, reporter)?;
    let state = State::open(&export_lock)?;
    let state = state.ok_or_else(|| Refusal::NoState { state: config::state_path(common) })?;
    Ok((export_lock, state, starter))
}

/// The output and its lock, which also keeps out the script.
fn lock(
    common: &Common,
    purpose: &str,
    changing: &Changing,
    starter: &Starter,
    reporter: &Reporter,
) -> anyhow::Result<(Tree, ExportLock)> {
    let state = config::state_path(common);
    let mut tell = |event| reporter.event(&event);
    lock::acquire(
        &common.output,
        &state,
        purpose,
        starter,
        Patience::of(changing.lock_wait),
        common.state_mode,
        &mut tell,
    )
}
