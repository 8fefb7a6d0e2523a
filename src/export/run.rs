//! One run, from its start to its summary.

use super::carry_out::{Destination, carry_out};
use super::dry_run;
use super::metrics::RunMetrics;
use super::options::{ExportOptions, Mode};
use super::server::ServerSession;
use super::session::{RunContext, Session};
use super::starts;
use crate::event::Event;
use crate::run::{Kind, Summary};
use crate::state::runs::OpenRun;
use crate::tree;

/// Carries out one run or dry run.
///
/// # Errors
/// The run was refused or has failed as a whole. Tenants that failed are in the summary.
pub fn run(mut options: ExportOptions, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Summary> {
    tree::make_room();
    let metrics = RunMetrics::begin();
    let tell = &mut metrics.counting(tell);
    tell(Event::Started { kind: options.common.kind, dry_run: options.mode == Mode::DryRun });
    let ExportOptions { common, source, window, mode, .. } = &options;
    let mut connect = || ServerSession::open_with_window(source, window, &common.surroundings.cancel, tell);
    let (server_session, window) = match mode {
        Mode::DryRun => connect()?,
        Mode::Export => starts::on_record(common, connect)?,
    };
    options.common.selection.window = window;
    let options = &options;
    match options.mode {
        Mode::DryRun => dry_run::dry_run(options, server_session, &metrics, tell),
        Mode::Export => export(options, server_session, &metrics, tell),
    }
}

/// Everything from the lock to the record that the run has begun.
fn start(
    options: &ExportOptions,
    server_session: &mut ServerSession,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<(Session, OpenRun)> {
    let mut session = Session::open(&options.common, server_session, tell)?;
    if options.common.kind == Kind::Incremental {
        session.back_up(options, tell)?;
    }
    let run = session.begin(&options.common, None, tell)?;
    Ok((session, run))
}

/// A run on record, under the lock.
fn export(
    options: &ExportOptions,
    mut server_session: ServerSession,
    metrics: &RunMetrics,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    let ExportOptions { common, source, .. } = options;
    let (mut session, run) = starts::on_record(common, || start(options, &mut server_session, tell))?;
    let recorded = session.on_record(common, run, metrics, tell, |context, tell| {
        let RunContext { state, snapshot, writing } = context;
        server_session.label(writing.run.id);
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
