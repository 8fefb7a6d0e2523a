//! One run, from its start to its summary.

use super::carry_out::{Destination, carry_out};
use super::dry_run;
use super::metrics::RunMetrics;
use super::options::{ExportOptions, Mode};
use super::server::ServerSession;
use super::session::{RunContext, Session};
use crate::event::Event;
use crate::run::{Kind, Summary};

/// Carries out one run or dry run.
///
/// # Errors
/// The run was refused or has failed as a whole. Tenants that failed are in the summary.
pub fn run(mut options: ExportOptions, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Summary> {
    let metrics = RunMetrics::begin();
    let tell = &mut metrics.counting(tell);
    tell(Event::Started { kind: options.common.kind, dry_run: options.mode == Mode::DryRun });
    let mut server_session = ServerSession::open(&options.source.access, options.source.retry_for, tell)?;
    options.common.selection.window = server_session.window(&options.window, tell)?;
    let options = &options;
    match options.mode {
        Mode::DryRun => dry_run::dry_run(options, server_session, &metrics, tell),
        Mode::Export => export(options, server_session, &metrics, tell),
    }
}

/// A run on record, under the lock.
fn export(
    options: &ExportOptions,
    mut server_session: ServerSession,
    metrics: &RunMetrics,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    let ExportOptions { common, source, .. } = options;
    let mut session = Session::open(common, &mut server_session, tell)?;
    if common.kind == Kind::Incremental {
        session.back_up(options, tell)?;
    }
    let recorded = session.on_record(common, metrics, tell, |site, tell| {
        let RunContext { state, snapshot, writing } = site;
        server_session.source.label(writing.run.id);
        carry_out(common, source, snapshot, server_session, Destination::Export { state, writing }, tell)
    });
    // A run that failed may have moved watermarks too. Its error comes before one of this file.
    let mirrored = session.mirror(options);
    let (run, result) = recorded?;
    let Session { state, snapshot, .. } = &session;
    let summary = result.summary(common, &snapshot.parameters, Some(run), state.open_rejects()?, metrics);
    let closed = session.close();
    tell(Event::Finished(Box::new(summary.clone())));
    closed.and(mirrored).map(|()| summary)
}
