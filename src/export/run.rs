//! One run, from its start to its summary.

use super::carry_out::{Destination, carry_out};
use super::course::Course;
use super::order::{Mode, Order};
use super::plan::StatePolicy;
use super::server::{ServerSession, ask_server, refuse_other_source, refuse_unknown_tenants};
use super::session::{Session, Site};
use crate::event::Event;
use crate::run::{Kind, Summary};
use crate::state::State;
use crate::tree::{Tree, mark};

/// Carries out one run and says what came of it.
pub fn run(order: &Order, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Summary> {
    let course = Course::begin();
    let tell = &mut course.counting(tell);
    tell(Event::Started { kind: order.kind, dry_run: order.mode == Mode::DryRun });
    let server_session = ServerSession::open(&order.access, order.retry_for, tell)?;
    server_session.source.notices().into_iter().for_each(|notice| tell(Event::Notice(notice)));
    match order.mode {
        Mode::DryRun => dry_run(order, server_session, &course, tell),
        Mode::Export => export(order, server_session, &course, tell),
    }
}

fn export(
    order: &Order,
    mut server_session: ServerSession,
    course: &Course,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    let mut session = Session::open(order, &mut server_session, tell)?;
    if order.kind == Kind::Incremental {
        session.back_up(order, tell)?;
    }
    let (run, carried_out) = session.on_record(order, course, tell, |site, tell| {
        let Site { state, snapshot, writing } = site;
        server_session.source.label(writing.run.id);
        carry_out(order, snapshot, server_session, Destination::Export { state, writing }, tell)
    })?;
    let Session { state, snapshot, .. } = &session;
    let summary = carried_out.summary(order, &snapshot.settings, Some(run), state.open_rejects()?, course);
    let closed = session.close(order);
    tell(Event::Finished(Box::new(summary.clone())));
    closed.map(|()| summary)
}

/// A dry run: the same reading and checking, no lock, no file, no folder, no state.
fn dry_run(
    order: &Order,
    mut server_session: ServerSession,
    course: &Course,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    let tree = Tree::open_existing(&order.output)?;
    let state = if order.policy == StatePolicy::Fresh { None } else { State::open_read_only(&order.state)? };
    let last = state.as_ref().map(State::last_time).transpose()?;
    order.location().judge(last.as_ref(), mark::of_output(&order.output)?.as_ref())?;
    if let Some(last) = &last {
        refuse_other_source(&order.state, last, server_session.source.as_ref())?;
    }
    let snapshot = ask_server(order, &mut server_session, tell)?;
    refuse_unknown_tenants(order, &snapshot.listed, state.as_ref(), &mut server_session, tell)?;
    let open_rejects = state.as_ref().map_or(Ok(0), State::open_rejects)?;
    let destination = Destination::DryRun { state: state.as_ref(), tree: tree.as_ref() };
    let carried_out = carry_out(order, &snapshot, server_session, destination, tell)?;
    let summary = carried_out.summary(order, &snapshot.settings, None, open_rejects, course);
    tell(Event::Finished(Box::new(summary.clone())));
    Ok(summary)
}
