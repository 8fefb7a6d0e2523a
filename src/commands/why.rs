//! `why`: one verdict on one invoice.

use clap::ArgMatches;

use crate::cli::{Common, Why};
use crate::event::Event;
use crate::export::Inquiry;
use crate::export::why::{self, Case, Now, Standing};
use crate::invoice::{SourceTime, Tenant};
use crate::report::Reporter;
use crate::report::table::{Cell, Details};
use crate::source::Access;
use crate::state::State;
use crate::state::trace::RunNote;
use crate::{config, export};

/// Something is not exported as it is in the source.
const FOUND: u8 = 6;

pub(super) fn run(common: &Common, args: &Why, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = super::look(common)?;
    let tenant = args.tenant.clone().map(Tenant);
    let tell = &mut |event| reporter.event(&event);
    let mut now = match ask_source(common, args, matches, &state, tell) {
        Ok(now) => Some(now),
        Err(error) if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(refusal) if is_final(refusal))) => {
            return Err(error);
        }
        Err(error) => {
            reporter.warn(&format!("the source cannot be asked, so this is what the state knows: {error:#}"));
            None
        }
    };
    let cases = why::why(&args.number, tenant.as_ref(), &state, &common.output, now.as_mut())?;
    let boundary = now.map(|now| now.boundary);
    let details: Vec<Details> = cases.iter().map(|case| details(&args.number, case, boundary.as_ref())).collect();
    if details.is_empty() {
        let whose = tenant.map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
        let facts = vec![
            ("number", Cell::text(&args.number)),
            ("verdict", Cell::text(Standing::NotExported.as_str())),
            ("because", Cell::text(format!("no row{whose} has this number, and the state knows none"))),
            ("next", Cell::text("check the spelling, also upper and lower case, and blanks")),
        ];
        reporter.each(&[Details { facts, tables: Vec::new() }]);
        return Ok(FOUND);
    }
    reporter.each(&details);
    Ok(if cases.iter().all(|case| case.verdict.standing == Standing::Exported) { 0 } else { FOUND })
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
) -> anyhow::Result<Now<'a>> {
    let max_document = args.documents.max_document.as_u64();
    let access = Access { max_document, ..config::access(common, &args.names, matches)? };
    let inquiry = Inquiry::open(&access, args.retries.retry_for, tell)?;
    export::refuse_other_source(state.path(), &state.last_time()?, inquiry.source.as_ref())?;
    Now::of(inquiry, args.margins.safety_lag, args.margins.overlap, max_document, tell)
}

fn details(number: &str, case: &Case, boundary: Option<&SourceTime>) -> Details {
    let Case { row, trace, tenant, file, left_behind, verdict } = case;
    let left_behind: Vec<&str> = left_behind.iter().map(|leftover| leftover.path.as_str()).collect();
    let time = |time: Option<&SourceTime>| Cell::from(time.map(SourceTime::as_str));
    let run = |run: Option<&RunNote>| Cell::from(run.map(told));
    let entry = trace.entry.as_ref();
    let reject = trace.reject.as_ref();
    let whose = tenant.as_ref().map(|known| known.tenant.to_string());
    let whose = whose.or_else(|| row.as_ref().and_then(|row| row.tenant.as_ref()).map(ToString::to_string));
    Details {
        facts: vec![
            ("number", Cell::text(number)),
            ("verdict", Cell::text(verdict.standing.as_str())),
            ("because", Cell::text(&verdict.because)),
            ("next", Cell::from(verdict.next.clone())),
            ("tenant", Cell::from(whose)),
            ("id", Cell::text(trace.id.as_str())),
            ("status", Cell::from(row.as_ref().and_then(|row| row.status.clone()))),
            ("number_now", Cell::from(row.as_ref().and_then(|row| row.number.clone()).filter(|now| now != number))),
            ("source_time", time(row.as_ref().and_then(|row| row.time.as_ref()))),
            ("watermark", time(tenant.as_ref().and_then(|tenant| tenant.watermark.as_ref()))),
            ("look_back", time(tenant.as_ref().and_then(|tenant| tenant.look_back.as_ref()))),
            ("boundary", time(boundary)),
            ("file", Cell::from(entry.map(|entry| entry.path.to_string()))),
            ("file_is", Cell::from(file.map(|file| file.as_str()))),
            ("left_behind", Cell::from((!left_behind.is_empty()).then(|| left_behind.join(", ")))),
            ("exported_version", time(entry.and_then(|entry| entry.time.as_ref()))),
            ("sha256", Cell::from(entry.map(|entry| entry.digest.to_string()))),
            ("first_exported_by", run(trace.first_run.as_ref())),
            ("written_by", run(trace.last_run.as_ref())),
            ("rejected_since", run(reject.map(|reject| &reject.opened))),
            ("reject", Cell::from(reject.map(|reject| format!("{}: {}", reject.reason, reject.detail)))),
            ("last_refused_by_run", Cell::from(reject.map(|reject| reject.last_run.0))),
        ],
        tables: Vec::new(),
    }
}

fn told(run: &RunNote) -> String {
    format!("run {} ({}), {} by {} on {}", run.id, run.kind, run.started, run.user, run.host)
}
