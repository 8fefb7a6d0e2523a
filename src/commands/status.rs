//! `status`: how every tenant stands, and what cannot be exported.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::ArgMatches;

use super::past::{Lives, reject_columns, span};
use super::surroundings;
use super::totals::{self, Totals, is_chosen, row_limit};
use crate::cli::{Common, Status};
use crate::config;
use crate::event::{Event, Life, Notice};
use crate::export::ServerSession;
use crate::export::in_doubt::InDoubt;
use crate::export::lag::{self, LagSnapshot, TenantLag, Yardstick};
use crate::given_time::OwnZone;
use crate::invoice::Tenant;
use crate::lang::Text;
use crate::refusal::Refusal;
use crate::report::Reporter;
use crate::report::counts::differ;
use crate::report::table::{Cell, Columns, TimeBy};
use crate::run::rfc3339;
use crate::state::State;
use crate::state::history::{PastReject, PastRun, RunStatus};
use crate::state::overview::{LastRun, Overview};
use crate::state::proofs::{NewestVerification, Proof};
use crate::state::runs::LastKnownState;
use crate::state::verifications::{Against, ContentCheck};

/// Something is beyond a limit: the lag of a tenant, the number or the age of rejects.
const FOUND: u8 = 6;
/// Rejects that are read at once.
const PAGE: usize = 1_000;
/// How long a late arrival is shown.
const LATE_DAYS: i64 = 30;

/// Shows the tenants, or the open rejects.
pub(super) fn run(common: &Common, args: &Status, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = surroundings::open_read_only(common)?;
    let overview = state.overview(&late_since())?;
    if args.rejects {
        return rejects(&state, &overview, args, reporter);
    }
    let last = state.last_time()?;
    let zone = surroundings::own_zone(common);
    mention_unfinished(&state, common, zone, reporter)?;
    let failed = state.last_attempt_failed()?;
    mention_failed(failed.as_ref(), zone, reporter);
    if last.proof.unproven > 0 {
        say(reporter, Notice::TimeUnproven { runs: last.proof.unproven, compared: last.proof.compared.clone() });
    }
    // The server may take its time; nothing of the state is needed any more.
    drop(state);
    let present = ask(common, args, matches, &last, &overview, reporter)?;
    let now = surroundings::now();
    if present.is_none() && args.stale_after.is_some() {
        say(reporter, Notice::JudgedByOwnClock);
    }
    let by = present.as_ref().map_or(Yardstick::OwnClock(now), Yardstick::Source);
    let tenant_lags =
        totals::chosen(lag::tenant_lags(&overview, &by, args.stale_after), &args.tenant, present.as_ref())?;
    let totals = Totals::of(&tenant_lags, now);
    let columns = columns(args, zone, now).and(proof_columns()).and(failure_columns(failed.as_ref()));
    reporter.table(&columns.table(tenant_lags.iter().take(row_limit(args))));
    conclude(&totals, &totals.of_tenants(args), args, reporter)
}

/// Prints the line below the rows, for people, and the alarms. The exit code says whether there are any.
fn conclude(totals: &Totals, line: &Text, args: &Status, reporter: &Reporter) -> anyhow::Result<u8> {
    if reporter.prints_text() {
        reporter.line(line);
    }
    let alarms = totals.alarms(args);
    let code = if alarms.is_empty() { 0 } else { FOUND };
    alarms.into_iter().for_each(|alarm| say(reporter, alarm));
    Ok(code)
}

/// From when on late arrivals are shown.
fn late_since() -> String {
    rfc3339(surroundings::now() - TimeDelta::days(LATE_DAYS))
}

/// Prints a notice.
fn say(reporter: &Reporter, notice: Notice) {
    reporter.event(&Event::Notice(notice));
}

/// None where the source cannot be asked; a warning says so. Another source than the state's is refused.
fn ask(
    common: &Common,
    args: &Status,
    matches: &ArgMatches,
    last: &LastKnownState,
    overview: &Overview,
    reporter: &Reporter,
) -> anyhow::Result<Option<LagSnapshot>> {
    if config::given_source(common).is_none() {
        say(reporter, Notice::NoSource);
        return Ok(None);
    }
    let access = config::access(common, &args.names, matches)?;
    let path = config::state_path(common);
    let chosen: Vec<Tenant> = args.tenant.iter().map(|tenant| Tenant::from(tenant.as_str())).collect();
    let tell = &mut |event| reporter.event(&event);
    let present = ServerSession::open(&access, args.retries.retry_for, tell).map_err(anyhow::Error::from).and_then(
        |mut server_session| {
            lag::ask(&mut server_session, &path, last, overview, &chosen, args.margins.safety_lag, tell)
        },
    );
    match present {
        Ok(present) => Ok(Some(present)),
        Err(error) if matches!(error.downcast_ref(), Some(Refusal::OtherSource { .. })) => Err(error),
        Err(error) => {
            reporter.notice(&Notice::SourceSilent, &error);
            Ok(None)
        }
    }
}

/// Says if a run is at work or died, or what one that died has left in doubt.
fn mention_unfinished(state: &State, common: &Common, zone: OwnZone, reporter: &Reporter) -> anyhow::Result<()> {
    let unfinished = state.unfinished_run()?.and_then(|run| Lives::of_state(state).of(&run).map(|life| (run, life)));
    // Another user may be kept from reading the lists of a run that died.
    let in_doubt = InDoubt::read(&common.output, state).ok().map(|in_doubt| in_doubt.files());
    match unfinished {
        // A verification that died leaves nothing that must be made good.
        Some((run, life)) if run.boundary.is_some() || life != Life::Dead => {
            let (kind, host, started) = (run.kind, run.host, zone.shown_text(&run.started));
            let invoices = run.counts.counts.seen;
            say(reporter, Notice::RunUnfinished { run: run.id, kind, host, started, invoices, life, in_doubt });
        }
        _ => {
            let files = in_doubt.filter(|files| *files > 0);
            files.into_iter().for_each(|files| say(reporter, Notice::InDoubt { files }));
        }
    }
    Ok(())
}

/// Says if the last export failed, at its start or later.
fn mention_failed(failed: Option<&PastRun>, zone: OwnZone, reporter: &Reporter) {
    if let Some(run) = failed {
        let (kind, started, error) = (run.kind, zone.shown_text(&run.started), run.error.clone());
        let error = error.unwrap_or_else(|| Text::same(""));
        let how = match run.status {
            RunStatus::Cancelled => text!("was cancelled", "被取消"),
            _ => text!("failed", "失败"),
        };
        say(reporter, Notice::LastAttemptFailed { run: run.id, how, kind, started, error });
    }
}

/// The columns of tenants. How the last run went has shorter titles for people.
fn columns(args: &Status, zone: OwnZone, now: DateTime<Utc>) -> Columns<'_, TenantLag> {
    let judged = args.stale_after.is_some();
    let last =
        |cell: fn(&LastRun) -> Cell| move |tenant_lag: &TenantLag| tenant_lag.last.as_ref().map_or(Cell::None, cell);
    Columns::default()
        .column("tenant", "租户", |tenant_lag: &TenantLag| tenant_lag.tenant.as_ref().into())
        .column("watermark", "水位线", |tenant_lag| tenant_lag.watermark.as_ref().into())
        .by(TimeBy::Source)
        .column("lag_seconds", "滞后", |tenant_lag| tenant_lag.lag.map_or(Cell::None, Cell::Seconds))
        .for_programs("stale", "滞后过久", move |tenant_lag| match &tenant_lag.tenant {
            Some(_) if judged => Cell::Flag(tenant_lag.stale),
            _ => Cell::None,
        })
        .column("last_outcome", "结果", last(|last| last.outcome.into()))
        .titled("outcome")
        .column("last_run", "运行", last(|last| last.id.into()))
        .titled("run")
        .column("last_time", "时间", last(|last| Cell::moment(last.finished.as_ref().unwrap_or(&last.started))))
        .titled("at")
        .by(TimeBy::Own)
        .column("last_written", "写入", last(|last| last.written.into()))
        .titled("written")
        .column("open_rejects", "无法导出", |tenant_lag| tenant_lag.rejects.number.into())
        .titled("rejects")
        .for_programs("oldest_reject", "最早无法导出", |tenant_lag| {
            Cell::moment(tenant_lag.rejects.oldest.as_ref())
        })
        .by(TimeBy::Own)
        .column("oldest_reject_seconds", "已持续", move |tenant_lag| open_for(tenant_lag, now))
        .titled("open_for")
        .column("late_by_seconds", "最多迟到", |tenant_lag| {
            tenant_lag.late_by.map_or(Cell::None, |by| Cell::Seconds(by.cast_signed()))
        })
        .and(shown_proofs(zone))
        .for_programs("note", "备注", |tenant_lag| tenant_lag.remark.into())
        .for_people("note", "备注", |tenant_lag| note(tenant_lag, args.margins.overlap).into())
}

/// When a tenant was last proven at each depth, and the newest verification if that proved nothing, for people.
fn shown_proofs(zone: OwnZone) -> Columns<'static, TenantLag> {
    Columns::default()
        .for_people("last_proven", "最近一次核对无误", move |tenant_lag: &TenantLag| {
            let proofs = tenant_lag.verified.telling();
            let proofs = proofs.into_iter().map(|proof| {
                let (at, how) = (zone.shown_text(&proof.at), how_proven(proof));
                text!("{at} {how}", "{at} {how}"; how)
            });
            proofs.reduce(|all, proof| text!("{all}; {proof}", "{all}；{proof}"; all, proof)).into()
        })
        .by(TimeBy::Own)
        .for_people("last_verified", "最近一次核对", move |tenant_lag| {
            let newest = tenant_lag.verified.newest.as_ref();
            let is_shown = |newest: &&NewestVerification| {
                tenant_lag.verified.telling().iter().any(|proof| proof.run == newest.run)
            };
            newest.filter(|newest| !is_shown(newest)).map(|newest| found(newest, zone)).into()
        })
        .by(TimeBy::Own)
}

/// What a verification has found in a tenant, and when.
fn found(newest: &NewestVerification, zone: OwnZone) -> Text {
    let (at, against, differences) = (zone.shown_text(&newest.at), Text::from(newest.against), newest.differences);
    match differences {
        0 => text!("{at} {against}", "{at} {against}"; against),
        _ => {
            let differ = differ(differences);
            text!("{at} {against}: {differ}", "{at} {against}: {differ}"; against, differ)
        }
    }
}

/// What was compared when a tenant was proven to differ in nothing, and in which window of source times.
fn how_proven(proof: &Proof) -> Text {
    let against = Text::from(proof.against);
    let content = match proof.content {
        ContentCheck::BySize => Text::same(""),
        ContentCheck::ByHash => text!(", hash", "，哈希"),
    };
    let window = match span(proof.window.after.as_ref(), proof.window.upto.as_ref()) {
        None => Text::same(""),
        Some(window) => text!(", {window}", "，{window}"; window),
    };
    text!("{against}{content}{window}", "{against}{content}{window}"; against, content, window)
}

/// The best proof of a tenant, the date of each depth and the newest verification, for programs.
fn proof_columns() -> Columns<'static, TenantLag> {
    let of =
        |cell: fn(&Proof) -> Cell| move |tenant_lag: &TenantLag| tenant_lag.verified.best().map_or(Cell::None, cell);
    let at = |depth| move |tenant_lag: &TenantLag| Cell::moment(tenant_lag.verified.proven_at(depth));
    let newest = |cell: fn(&NewestVerification) -> Cell| {
        move |tenant_lag: &TenantLag| tenant_lag.verified.newest.as_ref().map_or(Cell::None, cell)
    };
    Columns::default()
        .column("verified_run", "核对运行", of(|proof| proof.run.into()))
        .column("verified_time", "核对时间", of(|proof| Cell::moment(&proof.at)))
        .column("verified_against", "比对对象", of(|proof| proof.against.into()))
        .column("verified_content", "文件比对方式", of(|proof| proof.content.into()))
        .column("verified_since", "核对区间起点", of(|proof| proof.window.after.as_ref().into()))
        .column("verified_until", "核对区间终点", of(|proof| proof.window.upto.as_ref().into()))
        .column("proven_ledger_time", "台账核对无误时间", at(Against::Ledger))
        .column("proven_keys_time", "数据源的键核对无误时间", at(Against::Keys))
        .column("proven_documents_time", "全部内容核对无误时间", at(Against::Documents))
        .column("newest_verification_run", "最近一次核对运行", newest(|newest| newest.run.into()))
        .column("newest_verification_time", "最近一次核对时间", newest(|newest| Cell::moment(&newest.at)))
        .column("newest_verification_against", "最近一次核对的比对对象", newest(|newest| newest.against.into()))
        .column("newest_verification_differences", "最近一次核对的差异", newest(|newest| newest.differences.into()))
        .all_for_programs()
}

/// The last export, if it failed. It is the same in each row, since programs read rows.
fn failure_columns(failed: Option<&PastRun>) -> Columns<'_, TenantLag> {
    Columns::default()
        .column("failed_run", "失败的运行", move |_: &TenantLag| failed.map(|run| run.id).into())
        .column("failed_time", "失败时间", move |_| Cell::moment(failed.map(|run| &run.started)))
        .column("failed_error", "失败原因", move |_| failed.and_then(|run| run.error.clone()).into())
        .all_for_programs()
}

/// Everything that is to be noticed about a tenant.
fn note(tenant_lag: &TenantLag, overlap: Duration) -> Option<Text> {
    let near = tenant_lag.late_by.is_some_and(|by| Duration::from_secs(by) * 2 > overlap);
    let notes = [
        tenant_lag.stale.then(|| text!("stale", "滞后过久")),
        tenant_lag.remark.map(Text::from),
        tenant_lag.tenant.is_none().then(|| text!("rejects whose tenant cannot be read", "无法读取租户的问题记录")),
        near.then(|| {
            text!("late arrivals come near --overlap: make it longer", "迟到数据已接近 --overlap 的上限，请调大")
        }),
    ];
    notes.into_iter().flatten().reduce(|all, note| text!("{all}, {note}", "{all}，{note}"; all, note))
}

/// How long the oldest open reject has been open.
fn open_for(tenant_lag: &TenantLag, now: DateTime<Utc>) -> Cell {
    let open_for = totals::open_for(&tenant_lag.rejects, now);
    open_for.map_or(Cell::None, |open_for| Cell::Seconds(open_for.as_secs().cast_signed()))
}

/// Lists the open rejects of the chosen tenants, page by page. The source is not asked.
fn rejects(state: &State, overview: &Overview, args: &Status, reporter: &Reporter) -> anyhow::Result<u8> {
    let now = surroundings::now();
    let tenant_lags = totals::chosen(lag::tenant_lags(overview, &Yardstick::OwnClock(now), None), &args.tenant, None)?;
    let mut last: Option<PastReject> = None;
    let mut remaining = row_limit(args);
    reporter.pages(&reject_columns(), || {
        while remaining > 0 {
            let page = state.open_rejects_from(last.as_ref(), PAGE)?;
            let Some(end) = page.last() else { break };
            last = Some(end.clone());
            let of_chosen = page.into_iter().filter(|reject| is_chosen(reject.tenant.as_ref(), &args.tenant));
            let rows: Vec<PastReject> = of_chosen.take(remaining).collect();
            remaining -= rows.len();
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    })?;
    let totals = Totals::of(&tenant_lags, now);
    conclude(&totals, &totals.of_rejects(), args, reporter)
}
