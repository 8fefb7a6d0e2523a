//! `why`: one verdict on one invoice.

use clap::ArgMatches;

use super::surroundings;
use crate::cli::{Common, Why};
use crate::event::Event;
use crate::export::ServerSession;
use crate::export::why::{self, Case, InvoiceStatus, SourceSnapshot};
use crate::given_time::OwnZone;
use crate::invoice::{SourceTime, Tenant};
use crate::lang::Text;
use crate::report::table::{Details, TimeBy};
use crate::report::{Reporter, error_text};
use crate::source::Access;
use crate::state::State;
use crate::state::trace::{OpenReject, RunNote};
use crate::{config, export};

/// Something is not exported as it is in the source.
const FOUND: u8 = 6;

/// Gives a verdict on each invoice with this number.
pub(super) fn run(common: &Common, args: &Why, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = surroundings::open_read_only(common)?;
    let tenant = args.tenant.clone().map(Tenant);
    let tell = &mut |event| reporter.event(&event);
    let mut now = match ask_source(common, args, matches, &state, tell) {
        Ok(now) => Some(now),
        Err(error) if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(refusal) if is_final(refusal))) => {
            return Err(error);
        }
        Err(error) => {
            let cause = error_text(&error);
            reporter.warn(&text!(
                "the source cannot be asked, so this is what the state knows: {cause}",
                "无法查询数据源，以下仅为状态文件所知: {cause}";
                cause
            ));
            None
        }
    };
    let cases = why::why(&args.number, tenant.as_ref(), &state, &common.output, now.as_mut())?;
    let (boundary, zone) = (now.map(|now| now.boundary), surroundings::own_zone(common));
    let details: Vec<Details> = cases.iter().map(|case| details(&args.number, case, boundary.as_ref(), zone)).collect();
    if details.is_empty() {
        reporter.each(&[unknown(&args.number, tenant.as_ref())]);
        return Ok(FOUND);
    }
    reporter.each(&details);
    Ok(if cases.iter().all(|case| case.verdict.status == InvoiceStatus::Exported) { 0 } else { FOUND })
}

/// Wrong usage, and a source that is not the state's, are no reason to go on without one.
fn is_final(refusal: &crate::refusal::Refusal) -> bool {
    matches!(refusal.exit_code(), 2 | 5)
}

fn ask_source<'a>(
    common: &Common,
    args: &Why,
    matches: &ArgMatches,
    state: &State,
    tell: &'a mut dyn FnMut(Event),
) -> anyhow::Result<SourceSnapshot<'a>> {
    let max_document = args.documents.max_document.as_u64();
    let access = Access { max_document, ..config::access(common, &args.names, matches)? };
    let server_session = ServerSession::open(&access, args.retries.retry_for, tell)?;
    export::refuse_other_source(state.path(), &state.last_time()?, server_session.source.as_ref())?;
    SourceSnapshot::of(server_session, args.margins.safety_lag, args.margins.overlap, max_document, tell)
}

/// The answer for a number that neither source nor state has.
fn unknown(number: &str, tenant: Option<&Tenant>) -> Details {
    let of = match tenant {
        None => Text::same(""),
        Some(tenant) => text!(" of tenant {tenant}", "租户 {tenant} 的"),
    };
    let because = text!(
        "no row{of} has this number, and the state knows none",
        "{of}数据中没有此发票号，状态文件中也没有";
        of
    );
    let next = text!("check the spelling, also upper and lower case, and blanks", "请检查拼写，包括大小写和空格");
    Details::default()
        .fact("number", "发票号", number)
        .fact("verdict", "结论", InvoiceStatus::NotExported)
        .fact("because", "原因", because)
        .fact("next", "下一步", next)
}

/// The verdict, and everything that led to it.
fn details(number: &str, case: &Case, boundary: Option<&SourceTime>, zone: OwnZone) -> Details {
    let run_text = |run: &RunNote| run_text(run, zone);
    let Case { row, trace, tenant, file, left_behind, verdict } = case;
    let left_behind: Vec<&str> = left_behind.iter().map(|leftover| leftover.path.as_str()).collect();
    let (row, entry, reject, known) = (row.as_ref(), trace.entry.as_ref(), trace.reject.as_ref(), tenant.as_ref());
    let tenant = known.map(|known| &known.tenant).or_else(|| row.and_then(|row| row.tenant.as_ref()));
    let reason = |reject: &OpenReject| {
        let (code, detail) = (reject.reason, reject.text());
        text!("{code}: {detail}", "{code}: {detail}"; code, detail)
    };
    Details::default()
        .fact("number", "发票号", number)
        .fact("verdict", "结论", verdict.status)
        .fact("because", "原因", verdict.because.clone())
        .fact("next", "下一步", verdict.next.clone())
        .fact("tenant", "租户", tenant)
        .fact("id", "id", &trace.id)
        .fact("status", "状态", row.and_then(|row| row.status.as_ref()))
        .fact("number_now", "现发票号", row.and_then(|row| row.number.as_ref()).filter(|now| *now != number))
        .fact("source_time", "更新时间", row.and_then(|row| row.time.as_ref()))
        .fact("watermark", "水位线", known.and_then(|known| known.watermark.as_ref()))
        .by(TimeBy::Source)
        .fact("look_back", "回看起点", known.and_then(|known| known.look_back.as_ref()))
        .by(TimeBy::Source)
        .fact("boundary", "时间边界", boundary)
        .by(TimeBy::Source)
        .fact("file", "文件", entry.map(|entry| entry.path.to_string()))
        .fact("file_is", "文件状态", *file)
        .fact("left_behind", "遗留文件", (!left_behind.is_empty()).then(|| left_behind.join(", ")))
        .fact("exported_version", "导出版本", entry.and_then(|entry| entry.time.as_ref()))
        .by(TimeBy::Source)
        .fact("sha256", "SHA-256", entry.map(|entry| entry.digest))
        .fact("first_exported_by", "首次导出", trace.first_run.as_ref().map(run_text))
        .fact("written_by", "文件写入", trace.last_run.as_ref().map(run_text))
        .fact("rejected_since", "无法导出始于", reject.map(|reject| run_text(&reject.opened)))
        .fact("reject", "无法导出的原因", reject.map(reason))
        .fact("last_refused_by_run", "最近拒绝的运行", reject.map(|reject| reject.last_run))
}

/// A run in one phrase.
fn run_text(run: &RunNote, zone: OwnZone) -> Text {
    let RunNote { id, kind, started, user, host } = run;
    let started = zone.shown_text(started);
    text!("run {id} ({kind}), {started} by {user} on {host}", "第 {id} 次运行（{kind}），{started}，{user} 在 {host} 上执行"; kind)
}
