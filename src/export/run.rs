//! One run, from its start to its summary.

use super::carry_out::{Destination, carry_out};
use super::metrics::RunMetrics;
use super::options::{ExportOptions, Mode};
use super::plan::StatePolicy;
use super::server::{ServerSession, ask_server, refuse_other_source, refuse_unknown_tenants};
use super::session::{RunContext, Session};
use crate::event::Event;
use crate::run::{Kind, Summary};
use crate::state::State;
use crate::tree::{Tree, mark};

/// Carries out one run and says what came of it.
pub fn run(options: &ExportOptions, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Summary> {
    let metrics = RunMetrics::begin();
    let tell = &mut metrics.counting(tell);
    tell(Event::Started { kind: options.kind, dry_run: options.mode == Mode::DryRun });
    let server_session = ServerSession::open(&options.access, options.retry_for, tell)?;
    server_session.source.notices().into_iter().for_each(|notice| tell(Event::Notice(notice)));
    match options.mode {
        Mode::DryRun => dry_run(options, server_session, &metrics, tell),
        Mode::Export => export(options, server_session, &metrics, tell),
    }
}

fn export(
    options: &ExportOptions,
    mut server_session: ServerSession,
    metrics: &RunMetrics,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    let mut session = Session::open(options, &mut server_session, tell)?;
    if options.kind == Kind::Incremental {
        session.back_up(options, tell)?;
    }
    let (run, carried_out) = session.on_record(options, metrics, tell, |site, tell| {
        let RunContext { state, snapshot, writing } = site;
        server_session.source.label(writing.run.id);
        carry_out(options, snapshot, server_session, Destination::Export { state, writing }, tell)
    })?;
    let Session { state, snapshot, .. } = &session;
    let summary = carried_out.summary(options, &snapshot.parameters, Some(run), state.open_rejects()?, metrics);
    let closed = session.close(options);
    tell(Event::Finished(Box::new(summary.clone())));
    closed.map(|()| summary)
}

/// A dry run: the same reading and checking, no lock, no file, no folder, no state.
fn dry_run(
    options: &ExportOptions,
    mut server_session: ServerSession,
    metrics: &RunMetrics,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    let tree = Tree::open_existing(&options.output)?;
    let state = if options.policy == StatePolicy::Fresh { None } else { State::open_read_only(&options.state)? };
    let last = state.as_ref().map(State::last_time).transpose()?;
    options.location().judge(last.as_ref(), mark::of_output(&options.output)?.as_ref())?;
    if let Some(last) = &last {
        refuse_other_source(&options.state, last, server_session.source.as_ref())?;
    }
    let snapshot = ask_server(options, &mut server_session, tell)?;
    refuse_unknown_tenants(options, &snapshot.listed, state.as_ref(), &mut server_session, tell)?;
    let open_rejects = state.as_ref().map_or(Ok(0), State::open_rejects)?;
    let destination = Destination::DryRun { state: state.as_ref(), tree: tree.as_ref() };
    let carried_out = carry_out(options, &snapshot, server_session, destination, tell)?;
    let summary = carried_out.summary(options, &snapshot.parameters, None, open_rejects, metrics);
    tell(Event::Finished(Box::new(summary.clone())));
    Ok(summary)
}
